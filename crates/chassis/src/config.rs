//! Reading the environment at start: a function either has all it needs or
//! doesn't start, and says which variable was wrong.

use std::{env, str::FromStr};

/// A variable that is missing or cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("environment variable {name} {problem}; expected {expected}")]
pub struct ConfigError {
    name: &'static str,
    problem: &'static str,
    expected: &'static str,
}

/// The variable `name`, which must be set and not empty. `expected` says what
/// it should hold, for the message that stops the start.
pub fn required<T: FromStr>(name: &'static str, expected: &'static str) -> Result<T, ConfigError> {
    let value = env::var(name).ok().filter(|value| !value.is_empty());
    let value = value.ok_or(ConfigError { name, problem: "is missing", expected })?;
    value.parse().map_err(|_| ConfigError { name, problem: "cannot be read", expected })
}

/// As [`required`], but may be missing or empty.
pub fn optional<T: FromStr>(name: &'static str, expected: &'static str) -> Result<Option<T>, ConfigError> {
    match env::var(name) {
        Ok(value) if !value.is_empty() => {
            value.parse().map(Some).map_err(|_| ConfigError { name, problem: "cannot be read", expected })
        }
        _ => Ok(None),
    }
}

/// An absolute HTTP(S) address without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(String);

/// Why a text is no address of a service.
#[derive(Debug, thiserror::Error)]
#[error("must be an absolute http or https address")]
pub struct InvalidUrl;

impl FromStr for BaseUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let uri: http::Uri = text.parse().map_err(|_| InvalidUrl)?;
        let web = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && uri.query().is_none();
        if web { Ok(Self(text.trim_end_matches('/').to_owned())) } else { Err(InvalidUrl) }
    }
}

impl BaseUrl {
    /// The address of `path` (which starts with a slash) below this one.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::BaseUrl;

    #[test]
    fn a_base_address_is_absolute_and_joins_without_double_slashes() {
        let base: BaseUrl = "https://abc.execute-api.eu-west-1.amazonaws.com/v1/".parse().unwrap();
        assert_eq!(base.join("/users"), "https://abc.execute-api.eu-west-1.amazonaws.com/v1/users");
        for text in ["", "/v1", "example.com/v1", "ftp://example.com", "https://example.com/v1?x=1"] {
            assert!(text.parse::<BaseUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_missing_variable_is_named() {
        let error = super::required::<String>("HOLDFAST_NO_SUCH_VARIABLE", "the name of a table").unwrap_err();
        assert_eq!(
            error.to_string(),
            "environment variable HOLDFAST_NO_SUCH_VARIABLE is missing; expected the name of a table"
        );
    }
}
