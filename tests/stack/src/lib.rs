//! A client of a deployed stack, for the tests. The client uses the public API, the
//! AWS APIs, and the emulator's lists of the e-mails and text messages that were sent.
//!
//! The variable `HOLDFAST_STACK` names a file that describes the stack, in the
//! form in which `make up` writes `.local/stack.json`. `make test` deploys a
//! stack of its own and sets the variable.

pub mod conformance;
pub mod processes;
pub mod queue;
pub mod shop;
pub mod signed;

use std::{
    collections::HashMap,
    process::Output,
    time::{Duration, Instant},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

/// The maximum time for which a test waits for background work. Recovery takes
/// minutes: the sweep runs once a minute, and the queue hides an event for three
/// minutes after a failed delivery. The limit is generous, so that a busy machine
/// fails no test. A test stops waiting as soon as the work is done.
const PATIENCE: Duration = Duration::from_secs(240);

/// The addresses and names of a deployed stack.
#[derive(Clone, Debug, Deserialize)]
pub struct Stack {
    /// The address of the public API.
    pub api_url: String,
    /// The address of the emulator, which serves all AWS services.
    pub emulator_url: String,
    pub region: String,
    pub user_pool_id: String,
    /// The id of the user pool's client.
    pub client_id: String,
    /// Physical names of the tables, by short name.
    pub tables: HashMap<String, String>,
    /// Addresses of the queues, by short name.
    pub queues: HashMap<String, String>,
    /// Addresses of the services for other services, by short name.
    pub services: HashMap<String, String>,
    /// Physical names of the functions, by short name.
    pub functions: HashMap<String, String>,
}

/// The path of the file that describes the stack.
pub fn stack_file() -> String {
    std::env::var("HOLDFAST_STACK").expect("HOLDFAST_STACK names a stack.json; `make test` sets it")
}

impl Stack {
    /// The stack that `HOLDFAST_STACK` describes.
    pub fn deployed() -> Self {
        let file = stack_file();
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// Adds a person to the user pool, with a verified e-mail address and phone
    /// number. The person is not signed in, and has no profile.
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
        self.administer_pool("AdminCreateUser", &email, create).await;
        self.administer_pool("AdminSetUserPassword", &email, json!({ "Password": password, "Permanent": true })).await;
        Person { stack: self.clone(), name: name.into(), email, phone, password, id: String::new(), token: None }
    }

    /// A person who is signed in.
    pub async fn signed_in(&self, name: &str) -> Person {
        let mut person = self.sign_up(name).await;
        person.sign_in().await;
        person
    }

    /// A person who is signed in and has a profile.
    pub async fn customer(&self, name: &str) -> Person {
        let mut person = self.signed_in(name).await;
        let body = json!({ "name": person.name, "email": person.email });
        let profile = person.post("/users", body).await.expect(StatusCode::CREATED);
        person.id = profile["id"].as_str().expect("an id").to_owned();
        person
    }

    /// An administrator who is signed in.
    pub async fn admin(&self) -> Person {
        let mut person = self.sign_up("Grace").await;
        self.administer_pool("AdminAddUserToGroup", &person.email, json!({ "GroupName": "admin" })).await;
        person.sign_in().await;
        person
    }

    /// A caller who is not signed in.
    pub fn anonymous(&self) -> Person {
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

    /// Calls an administrative action of the user pool. The request is sent over
    /// HTTP, because the AWS CLI would start Python for each call. The emulator
    /// accepts its root user's access key, `test`, without a valid signature.
    async fn administer_pool(&self, action: &str, email: &str, mut request: Value) {
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

    /// Starts a sweep of the worker, as the schedule does every minute.
    pub async fn sweep(&self) {
        let function = &self.functions["order_worker"];
        let payload = r#"{"sweep":true}"#;
        self.aws(&["lambda", "invoke", "--function-name", function, "--payload", payload, "/dev/null"]).await;
    }

    /// Runs the AWS CLI against this stack. Returns its standard output.
    pub async fn aws(&self, arguments: &[&str]) -> String {
        let mut aws = Command::new("aws");
        aws.args(arguments);
        aws.env("AWS_ENDPOINT_URL", &self.emulator_url).env("AWS_DEFAULT_REGION", &self.region);
        aws.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        let output = aws.output().await.expect("the AWS CLI runs");
        assert!(output.status.success(), "{:?}: {}", &arguments[..2], String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a text")
    }

    /// The configuration with which the AWS SDK reaches the emulator.
    pub async fn sdk(&self) -> SdkConfig {
        aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(self.region.clone()))
            .endpoint_url(&self.emulator_url)
            .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
            .load()
            .await
    }

    /// All items of a table, which is named by its short name.
    pub async fn scan(&self, table: &str) -> Vec<Value> {
        let client = aws_sdk_dynamodb::Client::new(&self.sdk().await);
        let items = client.scan().table_name(&self.tables[table]).into_paginator().items().send();
        let items: Vec<_> = items.try_collect().await.expect("a scan");
        items.into_iter().map(|item| serde_dynamo::from_item(item).expect("an item in JSON")).collect()
    }

    /// The e-mails that were sent to an address.
    pub async fn mails(&self, address: &str) -> Vec<Value> {
        let sent = self.emulator_json("/_ministack/ses/messages").await;
        let all = sent["messages"].as_object().into_iter().flat_map(|accounts| accounts.values());
        let mails = all.flat_map(|mails| mails.as_array().cloned().unwrap_or_default());
        mails.filter(|mail| mail["To"].as_array().is_some_and(|to| to.contains(&address.into()))).collect()
    }

    /// The text messages that were sent to a phone number.
    pub async fn text_messages(&self, phone: &str) -> Vec<String> {
        let sent = self.emulator_json("/_ministack/sns/sms-messages").await;
        let messages = find_member(&sent, phone).and_then(Value::as_array).cloned().unwrap_or_default();
        messages.iter().filter_map(|message| message["Message"].as_str().map(str::to_owned)).collect()
    }

    /// Reads a JSON document about the emulator's state, at a path that AWS doesn't have.
    async fn emulator_json(&self, path: &str) -> Value {
        let response = reqwest::get(format!("{}{path}", self.emulator_url)).await.expect("an answer of the emulator");
        response.json().await.expect("an answer in JSON")
    }
}

/// The value of the first member called `key`, at any level of nested objects.
fn find_member<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let object = value.as_object()?;
    object.get(key).or_else(|| object.values().find_map(|inner| find_member(inner, key)))
}

/// Calls `look` until it returns a value. Panics after [`PATIENCE`].
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "timed out while waiting for {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Runs a make task on the stack of `HOLDFAST_STACK`, as a user would. Returns its output. The task must succeed.
pub async fn make(arguments: &[&str]) -> String {
    let output = try_make(arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a text")
}

/// Runs a make task, which may fail.
pub async fn try_make(arguments: &[&str]) -> Output {
    let mut make = Command::new("make");
    make.arg("--silent").args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    // Cargo has set these variables for this test. If `make` passed them on to
    // another Cargo, that Cargo would compile everything again.
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_"];
    for (name, _) in std::env::vars().filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix))) {
        make.env_remove(name);
    }
    make.output().await.expect("make runs")
}

/// A user of the public API.
#[derive(Clone, Debug)]
pub struct Person {
    stack: Stack,
    pub name: String,
    pub email: String,
    pub phone: String,
    password: String,
    /// The user id; empty until the person has a profile.
    pub id: String,
    /// The ID token; none until the person has signed in.
    pub token: Option<String>,
}

impl Person {
    /// Gets a fresh ID token from the user pool, as a browser would.
    pub async fn sign_in(&mut self) {
        let tokens = self.tokens().await;
        self.token = Some(tokens["IdToken"].as_str().expect("an ID token").to_owned());
    }

    /// Fresh tokens of all kinds from the user pool.
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

    /// Fetches an access token. The API refuses it: an access token says what its
    /// bearer may do, but the API must know who the bearer is.
    pub async fn access_token(&self) -> String {
        self.tokens().await["AccessToken"].as_str().expect("an access token").to_owned()
    }

    /// The ID token with an invalid signature.
    pub fn forged_token(&self) -> String {
        let token = self.token.as_deref().expect("a token");
        let (rest, _) = token.rsplit_once('.').expect("a token of three parts");
        format!("{rest}.{}", "A".repeat(342))
    }

    /// GET through the public API.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, &[]).await
    }

    /// POST through the public API.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body), &[]).await
    }

    /// Any request through the public API.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>, headers: &[(&str, &str)]) -> Answer {
        self.send_to(&self.stack.api_url, method, path, body, headers).await
    }

    /// A request to the API at the address `base`.
    pub async fn send_to(
        &self,
        base: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.try_send_to(base, method, path, body, headers).await.expect("an answer")
    }

    async fn try_send_to(
        &self,
        base: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> reqwest::Result<Answer> {
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
        Answer::receive(request).await
    }
}

/// The answer to an HTTP request.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Answer {
    async fn receive(request: reqwest::RequestBuilder) -> reqwest::Result<Self> {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Self { status, headers, text: response.text().await? })
    }

    /// The body as JSON; null if the body is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// Asserts the status. Returns the body.
    #[track_caller]
    pub fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    /// Asserts that the request succeeded. Returns the body.
    #[track_caller]
    pub fn expect_success(&self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.text);
        self.json()
    }

    /// Asserts that the response is a problem document with this status and code.
    /// Returns the document.
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
