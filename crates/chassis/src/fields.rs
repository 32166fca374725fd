//! What is wrong with an input, field by field.

use serde::{Deserialize, Serialize};

/// One bad field and why it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "aws", derive(utoipa::ToSchema))]
pub struct FieldError {
    /// Where: a path into the body (`items[0].quantity`), or the name of a
    /// header, path or query parameter.
    pub field: String,
    /// Why, in words for the client's developer.
    pub detail: String,
}

impl FieldError {
    /// An error of `field`.
    pub fn new(field: impl Into<String>, detail: impl ToString) -> Self {
        Self { field: field.into(), detail: detail.to_string() }
    }
}

/// Collects every bad field of an input, so that a client learns of all of
/// them in one answer.
///
/// ```
/// # use chassis::fields::Fields;
/// let mut fields = Fields::default();
/// let age = fields.take("age", "x".parse::<u8>());
/// let size = fields.take("size", "7".parse::<u8>());
/// assert!(age.is_none() && size == Some(7));
/// assert_eq!(fields.errors()[0].field, "age");
/// ```
#[derive(Debug, Default)]
pub struct Fields {
    errors: Vec<FieldError>,
    mentioned: Vec<FieldError>,
}

impl Fields {
    /// The parsed value, or `None` with the reason noted under `field`.
    pub fn take<T, E: std::fmt::Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.refuse(field, error)).ok()
    }

    /// Notes that `field` is bad.
    pub fn refuse(&mut self, field: &str, detail: impl ToString) {
        self.errors.push(FieldError::new(field, detail));
    }

    /// Notes that `field` is bad, too, where others are. By itself it is
    /// refused later, and in another way.
    pub fn mention(&mut self, field: &str, detail: impl ToString) {
        self.mentioned.push(FieldError::new(field, detail));
    }

    /// What was refused so far.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// The whole input, if every part of it was good. `input` must be `Some`
    /// whenever nothing was noted.
    pub fn finish<T>(self, input: Option<T>) -> Result<T, Vec<FieldError>> {
        match input {
            Some(input) if self.errors.is_empty() => Ok(input),
            _ => Err([self.errors, self.mentioned].concat()),
        }
    }
}
