//! Errors as the page shows them: what is wrong, and what to do.

use axum::{
    Json,
    extract::rejection::{JsonRejection, QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::weather::{Refused, control::Failure};

#[derive(Clone, Debug)]
pub struct Problem {
    pub status: StatusCode,
    title: String,
    what_to_do: String,
}

impl Problem {
    pub fn new(status: StatusCode, title: impl Into<String>, what_to_do: impl Into<String>) -> Self {
        Self { status, title: title.into(), what_to_do: what_to_do.into() }
    }

    pub fn forbidden(reason: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, reason, "Open the address that `make console` prints.")
    }

    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("There is no such {what}."), "Check the id, or choose from the list.")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "title": self.title, "what_to_do": self.what_to_do }))).into_response()
    }
}

/// The stack did not answer, or answered something unexpected. The page gets no details, the
/// terminal gets all.
impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        eprintln!("console: {error:#}");
        Self::new(
            StatusCode::BAD_GATEWAY,
            "The shop does not answer.",
            "Look at the terminal of `make console`. If the stack has stopped, `make up` starts it.",
        )
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), "The request is not valid.", rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), "The address is not valid.", rejection.body_text())
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refused) => {
                let (status, what_to_do) = match refused {
                    Refused::UnknownTarget => (StatusCode::UNPROCESSABLE_ENTITY, "Choose a target from the list."),
                    Refused::BadDuration => (StatusCode::UNPROCESSABLE_ENTITY, "Choose another duration."),
                    Refused::ActiveAlready => (StatusCode::CONFLICT, "Clear it first, or wait until it is over."),
                };
                Self::new(status, sentence(&refused.to_string()), what_to_do)
            }
            Failure::Unavailable(reason) => {
                Self::new(StatusCode::CONFLICT, "This weather cannot be made here.", reason)
            }
            Failure::Stack(error) => error.into(),
        }
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).chain(['.']).collect()
}

pub async fn unknown_address() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "There is nothing at this address.", "Open the console at its first page: /")
}

pub async fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "This address has no such method.", "See docs/console.md.")
}
