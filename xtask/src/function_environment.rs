//! The environment variables of functions that `cargo lambda watch` or `sam local` runs
//! outside the emulator. These functions use the tables, the queues and the user pool of
//! the deployed stack.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::json;

use crate::prelude::*;

/// The environment variables of all functions, merged. A variable that two functions
/// have has the same value in both, except INTERNAL_CALLERS, which is empty here.
pub struct FunctionEnvironment(BTreeMap<String, String>);

#[derive(Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

impl FunctionEnvironment {
    /// Reads the variables of the deployed functions, and changes the variables that
    /// differ outside the emulator: the functions call each other at the URL `services`,
    /// and nothing checks the signatures of their requests there.
    pub fn of(tools: &Tools, stack: &Stack, services: &str) -> Result<Self> {
        let query = "Functions[].{name: FunctionName, variables: Environment.Variables}";
        let cloud = tools.cloud(Some(&stack.emulator_url));
        let functions = quiet(cmd!(cloud, "aws lambda list-functions --output json --query {query}"))?;
        let functions: Vec<Function> = serde_json::from_str(&functions).context("the functions cannot be read")?;
        let own = functions.into_iter().filter(|function| stack.functions.values().any(|name| *name == function.name));
        let mut variables: BTreeMap<String, String> = own.flat_map(|function| function.variables).collect();
        let changed = [
            ("USERS_URL", services),
            ("PRODUCTS_URL", services),
            ("PAYMENTS_URL", services),
            ("INTERNAL_AUTH", "none"),
            ("INTERNAL_CALLERS", ""),
            ("AWS_ENDPOINT_URL", &stack.emulator_url),
            ("AWS_REGION", &stack.region),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        variables.extend(changed.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Ok(Self(variables))
    }

    /// Replaces the URL `from` by the URL `to` in all values.
    #[must_use]
    pub fn with_address(self, from: &str, to: &str) -> Self {
        Self(self.0.into_iter().map(|(name, value)| (name, value.replace(from, to))).collect())
    }

    /// Writes the file for `cargo lambda watch --env-file`.
    pub fn write_env_file(&self, file: &Path) -> Result<()> {
        let lines = self.0.iter().map(|(name, value)| format!("{name}={value}\n"));
        write_file(file, lines.collect::<String>())
    }

    /// Writes the file for `sam local --env-vars`.
    pub fn write_json(&self, file: &Path) -> Result<()> {
        write_file(file, format!("{:#}\n", json!({ "Parameters": self.0 })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_replaced_wherever_it_occurs() {
        let variables = [("A", "http://localhost:4566"), ("B", "http://localhost:4566/pool/keys"), ("C", "localhost")];
        let environment = FunctionEnvironment(variables.map(|(name, value)| (name.into(), value.into())).into());
        let FunctionEnvironment(variables) = environment.with_address("//localhost:", "//host.docker.internal:");
        assert_eq!(variables["A"], "http://host.docker.internal:4566");
        assert_eq!(variables["B"], "http://host.docker.internal:4566/pool/keys");
        assert_eq!(variables["C"], "localhost");
    }
}
