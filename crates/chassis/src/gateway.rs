//! Reads the events of API Gateway and of function URLs, and writes responses in
//! the format of these gateways.
//!
//! An invocation that fails raises an alarm, so no client may be able to make
//! an invocation fail. `lambda_http` reads events into types that cannot hold
//! everything that a client can send: it fails or panics at a control character
//! in a header, at an unusual `Host`, and at members that are null. This module
//! reads each member separately, and a member without a usable value counts as
//! missing.

use std::{borrow::Cow, collections::BTreeMap};

use axum::{body::Body, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt;
use lambda_http::{
    aws_lambda_events::apigw::{
        ApiGatewayProxyRequestContext, ApiGatewayRequestAuthorizer, ApiGatewayRequestAuthorizerIamDescription,
        ApiGatewayRequestAuthorizerJwtDescription, ApiGatewayV2httpRequestContext,
    },
    request::RequestContext,
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::problem::Problem;

/// The error for an event that is not an HTTP request. No client can cause such an
/// event.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEvent {
    /// The event cannot be parsed.
    #[error("the event is no JSON document: {0}")]
    Json(#[from] serde_json::Error),
    /// The event does not come from a gateway.
    #[error("the event is no HTTP request: it names no method")]
    NotHttp,
}

/// The payload format of an event. The response has the same format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadFormat {
    /// The format of REST APIs (1.0).
    V1,
    /// The format of HTTP APIs and of function URLs (2.0).
    V2,
}

/// The reasons why no route can be looked up for a request. The HTTP edge refuses
/// the request with a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unroutable {
    /// The method is not a token (RFC 9110, section 9.1).
    Method,
    /// The target is longer than the crate `http` allows. The gateways' limits are
    /// far lower.
    Target,
    /// There are more headers than the crate `http` allows. The gateways' limits
    /// are far lower.
    Headers,
}

/// Reads an event.
///
/// # Errors
///
/// If the event is no HTTP request.
pub fn read(event: &str) -> Result<(PayloadFormat, Request<Body>), InvalidEvent> {
    let event = document(event)?;
    let context = &event["requestContext"];
    let is_v2 = context["http"].is_object();
    let method = if is_v2 { text(&context["http"]["method"]) } else { v1_method(&event) };
    let method = method.ok_or(InvalidEvent::NotHttp)?;
    let (format, target, context) = if is_v2 {
        (PayloadFormat::V2, v2_target(&event), RequestContext::ApiGatewayV2(v2_context(context)))
    } else {
        (PayloadFormat::V1, v1_target(&event), RequestContext::ApiGatewayV1(v1_context(context)))
    };

    let mut unroutable = None;
    let mut request = Request::new(body(&event));
    match Method::from_bytes(method.as_bytes()) {
        Ok(method) => *request.method_mut() = method,
        Err(_) => unroutable = Some(Unroutable::Method),
    }
    match Uri::try_from(target) {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => unroutable = Some(Unroutable::Target),
    }
    match headers(&event) {
        Some(headers) => *request.headers_mut() = headers,
        None => unroutable = Some(Unroutable::Headers),
    }
    request.extensions_mut().insert(context);
    if let Some(unroutable) = unroutable {
        request.extensions_mut().insert(unroutable);
    }
    Ok((format, request))
}

/// Parses the event. If a client's text is not valid Unicode, a gateway may write
/// one half of a surrogate pair into the event. The JSON parser refuses such a half,
/// so the half is replaced and the event is parsed again.
fn document(event: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(event).or_else(|error| match replace_lone_surrogates(event) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(event) => serde_json::from_str(&event),
    })
}

/// Replaces each half of a surrogate pair that stands alone in the JSON text with
/// U+FFFD.
fn replace_lone_surrogates(json: &str) -> Cow<'_, str> {
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut replaced = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(distance) = json[at..].find('\\') {
        at += distance;
        let length = match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                replaced.push_str(&json[copied..at]);
                replaced.push_str("\\ufffd");
                copied = at + 6;
                6
            }
            // This is another escape. The character after the `\` is skipped,
            // because it may be a `\`, too.
            _ => 1 + json[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
        at += length;
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    replaced.push_str(&json[copied..]);
    Cow::Owned(replaced)
}

/// Returns the value of a member as a text, if it is a text, a number or a boolean.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(_) | Value::Bool(_) => Some(Cow::Owned(value.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn v1_method(event: &Value) -> Option<Cow<'_, str>> {
    text(&event["httpMethod"]).or_else(|| text(&event["requestContext"]["httpMethod"]))
}

fn v1_target(event: &Value) -> String {
    let path = text(&event["path"]).unwrap_or_default();
    let query = pairs(&event["multiValueQueryStringParameters"], &event["queryStringParameters"]);
    target(&path, text(&event["resource"]).as_deref(), &form_encoded(&query))
}

fn v2_target(event: &Value) -> String {
    let context = &event["requestContext"];
    let path = text(&event["rawPath"]).or_else(|| text(&context["http"]["path"])).unwrap_or_default();
    let route = text(&event["routeKey"]).or_else(|| text(&context["routeKey"]));
    let route = route.as_deref().and_then(|key| Some(key.split_once(' ')?.1));
    let query = match text(&event["rawQueryString"]) {
        Some(query) => escaped(&query, |byte| byte == b'%' || b"!$&'()*+,;=:@/?".contains(&byte)),
        None => form_encoded(&pairs(&Value::Null, &event["queryStringParameters"])),
    };
    target(&path, route, &query)
}

fn form_encoded(pairs: &[(&str, Cow<'_, str>)]) -> String {
    let mut query = String::new();
    for pair in pairs {
        // Serialising two texts never fails.
        let pair = serde_urlencoded::to_string([pair]).unwrap_or_default();
        query.extend((!query.is_empty()).then_some('&'));
        query.push_str(&pair);
    }
    query
}

/// Returns the target with which the router looks up the route.
///
/// Some gateways decode the path, and some don't. So this function does not
/// decode the path: a `%` that the gateway sends is a part of a segment, like
/// every other character. This does no harm, because no valid path of the API
/// contains an escaped character.
///
/// If a gateway decodes an escaped slash, one segment becomes two. The gateway
/// chooses its route, and checks the caller's rights for this route, before it
/// decodes the path. So the path must also fit the gateway's route.
fn target(path: &str, route: Option<&str>, query: &str) -> String {
    if !path.starts_with('/') || !route.is_none_or(|route| fits(route, path)) {
        // No service has a route for `/`, so the response is 404.
        return "/".to_owned();
    }
    let path = escaped(path, |byte| byte == b'/');
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

/// Returns whether a gateway's route, such as `/orders/{id}`, fits a path.
fn fits(route: &str, path: &str) -> bool {
    // A route such as `/{proxy+}` fits every path, and the function chooses the route.
    if route.contains("+}") {
        return true;
    }
    let (mut route, mut path) = (route.split('/'), path.split('/'));
    loop {
        match (route.next(), path.next()) {
            (None, None) => return true,
            (Some(part), Some(segment)) if part == segment || part.starts_with('{') => {}
            _ => return false,
        }
    }
}

/// Escapes all bytes of the text with `%`, except for the unreserved bytes (RFC
/// 3986, section 2.3) and the bytes that are `also_plain`.
fn escaped(text: &str, also_plain: impl Fn(u8) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also_plain(byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Returns the names and values of headers or parameters. The event of a REST API
/// contains each name twice: once with all values, and once with one value.
fn pairs<'e>(all_values: &'e Value, one_value: &'e Value) -> Vec<(&'e str, Cow<'e, str>)> {
    let members = |value: &'e Value| value.as_object().into_iter().flat_map(Map::iter);
    let mut pairs = Vec::new();
    for (name, values) in members(all_values) {
        let values = values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice);
        pairs.extend(values.iter().filter_map(|value| Some((name.as_str(), text(value)?))));
    }
    let known: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
    let missing = members(one_value).filter(|(name, _)| !known.iter().any(|known| known.eq_ignore_ascii_case(name)));
    let missing: Vec<_> = missing.filter_map(|(name, value)| Some((name.as_str(), text(value)?))).collect();
    pairs.extend(missing);
    pairs
}

/// Returns the headers, or `None` if there are too many.
fn headers(event: &Value) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs(&event["multiValueHeaders"], &event["headers"]) {
        // A header whose name is not a token is left out: no code reads such a header.
        let Ok(name) = HeaderName::from_bytes(name.trim().as_bytes()) else { continue };
        headers.try_append(name, header_value(&value)?).ok()?;
    }
    Some(headers)
}

/// Replaces control characters in a header's value with U+FFFD, so that the value
/// is still invalid and later code can refuse it. If the header were left out, a
/// request could lose its `If-Match` or its `Idempotency-Key`, and take effect
/// although it must not.
fn header_value(value: &str) -> Option<HeaderValue> {
    let value = value.replace(|c: char| c.is_control() && c != '\t', "\u{fffd}");
    HeaderValue::try_from(value.into_bytes()).ok()
}

/// The error for a body that is not Base64, although the event says that it is.
#[derive(Debug, thiserror::Error)]
#[error("the body is not Base64")]
struct NotBase64;

fn body(event: &Value) -> Body {
    let body = text(&event["body"]).unwrap_or_default();
    if event["isBase64Encoded"] != Value::Bool(true) {
        return Body::from(body.into_owned());
    }
    match STANDARD.decode(body.as_bytes()) {
        Ok(body) => Body::from(body),
        // Code that reads the body gets this error, and refuses the request.
        Err(_) => Body::from_stream(futures::stream::iter([Err::<Bytes, _>(NotBase64)])),
    }
}

fn owned(value: &Value) -> Option<String> {
    text(value).map(Cow::into_owned)
}

fn v1_context(context: &Value) -> ApiGatewayProxyRequestContext {
    let mut read = ApiGatewayProxyRequestContext::default();
    read.request_id = owned(&context["requestId"]);
    read.identity.user_arn = owned(&context["identity"]["userArn"]);
    let authorizer = context["authorizer"].as_object().into_iter().flatten();
    read.authorizer.fields = authorizer.map(|(name, value)| (name.clone(), value.clone())).collect();
    read
}

fn v2_context(context: &Value) -> ApiGatewayV2httpRequestContext {
    let mut read = ApiGatewayV2httpRequestContext::default();
    read.request_id = owned(&context["requestId"]);
    let mut authorizer = ApiGatewayRequestAuthorizer::default();
    if let Some(claims) = context["authorizer"]["jwt"]["claims"].as_object() {
        let mut jwt = ApiGatewayRequestAuthorizerJwtDescription::default();
        jwt.claims = claims.iter().map(|(name, value)| (name.clone(), claim(value))).collect();
        authorizer.jwt = Some(jwt);
    }
    if let Some(arn) = owned(&context["authorizer"]["iam"]["userArn"]) {
        let mut iam = ApiGatewayRequestAuthorizerIamDescription::default();
        iam.user_arn = Some(arn);
        authorizer.iam = Some(iam);
    }
    read.authorizer = Some(authorizer);
    read
}

fn claim(value: &Value) -> String {
    owned(value).unwrap_or_else(|| value.to_string())
}

/// A response in the format of the gateway.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    status_code: u16,
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    multi_value_headers: BTreeMap<String, Vec<String>>,
    /// `cargo lambda watch` requires this member, even if there are no cookies.
    #[serde(skip_serializing_if = "Option::is_none")]
    cookies: Option<[String; 0]>,
    body: String,
    is_base64_encoded: bool,
}

impl Answer {
    /// Converts a response to the payload format of the event that it answers.
    pub async fn of(response: Response, format: PayloadFormat) -> Self {
        let (parts, body) = response.into_parts();
        let mut status = parts.status;
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                let problem = Problem::internal(error);
                tracing::error!(cause = ?problem.cause(), "the answer's body could not be written");
                status = problem.status();
                problem.render("").into()
            }
        };
        let mut values = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in &parts.headers {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            values.entry(name.as_str().to_owned()).or_default().push(value);
        }
        let (body, is_base64_encoded) = match String::from_utf8(body.into()) {
            Ok(text) => (text, false),
            Err(error) => (STANDARD.encode(error.as_bytes()), true),
        };
        let mut answer = Self {
            status_code: status.as_u16(),
            headers: BTreeMap::new(),
            multi_value_headers: BTreeMap::new(),
            cookies: None,
            body,
            is_base64_encoded,
        };
        match format {
            // If a header were in both members, a REST API would send it
            // twice.
            PayloadFormat::V1 => answer.multi_value_headers = values,
            PayloadFormat::V2 => {
                answer.cookies = Some([]);
                answer.headers = values.into_iter().map(|(name, values)| (name, values.join(", "))).collect();
            }
        }
        answer
    }
}
