//! Deploying to an emulator with the same SAM that deploys to AWS.

use std::collections::HashMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{
    parameters::{Parameters, arguments},
    preflight,
    process::quiet,
    progress::Step,
    stack::Stack,
    tools::{Tools, architecture},
};

/// The stack's name; log groups and other names begin with it.
pub const STACK: &str = "holdfast";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    output_key: String,
    output_value: String,
}

/// Deploys what has been built to whatever answers like AWS at `url`, with
/// `parameters` beside those that every emulator gets. What is there and hasn't
/// changed stays.
pub fn deploy(tools: &Tools, url: &str, parameters: &Parameters) -> Result<Stack> {
    let step = Step::begin("Stack: sam deploy");
    let mut deploy = tools.aws("sam", url);
    deploy.args(["deploy", "--config-env", "local", "--parameter-overrides"]);
    let mut all = Parameters::from([
        ("LocalEndpoint".to_owned(), url.to_owned()),
        ("Architecture".to_owned(), architecture().to_owned()),
        // Forgotten anyway when the emulator stops.
        ("RetainData".to_owned(), "false".to_owned()),
    ]);
    all.extend(parameters.clone());
    deploy.args(arguments(&all));
    let said = quiet(&mut deploy)?;
    preflight::complete(|| tools.aws("aws", url), STACK)?;

    let mut describe = tools.aws("aws", url);
    describe.args(["cloudformation", "describe-stacks", "--output", "json", "--stack-name", STACK]);
    describe.args(["--query", "Stacks[0].Outputs"]);
    let outputs: Vec<Output> =
        serde_json::from_str(&quiet(&mut describe)?).context("the stack's outputs are no outputs")?;
    let outputs: HashMap<_, _> = outputs.into_iter().map(|output| (output.output_key, output.output_value)).collect();
    let stack = Stack::from_outputs(url, &outputs)?;
    step.done(if said.contains("No changes to deploy") { "no changes" } else { "deployed" });
    Ok(stack)
}
