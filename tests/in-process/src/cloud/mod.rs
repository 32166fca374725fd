//! Replaces everything outside the services: DynamoDB (an embedded database
//! with DynamoDB's semantics), SQS, SES and SNS (stand-ins that keep every
//! message sent to them), the user pool's keys, and the network between the
//! services.

mod call;
mod capacity;
mod contention;
mod dynamodb;
mod faults;
mod lines;
mod mail;
mod queue;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aws_smithy_runtime_api::{
    client::{
        connection::{CaptureSmithyConnection, ConnectionMetadata},
        http::{HttpConnector, HttpConnectorFuture},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use axum::{Router, body::Body};
use bytes::Bytes;
pub use capacity::{Capacity, MeteredRequest};
pub use contention::{ContentionCounts, READ_UNITS, Timing, WRITE_UNITS};
pub use faults::HostFault;
use http_body_util::BodyExt;
pub use queue::Message;
use serde_json::{Value, json};
use tower::ServiceExt;

use self::{
    call::Call, contention::Contention, dynamodb::Dynamodb, faults::Faults, lines::Lines, mail::Mail, queue::Queues,
};
use crate::{
    permissions::{GRANTED, Permission},
    world,
};

/// The end of the host name of each service, as in `http://users.internal`.
pub const INTERNAL: &str = ".internal";

/// Everything outside the services. All clones share one state.
#[derive(Clone)]
pub struct Cloud(Arc<Inner>);

struct Inner {
    dynamodb: Dynamodb,
    contention: Contention,
    queues: Queues,
    mail: Mail,
    faults: Faults,
    services: Mutex<HashMap<&'static str, Router>>,
    /// The user pool's key set, and the number of times that the key set was
    /// fetched.
    keys: Mutex<(Value, usize)>,
    /// The permissions that calls have needed so far.
    permissions: Mutex<BTreeSet<Permission>>,
    exchanges: Mutex<Vec<Exchange>>,
    lines: Lines,
    /// The host of each connection that its caller has given up.
    abandoned: Mutex<Vec<String>>,
}

/// A request from one service to another, with its response.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The service that received the request.
    pub service: String,
    pub method: http::Method,
    pub path: String,
    /// The body of the request; null if the request has no body.
    pub request: Value,
    pub status: u16,
    /// The body of the response.
    pub answer: Value,
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
    /// A cloud that has the template's tables, all of them empty.
    pub fn start() -> Self {
        Self(Arc::new(Inner {
            dynamodb: Dynamodb::start(),
            contention: Contention::default(),
            queues: Queues::default(),
            mail: Mail::default(),
            faults: Faults::default(),
            services: Mutex::default(),
            keys: Mutex::default(),
            permissions: Mutex::default(),
            exchanges: Mutex::default(),
            lines: Lines::default(),
            abandoned: Mutex::default(),
        }))
    }

    /// Makes a service reachable for the other services under `name`.
    pub fn serve(&self, name: &'static str, router: Router) {
        lock(&self.0.services).insert(name, router);
    }

    /// Removes all services. The services and the cloud refer to each other; if
    /// the cloud kept the services, neither would ever be dropped.
    pub(crate) fn close(&self) {
        lock(&self.0.services).clear();
    }

    /// The router of a service.
    pub fn service(&self, name: &str) -> Router {
        lock(&self.0.services).get(name).cloned().unwrap_or_else(|| panic!("no service {name}"))
    }

    /// The requests between services so far, with their responses.
    pub fn exchanges(&self) -> Vec<Exchange> {
        lock(&self.0.exchanges).clone()
    }

    /// The host of each connection that its caller has given up, oldest first.
    pub fn abandoned_connections(&self) -> Vec<String> {
        lock(&self.0.abandoned).clone()
    }

    /// Replaces the key set that the user pool publishes.
    pub fn publish_keys(&self, key_set: Value) {
        lock(&self.0.keys).0 = key_set;
    }

    /// The number of times that the key set was fetched.
    pub fn key_fetches(&self) -> usize {
        lock(&self.0.keys).1
    }

    /// All permissions that functions have needed so far, including permissions
    /// that no role grants.
    pub fn used_permissions(&self) -> BTreeSet<Permission> {
        lock(&self.0.permissions).clone()
    }

    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let call = Call::read(request).await?;
        self.connect(&call);
        if let Some(denial) = self.denial(&call) {
            return Ok(json_response((403, denial.to_string())));
        }
        self.perform_in_trial(call).await
    }

    /// Gives the caller a connection. When the caller gives up the connection,
    /// so that it is never used again, records the host.
    fn connect(&self, call: &Call) {
        let Some(caller) = call.parts.extensions.get::<CaptureSmithyConnection>() else { return };
        let (cloud, host) = (self.clone(), call.host.clone());
        caller.set_connection_retriever(move || {
            let (cloud, host) = (cloud.clone(), host.clone());
            let poison = move || lock(&cloud.0.abandoned).push(host.clone());
            Some(ConnectionMetadata::builder().proxied(false).poison_fn(poison).build())
        });
    }

    /// The error response of AWS; `None` if the role of the calling function
    /// allows the call.
    fn denial(&self, call: &Call) -> Option<Value> {
        let needed = call.permissions();
        let missing = needed.iter().find(|permission| !GRANTED.contains(permission));
        let message = missing.map(|missing| format!("no role allows {missing}"));
        lock(&self.0.permissions).extend(needed);
        Some(json!({ "__type": "AccessDeniedException", "message": message? }))
    }

    /// Executes a call that no fault has prevented.
    async fn execute(&self, call: Call) -> Result<HttpResponse, ConnectorError> {
        let is_dynamodb = call.is_dynamodb();
        let Call { caller, host, operation, parts, body } = call;
        if is_dynamodb {
            return Ok(json_response(self.execute_in_dynamodb(operation, body.to_vec()).await));
        }
        self.travel(&host).await;
        if let Some(service) = host.strip_suffix(INTERNAL) {
            return self.call_service(caller, service, parts, body).await;
        }
        if host.starts_with("sqs") && operation == "SendMessage" {
            return Ok(json_response(self.0.queues.send_message(&body)));
        }
        if host.starts_with("email") && parts.uri.path() == "/v2/email/outbound-emails" {
            return Ok(json_response(self.0.mail.send_email(&body)));
        }
        if host.starts_with("sns") {
            return Ok(self.0.mail.publish(&body));
        }
        if host == world::POOL {
            let mut keys = lock(&self.0.keys);
            keys.1 += 1;
            return Ok(json_response((200, keys.0.to_string())));
        }
        panic!("no service or stand-in answers {} {}", parts.method, parts.uri);
    }

    async fn call_service(
        &self,
        caller: Option<&'static str>,
        name: &str,
        parts: http::request::Parts,
        body: Bytes,
    ) -> Result<HttpResponse, ConnectorError> {
        let router = self.service(name);
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let asked = serde_json::from_slice(&body).unwrap_or_default();
        assert!(parts.headers.contains_key("authorization"), "calls between services are signed");
        let mut request = http::Request::from_parts(parts, Body::from(body));
        *request.uri_mut() =
            request.uri().path_and_query().map(ToString::to_string).unwrap_or_default().parse().expect("a path");
        // Only the flow with which the benchmark compares calls services outside of
        // all functions. It reads the open catalogue without an identity, and calls
        // the other routes as the order worker.
        let caller = caller.or((method == http::Method::POST).then_some("order-worker"));
        if let Some(caller) = caller {
            request.extensions_mut().insert(world::url_context(&world::session(caller)));
        }
        let function = lock(&self.0.services).get_key_value(name).map(|(function, _)| *function);
        let function = function.unwrap_or_else(|| panic!("no service {name}"));
        request.extensions_mut().insert(world::lambda_context(function));
        let answer = self.start_function(function).run(router.oneshot(request)).await;
        // The function URL's response if the function crashes.
        let Ok(answer) = answer else {
            return Ok(json_response((502, "Internal Server Error".into())));
        };
        let (parts, body) = answer.unwrap_or_else(|never| match never {}).into_parts();
        let body = body.collect().await.map_err(|e| ConnectorError::other(e.into(), None))?.to_bytes();
        lock(&self.0.exchanges).push(Exchange {
            service: name.to_owned(),
            method,
            path,
            request: asked,
            status: parts.status.as_u16(),
            answer: serde_json::from_slice(&body).unwrap_or_default(),
        });
        let response = http::Response::from_parts(parts, SdkBody::from(body.to_vec()));
        HttpResponse::try_from(response).map_err(|e| ConnectorError::other(e.into(), None))
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
