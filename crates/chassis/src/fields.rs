//! The errors of a request's fields.

use serde::{Deserialize, Serialize};

/// One invalid field and the reason why it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "aws", derive(utoipa::ToSchema))]
pub struct FieldError {
    /// The path of a member of the body (`items[0].quantity`), or the name of a
    /// header, path or query parameter.
    pub field: String,
    /// The reason, in words for the client's developer.
    pub detail: String,
}

impl FieldError {
    /// Returns the error `detail` of `field`.
    pub fn new(field: impl Into<String>, detail: impl ToString) -> Self {
        Self { field: field.into(), detail: detail.to_string() }
    }
}

/// Collects the errors of all fields of a request, so that one response names all
/// errors.
///
/// ```
/// # use chassis::fields::Fields;
/// let mut fields = Fields::default();
/// let age = fields.check("age", "x".parse::<u8>());
/// let size = fields.check("size", "7".parse::<u8>());
/// assert!(age.is_none() && size == Some(7));
/// assert_eq!(fields.errors()[0].field, "age");
/// ```
#[derive(Debug, Default)]
pub struct Fields {
    errors: Vec<FieldError>,
    appended: Vec<FieldError>,
}

impl Fields {
    /// Returns the parsed value, or adds the error of `field` and returns
    /// `None`.
    pub fn check<T, E: std::fmt::Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.reject(field, error)).ok()
    }

    /// Adds an error of `field`.
    pub fn reject(&mut self, field: &str, detail: impl ToString) {
        self.errors.push(FieldError::new(field, detail));
    }

    /// Adds an error of `field` that is reported only together with other errors.
    /// If there are no other errors, later code refuses the field with another
    /// problem.
    pub fn append_if_rejected(&mut self, field: &str, detail: impl ToString) {
        self.appended.push(FieldError::new(field, detail));
    }

    /// Returns the errors so far.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// Returns the errors, or the input if there are no errors. In this case
    /// `input` must be `Some`.
    pub fn finish<T>(self, input: Option<T>) -> Result<T, Vec<FieldError>> {
        match input {
            Some(input) if self.errors.is_empty() => Ok(input),
            _ => Err([self.errors, self.appended].concat()),
        }
    }
}
