//! What the document allows in requests is what the services take.

use std::str::FromStr;

use chassis::{id::UserId, text::BEYOND_THE_PATTERN};
use http::StatusCode;
use in_process_tests::{Caller, World};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};
use utoipa::{PartialSchema, ToSchema};

use crate::contract::{Contract, Operation};

/// Characters at which rules about texts part.
const TELLING: &[char] = &[
    'a', 'Z', '5', '_', '-', '.', ' ', '"', '\\', '[', ']', '!', '~', 'é', '😀', '\0', '\t', '\n', '\r', '\u{7F}',
    '\u{85}', '\u{9F}', '\u{A0}', '\u{1680}', '\u{2009}', '\u{2028}', '\u{202A}', '\u{202E}', '\u{202F}', '\u{205F}',
    '\u{2066}', '\u{2069}', '\u{3000}', '\u{FEFF}', '\u{61C}', '\u{200B}', '\u{200E}', '\u{200F}', '\u{FFFD}',
    '\u{FFFE}', '\u{FFFF}',
];

/// Texts that are right but for a few characters, and others.
fn texts(nearly: &str) -> impl Strategy<Value = String> {
    let nearly = proptest::string::string_regex(nearly).unwrap();
    let change = (any::<prop::sample::Index>(), prop::sample::select(TELLING), 0..3u8);
    let mutated = (nearly, prop::collection::vec(change, 0..3)).prop_map(|(text, changes)| {
        let mut text: Vec<_> = text.chars().collect();
        for (place, character, change) in changes {
            let place = place.index(text.len() + 1);
            match change {
                0 => text.insert(place, character),
                1 if place < text.len() => text[place] = character,
                _ if place < text.len() => drop(text.remove(place)),
                _ => {}
            }
        }
        text.into_iter().collect()
    });
    prop_oneof![4 => mutated, 1 => any::<String>()]
}

/// What a schema may do that its parser does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admits {
    /// Nothing: it admits what the parser takes, and no more.
    TheSame,
    /// It admits a few texts more, and says so.
    More,
}

/// Asserts that the type's schema admits what its parser takes.
fn is_described_as_it_is_read<T: FromStr + ToSchema>(nearly: &str) {
    is_described::<T>(nearly, Admits::TheSame);
}

fn is_described<T: FromStr + ToSchema>(nearly: &str, admits: Admits) {
    let texts = texts(nearly);
    let schema = serde_json::to_value(<T as PartialSchema>::schema()).unwrap();
    let description = schema["description"].as_str().unwrap_or_default();
    assert_eq!(description.contains(BEYOND_THE_PATTERN), admits == Admits::More, "{}", T::name());
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let (mut taken, mut refused) = (0, 0);
    // By chance alone, it may take too few: always the same chance, then.
    let mut runner = TestRunner::deterministic();
    for _ in 0..500 {
        let text = texts.new_tree(&mut runner).unwrap().current();
        let read = text.parse::<T>().is_ok();
        let valid = validator.is_valid(&text.as_str().into());
        assert!(valid || !read, "{}: {text:?} is taken, and the document refuses it", T::name());
        assert!(valid == read || admits == Admits::More, "{}: {text:?} is refused", T::name());
        *if read { &mut taken } else { &mut refused } += 1;
    }
    assert!(taken > 20 && refused > 20, "{}: {taken} taken, {refused} refused", T::name());
}

#[test]
fn ids_are_described_as_they_are_read() {
    let id = |prefix: &str| format!("({prefix}|user|ord)_[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}");
    is_described_as_it_is_read::<UserId>(&id("user"));
    is_described_as_it_is_read::<orders::domain::OrderId>(&id("ord"));
    is_described_as_it_is_read::<products::domain::ProductId>(&id("prod"));
    is_described_as_it_is_read::<payments::domain::PaymentId>(&id("pay"));
}

#[test]
fn names_and_other_texts_are_described_as_they_are_read() {
    is_described::<users::domain::Name>("[ a\u{A0}\u{3000}]{0,5}|[aé ]{95,105}", Admits::More);
    is_described::<products::domain::Name>("[ a\u{A0}\u{3000}]{0,5}|[aé ]{95,105}", Admits::More);
    is_described::<products::domain::Description>("[ a\n\u{A0}]{0,5}|[a\n]{1995,2005}", Admits::More);
    is_described::<products::domain::Reason>("[ a\u{A0}\u{3000}]{0,5}|[a ]{195,205}", Admits::More);
}

#[test]
fn tokens_keys_and_codes_are_described_as_they_are_read() {
    is_described_as_it_is_read::<orders::domain::PaymentMethod>("[A-Za-z0-9_-]{0,3}|[a-z]{126,130}");
    is_described_as_it_is_read::<chassis::idempotency::IdempotencyKey>("\"?[!-~]{0,4}\"?|\"?[a-z]{253,256}\"?");
    is_described_as_it_is_read::<products::domain::AdjustmentId>("[!-~]{0,3}|[#-Z]{62,66}");
    is_described_as_it_is_read::<chassis::contact::Phone>("\\+?[0-9]{6,17}");
    is_described_as_it_is_read::<chassis::money::Currency>("[A-Z]{3}|USD|EUR|JPY|KWD|XAU");
}

/// Values to try in each place of a body.
fn values(person: &Caller) -> Vec<Value> {
    let uuid = uuid::Uuid::nil();
    let numbers = [
        "0",
        "1",
        "-1",
        "3",
        "999",
        "1000",
        "1001",
        "0.01",
        "0.001",
        "19.99",
        "1.5",
        "3.0",
        "100000000",
        "100000000.01",
        "10000000000",
        "10000000001",
        "1000000000",
        "1000000001",
        "-1000000000",
        "-1000000001",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
    ];
    let numbers = numbers.iter().map(|number| serde_json::from_str(number).unwrap());
    let texts = [
        "",
        " ",
        "a",
        " a ",
        "a\nb",
        "a\u{202E}b",
        "USD",
        "usd",
        "JPY",
        "KWD",
        "XAU",
        "tok_x",
        "a b",
        "a\u{7F}",
        "1",
        "\"1\"",
    ];
    let texts = texts
        .map(str::to_owned)
        .into_iter()
        .chain([64, 65, 100, 101, 128, 129, 200, 201, 2000, 2001].map(|n| "x".repeat(n)));
    let ids = ["prod", "ord", "user", "pay"].map(|prefix| format!("{prefix}_{uuid}"));
    let own = [person.id().to_string(), person.email().to_owned()];
    let line = json!({ "product_id": format!("prod_{uuid}"), "quantity": 1 });
    let lists = [0, 1, 50, 51].map(|count| Value::from(vec![line.clone(); count]));
    let mut values =
        vec![Value::Null, json!(true), json!({}), json!([[format!("prod_{uuid}"), 1]]), json!([line, null])];
    values.extend(numbers);
    values.extend(texts.chain(ids).chain(own).map(Value::from));
    values.extend(lists);
    values
}

/// `good` with one place changed, in each way.
fn variations(good: &Value, values: &[Value]) -> Vec<Value> {
    let mut all = vec![good.clone()];
    match good {
        Value::Object(members) => {
            for (name, member) in members {
                let mut without = members.clone();
                without.remove(name);
                all.push(without.into());
                let with = |value: Value| {
                    let mut with = members.clone();
                    with.insert(name.clone(), value);
                    Value::from(with)
                };
                all.extend(values.iter().cloned().map(with));
                all.extend(variations(member, &[values, &[json!([])]].concat()).into_iter().map(with));
            }
            let mut more = members.clone();
            more.insert("more".to_owned(), 1.into());
            all.push(more.into());
        }
        Value::Array(items) => {
            let with = |item: Value| Value::from([vec![item], items[1..].to_vec()].concat());
            all.extend(variations(&items[0], values).into_iter().map(with));
        }
        _ => {}
    }
    all
}

/// Whether the services take a body, whatever comes of it then.
async fn taken(world: &World, person: &Caller, operation: &Operation<'_>, path: &str, body: &Value) -> Option<bool> {
    let headers = [("if-match", "*")];
    let answer = world.send_with(person, operation.method.clone(), path, Some(body.clone()), &headers).await;
    let problem = answer.json();
    let bad = problem["code"] == "invalid_request" || answer.status == StatusCode::BAD_REQUEST;
    // Whose address or id it is, no schema can say; nor can it count decimals.
    let details =
        problem["errors"].as_array().into_iter().flatten().map(|error| error["detail"].as_str().unwrap_or_default());
    let is_number = body["price"].is_number();
    let is_beyond = |detail: &&str| {
        ["your own", "that you verified"].iter().any(|words| detail.contains(words))
            || (is_number && detail.contains("decimals"))
    };
    let beyond = details.filter(is_beyond).count();
    let is_said = beyond == 0 || beyond < problem["errors"].as_array().map_or(0, Vec::len);
    is_said.then_some(!bad)
}

#[tokio::test]
async fn a_body_is_taken_if_and_only_if_the_document_allows_it() {
    let (contract, world) = (Contract::new(), World::start().await);
    let admin = Caller::admin();
    world.post(&admin, "/users", json!({ "name": "Grace", "email": admin.email() })).await.expect(StatusCode::CREATED);
    let product = json!({ "name": "Mug", "description": "Blue.", "price": 19.99, "stock": 5 });
    let product = world.post(&admin, "/products", product).await.expect(StatusCode::CREATED);
    let product = product["id"].as_str().unwrap();
    let line = json!({ "product_id": product, "quantity": 1 });
    let good = [
        ("createUser", json!({ "name": "Grace", "email": admin.email() })),
        ("changeUser", json!({ "name": "Grace", "email": admin.email() })),
        ("createProduct", json!({ "name": "Mug", "description": "Blue.", "price": 5, "currency": "EUR", "stock": 5 })),
        ("createProduct", json!({ "name": "Mug", "description": "Blue.", "price": 5, "currency": "JPY", "stock": 5 })),
        ("changeProduct", json!({ "name": "Mug", "description": "Blue.", "price": 5, "currency": "USD" })),
        ("changeProduct", json!({ "price": 5, "currency": "JPY" })),
        ("changeProduct", json!({ "price": 5, "currency": "USD" })),
        ("adjustStock", json!({ "adjustment_id": "a", "delta": 1, "reason": "Count" })),
        ("placeOrder", json!({ "items": [line], "user_id": admin.id(), "payment_method": "tok_accepted" })),
    ];
    for operation in contract.operations().iter().filter(|operation| operation.body().is_some()) {
        assert!(good.iter().any(|(id, _)| *id == operation.id), "{} has a body, and is not tried", operation.id);
    }
    let mut tried = 0;
    for (id, good) in good {
        let operation = contract.operation(id);
        let validator = contract.validator(operation.body().expect("a body"));
        let path = match operation.path.starts_with("/users") {
            true => operation.path.replace("{id}", &admin.id().to_string()),
            false => operation.path.replace("{id}", product),
        };
        let values = values(&admin);
        assert!(validator.is_valid(&good), "{id}: {good}");
        for body in variations(&good, &values).into_iter().chain(values) {
            if let Some(taken) = taken(&world, &admin, &operation, &path, &body).await {
                assert_eq!(validator.is_valid(&body), taken, "{id}, taken: {taken}: {body}");
                tried += 1;
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}
