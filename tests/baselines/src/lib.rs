//! Bare functions with which `make bench` compares the shop's functions.
//!
//! Each program in `bin` makes the calls to AWS that an operation of the shop makes, and
//! does nothing else: it checks neither its input nor its caller, writes no log, and
//! trusts every response. The programs use the SDK as AWS's examples use it. The
//! difference between a function and its baseline is what the shop's own code costs.

use std::collections::HashMap;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_dynamodb::types::AttributeValue;
use lambda_http::{Body, Error, Request, RequestExt, Response};
use serde_json::Value;

/// The SDK's configuration, as AWS's examples load it.
pub async fn aws() -> SdkConfig {
    aws_config::load_defaults(BehaviorVersion::latest()).await
}

/// A text as an attribute of an item.
pub fn string(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// A number as an attribute of an item.
pub fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// The primary key of an item.
pub fn key(pk: impl Into<String>, sk: &str) -> HashMap<String, AttributeValue> {
    HashMap::from([("pk".to_owned(), string(pk)), ("sk".to_owned(), string(sk))])
}

/// The id in a path such as `/users/{id}/validate`.
pub fn id(request: &Request) -> &str {
    request.raw_http_path().split('/').nth(2).unwrap_or_default()
}

/// The body of a request as JSON.
///
/// # Errors
///
/// If the body is no JSON document.
pub fn body(request: &Request) -> Result<Value, Error> {
    Ok(serde_json::from_slice(request.body())?)
}

/// A response with a JSON document as its body.
///
/// # Errors
///
/// If the response cannot be built.
pub fn json(status: u16, document: &Value) -> Result<Response<Body>, Error> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(document.to_string().into())?)
}
