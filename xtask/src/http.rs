//! Sends HTTP requests with JSON bodies, to the shop and to an emulator.

use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use serde_json::Value;
use ureq::{Agent, http::Request};

pub const TIMEOUT: Duration = Duration::from_secs(60);

/// An HTTP response. Its status may report a failure.
pub struct Response {
    pub status: u16,
    pub body: Value,
    /// The body as it was received. `body` is parsed, so it has lost the order of JSON
    /// members and trailing zeros of amounts such as `64.50`.
    pub text: String,
    pub took: Duration,
    request: String,
}

pub fn get(url: &str, timeout: Duration) -> Result<Response> {
    send("GET", url, &[], None, timeout)
}

pub fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
    timeout: Duration,
) -> Result<Response> {
    // A response with an error status is returned, too, because its body describes the
    // error. The user's proxy is not used: it cannot reach servers of this machine.
    let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(timeout)).proxy(None);
    let agent: Agent = config.build().into();
    let name = format!("{method} {url}");
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if body.is_some() && !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    let began = Instant::now();
    let response = match body {
        None => request.body(()).map(|request| agent.run(request)),
        Some(body) => request.body(body.to_string()).map(|request| agent.run(request)),
    };
    let response = response.with_context(|| format!("{name} is no valid request"))?;
    let mut response = response.with_context(|| format!("{name} got no response"))?;
    let text = response.body_mut().read_to_string().with_context(|| format!("{name}: the response is incomplete"))?;
    // A body that is not JSON becomes a JSON string.
    let body = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.clone()));
    Ok(Response { status: response.status().as_u16(), body, text, took: began.elapsed(), request: name })
}

impl Response {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns whether the body is the problem document with this code.
    pub fn has_code(&self, code: &str) -> bool {
        self.body["code"] == code
    }

    /// Returns the body, or an error if the status is not 2xx.
    pub fn success(self) -> Result<Value> {
        if self.is_success() { Ok(self.body) } else { Err(self.failure()) }
    }

    /// Formats a problem document (RFC 9457) as a line, followed by a line for each
    /// invalid field.
    fn failure(&self) -> Error {
        let Self { status, body, request, .. } = self;
        let description = match (body["code"].as_str(), body["detail"].as_str()) {
            (Some(code), detail) => format!("{code}. {}", detail.unwrap_or_default()),
            _ => body.to_string(),
        };
        let fields = body["errors"].as_array().into_iter().flatten().map(|error| format!("\n  {error}"));
        anyhow!("{request} was refused with {status}: {description}{}", fields.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_document_becomes_a_readable_error() {
        let body = json!({
            "code": "invalid_request", "detail": "Not valid: name",
            "errors": [{ "field": "name", "detail": "must not be empty" }],
        });
        let (text, request) = (body.to_string(), "POST /users".to_owned());
        let response = Response { status: 422, text, body, took: Duration::ZERO, request };
        assert_eq!(
            response.success().expect_err("a failure").to_string(),
            "POST /users was refused with 422: invalid_request. Not valid: name\n  \
             {\"detail\":\"must not be empty\",\"field\":\"name\"}"
        );
    }
}
