//! A client of the deployed stack, which knows it only from outside.
//!
//! The stack is the one that `HOLDFAST_STACK` names: a file as `make up` writes
//! it to `.local/stack.json`. `make test` deploys one of its own.

pub mod conformance;
pub mod processes;
pub mod queue;
pub mod signed;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

/// How long something that happens by itself may take before a test gives up.
/// Longer than recovery takes, whose sweep comes every minute, and before which
/// the queue hides an event for three: a busy machine must not fail a test, and
/// none waits longer than it has to.
const PATIENCE: Duration = Duration::from_secs(240);

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
    /// Physical names of the functions.
    pub functions: HashMap<String, String>,
}

/// The file that `HOLDFAST_STACK` names.
pub fn stack_file() -> String {
    std::env::var("HOLDFAST_STACK").expect("HOLDFAST_STACK names a stack.json; `make test` sets it")
}

impl Stack {
    /// The stack that `HOLDFAST_STACK` names.
    pub fn deployed() -> Self {
        let file = stack_file();
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
            ("email", email.as_str()),
            ("email_verified", "true"),
            ("phone_number", &phone),
            ("phone_number_verified", "true"),
        ];
        let attributes = attributes.map(|(name, value)| json!({ "Name": name, "Value": value }));
        let create = json!({ "MessageAction": "SUPPRESS", "UserAttributes": attributes });
        self.pool("AdminCreateUser", &email, create).await;
        self.pool("AdminSetUserPassword", &email, json!({ "Password": password, "Permanent": true })).await;
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
        self.pool("AdminAddUserToGroup", &person.email, json!({ "GroupName": "admin" })).await;
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

    /// An administrator's word about somebody in the pool. Asked for directly:
    /// for each, the AWS CLI would start Python. The emulator takes its root
    /// user's name without a signature.
    async fn pool(&self, action: &str, email: &str, mut request: Value) {
        request["UserPoolId"] = json!(self.user_pool_id);
        request["Username"] = json!(email);
        let credential = format!("Credential=test/20200101/{}/cognito-idp/aws4_request", self.region);
        let request = reqwest::Client::new()
            .post(&self.emulator_url)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("AWSCognitoIdentityProviderService.{action}"))
            .header("authorization", format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=0"))
            .body(request.to_string());
        let answer = request.send().await.expect("an answer of the pool");
        assert!(answer.status().is_success(), "{action}: {:?}", answer.text().await);
    }

    /// Lets the worker look for open orders at once, as its schedule lets it
    /// every minute.
    pub async fn sweep(&self) {
        let function = &self.functions["order_worker"];
        let payload = r#"{"sweep":true}"#;
        self.aws(&["lambda", "invoke", "--function-name", function, "--payload", payload, "/dev/null"]).await;
    }

    /// The AWS CLI, on this stack. Returns what it prints.
    pub async fn aws(&self, arguments: &[&str]) -> String {
        let mut aws = Command::new("aws");
        aws.args(arguments);
        aws.env("AWS_ENDPOINT_URL", &self.emulator_url).env("AWS_DEFAULT_REGION", &self.region);
        aws.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        let output = aws.output().await.expect("the AWS CLI runs");
        assert!(output.status.success(), "{:?}: {}", &arguments[..2], String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a text")
    }

    /// How the AWS SDK reaches the emulator.
    pub async fn sdk(&self) -> SdkConfig {
        aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(self.region.clone()))
            .endpoint_url(&self.emulator_url)
            .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
            .load()
            .await
    }

    /// All items of a table, by its short name.
    pub async fn scan(&self, table: &str) -> Vec<Value> {
        let client = aws_sdk_dynamodb::Client::new(&self.sdk().await);
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
        self.try_order(lines, token, key).await.expect("an answer")
    }

    /// Places an order under a key, where an answer is not sure to come.
    pub async fn try_order(&self, lines: &[(&str, u32)], token: &str, key: &str) -> reqwest::Result<Answer> {
        let items: Vec<_> =
            lines.iter().map(|(id, quantity)| json!({ "product_id": id, "quantity": quantity })).collect();
        let body = json!({ "items": items, "payment_method": token });
        let url = format!("{}/orders", self.stack.api_url);
        self.request(Method::POST, &url, Some(body), &[("idempotency-key", key)]).await
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
        self.request(method, &format!("{base}{path}"), body, headers).await.expect("an answer")
    }

    async fn request(
        &self,
        method: Method,
        url: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> reqwest::Result<Answer> {
        let mut request = reqwest::Client::new().request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Answer { status, headers, text: response.text().await? })
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
