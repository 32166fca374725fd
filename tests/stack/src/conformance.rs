//! The conformance test: a list of requests with their required responses. There are
//! three ways to run the shop: with a gateway, with `cargo lambda watch`, and with
//! `sam local start-api`. A request must get the same response in each way.
//! [`differences`] lists the exceptions, with a reason for each.

use std::{collections::BTreeMap, time::Duration};

use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{Answer, PATIENCE, Person, Stack};

/// A way to run the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunMode {
    /// API Gateway, or an emulator of it.
    Gateway,
    /// `cargo lambda watch`.
    CargoLambdaWatch,
    /// `sam local start-api`.
    SamLocal,
}

/// The sender of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Not signed in.
    Anonymous,
    /// A customer.
    Ada,
    /// Another customer.
    Mallory,
    Admin,
    /// Ada, with her access token in place of her ID token.
    AdaWithAccessToken,
    /// Ada, with a token that the user pool has not signed.
    AdaWithForgedToken,
}

/// A request and the response that it must get.
#[derive(Clone, Debug)]
pub struct Case {
    /// A sentence that names the behaviour, and by which [`Difference`] refers to
    /// the case.
    pub name: &'static str,
    caller: Caller,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<String>,
    expected: ExpectedAnswer,
    /// The parts of the response's body that later requests use, as pairs of a name
    /// and a JSON pointer.
    captures: Vec<(&'static str, &'static str)>,
}

/// The requirements on a response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpectedAnswer {
    status: u16,
    /// The code of the problem document; none if the response is not a problem document.
    code: Option<&'static str>,
    /// Header values; `*` allows any value, and an empty text requires that the
    /// header is absent.
    headers: Vec<(&'static str, &'static str)>,
    /// Values in the body, each at a JSON pointer.
    parts: Vec<(&'static str, Value)>,
    /// The whole body, if it is not JSON.
    text: Option<&'static str>,
}

/// A case in which one way to run the shop answers differently.
pub struct Difference {
    pub run_mode: RunMode,
    /// The name of the case.
    pub case: &'static str,
    /// The response that this way gives instead of the required response.
    pub answer: ExpectedAnswer,
    /// The reason why the response cannot be the same.
    pub reason: &'static str,
}

/// A refusal with a problem document.
fn problem(status: u16, code: &'static str) -> ExpectedAnswer {
    let headers = vec![("content-type", "application/problem+json")];
    let parts = vec![("/status", json!(status)), ("/type", json!("about:blank"))];
    ExpectedAnswer { status, code: Some(code), headers, parts, text: None }
}

/// A successful response with a JSON document.
fn success(status: u16) -> ExpectedAnswer {
    let headers = vec![("content-type", "application/json"), ("cache-control", "no-store"), ("x-request-id", "*")];
    ExpectedAnswer { status, headers, ..ExpectedAnswer::default() }
}

impl ExpectedAnswer {
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

fn case(name: &'static str, caller: Caller, method: Method, path: &str) -> Case {
    let expected = ExpectedAnswer::default();
    Case { name, caller, method, path: path.into(), headers: vec![], body: None, expected, captures: vec![] }
}

impl Case {
    /// The required response, except where [`differences`] has an entry for the case.
    pub fn expected(&self) -> &ExpectedAnswer {
        &self.expected
    }

    fn answers(self, expected: ExpectedAnswer) -> Self {
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

    /// Stores a part of the response's body. In later requests, the part replaces
    /// `{name}`.
    fn capture(mut self, name: &'static str, pointer: &'static str) -> Self {
        self.captures.push((name, pointer));
        self
    }
}

/// All cases, in the order in which they are sent: later requests use parts of the
/// responses to earlier requests.
pub fn cases() -> Vec<Case> {
    use Caller::{Ada, AdaWithAccessToken, AdaWithForgedToken, Admin, Anonymous, Mallory};
    let (get, post, patch) = (Method::GET, Method::POST, Method::PATCH);
    let teapot = || json!({ "name": "Teapot, Zoë’s", "description": "Short and stout.", "price": 19.99, "stock": 9 });
    let unauthenticated = || problem(401, "unauthenticated").header("www-authenticate", "Bearer");
    let saucer = |stock: u32| json!({ "name": "Saucer", "description": "Flat.", "price": 2, "stock": stock });
    let order = |quantity: u32, token: &str| json!({ "items": [{ "product_id": "{teapot}", "quantity": quantity }], "payment_method": token });
    let mut cases = vec![
        // The catalogue.
        case("an administrator adds a product", Admin, post.clone(), "/products")
            .answers(
                success(201).header("etag", "\"1\"").header("location", "*").part("/stock", 9).part("/price", 19.99),
            )
            .json(teapot())
            .capture("teapot", "/id"),
        case("a product is added under a key", Admin, post.clone(), "/products")
            .answers(success(201).part("/name", "Saucer"))
            .json(saucer(3))
            .header("idempotency-key", "{key}")
            .capture("saucer", "/id"),
        case("a repeat under the same key adds no second product", Admin, post.clone(), "/products")
            .answers(success(201).part("/id", "{saucer}"))
            .json(saucer(3))
            .header("idempotency-key", "\"{key}\""),
        case("another product under the same key is refused", Admin, post.clone(), "/products")
            .answers(problem(422, "idempotency_mismatch"))
            .json(saucer(4))
            .header("idempotency-key", "{key}"),
        case("a product's name is returned exactly as it was sent", Anonymous, get.clone(), "/products/{teapot}")
            .answers(success(200).header("etag", "\"1\"").part("/name", "Teapot, Zoë’s")),
        case("an anonymous caller lists the catalogue", Anonymous, get.clone(), "/products?limit=1")
            .answers(success(200).header("content-type", "application/json"))
            .capture("cursor", "/next_cursor"),
        case(
            "a cursor from one page is accepted for the next page",
            Anonymous,
            get.clone(),
            "/products?limit=1&cursor={cursor}",
        )
        .answers(success(200)),
        case("a malformed cursor is refused", Anonymous, get.clone(), "/products?cursor=zzz")
            .answers(problem(400, "invalid_cursor")),
        case("a parameter out of range is refused", Anonymous, get.clone(), "/products?limit=0")
            .answers(problem(422, "invalid_request")),
        case("an unknown parameter is refused", Anonymous, get.clone(), "/products?colour=red")
            .answers(problem(422, "invalid_request").part("/errors/0/field", "colour")),
        case("each invalid parameter is named", Anonymous, get.clone(), "/products?limit=0&colour=red&limit=2")
            .answers(
                problem(422, "invalid_request").part("/errors/0/field", "limit").part("/errors/1/field", "colour"),
            ),
        case("a percent-encoded parameter is decoded", Anonymous, get.clone(), "/products?l%69mit=1")
            .answers(success(200)),
        case(
            "an unknown product is not found",
            Anonymous,
            get.clone(),
            "/products/prod_0195a8e0-0000-7000-8000-000000000001",
        )
        .answers(problem(404, "not_found")),
        case("a malformed id is refused", Anonymous, get.clone(), "/products/teapot")
            .answers(problem(422, "invalid_request").part("/errors/0/field", "id")),
        case("a percent-encoded id is decoded", Anonymous, get.clone(), "/products/tea%20pot")
            .answers(problem(422, "invalid_request").part("/errors/0/field", "id")),
        case("an anonymous caller cannot add a product", Anonymous, post.clone(), "/products")
            .answers(unauthenticated())
            .json(teapot()),
        case("a customer cannot add a product", Ada, post.clone(), "/products")
            .answers(problem(403, "forbidden"))
            .json(teapot()),
        case("a change without If-Match is refused", Admin, patch.clone(), "/products/{teapot}")
            .answers(problem(428, "precondition_required"))
            .json(json!({ "price": 4.5 })),
        case("a product is changed", Admin, patch.clone(), "/products/{teapot}")
            .answers(success(200).header("etag", "\"2\"").part("/price", 4.5))
            .json(json!({ "price": 4.5 }))
            .header("if-match", "\"1\""),
        case("a change with an outdated ETag is refused", Admin, patch.clone(), "/products/{teapot}")
            .answers(problem(412, "precondition_failed"))
            .json(json!({ "price": 5 }))
            .header("if-match", "\"1\""),
        case("stock is adjusted", Admin, post.clone(), "/products/{teapot}/stock-adjustments")
            .answers(success(200).part("/delta", 1))
            .json(json!({ "adjustment_id": "count-1", "delta": 1, "reason": "Delivery" })),
        // Tokens.
        case("a request without a token is refused", Anonymous, get.clone(), "/orders").answers(unauthenticated()),
        case("an access token is refused", AdaWithAccessToken, get.clone(), "/orders").answers(unauthenticated()),
        case("a forged token is refused", AdaWithForgedToken, get.clone(), "/orders").answers(unauthenticated()),
        case("a malformed token is refused", Anonymous, get.clone(), "/orders")
            .answers(unauthenticated())
            .header("authorization", "Bearer nonsense"),
        // Profiles.
        case("a customer creates a profile", Ada, post.clone(), "/users")
            .answers(success(201).header("location", "*").part("/name", "Ada").part("/status", "ACTIVE"))
            .json(json!({ "name": "Ada", "email": "{email}" }))
            .capture("ada", "/id"),
        case("a second profile is refused", Ada, post.clone(), "/users")
            .answers(problem(409, "user_exists"))
            .json(json!({ "name": "Ada", "email": "{email}" })),
        case("each invalid field is named", Mallory, post.clone(), "/users")
            .answers(problem(422, "invalid_request").part("/errors/0/field", "email").part("/errors/1/field", "name"))
            .json(json!({ "name": "", "email": "nobody" })),
        case("an unknown field is refused", Mallory, post.clone(), "/users")
            .answers(problem(422, "invalid_request").part("/errors/0/field", "email").part("/errors/1/field", "admin"))
            .json(json!({ "name": "Mallory", "email": "m@example.com", "admin": true })),
        case("incomplete JSON is refused", Ada, post.clone(), "/users")
            .answers(problem(400, "malformed_json"))
            .text("application/json", "{\"name\":"),
        case("a body of another content type is refused", Ada, post.clone(), "/users")
            .answers(problem(415, "unsupported_media_type"))
            .text("text/plain", "{}"),
        case("a binary body is refused", Ada, post.clone(), "/users")
            .answers(problem(415, "unsupported_media_type"))
            .text("application/octet-stream", "\u{0}\u{1}"),
        case("a body of more than 64 KiB is refused", Ada, post.clone(), "/users")
            .answers(problem(413, "payload_too_large"))
            .json(json!({ "name": "A".repeat(70_000), "email": "{email}" })),
        case("a profile is shown to its owner", Ada, get.clone(), "/users/{ada}")
            .answers(success(200).part("/id", "{ada}")),
        case("a profile is hidden from other customers", Mallory, get.clone(), "/users/{ada}")
            .answers(problem(404, "not_found")),
        case("a profile is changed", Ada, patch, "/users/{ada}")
            .answers(success(200).part("/name", "Ada Lovelace"))
            .json(json!({ "name": "Ada Lovelace" })),
        // Orders.
        case("an order is placed", Ada, post.clone(), "/orders")
            .answers(success(201).header("location", "*").part("/status", "CONFIRMED").part("/total", 13.5))
            .json(order(3, "tok_accepted"))
            .header("idempotency-key", "{key}")
            .capture("order", "/id")
            .capture("payment", "/payment_id"),
        case("a repeated order gets the same answer", Ada, post.clone(), "/orders")
            .answers(success(201).part("/id", "{order}").part("/status", "CONFIRMED"))
            .json(order(3, "tok_accepted"))
            .header("idempotency-key", "{key}"),
        case("another order under the same key is refused", Ada, post.clone(), "/orders")
            .answers(problem(422, "idempotency_mismatch"))
            .json(order(1, "tok_accepted"))
            .header("idempotency-key", "{key}"),
        case("an order for more than the stock is refused", Ada, post.clone(), "/orders")
            .answers(problem(409, "out_of_stock").part("/lines/0/available", 7))
            .json(order(8, "tok_accepted"))
            .header("idempotency-key", "{key}-out-of-stock"),
        case("an order with a declined card is refused", Ada, post.clone(), "/orders")
            .answers(problem(402, "payment_declined"))
            .json(order(1, "tok_declined"))
            .header("idempotency-key", "{key}-declined"),
        case("an order without lines is refused", Ada, post.clone(), "/orders")
            .answers(problem(422, "invalid_request"))
            .json(json!({ "items": [] })),
        case("an order from a caller without a profile is refused", Mallory, post.clone(), "/orders")
            .answers(problem(422, "user_not_found"))
            .json(order(1, "tok_accepted"))
            .header("idempotency-key", "{key}-no-profile"),
        case("an order is shown to its customer", Ada, get.clone(), "/orders/{order}")
            .answers(success(200).part("/id", "{order}").part("/items/0/quantity", 3)),
        case("an order is hidden from other customers", Mallory, get.clone(), "/orders/{order}")
            .answers(problem(404, "not_found")),
        case("orders are listed", Ada, get.clone(), "/orders?limit=50").answers(success(200)),
        case("a payment is shown to its customer", Ada, get.clone(), "/payments/{payment}")
            .answers(success(200).part("/amount", 13.5).part("/order_id", "{order}")),
        case("a payment is hidden from other customers", Mallory, get.clone(), "/payments/{payment}")
            .answers(problem(404, "not_found")),
        case("another customer's order cannot be cancelled", Mallory, post.clone(), "/orders/{order}/cancel")
            .answers(problem(404, "not_found")),
        // Unknown and internal routes.
        case("an unknown path is refused", Ada, get.clone(), "/no-such-path").answers(problem(404, "no_such_route")),
        case("an unknown method is refused", Ada, Method::PUT, "/orders").answers(problem(404, "no_such_route")),
        case("HEAD is refused", Ada, Method::HEAD, "/products")
            .answers(ExpectedAnswer { status: 404, ..ExpectedAnswer::default() }),
        case("the internal route of users is not public", Ada, post.clone(), "/users/{ada}/validate")
            .answers(problem(404, "no_such_route"))
            .json(json!({ "as_of": 0 })),
        case("the internal route of payments is not public", Ada, post, "/payments")
            .answers(problem(404, "no_such_route"))
            .json(json!({})),
        // Deletion of a profile.
        case("an unknown parameter of a deletion is refused", Ada, Method::DELETE, "/users/{ada}?dry_run=true")
            .answers(problem(422, "invalid_request").part("/errors/0/field", "dry_run")),
        case("a customer deletes the profile", Ada, Method::DELETE, "/users/{ada}").answers(ExpectedAnswer {
            status: 204,
            headers: vec![("cache-control", "no-store"), ("x-request-id", "*")],
            text: Some(""),
            ..ExpectedAnswer::default()
        }),
    ];
    let health = [
        ("users reports its health", "/health/users", "users"),
        ("products reports its health", "/health/products", "products"),
        ("orders reports its health", "/health/orders", "orders"),
        ("payments reports its health", "/health/payments", "payments"),
        ("notifications reports its health", "/health/notifications", "notifications"),
    ];
    cases.extend(health.map(|(name, path, service)| {
        case(name, Anonymous, get.clone(), path).answers(success(200).part("/status", "ok").part("/service", service))
    }));
    cases.push(
        case(
            "the deep health check is refused to anonymous callers",
            Anonymous,
            get.clone(),
            "/health/users?deep=true",
        )
        .answers(unauthenticated()),
    );
    cases.push(
        case("the deep health check is open to administrators", Admin, get, "/health/users?deep=true")
            .answers(success(200).part("/status", "ok").part("/dependencies/0/name", "table")),
    );
    cases
}

/// All differences between the ways to run the shop.
pub fn differences() -> Vec<Difference> {
    use RunMode::{CargoLambdaWatch, SamLocal};
    const NO_GATEWAY_RESPONSES: &str = "only API Gateway gives the template's gateway responses; a request that \
         matches no route never reaches a function";
    const ONE_ADDRESS: &str = "routes for people and for services have the same address, and the tool checks no signature; \
         INTERNAL_AUTH=none tells the functions to accept internal requests without one";
    let disabled =
        || ExpectedAnswer { status: 404, ..ExpectedAnswer::default() }.part("/title", "Default function disabled");
    let missing_token = || {
        ExpectedAnswer { status: 403, ..ExpectedAnswer::default() }
            .header("content-type", "application/json")
            .part("/message", "Missing Authentication Token")
    };
    let valid = || success(200).part("/valid", true);
    let bad_charge = || problem(422, "invalid_request").part("/errors/0/field", "order_id");
    let differ = |run_mode, reason, answers: [(&'static str, ExpectedAnswer); 2]| {
        answers.map(|(case, answer)| Difference { run_mode, case, answer, reason })
    };
    let (path, method) = ("an unknown path is refused", "an unknown method is refused");
    let (validate, charge) =
        ("the internal route of users is not public", "the internal route of payments is not public");
    let mut all = Vec::new();
    all.extend(differ(CargoLambdaWatch, NO_GATEWAY_RESPONSES, [(path, disabled()), (method, disabled())]));
    all.extend(differ(SamLocal, NO_GATEWAY_RESPONSES, [(path, missing_token()), (method, missing_token())]));
    all.extend(differ(CargoLambdaWatch, ONE_ADDRESS, [(validate, valid()), (charge, bad_charge())]));
    all.extend(differ(SamLocal, ONE_ADDRESS, [(validate, valid()), (charge, bad_charge())]));
    all.push(Difference {
        run_mode: SamLocal,
        case: "HEAD is refused",
        answer: ExpectedAnswer { status: 502, ..ExpectedAnswer::default() },
        reason: "its web server also serves HEAD on each route for GET, and then finds no function for HEAD",
    });
    all
}

impl RunMode {
    fn difference(self, case: &Case) -> Option<ExpectedAnswer> {
        let mut differences = differences().into_iter();
        differences
            .find(|difference| difference.run_mode == self && difference.case == case.name)
            .map(|difference| difference.answer)
    }

    /// Sends all requests to the shop at the address `base`. Returns a message for
    /// each response that is not the required response.
    pub async fn failures(self, deployed: &Stack, base: &str) -> Vec<String> {
        let stack = Stack { api_url: base.to_owned(), ..deployed.clone() };
        let (ada, mallory, admin) =
            (stack.signed_in("Ada").await, stack.signed_in("Mallory").await, stack.admin().await);
        let mut captured = BTreeMap::from([("key", uuid::Uuid::new_v4().to_string()), ("email", ada.email.clone())]);
        let mut failures = Vec::new();
        for case in cases() {
            let person = match case.caller {
                Caller::Ada => ada.clone(),
                Caller::AdaWithAccessToken => Person { token: Some(ada.access_token().await), ..ada.clone() },
                Caller::AdaWithForgedToken => Person { token: Some(ada.forged_token()), ..ada.clone() },
                Caller::Mallory => mallory.clone(),
                Caller::Admin => admin.clone(),
                Caller::Anonymous => stack.anonymous(),
            };
            let mut answer = case.send(&person, base, &captured).await;
            // Without a gateway, a tool on a laptop starts the functions, which may take
            // so long that the order is not decided in time and the response is 202. A
            // repeat of the request then gets the decision.
            for _ in 0..PATIENCE.as_secs() {
                if self == Self::Gateway || answer.status != StatusCode::ACCEPTED {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                answer = case.send(&person, base, &captured).await;
            }
            let expected = self.difference(&case).unwrap_or_else(|| case.expected.clone());
            if let Err(failure) = expected.compare(&answer, &captured) {
                failures.push(format!(
                    "{}: {failure}\n    {} {:?} {}",
                    case.name, answer.status, answer.headers, answer.text
                ));
            }
            let document = answer.json();
            for (name, pointer) in case.captures {
                if let Some(value) = document.pointer(pointer).and_then(Value::as_str) {
                    captured.insert(name, value.to_owned());
                }
            }
        }
        failures
    }
}

/// Replaces each `{name}` with the captured value of that name.
fn fill_in(text: &str, captured: &BTreeMap<&str, String>) -> String {
    captured.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

impl Case {
    async fn send(&self, person: &Person, base: &str, captured: &BTreeMap<&str, String>) -> Answer {
        let url = format!("{base}{}", fill_in(&self.path, captured));
        let mut request = reqwest::Client::new().request(self.method.clone(), url);
        if let Some(token) = &person.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, fill_in(value, captured));
        }
        if let Some(body) = &self.body {
            request = request.body(fill_in(body, captured));
        }
        Answer::receive(request).await.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

impl ExpectedAnswer {
    fn compare(&self, answer: &Answer, captured: &BTreeMap<&str, String>) -> Result<(), String> {
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
                Value::String(text) => Value::String(fill_in(text, captured)),
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
