//! A call that a function makes to AWS or to another service.

use aws_smithy_runtime_api::client::{orchestrator::HttpRequest, result::ConnectorError};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;

use super::{INTERNAL, queue};
use crate::{
    fault::{CallKind, FaultPoint},
    permissions::{self, Permission},
    running_function::RunningFunction,
};

#[derive(Clone)]
pub(super) struct Call {
    /// The function that makes the call; `None` if no function makes the call.
    /// A call that arrives late has its caller still, although the caller no
    /// longer runs.
    pub(super) caller: Option<&'static str>,
    pub(super) host: String,
    /// The operation in the header `x-amz-target`, which only calls to DynamoDB
    /// and SQS have; empty for all other calls.
    pub(super) operation: String,
    pub(super) parts: http::request::Parts,
    pub(super) body: Bytes,
}

impl Call {
    pub(super) async fn read(request: HttpRequest) -> Result<Self, ConnectorError> {
        let request = request.try_into_http1x().map_err(|e| ConnectorError::other(e.into(), None))?;
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|e| ConnectorError::other(e, None))?.to_bytes();
        let host = parts.uri.host().unwrap_or_default().to_owned();
        let target = parts.headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let caller = RunningFunction::current().map(|function| function.name);
        Ok(Self { caller, host, operation, parts, body })
    }

    pub(super) fn is_dynamodb(&self) -> bool {
        self.host.starts_with("dynamodb")
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The permissions that the calling function needs for this call.
    pub(super) fn permissions(&self) -> Vec<Permission> {
        let Some(RunningFunction { name: function, .. }) = RunningFunction::current() else { return Vec::new() };
        let needed = match self.host.split('.').next() {
            Some("dynamodb") => permissions::of_dynamodb(&self.operation, &self.json()),
            Some("sqs") => {
                let queue =
                    if queue::is_user_events_queue(&self.json()) { "UserEventsQueue" } else { "OrderEventsQueue" };
                vec![(format!("sqs:{}", self.operation), queue.to_owned())]
            }
            // SES also requires the right to use the identity's default
            // configuration set.
            Some("email") => {
                ["identity/*", "configuration-set/*"].map(|of| ("ses:SendEmail".to_owned(), of.to_owned())).into()
            }
            Some("sns") => vec![("sns:Publish".to_owned(), "*".to_owned())],
            // The URL requires both actions, and the function then requires that the
            // template lets the role call the route.
            _ if self.host.ends_with(INTERNAL) => {
                let service = self.host.strip_suffix(INTERNAL).unwrap_or_default();
                let alias = format!("{}{}.Alias", service[..1].to_uppercase(), &service[1..]);
                let route = permissions::route(self.parts.method.as_str(), self.parts.uri.path());
                vec![
                    ("lambda:InvokeFunctionUrl".to_owned(), alias.clone()),
                    ("lambda:InvokeFunction".to_owned(), alias),
                    (permissions::CALL.to_owned(), route),
                ]
            }
            // Fetching the public keys of the user pool needs no permission.
            _ => Vec::new(),
        };
        needed.iter().map(|(action, resource)| Permission::new(function, action, resource)).collect()
    }

    pub(super) fn fault_point(&self) -> FaultPoint {
        let (to, kind) = if self.is_dynamodb() {
            let body = self.json();
            let table = find(&body, "TableName").and_then(Value::as_str).unwrap_or("tables").to_owned();
            let kind = match self.operation.as_str() {
                "GetItem" | "BatchGetItem" | "Query" => CallKind::Read,
                "TransactGetItems" => CallKind::TransactionalRead,
                _ => CallKind::TableWrite,
            };
            (format!("{} {table}", self.operation), kind)
        } else if let Some(service) = self.host.strip_suffix(INTERNAL) {
            let verb = self.parts.uri.path().rsplit('/').next().unwrap_or_default();
            let kind = if self.parts.method == http::Method::GET { CallKind::Read } else { CallKind::ServiceWrite };
            (format!("{} {service} {verb}", self.parts.method), kind)
        } else {
            let service = self.host.split('.').next().unwrap_or_default();
            (service.to_owned(), CallKind::ServiceWrite)
        };
        FaultPoint { label: format!("{} → {to}", calling_function()), kind }
    }

    /// Removes the request token of a DynamoDB transaction. DynamoDB remembers
    /// a token for ten minutes. To DynamoDB, a call that arrives later than
    /// that is a new transaction, like a call without a token.
    pub(super) fn remove_request_token(&mut self) {
        if !self.is_dynamodb() {
            return;
        }
        let mut body = self.json();
        if let Some(body) = body.as_object_mut() {
            body.remove("ClientRequestToken");
        }
        self.body = body.to_string().into();
    }
}

/// The name of the function that makes a call.
pub(super) fn calling_function() -> &'static str {
    RunningFunction::current().map_or("nobody", |function| function.name)
}

/// The first value of `key` at any depth of a JSON document.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(object) => object.get(key).or_else(|| object.values().find_map(|inner| find(inner, key))),
        Value::Array(list) => list.iter().find_map(|inner| find(inner, key)),
        _ => None,
    }
}
