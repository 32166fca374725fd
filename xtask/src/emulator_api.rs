//! Calls AWS services on an emulator in AWS's JSON protocol.
//!
//! The AWS CLI would be too slow: it starts Python for each call, and `make logs` makes
//! several calls a second. The requests have no valid signature: an emulator
//! accepts the access key `test` without one.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{
    http::{self, TIMEOUT},
    stack::Stack,
};

/// No function runs for longer than a minute.
const INVOCATION_TIMEOUT: Duration = Duration::from_secs(90);

pub struct Service {
    /// The service's name in the scope of a signature.
    name: &'static str,
    /// The text before the action's name in the header `X-Amz-Target`.
    target: &'static str,
    content_type: &'static str,
}

pub const COGNITO: Service = Service {
    name: "cognito-idp",
    target: "AWSCognitoIdentityProviderService",
    content_type: "application/x-amz-json-1.1",
};
pub const LOGS: Service = Service { name: "logs", target: "Logs_20140328", content_type: "application/x-amz-json-1.1" };
pub const SQS: Service = Service { name: "sqs", target: "AmazonSQS", content_type: "application/x-amz-json-1.0" };

/// Invokes a function with an event, and waits for its response.
pub fn invoke(stack: &Stack, function: &str, event: &Value) -> Result<Value> {
    let credential = format!("Credential=test/20200101/{}/lambda/aws4_request", stack.region);
    let authorization = format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=0");
    let url = format!("{}/2015-03-31/functions/{function}/invocations", stack.emulator_url);
    let response =
        http::send("POST", &url, &[("authorization", &authorization)], Some(event), INVOCATION_TIMEOUT)?.success()?;
    ensure!(response["errorMessage"].is_null(), "{function} failed: {response}");
    Ok(response)
}

impl Service {
    pub fn call(&self, stack: &Stack, action: &str, request: &Value) -> Result<Value> {
        let credential = format!("Credential=test/20200101/{}/{}/aws4_request", stack.region, self.name);
        let headers = [
            ("content-type", self.content_type),
            ("x-amz-target", &format!("{}.{action}", self.target)),
            ("authorization", &format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=0")),
        ];
        http::send("POST", &stack.emulator_url, &headers, Some(request), TIMEOUT)?.success()
    }
}
