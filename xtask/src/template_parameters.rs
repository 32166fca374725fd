//! Parameters of the template on make's command line:
//! `PARAMETERS="SenderExists=true"`.

use std::collections::BTreeMap;

use crate::prelude::*;

/// Values by the names of the template's parameters.
pub type Parameters = BTreeMap<String, String>;

/// Reads `PARAMETERS` as SAM reads it. SAM ignores a name that the template does
/// not declare; here such a name is an error.
pub fn wanted_parameters(tools: &Tools) -> Result<Parameters> {
    let Some(text) = make_variable("PARAMETERS") else { return Ok(Parameters::new()) };
    let output = quiet(cmd!(tools.offline(), "python xtask/python/read_parameters.py {text}"))?;
    serde_json::from_str(&output).context("read_parameters.py prints no parameters")
}

/// The arguments of `--parameter-overrides`.
pub fn arguments(parameters: &Parameters) -> impl Iterator<Item = String> {
    // SAM splits each argument at white space, unless quotes enclose it.
    parameters.iter().map(|(name, value)| format!("{name}={value:?}"))
}
