//! The conversion of the service's errors into problem documents (RFC 9457).

use axum::http::StatusCode;
use chassis::problem::Problem;

use crate::service::UserError;

pub(crate) const EMAIL_NOT_VERIFIED: &str = "must be the e-mail address that you verified when you signed up";

impl From<UserError> for Problem {
    fn from(error: UserError) -> Self {
        let conflict = |code, detail: &str| Problem::new(StatusCode::CONFLICT, code, detail);
        match error {
            UserError::NotFound => Problem::not_found("user"),
            UserError::Exists => conflict("user_exists", "You already have a profile."),
            UserError::EmailTaken => conflict("email_taken", "Another user has this e-mail address."),
            UserError::Inactive => conflict("user_inactive", "This user was deactivated."),
            UserError::EmailNotVerified => Problem::invalid_field("email", EMAIL_NOT_VERIFIED),
            UserError::TokenOutdated => Problem::invalid_field(
                "email",
                "must be the e-mail address that you verified last; your token is older, so sign in again",
            ),
            UserError::Explanation(detail) => Problem::invalid_field("reason", detail),
            UserError::Contended => Problem::contended(error),
            UserError::Publish(_) => Problem::unavailable(error),
            UserError::Store(error) => error.into(),
        }
    }
}
