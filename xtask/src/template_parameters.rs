//! Template parameters on make's command line, such as
//! `make up PARAMETERS="SenderExists=true"`.

use std::collections::BTreeMap;

use crate::prelude::*;

/// Values of template parameters. The keys are the parameters' names.
pub type Parameters = BTreeMap<String, String>;

/// Parses `PARAMETERS` with SAM's own parser. SAM would ignore a parameter that the
/// template does not declare; this function returns an error.
pub fn wanted_parameters(tools: &Tools) -> Result<Parameters> {
    let Some(text) = make_variable("PARAMETERS") else { return Ok(Parameters::new()) };
    let output = quiet(cmd!(tools.offline(), "python xtask/python/read_parameters.py {text}"))?;
    serde_json::from_str(&output).context("read_parameters.py prints no parameters")
}

/// Formats parameters as arguments of `--parameter-overrides`.
pub fn arguments(parameters: &Parameters) -> impl Iterator<Item = String> {
    // The value is in quotes, because SAM splits an argument at white space otherwise.
    parameters.iter().map(|(name, value)| format!("{name}={value:?}"))
}
