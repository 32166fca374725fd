//! Deploys the stack to an emulator with `sam deploy`, as to AWS.

use std::{collections::BTreeMap, path::Path};

use crate::{
    cors_preflights,
    prelude::*,
    template_parameters::{Parameters, arguments},
    tools::architecture,
};

/// The name of a stack on an emulator. The names of its functions begin with this name.
pub const STACK: &str = "holdfast";

/// Deploys a template and its built functions to the emulator at `url`. The template gets
/// `parameters` and the parameters that every emulator needs.
pub fn deploy(tools: &Tools, url: &str, template: &Path, parameters: &Parameters) -> Result<Stack> {
    let step = Step::begin("Stack: sam deploy");
    let mut all = Parameters::from(
        // The emulator loses all data when it stops, so deleting the stack may delete
        // the tables.
        [("LocalEndpoint", url), ("Architecture", architecture()), ("RetainData", "false"), ("SpanLines", "log")]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    all.extend(parameters.clone());
    let (cloud, overrides) = (tools.cloud(Some(url)), arguments(&all));
    // Without `--config-file`, SAM would look for samconfig.toml in the template's folder.
    let config = tools.root().join("samconfig.toml");
    let deploy = cmd!(cloud, "sam deploy --template-file {template} --config-file {config} --config-env local");
    let output = quiet(deploy.arg("--parameter-overrides").args(overrides))?;
    cors_preflights::complete(&cloud, STACK)?;

    let query = "Stacks[0].Outputs[].[OutputKey, OutputValue]";
    let describe = cmd!(cloud, "aws cloudformation describe-stacks --output json --stack-name {STACK} --query {query}");
    let outputs: Vec<(String, String)> =
        serde_json::from_str(&quiet(describe)?).context("the outputs of the stack cannot be read")?;
    let stack = Stack::from_outputs(url, &BTreeMap::from_iter(outputs))?;
    step.done(if output.contains("No changes to deploy") { "no changes" } else { "deployed" });
    Ok(stack)
}
