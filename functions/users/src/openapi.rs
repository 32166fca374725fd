//! What the API's document says of this service's values and refusals.

use chassis::{openapi, problem::Problem, problems, schema};

use crate::{
    domain::{MAX_NAME, Name},
    service::UserError,
};

schema!(Name, "UserName", openapi::line(MAX_NAME, "Ada Lovelace", "What to call the person, in one line."));

problems! {
    /// Reading a user.
    Reading: [UserError::NotFound];
    /// Creating one's profile.
    Creating: [UserError::EmailNotVerified, UserError::Exists, UserError::EmailTaken, UserError::Inactive, Problem::contended("a sample")];
    /// Changing a profile.
    Changing: [
        UserError::EmailNotVerified, UserError::NotFound, UserError::EmailTaken, UserError::Inactive,
        Problem::contended("a sample"),
    ];
    /// Deactivating a user.
    Deactivating: [UserError::NotFound, Problem::contended("a sample")];
}
