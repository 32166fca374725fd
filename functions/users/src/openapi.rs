//! The OpenAPI schemas of this service's values, and the problems with which each public route can respond.

use chassis::{
    openapi::{self, one_of},
    page::{InvalidCursor, ListError},
    problem::Problem,
    problems, schema,
};
use strum::VariantArray;

use crate::{
    domain::{ActionKind, MAX_NAME, Name},
    service::UserError,
};

schema!(
    Name,
    "UserName",
    openapi::line(MAX_NAME, "Ada Lovelace", "The name with which the shop addresses the person: one line of text.")
);

schema!(ActionKind, "UserActionKind", one_of(ActionKind::VARIANTS.iter().map(<&str>::from)));

problems! {
    ListingActions: [ListError::Cursor(InvalidCursor)];
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
