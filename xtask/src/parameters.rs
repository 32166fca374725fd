//! The template's parameters on make's command line, `PARAMETERS="SenderExists=true"`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::{process::quiet, project::wanted, tools::Tools};

/// Values of parameters, by the template's names.
pub type Parameters = BTreeMap<String, String>;

/// What `PARAMETERS` says, read as SAM reads it. A name that the template hasn't
/// is an error here; SAM would ignore it.
pub fn wanted_parameters(tools: &Tools) -> Result<Parameters> {
    let Some(text) = wanted("PARAMETERS") else { return Ok(Parameters::new()) };
    let read = quiet(tools.offline("python").args(["xtask/data/parameters.py", &text]))?;
    serde_json::from_str(&read).context("parameters.py says something else")
}

/// As arguments of `--parameter-overrides`.
pub fn arguments(parameters: &Parameters) -> impl Iterator<Item = String> {
    // SAM reads each argument as a list of its own, which white space separates.
    parameters.iter().map(|(name, value)| format!("{name}={value:?}"))
}
