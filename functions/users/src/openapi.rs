//! The OpenAPI schemas of this service's values, and the problems with which each public route can respond.

use chassis::{openapi, problem::Problem, problems, schema};

use crate::{
    domain::{MAX_NAME, Name},
    service::UserError,
};

schema!(
    Name,
    "UserName",
    openapi::line(MAX_NAME, "Ada Lovelace", "The name with which the shop addresses the person: one line of text.")
);

problems! {
    Reading: [UserError::NotFound];
    Creating: [
        UserError::EmailNotVerified, UserError::Exists, UserError::EmailTaken, UserError::Inactive,
        Problem::contended("a sample"),
    ];
    Changing: [
        UserError::EmailNotVerified, UserError::NotFound, UserError::EmailTaken, UserError::Inactive,
        Problem::contended("a sample"),
    ];
    Deactivating: [UserError::NotFound, Problem::contended("a sample")];
}
