//! The services accept exactly the requests that the OpenAPI document allows.

use std::str::FromStr;

use chassis::{id::UserId, text::BEYOND_THE_PATTERN};
use http::StatusCode;
use in_process_tests::{Caller, World};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};
use utoipa::{PartialSchema, ToSchema};

use crate::checker::{Checker, Operation};

/// Characters that the services' rules for texts treat differently: letters,
/// delimiters, spaces, control characters and invisible characters.
const SPECIAL_CHARACTERS: &[char] = &[
    'a', 'Z', '5', '_', '-', '.', ' ', '"', '\\', '[', ']', '!', '~', 'é', '😀', '\0', '\t', '\n', '\r', '\u{7F}',
    '\u{85}', '\u{9F}', '\u{A0}', '\u{1680}', '\u{2009}', '\u{2028}', '\u{202A}', '\u{202E}', '\u{202F}', '\u{205F}',
    '\u{2066}', '\u{2069}', '\u{3000}', '\u{FEFF}', '\u{61C}', '\u{200B}', '\u{200E}', '\u{200F}', '\u{FFFD}',
    '\u{FFFE}', '\u{FFFF}',
];

/// Texts that match `pattern` except for up to two characters, and random texts.
fn texts(pattern: &str) -> impl Strategy<Value = String> {
    let matching = proptest::string::string_regex(pattern).unwrap();
    let change = (any::<prop::sample::Index>(), prop::sample::select(SPECIAL_CHARACTERS), 0..3u8);
    let mutated = (matching, prop::collection::vec(change, 0..3)).prop_map(|(text, changes)| {
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

/// The relation between the texts that a schema allows and the texts that the
/// type's parser accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SchemaAllows {
    TheSameTexts,
    /// The schema also allows a few texts that the parser refuses, and its
    /// description says so.
    MoreTexts,
}

/// Asserts that the type's schema allows exactly the texts that its parser accepts.
fn assert_schema_matches_parser<T: FromStr + ToSchema>(pattern: &str) {
    assert_schema::<T>(pattern, SchemaAllows::TheSameTexts);
}

fn assert_schema<T: FromStr + ToSchema>(pattern: &str, allows: SchemaAllows) {
    let texts = texts(pattern);
    let schema = serde_json::to_value(<T as PartialSchema>::schema()).unwrap();
    let description = schema["description"].as_str().unwrap_or_default();
    assert_eq!(description.contains(BEYOND_THE_PATTERN), allows == SchemaAllows::MoreTexts, "{}", T::name());
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    // The seed is fixed: with another seed, the parser might accept too few texts for
    // the assertion below.
    let mut runner = TestRunner::deterministic();
    for _ in 0..500 {
        let text = texts.new_tree(&mut runner).unwrap().current();
        let is_accepted = text.parse::<T>().is_ok();
        let is_allowed = validator.is_valid(&text.as_str().into());
        assert!(is_allowed || !is_accepted, "{}: {text:?} is accepted, but the document forbids it", T::name());
        assert!(
            is_allowed == is_accepted || allows == SchemaAllows::MoreTexts,
            "{}: {text:?} is refused, but the document allows it",
            T::name()
        );
        *if is_accepted { &mut accepted } else { &mut refused } += 1;
    }
    assert!(accepted > 20 && refused > 20, "{}: {accepted} accepted, {refused} refused", T::name());
}

#[test]
fn the_schemas_of_ids_allow_what_the_parsers_accept() {
    let id = |prefix: &str| format!("({prefix}|user|ord)_[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}");
    assert_schema_matches_parser::<UserId>(&id("user"));
    assert_schema_matches_parser::<orders::domain::OrderId>(&id("ord"));
    assert_schema_matches_parser::<products::domain::ProductId>(&id("prod"));
    assert_schema_matches_parser::<payments::domain::PaymentId>(&id("pay"));
}

#[test]
fn the_schemas_of_names_and_descriptions_allow_at_least_what_the_parsers_accept() {
    assert_schema::<users::domain::Name>("[ a\u{A0}\u{3000}]{0,5}|[aé ]{95,105}", SchemaAllows::MoreTexts);
    assert_schema::<products::domain::Name>("[ a\u{A0}\u{3000}]{0,5}|[aé ]{95,105}", SchemaAllows::MoreTexts);
    assert_schema::<products::domain::Description>("[ a\n\u{A0}]{0,5}|[a\n]{1995,2005}", SchemaAllows::MoreTexts);
    assert_schema::<chassis::audit::Reason>("[ a\u{A0}\u{3000}]{0,5}|[a ]{195,205}", SchemaAllows::MoreTexts);
}

#[test]
fn the_schemas_of_tokens_keys_and_codes_allow_what_the_parsers_accept() {
    assert_schema_matches_parser::<orders::domain::PaymentMethod>("[A-Za-z0-9_-]{0,3}|[a-z]{126,130}");
    assert_schema_matches_parser::<chassis::idempotency::IdempotencyKey>("\"?[!-~]{0,4}\"?|\"?[a-z]{253,256}\"?");
    assert_schema_matches_parser::<chassis::audit::ResendId>("[A-Za-z0-9_-]{0,3}|[a-z]{62,66}");
    assert_schema_matches_parser::<products::domain::AdjustmentId>("[!-~]{0,3}|[#-Z]{62,66}");
    assert_schema_matches_parser::<chassis::contact::Phone>("\\+?[0-9]{6,17}");
    assert_schema_matches_parser::<chassis::money::Currency>("[A-Z]{3}|USD|EUR|JPY|KWD|XAU");
}

/// The values that are tried in each place of a body.
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

/// All copies of `good` with one change: one value is replaced, one member is
/// missing, or one unknown member is added.
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

/// Returns whether the services accept a body as well-formed, even if they refuse
/// the request for another reason. Returns `None` if they refuse it because of a
/// rule that no schema can express.
async fn is_accepted(
    world: &World,
    person: &Caller,
    operation: &Operation<'_>,
    path: &str,
    body: &Value,
) -> Option<bool> {
    let headers = [("if-match", "*")];
    let answer = world.send_with(person, operation.method.clone(), path, Some(body.clone()), &headers).await;
    let problem = answer.json();
    let is_malformed = problem["code"] == "invalid_request" || answer.status == StatusCode::BAD_REQUEST;
    // A schema cannot express that an e-mail address or id must be the caller's own,
    // or how many decimals a price may have.
    let details =
        problem["errors"].as_array().into_iter().flatten().map(|error| error["detail"].as_str().unwrap_or_default());
    let is_number = body["price"].is_number();
    let is_inexpressible = |detail: &&str| {
        ["your own", "that you verified"].iter().any(|words| detail.contains(words))
            || (is_number && detail.contains("decimals"))
    };
    let inexpressible = details.filter(is_inexpressible).count();
    let is_expressible = inexpressible == 0 || inexpressible < problem["errors"].as_array().map_or(0, Vec::len);
    is_expressible.then_some(!is_malformed)
}

#[tokio::test]
async fn a_body_is_accepted_if_and_only_if_the_document_allows_it() {
    let (checker, world) = (Checker::new(), World::start().await);
    let admin = Caller::admin();
    world.post(&admin, "/users", json!({ "name": "Grace", "email": admin.email() })).await.expect(StatusCode::CREATED);
    let product = world.product("19.99", 5).await;
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
        ("cancelOrder", json!({ "reason": "Recalled." })),
        ("setOrdersPause", json!({ "paused": false, "reason": "Over." })),
        ("setMessagesPause", json!({ "paused": false, "reason": "Over." })),
        ("resendMessage", json!({ "resend_id": "a", "message": "OrderCreated", "reason": "Lost." })),
        ("placeOrder", json!({ "items": [line], "user_id": admin.id(), "payment_method": "tok_accepted" })),
    ];
    for operation in checker.operations().iter().filter(|operation| operation.body().is_some()) {
        assert!(good.iter().any(|(id, _)| *id == operation.id), "{} has a body, but no example here", operation.id);
    }
    let mut tried = 0;
    for (id, good) in good {
        let operation = checker.operation(id);
        let validator = checker.validator(operation.body().expect("a body"));
        let path = match operation.path.starts_with("/users") {
            true => operation.path.replace("{id}", &admin.id().to_string()),
            false if operation.path.starts_with("/orders/") => {
                operation.path.replace("{id}", &orders::domain::OrderId::generate().to_string())
            }
            false => operation.path.replace("{id}", &product),
        };
        let values = values(&admin);
        assert!(validator.is_valid(&good), "{id}: {good}");
        for body in variations(&good, &values).into_iter().chain(values) {
            if let Some(is_accepted) = is_accepted(&world, &admin, &operation, &path, &body).await {
                assert_eq!(validator.is_valid(&body), is_accepted, "{id}, accepted: {is_accepted}: {body}");
                tried += 1;
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}
