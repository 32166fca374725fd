//! Reads a function's settings from environment variables. A function starts
//! only if all its settings are valid. Otherwise it ends with an error that
//! names every variable that is missing or invalid.
//!
//! Each function declares its variables once, with
//! [`configuration!`](crate::configuration). The struct, the code that reads
//! the variables, and the table in `docs/configuration.md` are generated from
//! that declaration. Elsewhere, only variables that Lambda itself sets are
//! read: by the SDK, and by [`metric`](crate::metric), which reads the
//! function's name. The only exceptions are the variables that name root
//! certificates, which the TLS library reads itself.

use std::{env, fmt, str::FromStr};

/// A variable that a function reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variable {
    /// The variable's name.
    pub name: &'static str,
    /// The value that the variable should hold, in words.
    pub expected: &'static str,
    /// The consequence if the variable is missing.
    pub presence: Presence,
}

/// The consequence of a missing variable. An empty variable counts as missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// Without the variable, the function doesn't start.
    Required,
    /// Without the variable, the function uses this value.
    Default(&'static str),
    /// The function works without the variable.
    Optional,
}

/// Reads the variables of a process, and collects the faults of all variables.
pub struct Env<'a> {
    value_of: &'a dyn Fn(&str) -> Option<String>,
    read: Vec<Variable>,
    faults: Vec<Fault>,
}

/// A variable that is missing or cannot be used. The variable's value is not
/// quoted: it may be a secret that got into the wrong variable.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fault {
    variable: Variable,
    problem: &'static str,
}

/// The error of a function that doesn't start. Lists every variable that is
/// missing or invalid.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(Vec<Fault>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the environment is not what this function needs:")?;
        self.0.iter().try_for_each(|Fault { variable: Variable { name, expected, .. }, problem }| {
            write!(f, "\n  {name} {problem}; expected {expected}")
        })
    }
}

/// Writes the same text as `Display`, because Rust prints an error that `main`
/// returns with `Debug`.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The methods with which the code that
/// [`configuration!`](crate::configuration) generates reads one variable. If
/// the variable has a fault, the method adds it to `faults` and returns `None`.
#[doc(hidden)]
impl Env<'_> {
    pub fn required<T: FromStr>(&mut self, name: &'static str, expected: &'static str) -> Option<T> {
        let variable = self.note(Variable { name, expected, presence: Presence::Required });
        match self.text(name) {
            Some(text) => self.parse(variable, &text),
            None => self.fault(variable, "is missing"),
        }
    }

    pub fn default<T: FromStr>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        default: &'static str,
    ) -> Option<T> {
        let variable = self.note(Variable { name, expected, presence: Presence::Default(default) });
        let text = self.text(name);
        self.parse(variable, text.as_deref().unwrap_or(default))
    }

    pub fn optional<T: FromStr>(&mut self, name: &'static str, expected: &'static str) -> Option<Option<T>> {
        let variable = self.note(Variable { name, expected, presence: Presence::Optional });
        match self.text(name) {
            Some(text) => self.parse(variable, &text).map(Some),
            None => Some(None),
        }
    }

    /// Adds the fault that the variable `name`, which was read as an optional
    /// variable, is missing although the values of other variables require it.
    pub fn missing<T>(&mut self, name: &str) -> Option<T> {
        let variable = self.read.iter().copied().find(|variable| variable.name == name)?;
        self.fault(variable, "is missing")
    }

    fn note(&mut self, variable: Variable) -> Variable {
        self.read.push(variable);
        variable
    }

    /// Returns a variable's value. An empty variable counts as missing, because
    /// a CloudFormation template can set a variable to an empty text, but can't
    /// leave the variable out.
    fn text(&self, name: &str) -> Option<String> {
        (self.value_of)(name).filter(|text| !text.is_empty())
    }

    fn parse<T: FromStr>(&mut self, variable: Variable, text: &str) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(_) => self.fault(variable, "cannot be used"),
        }
    }

    fn fault<T>(&mut self, variable: Variable, problem: &'static str) -> Option<T> {
        self.faults.push(Fault { variable, problem });
        None
    }
}

/// Settings that a function reads from its environment. Declare them with
/// [`configuration!`](crate::configuration).
pub trait Configuration: Sized {
    /// Reads all variables, even after one of them had a fault: the error must
    /// list every fault.
    #[doc(hidden)]
    fn read(env: &mut Env<'_>) -> Option<Self>;

    /// Reads the environment of the process.
    ///
    /// # Errors
    ///
    /// If a required variable is missing, or a variable cannot be parsed.
    fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(&|name| env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// Reads the variables that `value_of` returns.
    ///
    /// # Errors
    ///
    /// If a required variable is missing, or a variable cannot be parsed.
    fn from_variables(value_of: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut env = Env { value_of, read: Vec::new(), faults: Vec::new() };
        match Self::read(&mut env) {
            Some(config) if env.faults.is_empty() => Ok(config),
            _ => Err(ConfigError(env.faults)),
        }
    }

    /// Lists the variables that this configuration reads.
    fn variables() -> Vec<Variable> {
        let mut env = Env { value_of: &|_| None, read: Vec::new(), faults: Vec::new() };
        Self::read(&mut env);
        env.read
    }
}

/// Declares a struct of settings and implements
/// [`Configuration`](crate::config::Configuration) for it. After its type, each
/// field names the variable from which it is read, and describes the expected
/// value:
///
/// - `= required("NAME", "expected")`
/// - `= default("NAME", "expected", "default")`
/// - `= optional("NAME", "expected")`, for a field whose type is an `Option`
///
/// A field that names no variable has a type that implements `Configuration`
/// itself.
#[macro_export]
macro_rules! configuration {
    ($(#[$attribute:meta])* $visibility:vis struct $name:ident {
        $($(#[$field_attribute:meta])* pub $field:ident: $type:ty $(= $kind:ident($($argument:expr),+))?,)+
    }) => {
        $(#[$attribute])*
        $visibility struct $name {
            $($(#[$field_attribute])* pub $field: $type,)+
        }

        impl $crate::config::Configuration for $name {
            fn read(env: &mut $crate::config::Env<'_>) -> ::std::option::Option<Self> {
                // All fields are read before the first `?`: the error must list
                // every fault.
                $(let $field = $crate::configuration!(@read env, $type $(, $kind($($argument),+))?);)+
                ::std::option::Option::Some(Self { $($field: $field?,)+ })
            }
        }
    };
    (@read $env:ident, $type:ty) => { <$type as $crate::config::Configuration>::read($env) };
    (@read $env:ident, $type:ty, $kind:ident($($argument:expr),+)) => { $env.$kind($($argument),+) };
}

/// An absolute HTTP or HTTPS address, stored without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(String);

/// The error for a text that is not a [`BaseUrl`].
#[derive(Debug, thiserror::Error)]
#[error("must be an absolute http or https address")]
pub struct InvalidUrl;

impl FromStr for BaseUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let uri: http::Uri = text.parse().map_err(|_| InvalidUrl)?;
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        let is_base = is_web && uri.host().is_some() && uri.query().is_none();
        if is_base { Ok(Self(text.trim_end_matches('/').to_owned())) } else { Err(InvalidUrl) }
    }
}

impl BaseUrl {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Appends `path`, which must be empty or start with a slash, to the
    /// address.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{BaseUrl, Configuration, Presence, Variable};

    configuration! {
        #[derive(Debug, PartialEq)]
        struct Lamp {
            pub address: BaseUrl = required("ADDRESS", "where the lamp is"),
            pub bulb: Bulb,
        }
    }
    configuration! {
        #[derive(Debug, PartialEq)]
        struct Bulb {
            pub watts: u8 = default("WATTS", "a number below 256", "40"),
            pub colour: Option<String> = optional("COLOUR", "a colour's name"),
        }
    }

    fn lamp(variables: &[(&str, &str)]) -> Result<Lamp, String> {
        let value_of =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
        Lamp::from_variables(&value_of).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn correct_variables_are_read_and_an_empty_variable_counts_as_missing() {
        let address: BaseUrl = "http://lamp".parse().unwrap();
        let found = lamp(&[("ADDRESS", "http://lamp"), ("WATTS", ""), ("COLOUR", "")]);
        assert_eq!(found, Ok(Lamp { address: address.clone(), bulb: Bulb { watts: 40, colour: None } }));
        let found = lamp(&[("ADDRESS", "http://lamp/"), ("WATTS", "60"), ("COLOUR", "red")]);
        assert_eq!(found, Ok(Lamp { address, bulb: Bulb { watts: 60, colour: Some("red".into()) } }));
    }

    #[test]
    fn an_error_names_every_faulty_variable_without_quoting_its_value() {
        let error = lamp(&[("WATTS", "hunter2")]).unwrap_err();
        assert_eq!(
            error,
            "the environment is not what this function needs:\
             \n  ADDRESS is missing; expected where the lamp is\
             \n  WATTS cannot be used; expected a number below 256"
        );
    }

    #[test]
    fn the_variables_of_a_configuration_can_be_listed() {
        let variable = |name, expected, presence| Variable { name, expected, presence };
        let expected = [
            variable("ADDRESS", "where the lamp is", Presence::Required),
            variable("WATTS", "a number below 256", Presence::Default("40")),
            variable("COLOUR", "a colour's name", Presence::Optional),
        ];
        assert_eq!(Lamp::variables(), expected);
    }

    #[test]
    fn a_base_address_is_absolute_and_joins_without_double_slashes() {
        let base: BaseUrl = "https://abc.lambda-url.eu-west-1.on.aws/".parse().unwrap();
        assert_eq!(base.join("/users"), "https://abc.lambda-url.eu-west-1.on.aws/users");
        for text in ["", "/v1", "example.com/v1", "ftp://example.com", "https://example.com/v1?x=1"] {
            assert!(text.parse::<BaseUrl>().is_err(), "{text}");
        }
    }
}
