//! The environment of functions that run elsewhere than where they are
//! deployed, over the same tables, queues and pool.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{process::quiet, stack::Stack, tools::Tools};

/// The variables of all functions in one: a name means the same to each.
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// As the deployed functions have it, but that they call each other at
    /// `services`, where nothing checks a signature.
    pub fn of(tools: &Tools, stack: &Stack, services: &str) -> Result<Self> {
        let mut list = tools.aws("aws", &stack.emulator_url);
        list.args(["lambda", "list-functions", "--output", "json"]);
        list.args(["--query", "Functions[].{name: FunctionName, variables: Environment.Variables}"]);
        let functions: Vec<Function> = serde_json::from_str(&quiet(&mut list)?).context("no list of functions")?;
        let deployed = stack.functions.names();
        let own = functions.into_iter().filter(|function| deployed.contains(&function.name.as_str()));
        let mut variables: BTreeMap<String, String> = own.flat_map(|function| function.variables).collect();
        let called = ["USERS_URL", "PRODUCTS_URL", "PAYMENTS_URL"].map(|name| (name, services));
        let instead = [
            ("INTERNAL_AUTH", "none"),
            ("AWS_ENDPOINT_URL", stack.emulator_url.as_str()),
            ("AWS_REGION", stack.region.as_str()),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        variables.extend(called.into_iter().chain(instead).map(|(name, value)| (name.to_owned(), value.to_owned())));
        Ok(Self(variables))
    }

    /// With one address instead of another, wherever it occurs.
    #[must_use]
    pub fn with_address(self, from: &str, to: &str) -> Self {
        Self(self.0.into_iter().map(|(name, value)| (name, value.replace(from, to))).collect())
    }

    /// As `cargo lambda watch --env-file` reads it.
    pub fn write_env_file(&self, file: &Path) -> Result<()> {
        let lines = self.0.iter().map(|(name, value)| format!("{name}={value}\n"));
        write(file, &lines.collect::<String>())
    }

    /// As `sam local --env-vars` reads it.
    pub fn write_json(&self, file: &Path) -> Result<()> {
        write(file, &format!("{:#}\n", json!({ "Parameters": self.0 })))
    }
}

#[derive(serde::Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_replaced_wherever_it_occurs() {
        let variables = [("A", "http://localhost:4566"), ("B", "http://localhost:4566/pool/keys"), ("C", "localhost")];
        let environment = Environment(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let Environment(variables) = environment.with_address("//localhost:", "//host.docker.internal:");
        assert_eq!(variables["A"], "http://host.docker.internal:4566");
        assert_eq!(variables["B"], "http://host.docker.internal:4566/pool/keys");
        assert_eq!(variables["C"], "localhost");
    }
}
