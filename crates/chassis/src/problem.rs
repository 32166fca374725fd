//! Error responses: problem documents (RFC 9457).

use std::error::Error as StdError;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{fields::FieldError, page::ListError, store::StoreError};

/// An error as the client sees it, and its cause, which only the log shows.
///
/// Handlers return a problem. The HTTP edge, which knows the request id,
/// renders the problem and logs the cause.
#[derive(Debug)]
pub struct Problem(Box<Inner>);

/// The content of a problem, which is boxed so that a handler's `Result` stays
/// small.
#[derive(Debug)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    members: Map<String, Value>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

/// An error (RFC 9457). With some codes, the document has additional members.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Document<'a> {
    /// Always `about:blank`, because `code` names the kind of error.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The HTTP status in words.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// The kind of error, for programs. It is stable.
    code: &'static str,
    /// The error in words for people. The words may change.
    detail: &'a str,
    /// The id of the request that met the error. Name this id when you ask for help.
    instance: &'a str,
    /// One entry for each invalid field.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(flatten)]
    #[schema(ignore)]
    members: &'a Map<String, Value>,
}

impl Problem {
    /// A problem with a stable `code` for programs and a `detail` for people.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            members: Map::new(),
            headers: Vec::new(),
            cause: None,
        }))
    }

    /// 422: the request can be read, but some fields are not valid.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let names: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        let mut problem =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", format!("Not valid: {}", names.join(", ")));
        problem.0.errors = errors;
        problem
    }

    /// 422: one field is not valid.
    pub fn invalid_field(field: &str, detail: impl ToString) -> Self {
        Self::invalid(vec![FieldError::new(field, detail)])
    }

    /// 401: nobody is signed in.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403: the caller is signed in, but not entitled.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: the resource doesn't exist, or it belongs to another person. Both
    /// cases have the same response, so that the caller can't find out whether
    /// another person's resource exists.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("There is no such {what}."))
    }

    /// 500: an error of the service. The log shows `cause` with the request id;
    /// the client never sees it.
    pub fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let mut problem = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "Something went wrong on our side. Whether the request took effect is not known.",
        );
        problem.0.cause = Some(cause.into());
        problem
    }

    /// 503: a dependency doesn't answer. The client may repeat the request
    /// after a pause, if a repeat is safe.
    pub fn unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "A part of the system does not answer at the moment. Whether the request took effect is not known; what \
             must not take effect twice may be repeated under its Idempotency-Key.",
        )
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("2"));
        problem.0.cause = Some(cause.into());
        problem
    }

    /// 409: concurrent requests are writing the same items. The client may
    /// repeat the request after a pause.
    ///
    /// The status is not 5xx, because nothing has failed: too many responses
    /// with 5xx raise an alarm, which rolls a deployment back.
    pub fn contended(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let mut problem = Self::new(
            StatusCode::CONFLICT,
            CONTENDED,
            "Others are changing the same at this moment. Repeat the request in a second.",
        )
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"));
        problem.0.cause = Some(cause.into());
        problem
    }

    /// 503: a part of the system is at the limit of its throughput. The client
    /// may repeat the request after a pause, if a repeat is safe.
    pub fn throttled(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            THROTTLED,
            "A part of the system has too much to do at the moment. Repeat the request in a few seconds.",
        )
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("2"));
        problem.0.cause = Some(cause.into());
        problem
    }

    /// Adds an extension member (RFC 9457, section 3.2).
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(member.to_owned(), value.into());
        self
    }

    /// Adds a response header.
    #[must_use]
    pub fn with_header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Returns the code for programs.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// Returns the words for people.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Returns whether the problem names fields that are not valid.
    pub fn has_errors(&self) -> bool {
        !self.0.errors.is_empty()
    }

    /// Returns the extension members.
    pub fn members(&self) -> &Map<String, Value> {
        &self.0.members
    }

    /// Returns the problem's own headers.
    pub fn headers(&self) -> &[(header::HeaderName, HeaderValue)] {
        &self.0.headers
    }

    /// Returns the cause, which the client does not see.
    pub fn cause(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.0.cause.as_deref()
    }

    /// Renders the document; `instance` is the request id.
    pub fn render(&self, instance: &str) -> String {
        let document = Document {
            kind: "about:blank",
            title: self.0.status.canonical_reason().unwrap_or("Error"),
            status: self.0.status.as_u16(),
            code: self.0.code,
            detail: &self.0.detail,
            instance,
            errors: &self.0.errors,
            members: &self.0.members,
        };
        serde_json::to_string(&document).expect("a document of strings and JSON values can be written")
    }

    /// Builds the response; `instance` is the request id.
    pub fn respond(self, instance: &str) -> Response {
        let mut response = (self.0.status, self.render(instance)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        headers.extend(self.0.headers);
        response
    }
}

/// The code of [`Problem::contended`].
pub const CONTENDED: &str = "contended";
/// The code of [`Problem::throttled`].
pub const THROTTLED: &str = "throttled";

/// The media type of problem documents.
pub const CONTENT_TYPE: &str = "application/problem+json";

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { .. } => Self::internal(error),
            StoreError::Unavailable { .. } => Self::unavailable(error),
            StoreError::Contended { .. } => Self::contended(error),
            StoreError::Throttled { .. } => Self::throttled(error),
        }
    }
}

impl From<ListError> for Problem {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Cursor(error) => {
                let mut problem = Self::new(StatusCode::BAD_REQUEST, "invalid_cursor", format!("`cursor` {error}."));
                problem.0.errors.push(FieldError::new("cursor", error));
                problem
            }
            ListError::Store(error) => error.into(),
        }
    }
}

/// A problem that a handler has returned, until the HTTP edge renders the problem.
#[derive(Clone)]
pub(crate) struct PendingProblem(std::sync::Arc<std::sync::Mutex<Option<Problem>>>);

impl PendingProblem {
    pub(crate) fn take(&self) -> Option<Problem> {
        self.0.lock().ok()?.take()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(PendingProblem(std::sync::Arc::new(std::sync::Mutex::new(Some(self)))));
        response
    }
}

/// A problem document that another service sent.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RemoteProblem {
    /// The stable code.
    #[serde(default)]
    pub code: String,
    /// The words for people.
    #[serde(default)]
    pub detail: String,
    /// All other members.
    #[serde(flatten)]
    pub members: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::Problem;

    #[test]
    fn the_cause_is_never_rendered() {
        let text = Problem::internal("password=hunter2").render("r-1");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("\"instance\":\"r-1\""), "{text}");
    }

    #[test]
    fn each_invalid_field_has_an_entry_of_its_own() {
        let problem = Problem::invalid(vec![
            crate::fields::FieldError::new("items[0].quantity", "must be at least 1"),
            crate::fields::FieldError::new("currency", "must be a currency"),
        ]);
        let document: serde_json::Value = serde_json::from_str(&problem.render("r-1")).unwrap();
        assert_eq!(document["status"], 422);
        assert_eq!(document["errors"][0]["field"], "items[0].quantity");
        assert_eq!(document["errors"][1]["field"], "currency");
    }
}
