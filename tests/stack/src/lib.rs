//! A client of the deployed stack, which knows it only from outside.
//!
//! The stack is the one that `HOLDFAST_STACK` names: a file as `make up` writes
//! it to `.local/stack.json`. `make test` deploys one of its own.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

/// How long something that happens by itself may take before a test gives up.
/// Generous: a busy machine must not fail a test, and no test waits longer
/// than it has to.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was deployed, and where.
#[derive(Clone, Debug, Deserialize)]
pub struct Stack {
    /// The public API.
    pub api_url: String,
    /// The API between services.
    pub internal_api_url: String,
    /// Where the AWS services are.
    pub emulator_url: String,
    /// In which region.
    pub region: String,
    /// The user pool.
    pub user_pool_id: String,
    /// Its client.
    pub client_id: String,
    /// Physical names of the tables.
    pub tables: HashMap<String, String>,
    /// Addresses of the queues.
    pub queues: HashMap<String, String>,
}

impl Stack {
    /// The stack that `HOLDFAST_STACK` names.
    pub fn deployed() -> Self {
        let file = std::env::var("HOLDFAST_STACK").expect("HOLDFAST_STACK names a stack.json; `make test` sets it");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// Someone new in the pool, with verified address and number.
    pub async fn sign_up(&self, name: &str) -> Person {
        let unique = uuid::Uuid::new_v4();
        let email = format!("{}-{}@example.com", name.to_lowercase(), unique.simple());
        let phone = format!("+1555{:07}", unique.as_u128() % 10_000_000);
        let password = format!("A-{}-z9", unique.simple());
        let attributes = [
            format!("Name=email,Value={email}"),
            "Name=email_verified,Value=true".into(),
            format!("Name=phone_number,Value={phone}"),
            "Name=phone_number_verified,Value=true".into(),
        ];
        let mut create =
            vec!["admin-create-user", "--username", &email, "--message-action", "SUPPRESS", "--user-attributes"];
        create.extend(attributes.iter().map(String::as_str));
        self.pool(&create).await;
        self.pool(&["admin-set-user-password", "--username", &email, "--permanent", "--password", &password]).await;
        Person { stack: self.clone(), name: name.into(), email, phone, password, id: String::new(), token: None }
    }

    /// A customer, signed in and with a profile.
    pub async fn customer(&self, name: &str) -> Person {
        let mut person = self.sign_up(name).await;
        person.sign_in().await;
        let body = json!({ "name": person.name, "email": person.email });
        let profile = person.post("/users", body).await.expect(StatusCode::CREATED);
        person.id = profile["id"].as_str().expect("an id").to_owned();
        person
    }

    /// An administrator, signed in.
    pub async fn admin(&self) -> Person {
        let mut person = self.sign_up("Grace").await;
        self.pool(&["admin-add-user-to-group", "--username", &person.email, "--group-name", "admin"]).await;
        person.sign_in().await;
        person
    }

    /// Somebody who isn't signed in.
    pub fn stranger(&self) -> Person {
        let none = String::new;
        Person {
            stack: self.clone(),
            name: none(),
            email: none(),
            phone: none(),
            password: none(),
            id: none(),
            token: None,
        }
    }

    async fn pool(&self, arguments: &[&str]) {
        let mut aws = Command::new("aws");
        aws.arg("cognito-idp").args(arguments).args(["--user-pool-id", &self.user_pool_id]);
        aws.env("AWS_ENDPOINT_URL", &self.emulator_url).env("AWS_DEFAULT_REGION", &self.region);
        aws.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        let output = aws.output().await.expect("the AWS CLI runs");
        assert!(output.status.success(), "{:?}: {}", arguments[0], String::from_utf8_lossy(&output.stderr));
    }

    /// All items of a table, by its short name.
    pub async fn scan(&self, table: &str) -> Vec<Value> {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(self.region.clone()))
            .endpoint_url(&self.emulator_url)
            .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
            .load()
            .await;
        let client = aws_sdk_dynamodb::Client::new(&config);
        let items = client.scan().table_name(&self.tables[table]).into_paginator().items().send();
        let items: Vec<_> = items.try_collect().await.expect("a scan");
        items.into_iter().map(|item| serde_dynamo::from_item(item).expect("an item in JSON")).collect()
    }

    /// The e-mails that reached `address`.
    pub async fn mails(&self, address: &str) -> Vec<Value> {
        let inbox = self.inbox("/_ministack/ses/messages").await;
        let all = inbox["messages"].as_object().into_iter().flat_map(|accounts| accounts.values());
        let mails = all.flat_map(|mails| mails.as_array().cloned().unwrap_or_default());
        mails.filter(|mail| mail["To"].as_array().is_some_and(|to| to.contains(&address.into()))).collect()
    }

    /// The text messages that reached `phone`.
    pub async fn texts(&self, phone: &str) -> Vec<String> {
        let inbox = self.inbox("/_ministack/sns/sms-messages").await;
        let texts = find(&inbox, phone).and_then(Value::as_array).cloned().unwrap_or_default();
        texts.iter().filter_map(|text| text["Message"].as_str().map(str::to_owned)).collect()
    }

    async fn inbox(&self, path: &str) -> Value {
        let response = reqwest::get(format!("{}{path}", self.emulator_url)).await.expect("an inbox");
        response.json().await.expect("an inbox in JSON")
    }
}

/// The value of `key`, however deep.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let object = value.as_object()?;
    object.get(key).or_else(|| object.values().find_map(|inner| find(inner, key)))
}

/// Waits until `look` finds something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Somebody with a browser.
#[derive(Clone, Debug)]
pub struct Person {
    stack: Stack,
    /// What they are called.
    pub name: String,
    /// Their address.
    pub email: String,
    /// Their number.
    pub phone: String,
    password: String,
    /// The id under which services know them, once they have a profile.
    pub id: String,
    /// Their ID token, once signed in.
    pub token: Option<String>,
}

impl Person {
    /// Gets a fresh ID token from the pool, as a browser would.
    pub async fn sign_in(&mut self) {
        let tokens = self.tokens().await;
        self.token = Some(tokens["IdToken"].as_str().expect("an ID token").to_owned());
    }

    /// What the pool gives for the password.
    pub async fn tokens(&self) -> Value {
        let body = json!({
            "AuthFlow": "USER_PASSWORD_AUTH",
            "ClientId": self.stack.client_id,
            "AuthParameters": { "USERNAME": self.email, "PASSWORD": self.password },
        });
        let request = reqwest::Client::new()
            .post(&self.stack.emulator_url)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", "AWSCognitoIdentityProviderService.InitiateAuth")
            .body(body.to_string());
        let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        answer["AuthenticationResult"].clone()
    }

    /// GET through the public API.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, &[]).await
    }

    /// POST through the public API.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body), &[]).await
    }

    /// Places an order under a key.
    pub async fn order(&self, lines: &[(&str, u32)], token: &str, key: &str) -> Answer {
        let items: Vec<_> =
            lines.iter().map(|(id, quantity)| json!({ "product_id": id, "quantity": quantity })).collect();
        let body = json!({ "items": items, "payment_method": token });
        self.send(Method::POST, "/orders", Some(body), &[("idempotency-key", key)]).await
    }

    /// The order, once it has come to `status`.
    pub async fn order_in(&self, id: &str, status: &str) -> Value {
        eventually(&format!("{id} to be {status}"), async || {
            let order = self.get(&format!("/orders/{id}")).await.expect(StatusCode::OK);
            (order["status"] == status).then_some(order)
        })
        .await
    }

    /// Any request through the public API.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>, headers: &[(&str, &str)]) -> Answer {
        self.send_to(&self.stack.api_url, method, path, body, headers).await
    }

    /// Any request to any address.
    pub async fn send_to(
        &self,
        base: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = reqwest::Client::new().request(method, format!("{base}{path}"));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.expect("a text") }
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The body as JSON, if the status is the expected one.
    #[track_caller]
    pub fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The problem document, if it is the expected one.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let kind = self.headers.get("content-type").and_then(|value| value.to_str().ok());
        assert_eq!(kind, Some("application/problem+json"), "{}", self.text);
        let document: Value = serde_json::from_str(&self.text).expect("a problem document");
        assert_eq!(document["code"], code, "{}", self.text);
        document
    }
}
