//! Stands in for everything outside the services: DynamoDB (embedded, real
//! semantics), SQS, SES and SNS (they keep what they are sent), and the paths
//! between the services.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use axum::{Router, body::Body};
use bytes::Bytes;
use dynoxide::Database;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{tables, world};

/// The host under which services find each other: `http://users.internal`.
pub const INTERNAL: &str = ".internal";

/// What SES says to an e-mail instead of taking it: status and body.
type MailAnswer = dyn Fn(&Value) -> Option<(u16, Value)> + Send + Sync;

/// Everything outside the services. Clones share it.
#[derive(Clone)]
pub struct Cloud(Arc<Inner>);

struct Inner {
    database: Database,
    services: Mutex<HashMap<&'static str, Router>>,
    queue: Mutex<Vec<String>>,
    mails: Mutex<Vec<Value>>,
    mail_answer: Mutex<Option<Arc<MailAnswer>>>,
    texts: Mutex<Vec<HashMap<String, String>>>,
    down: Mutex<Vec<String>>,
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cloud")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cloud {
    /// With the template's tables, all empty.
    pub fn start() -> Self {
        let database = Database::memory().expect("an in-memory database");
        for request in tables::from_template() {
            database.create_table(serde_json::from_value(request).expect("a CreateTable request")).expect("a table");
        }
        Self(Arc::new(Inner {
            database,
            services: Mutex::default(),
            queue: Mutex::default(),
            mails: Mutex::default(),
            mail_answer: Mutex::default(),
            texts: Mutex::default(),
            down: Mutex::default(),
        }))
    }

    /// Makes a service reachable for the others.
    pub fn serve(&self, name: &'static str, router: Router) {
        lock(&self.0.services).insert(name, router);
    }

    /// A service's routes.
    pub fn service(&self, name: &str) -> Router {
        lock(&self.0.services).get(name).cloned().unwrap_or_else(|| panic!("no service {name}"))
    }

    /// Takes the messages that were sent to the queue so far, oldest first.
    pub fn take_messages(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.0.queue))
    }

    /// Puts a message into the queue.
    pub fn put_message(&self, message: impl Into<String>) {
        lock(&self.0.queue).push(message.into());
    }

    /// Lets `answer` see each e-mail before SES takes it, and answer instead.
    pub fn answer_mail(&self, answer: impl Fn(&Value) -> Option<(u16, Value)> + Send + Sync + 'static) {
        *lock(&self.0.mail_answer) = Some(Arc::new(answer));
    }

    /// The e-mails sent so far, as SES was asked to send them.
    pub fn mails(&self) -> Vec<Value> {
        lock(&self.0.mails).clone()
    }

    /// The text messages sent so far, as SNS was asked to send them.
    pub fn texts(&self) -> Vec<HashMap<String, String>> {
        lock(&self.0.texts).clone()
    }

    /// Lets nothing through to hosts that contain `part` any more.
    pub fn take_down(&self, part: &str) {
        lock(&self.0.down).push(part.to_owned());
    }

    /// Everything is reachable again.
    pub fn bring_back(&self) {
        lock(&self.0.down).clear();
    }

    /// All items of a table, by its logical id.
    pub fn scan(&self, table: &str) -> Vec<Value> {
        let request = serde_json::from_value(json!({ "TableName": table })).expect("a Scan request");
        let response = self.0.database.scan(request).expect("a scan");
        let response = serde_json::to_value(response).expect("a response in JSON");
        response["Items"].as_array().cloned().unwrap_or_default()
    }

    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request.try_into_http1x().map_err(|e| ConnectorError::other(e.into(), None))?;
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|e| ConnectorError::other(e, None))?.to_bytes();
        let host = parts.uri.host().unwrap_or_default().to_owned();
        if lock(&self.0.down).iter().any(|part| host.contains(part)) {
            return Err(ConnectorError::io(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()));
        }
        let target = parts.headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default();
        if let Some(service) = host.strip_suffix(INTERNAL) {
            return self.call_service(service, parts, body).await;
        }
        if host.starts_with("dynamodb") {
            return Ok(json_response(self.dynamodb(operation, &body)));
        }
        if host.starts_with("sqs") && operation == "SendMessage" {
            return Ok(json_response(self.send_message(&body)));
        }
        if host.starts_with("email") && parts.uri.path() == "/v2/email/outbound-emails" {
            return Ok(json_response(self.send_mail(&body)));
        }
        if host.starts_with("sns") {
            return Ok(self.publish(&body));
        }
        panic!("nothing in this world answers {} {}", parts.method, parts.uri);
    }

    async fn call_service(
        &self,
        name: &str,
        parts: http::request::Parts,
        body: Bytes,
    ) -> Result<HttpResponse, ConnectorError> {
        let router = self.service(name);
        assert!(parts.headers.contains_key("authorization"), "calls between services are signed");
        let mut request = http::Request::from_parts(parts, Body::from(body));
        *request.uri_mut() =
            request.uri().path_and_query().map(ToString::to_string).unwrap_or_default().parse().expect("a path");
        request.extensions_mut().insert(world::iam_context());
        let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|e| ConnectorError::other(e.into(), None))?.to_bytes();
        let response = http::Response::from_parts(parts, SdkBody::from(body.to_vec()));
        HttpResponse::try_from(response).map_err(|e| ConnectorError::other(e.into(), None))
    }

    fn dynamodb(&self, operation: &str, body: &[u8]) -> (u16, String) {
        let database = &self.0.database;
        macro_rules! dispatch {
            ($($operation:literal => $method:ident),* $(,)?) => {
                match operation {
                    $($operation => {
                        let request = serde_json::from_slice(body).expect(concat!("a request for ", $operation));
                        match database.$method(request) {
                            Ok(response) => (200, serde_json::to_string(&response).expect("a response in JSON")),
                            Err(error) => (error.status_code(), error.to_json()),
                        }
                    })*
                    other => panic!("{other} is not among the operations that any role allows"),
                }
            };
        }
        dispatch! {
            "GetItem" => get_item,
            "BatchGetItem" => batch_get_item,
            "PutItem" => put_item,
            "UpdateItem" => update_item,
            "DeleteItem" => delete_item,
            "Query" => query,
            "TransactWriteItems" => transact_write_items,
        }
    }

    fn send_message(&self, body: &[u8]) -> (u16, String) {
        let request: Value = serde_json::from_slice(body).expect("a SendMessage request");
        let message = request["MessageBody"].as_str().expect("a message body").to_owned();
        lock(&self.0.queue).push(message);
        (200, json!({ "MessageId": uuid::Uuid::now_v7() }).to_string())
    }

    fn send_mail(&self, body: &[u8]) -> (u16, String) {
        let mail: Value = serde_json::from_slice(body).expect("a SendEmail request");
        let answer = lock(&self.0.mail_answer).clone();
        if let Some((status, body)) = answer.and_then(|answer| answer(&mail)) {
            return (status, body.to_string());
        }
        lock(&self.0.mails).push(mail);
        (200, json!({ "MessageId": uuid::Uuid::now_v7() }).to_string())
    }

    fn publish(&self, body: &[u8]) -> HttpResponse {
        let form = serde_urlencoded::from_bytes::<HashMap<String, String>>(body).expect("a form");
        assert_eq!(form.get("Action").map(String::as_str), Some("Publish"));
        lock(&self.0.texts).push(form);
        let xml = "<PublishResponse><PublishResult><MessageId>m-1</MessageId></PublishResult></PublishResponse>";
        HttpResponse::new(StatusCode::try_from(200).expect("a status"), SdkBody::from(xml))
    }
}

fn json_response((status, body): (u16, String)) -> HttpResponse {
    let status = StatusCode::try_from(status).expect("a status");
    let mut response = HttpResponse::new(status, SdkBody::from(body));
    response.headers_mut().insert("content-type", "application/x-amz-json-1.0");
    response
}

impl HttpConnector for Cloud {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let cloud = self.clone();
        HttpConnectorFuture::new(async move { cloud.answer(request).await })
    }
}
