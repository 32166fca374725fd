//! Building the functions.

use anyhow::{Context, Result};

use crate::{
    process::{quiet, show},
    progress::Step,
    tools::{Tools, architecture},
};

/// The crates with functions in them.
const CRATES: [&str; 5] = ["users", "products", "orders", "payments", "notifications"];

/// Compiles all functions at once, and lets SAM collect them.
///
/// SAM would compile them by itself, one after the other, and say nothing for
/// minutes. This way Cargo's own progress is on the screen, and SAM finds each
/// function ready. That holds as long as the functions want the same features
/// of what they share; where one differs, SAM's turn takes longer.
pub fn build(tools: &Tools) -> Result<()> {
    let step = Step::begin("Functions: compile for Lambda (minutes the first time)");
    let mut compile = tools.cargo();
    compile.args(["lambda", "build", "--release"]);
    if architecture() == "arm64" {
        compile.arg("--arm64");
    }
    for name in CRATES {
        compile.args(["--package", name]);
    }
    show(&mut compile)?;
    step.done("compiled");

    let step = Step::begin("Functions: package");
    let mut package = tools.offline("sam");
    package.args(["build", "--config-env", "local", "--parameter-overrides"]);
    package.arg(format!("Architecture={}", architecture()));
    quiet(&mut package).context("SAM could not package the functions")?;
    step.done("in .aws-sam/build");
    Ok(())
}
