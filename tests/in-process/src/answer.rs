//! An HTTP response, with assertions for tests.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The response's body.
    pub text: String,
}

impl Answer {
    /// The response's body as JSON; null if the body is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Asserts that the response has this status. Returns its body as JSON.
    #[track_caller]
    pub fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    /// Asserts that the response is a well-formed problem document with this
    /// status and code. Returns the document.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let document = self.json();
        assert_eq!(document["code"], code, "{}", self.text);
        assert_eq!(document["status"], status, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(document["instance"].as_str(), self.header("x-request-id"), "{}", self.text);
        document
    }

    /// Asserts that the response has status 422 and reports errors in exactly
    /// these fields, in this order.
    #[track_caller]
    pub fn expect_bad_fields(&self, fields: &[&str]) {
        assert_eq!(self.bad_fields(), fields, "{}", self.text);
    }

    /// Asserts that the response has status 422. Returns the names of the
    /// fields in which it reports errors.
    #[track_caller]
    pub fn bad_fields(&self) -> Vec<String> {
        let document = self.expect_problem(422, "invalid_request");
        let errors = document["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["field"].as_str().expect("a field's name").to_owned()).collect()
    }
}
