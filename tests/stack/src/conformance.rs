//! One list of requests and of what must come back, whichever way the shop is
//! run: behind a gateway, under `cargo lambda watch`, or under
//! `sam local start-api`. What cannot be the same is in [`differences`].

use std::{collections::BTreeMap, time::Duration};

use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{Answer, PATIENCE, Person, Stack};

/// How the shop is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// API Gateway, or an emulator's.
    Gateway,
    /// `cargo lambda watch`.
    CargoLambdaWatch,
    /// `sam local start-api`.
    SamLocal,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Nobody in particular.
    Stranger,
    /// A customer.
    Ada,
    /// Another.
    Mallory,
    /// An administrator.
    Admin,
    /// Ada, with the token that says what she may do instead of who she is.
    WithAccessToken,
    /// Ada, with a token whose signature isn't the pool's.
    WithForgedToken,
}

/// A request, and what must come back.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows; also its name.
    pub says: &'static str,
    who: Who,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<String>,
    expected: Expected,
    keeps: Vec<(&'static str, &'static str)>,
}

/// What must come back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    status: u16,
    /// Of the problem document; none where it is no problem.
    code: Option<&'static str>,
    /// Header values; `*` stands for any, and nothing for none.
    headers: Vec<(&'static str, &'static str)>,
    /// Parts of the body, by JSON pointer.
    parts: Vec<(&'static str, Value)>,
    /// All of a body that is no JSON.
    text: Option<&'static str>,
}

/// Where one way answers otherwise, exactly how, and why.
pub struct Difference {
    /// Which way.
    pub way: Way,
    /// Which case.
    pub says: &'static str,
    /// What comes back there instead.
    pub answers: Expected,
    /// Why it cannot be the same.
    pub because: &'static str,
}

/// Refused, with a problem document.
fn problem(status: u16, code: &'static str) -> Expected {
    let headers = vec![("content-type", "application/problem+json")];
    let parts = vec![("/status", json!(status)), ("/type", json!("about:blank"))];
    Expected { status, code: Some(code), headers, parts, text: None }
}

/// Granted, with a document.
fn granted(status: u16) -> Expected {
    let headers = vec![("content-type", "application/json"), ("cache-control", "no-store"), ("x-request-id", "*")];
    Expected { status, headers, ..Expected::default() }
}

impl Expected {
    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value));
        self
    }

    fn part(mut self, pointer: &'static str, value: impl Into<Value>) -> Self {
        self.parts.push((pointer, value.into()));
        self
    }
}

fn case(says: &'static str, who: Who, method: Method, path: &str) -> Case {
    let expected = Expected::default();
    Case { says, who, method, path: path.into(), headers: vec![], body: None, expected, keeps: vec![] }
}

impl Case {
    /// What must come back, unless the way is known to differ.
    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    fn gives(self, expected: Expected) -> Self {
        Self { expected, ..self }
    }

    fn json(self, body: Value) -> Self {
        self.text("application/json", &body.to_string())
    }

    fn text(self, kind: &str, body: &str) -> Self {
        Self { body: Some(body.to_owned()), ..self.header(header::CONTENT_TYPE.as_str(), kind) }
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Keeps a part of the body for later requests, which name it in braces.
    fn keep(mut self, name: &'static str, pointer: &'static str) -> Self {
        self.keeps.push((name, pointer));
        self
    }
}

/// All requests, in their order: later ones build on earlier ones.
pub fn cases() -> Vec<Case> {
    use Who::{Ada, Admin, Mallory, Stranger, WithAccessToken, WithForgedToken};
    let (get, post, patch) = (Method::GET, Method::POST, Method::PATCH);
    let teapot = || json!({ "name": "Teapot, Zoë’s", "description": "Short and stout.", "price": 19.99, "stock": 9 });
    let unauthenticated = || problem(401, "unauthenticated").header("www-authenticate", "Bearer");
    let saucer = |stock: u32| json!({ "name": "Saucer", "description": "Flat.", "price": 2, "stock": stock });
    let basket = |quantity: u32, token: &str| json!({ "items": [{ "product_id": "{teapot}", "quantity": quantity }], "payment_method": token });
    let mut cases = vec![
        // The catalogue.
        case("an administrator adds a product", Admin, post.clone(), "/products")
            .gives(granted(201).header("etag", "\"1\"").header("location", "*").part("/stock", 9).part("/price", 19.99))
            .json(teapot())
            .keep("teapot", "/id"),
        case("a product is added under a key", Admin, post.clone(), "/products")
            .gives(granted(201).part("/name", "Saucer"))
            .json(saucer(3))
            .header("idempotency-key", "{key}")
            .keep("saucer", "/id"),
        case("its repetition adds none", Admin, post.clone(), "/products")
            .gives(granted(201).part("/id", "{saucer}"))
            .json(saucer(3))
            .header("idempotency-key", "\"{key}\""),
        case("another product under the same key is refused", Admin, post.clone(), "/products")
            .gives(problem(422, "idempotency_mismatch"))
            .json(saucer(4))
            .header("idempotency-key", "{key}"),
        case("text is the same on the way in and out", Stranger, get.clone(), "/products/{teapot}")
            .gives(granted(200).header("etag", "\"1\"").part("/name", "Teapot, Zoë’s")),
        case("anybody lists the catalogue", Stranger, get.clone(), "/products?limit=1")
            .gives(granted(200).header("content-type", "application/json"))
            .keep("cursor", "/next_cursor"),
        case("a cursor comes back as it was given", Stranger, get.clone(), "/products?limit=1&cursor={cursor}")
            .gives(granted(200)),
        case("a made-up cursor is refused", Stranger, get.clone(), "/products?cursor=zzz")
            .gives(problem(400, "invalid_cursor")),
        case("a parameter out of range is refused", Stranger, get.clone(), "/products?limit=0")
            .gives(problem(422, "invalid_request")),
        case("a parameter that there isn't is refused", Stranger, get.clone(), "/products?colour=red")
            .gives(problem(422, "invalid_request").part("/errors/0/field", "colour")),
        case("each bad parameter is named", Stranger, get.clone(), "/products?limit=0&colour=red&limit=2")
            .gives(problem(422, "invalid_request").part("/errors/0/field", "limit").part("/errors/1/field", "colour")),
        case("an escaped parameter is read", Stranger, get.clone(), "/products?l%69mit=1").gives(granted(200)),
        case(
            "a product that there isn't is not found",
            Stranger,
            get.clone(),
            "/products/prod_0195a8e0-0000-7000-8000-000000000001",
        )
        .gives(problem(404, "not_found")),
        case("what is no id is refused", Stranger, get.clone(), "/products/teapot")
            .gives(problem(422, "invalid_request").part("/errors/0/field", "id")),
        case("an escaped id is read", Stranger, get.clone(), "/products/tea%20pot")
            .gives(problem(422, "invalid_request").part("/errors/0/field", "id")),
        case("a stranger adds no product", Stranger, post.clone(), "/products").gives(unauthenticated()).json(teapot()),
        case("a customer adds no product", Ada, post.clone(), "/products")
            .gives(problem(403, "forbidden"))
            .json(teapot()),
        case("a change wants to know which version it changes", Admin, patch.clone(), "/products/{teapot}")
            .gives(problem(428, "precondition_required"))
            .json(json!({ "price": 4.5 })),
        case("a product is changed", Admin, patch.clone(), "/products/{teapot}")
            .gives(granted(200).header("etag", "\"2\"").part("/price", 4.5))
            .json(json!({ "price": 4.5 }))
            .header("if-match", "\"1\""),
        case("a change of an older version is refused", Admin, patch.clone(), "/products/{teapot}")
            .gives(problem(412, "precondition_failed"))
            .json(json!({ "price": 5 }))
            .header("if-match", "\"1\""),
        case("stock is adjusted", Admin, post.clone(), "/products/{teapot}/stock-adjustments")
            .gives(granted(200).part("/delta", 1))
            .json(json!({ "adjustment_id": "count-1", "delta": 1, "reason": "Delivery" })),
        // Who is calling.
        case("without a token nobody is let in", Stranger, get.clone(), "/orders").gives(unauthenticated()),
        case("an access token is no proof of who it is", WithAccessToken, get.clone(), "/orders")
            .gives(unauthenticated()),
        case("a forged token is no proof of anything", WithForgedToken, get.clone(), "/orders")
            .gives(unauthenticated()),
        case("what isn't a token is none", Stranger, get.clone(), "/orders")
            .gives(unauthenticated())
            .header("authorization", "Bearer nonsense"),
        // Profiles.
        case("a customer makes a profile", Ada, post.clone(), "/users")
            .gives(granted(201).header("location", "*").part("/name", "Ada").part("/status", "ACTIVE"))
            .json(json!({ "name": "Ada", "email": "{email}" }))
            .keep("ada", "/id"),
        case("a second profile is refused", Ada, post.clone(), "/users")
            .gives(problem(409, "user_exists"))
            .json(json!({ "name": "Ada", "email": "{email}" })),
        case("each bad field is named", Mallory, post.clone(), "/users")
            .gives(problem(422, "invalid_request").part("/errors/0/field", "email").part("/errors/1/field", "name"))
            .json(json!({ "name": "", "email": "nobody" })),
        case("a field that there isn't is refused", Mallory, post.clone(), "/users")
            .gives(problem(422, "invalid_request").part("/errors/0/field", "email").part("/errors/1/field", "admin"))
            .json(json!({ "name": "Mallory", "email": "m@example.com", "admin": true })),
        case("half a document is refused", Ada, post.clone(), "/users")
            .gives(problem(400, "malformed_json"))
            .text("application/json", "{\"name\":"),
        case("what isn't said to be JSON is refused", Ada, post.clone(), "/users")
            .gives(problem(415, "unsupported_media_type"))
            .text("text/plain", "{}"),
        case("what is no text isn't taken for it", Ada, post.clone(), "/users")
            .gives(problem(415, "unsupported_media_type"))
            .text("application/octet-stream", "\u{0}\u{1}"),
        case("a body of 64 KiB and more is refused", Ada, post.clone(), "/users")
            .gives(problem(413, "payload_too_large"))
            .json(json!({ "name": "A".repeat(70_000), "email": "{email}" })),
        case("a profile is read by its owner", Ada, get.clone(), "/users/{ada}")
            .gives(granted(200).part("/id", "{ada}")),
        case("and by nobody else", Mallory, get.clone(), "/users/{ada}").gives(problem(404, "not_found")),
        case("a profile is changed", Ada, patch, "/users/{ada}")
            .gives(granted(200).part("/name", "Ada Lovelace"))
            .json(json!({ "name": "Ada Lovelace" })),
        // Orders.
        case("an order is placed", Ada, post.clone(), "/orders")
            .gives(granted(201).header("location", "*").part("/status", "CONFIRMED").part("/total", 13.5))
            .json(basket(3, "tok_accepted"))
            .header("idempotency-key", "{key}")
            .keep("order", "/id")
            .keep("payment", "/payment_id"),
        case("a repetition gets the same answer", Ada, post.clone(), "/orders")
            .gives(granted(201).part("/id", "{order}").part("/status", "CONFIRMED"))
            .json(basket(3, "tok_accepted"))
            .header("idempotency-key", "{key}"),
        case("another order under the same key is refused", Ada, post.clone(), "/orders")
            .gives(problem(422, "idempotency_mismatch"))
            .json(basket(1, "tok_accepted"))
            .header("idempotency-key", "{key}"),
        case("what isn't there can't be bought", Ada, post.clone(), "/orders")
            .gives(problem(409, "out_of_stock").part("/lines/0/available", 7))
            .json(basket(8, "tok_accepted"))
            .header("idempotency-key", "{key}-out-of-stock"),
        case("a declined card is said to be", Ada, post.clone(), "/orders")
            .gives(problem(402, "payment_declined"))
            .json(basket(1, "tok_declined"))
            .header("idempotency-key", "{key}-declined"),
        case("nothing can't be ordered", Ada, post.clone(), "/orders")
            .gives(problem(422, "invalid_request"))
            .json(json!({ "items": [] })),
        case("who has no profile can't order", Mallory, post.clone(), "/orders")
            .gives(problem(422, "user_not_found"))
            .json(basket(1, "tok_accepted"))
            .header("idempotency-key", "{key}-no-profile"),
        case("an order is read by its owner", Ada, get.clone(), "/orders/{order}")
            .gives(granted(200).part("/id", "{order}").part("/items/0/quantity", 3)),
        case("and by nobody else, either", Mallory, get.clone(), "/orders/{order}").gives(problem(404, "not_found")),
        case("orders are listed", Ada, get.clone(), "/orders?limit=50").gives(granted(200)),
        case("a payment is read by who pays", Ada, get.clone(), "/payments/{payment}")
            .gives(granted(200).part("/amount", 13.5).part("/order_id", "{order}")),
        case("and by nobody else who asks", Mallory, get.clone(), "/payments/{payment}")
            .gives(problem(404, "not_found")),
        case("nobody else's order is cancelled", Mallory, post.clone(), "/orders/{order}/cancel")
            .gives(problem(404, "not_found")),
        // What is not there.
        case("there is no such path", Ada, get.clone(), "/no-such-path").gives(problem(404, "no_such_route")),
        case("there is no such method", Ada, Method::PUT, "/orders").gives(problem(404, "no_such_route")),
        case("HEAD is no GET", Ada, Method::HEAD, "/products").gives(Expected { status: 404, ..Expected::default() }),
        case("services keep their routes to themselves", Ada, post.clone(), "/users/{ada}/validate")
            .gives(problem(404, "no_such_route"))
            .json(json!({ "as_of": 0 })),
        case("nobody charges a card directly", Ada, post, "/payments")
            .gives(problem(404, "no_such_route"))
            .json(json!({})),
        // Leaving.
        case("nobody leaves by a trial run", Ada, Method::DELETE, "/users/{ada}?dry_run=true")
            .gives(problem(422, "invalid_request").part("/errors/0/field", "dry_run")),
        case("a customer leaves", Ada, Method::DELETE, "/users/{ada}").gives(Expected {
            status: 204,
            headers: vec![("cache-control", "no-store"), ("x-request-id", "*")],
            text: Some(""),
            ..Expected::default()
        }),
    ];
    let health = [
        ("users is there", "/health/users", "users"),
        ("products is there", "/health/products", "products"),
        ("orders is there", "/health/orders", "orders"),
        ("payments is there", "/health/payments", "payments"),
        ("notifications is there", "/health/notifications", "notifications"),
    ];
    cases.extend(health.map(|(says, path, service)| {
        case(says, Stranger, get.clone(), path).gives(granted(200).part("/status", "ok").part("/service", service))
    }));
    cases.push(
        case("how it does is for administrators", Stranger, get.clone(), "/health/users?deep=true")
            .gives(unauthenticated()),
    );
    cases.push(
        case("how it does is told to them", Admin, get, "/health/users?deep=true")
            .gives(granted(200).part("/table", "ok")),
    );
    cases
}

/// Everything in which the ways differ.
pub fn differences() -> Vec<Difference> {
    use Way::{CargoLambdaWatch, SamLocal};
    const NO_GATEWAY_OF_OURS: &str = "the template's gateway responses are API Gateway's to give: what no route \
         matches never reaches a function";
    const ONE_ADDRESS: &str = "there is but one address for both APIs, and nothing that could check a signature: \
         the functions are told to let the services, and with them anybody on this machine, in (INTERNAL_AUTH)";
    let disabled = || Expected { status: 404, ..Expected::default() }.part("/title", "Default function disabled");
    let missing_token = || {
        Expected { status: 403, ..Expected::default() }
            .header("content-type", "application/json")
            .part("/message", "Missing Authentication Token")
    };
    let valid = || granted(200).part("/valid", true);
    let bad_charge = || problem(422, "invalid_request").part("/errors/0/field", "order_id");
    let differ = |way, because, answers: [(&'static str, Expected); 2]| {
        answers.map(|(says, answers)| Difference { way, says, answers, because })
    };
    let no_path = "there is no such path";
    let no_method = "there is no such method";
    let (validate, charge) = ("services keep their routes to themselves", "nobody charges a card directly");
    let mut all = Vec::new();
    all.extend(differ(CargoLambdaWatch, NO_GATEWAY_OF_OURS, [(no_path, disabled()), (no_method, disabled())]));
    all.extend(differ(SamLocal, NO_GATEWAY_OF_OURS, [(no_path, missing_token()), (no_method, missing_token())]));
    all.extend(differ(CargoLambdaWatch, ONE_ADDRESS, [(validate, valid()), (charge, bad_charge())]));
    all.extend(differ(SamLocal, ONE_ADDRESS, [(validate, valid()), (charge, bad_charge())]));
    all.push(Difference {
        way: SamLocal,
        says: "HEAD is no GET",
        answers: Expected { status: 502, ..Expected::default() },
        because: "its web server takes a route for GET to be one for HEAD, too, and then finds no function for it",
    });
    all
}

impl Way {
    fn differs_in(self, case: &Case) -> Option<Expected> {
        let mut differences = differences().into_iter();
        differences.find(|one| one.way == self && one.says == case.says).map(|one| one.answers)
    }

    /// Sends all requests to the shop at `base`, and says of each answer that
    /// isn't the expected one what is wrong with it.
    pub async fn faults(self, deployed: &Stack, base: &str) -> Vec<String> {
        let stack = Stack { api_url: base.to_owned(), ..deployed.clone() };
        let (mut ada, mut mallory, admin) =
            (stack.sign_up("Ada").await, stack.sign_up("Mallory").await, stack.admin().await);
        ada.sign_in().await;
        mallory.sign_in().await;
        let people = |who| match who {
            Who::Ada | Who::WithAccessToken | Who::WithForgedToken => ada.clone(),
            Who::Mallory => mallory.clone(),
            Who::Admin => admin.clone(),
            Who::Stranger => stack.stranger(),
        };
        let mut kept = BTreeMap::from([("key", uuid::Uuid::new_v4().to_string()), ("email", ada.email.clone())]);
        let mut faults = Vec::new();
        for case in cases() {
            let mut person = people(case.who);
            match case.who {
                Who::WithAccessToken => person.token = Some(access_token(&person).await),
                Who::WithForgedToken => person.token = person.token.map(|token| forged(&token)),
                _ => {}
            }
            let mut answer = case.send(&person, base, &kept).await;
            // The tools on a laptop may take too long to start a function. The
            // repeat of an order that wasn't decided in time is told how it was.
            for _ in 0..PATIENCE.as_secs() {
                if self == Self::Gateway || answer.status != StatusCode::ACCEPTED {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                answer = case.send(&person, base, &kept).await;
            }
            let expected = self.differs_in(&case).unwrap_or_else(|| case.expected.clone());
            if let Err(fault) = expected.compare(&answer, &kept) {
                faults.push(format!(
                    "{}: {fault}\n    {} {:?} {}",
                    case.says, answer.status, answer.headers, answer.text
                ));
            }
            let document: Value = serde_json::from_str(&answer.text).unwrap_or_default();
            for (name, pointer) in case.keeps {
                if let Some(value) = document.pointer(pointer).and_then(Value::as_str) {
                    kept.insert(name, value.to_owned());
                }
            }
        }
        faults
    }
}

async fn access_token(person: &Person) -> String {
    person.tokens().await["AccessToken"].as_str().expect("an access token").to_owned()
}

fn forged(token: &str) -> String {
    let (rest, _) = token.rsplit_once('.').expect("a token of three parts");
    format!("{rest}.{}", "A".repeat(342))
}

fn filled(text: &str, kept: &BTreeMap<&str, String>) -> String {
    kept.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

impl Case {
    async fn send(&self, person: &Person, base: &str, kept: &BTreeMap<&str, String>) -> Answer {
        let url = format!("{base}{}", filled(&self.path, kept));
        let mut request = reqwest::Client::new().request(self.method.clone(), url);
        if let Some(token) = &person.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, filled(value, kept));
        }
        if let Some(body) = &self.body {
            request = request.body(filled(body, kept));
        }
        let answer = request.send().await.unwrap_or_else(|error| panic!("{}: {error}", self.says));
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text().await.unwrap_or_else(|error| panic!("{}: {error}", self.says));
        Answer { status, headers, text }
    }
}

impl Expected {
    fn compare(&self, answer: &Answer, kept: &BTreeMap<&str, String>) -> Result<(), String> {
        let differ = |what: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
            Err(format!("{what} is {found:?} instead of {expected:?}"))
        };
        if answer.status.as_u16() != self.status {
            return differ("the status", &self.status, &answer.status.as_u16());
        }
        for (name, expected) in &self.headers {
            let found = answer.headers.get(*name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let as_expected = match *expected {
                "*" => !found.is_empty(),
                expected => found == expected,
            };
            if !as_expected {
                return differ(name, expected, &found);
            }
        }
        let document: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        if document["code"].as_str() != self.code {
            return differ("the code", &self.code, &document["code"]);
        }
        for (pointer, expected) in &self.parts {
            let expected = match expected {
                Value::String(text) => Value::String(filled(text, kept)),
                other => other.clone(),
            };
            let found = document.pointer(pointer).cloned().unwrap_or_default();
            if found != expected {
                return differ(pointer, &expected, &found);
            }
        }
        match self.text {
            Some(expected) if answer.text != expected => differ("the body", &expected, &answer.text),
            _ => Ok(()),
        }
    }
}
