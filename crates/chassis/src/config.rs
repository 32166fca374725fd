//! Reading the environment at start: a function either has all it needs or
//! doesn't start, and says of each variable what is wrong with it.
//!
//! Each function has one struct of all that can be set, which is a
//! [`Configuration`]. What the struct reads is also what `docs/configuration.md`
//! lists. Nothing else reads the environment but for what Lambda itself sets:
//! the SDK does, and [`metric`](crate::metric) its function's name.

use std::{env, fmt, str::FromStr};

/// A variable that a function reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it should hold.
    pub expected: &'static str,
    /// What happens if it is missing.
    pub presence: Presence,
}

/// Whether a function needs a variable. An empty variable counts as missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// Without the variable, the function doesn't start.
    Required,
    /// Without the variable, the function uses this value.
    Default(&'static str),
    /// The function works without the variable.
    Optional,
}

/// The variables of a process, and what was found wrong with them.
pub struct Env<'a> {
    value_of: &'a dyn Fn(&str) -> Option<String>,
    asked: Vec<Variable>,
    faults: Vec<Fault>,
}

/// A variable that is missing or cannot be used. Its value is not quoted: it
/// may be a secret that got into the wrong variable.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fault {
    variable: Variable,
    problem: &'static str,
}

/// Why a function doesn't start: all that is wrong with its environment.
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

/// In words: this is what `main` shows of the error it returns.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Env<'_> {
    /// A variable that must be set. `None` once its fault is noted.
    pub fn required<T: FromStr>(&mut self, name: &'static str, expected: &'static str) -> Option<T> {
        let variable = self.ask(Variable { name, expected, presence: Presence::Required });
        match self.text(name) {
            Some(text) => self.parse(variable, &text),
            None => self.refuse(variable, "is missing"),
        }
    }

    /// A variable with a default.
    pub fn or<T: FromStr>(&mut self, name: &'static str, expected: &'static str, default: &'static str) -> Option<T> {
        let variable = self.ask(Variable { name, expected, presence: Presence::Default(default) });
        let text = self.text(name);
        self.parse(variable, text.as_deref().unwrap_or(default))
    }

    /// A variable that may be missing; the outer `None` still means a fault.
    pub fn optional<T: FromStr>(&mut self, name: &'static str, expected: &'static str) -> Option<Option<T>> {
        let variable = self.ask(Variable { name, expected, presence: Presence::Optional });
        match self.text(name) {
            Some(text) => self.parse(variable, &text).map(Some),
            None => Some(None),
        }
    }

    fn ask(&mut self, variable: Variable) -> Variable {
        self.asked.push(variable);
        variable
    }

    /// CloudFormation can make a variable empty, but not leave it out.
    fn text(&self, name: &str) -> Option<String> {
        (self.value_of)(name).filter(|text| !text.is_empty())
    }

    fn parse<T: FromStr>(&mut self, variable: Variable, text: &str) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(_) => self.refuse(variable, "cannot be used"),
        }
    }

    fn refuse<T>(&mut self, variable: Variable, problem: &'static str) -> Option<T> {
        self.faults.push(Fault { variable, problem });
        None
    }
}

/// All that can be set of a function.
pub trait Configuration: Sized {
    /// Reads it. Every variable is to be read before the first `?`, so that a
    /// start that fails names all that is wrong.
    fn read(env: &mut Env<'_>) -> Option<Self>;

    /// From the process's environment.
    ///
    /// # Errors
    ///
    /// If a variable is missing, or holds what it shouldn't.
    fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(&|name| env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// From variables that `value_of` knows.
    ///
    /// # Errors
    ///
    /// As [`Configuration::from_env`].
    fn from_variables(value_of: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut env = Env { value_of, asked: Vec::new(), faults: Vec::new() };
        match Self::read(&mut env) {
            Some(config) if env.faults.is_empty() => Ok(config),
            _ => Err(ConfigError(env.faults)),
        }
    }

    /// What it reads.
    fn variables() -> Vec<Variable> {
        let mut env = Env { value_of: &|_| None, asked: Vec::new(), faults: Vec::new() };
        Self::read(&mut env);
        env.asked
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
    /// The address itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address of `path` (which starts with a slash) below this one.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{BaseUrl, Configuration, Env, Presence, Variable};

    #[derive(Debug, PartialEq)]
    struct Lamp {
        address: BaseUrl,
        watts: u8,
        colour: Option<String>,
    }

    impl Configuration for Lamp {
        fn read(env: &mut Env<'_>) -> Option<Self> {
            let address = env.required("ADDRESS", "where the lamp is");
            let watts = env.or("WATTS", "a number below 256", "40");
            let colour = env.optional("COLOUR", "a colour's name");
            Some(Self { address: address?, watts: watts?, colour: colour? })
        }
    }

    fn lamp(variables: &[(&str, &str)]) -> Result<Lamp, String> {
        let value_of =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
        Lamp::from_variables(&value_of).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn what_is_right_is_read_and_what_is_empty_is_missing() {
        let address: BaseUrl = "http://lamp".parse().unwrap();
        let found = lamp(&[("ADDRESS", "http://lamp"), ("WATTS", ""), ("COLOUR", "")]);
        assert_eq!(found, Ok(Lamp { address: address.clone(), watts: 40, colour: None }));
        let found = lamp(&[("ADDRESS", "http://lamp/"), ("WATTS", "60"), ("COLOUR", "red")]);
        assert_eq!(found, Ok(Lamp { address, watts: 60, colour: Some("red".into()) }));
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once_without_quoting_it() {
        let said = lamp(&[("WATTS", "hunter2")]).unwrap_err();
        assert_eq!(
            said,
            "the environment is not what this function needs:\
             \n  ADDRESS is missing; expected where the lamp is\
             \n  WATTS cannot be used; expected a number below 256"
        );
    }

    #[test]
    fn what_a_function_reads_can_be_listed() {
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
        let base: BaseUrl = "https://abc.execute-api.eu-west-1.amazonaws.com/v1/".parse().unwrap();
        assert_eq!(base.join("/users"), "https://abc.execute-api.eu-west-1.amazonaws.com/v1/users");
        for text in ["", "/v1", "example.com/v1", "ftp://example.com", "https://example.com/v1?x=1"] {
            assert!(text.parse::<BaseUrl>().is_err(), "{text}");
        }
    }
}
