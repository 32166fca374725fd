//! Building the functions.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    process::{quiet, show},
    progress::Step,
    tools::{Tools, architecture},
};

/// The crates with functions in them.
const CRATES: [&str; 5] = ["users", "products", "orders", "payments", "notifications"];

/// Where SAM puts what it has built.
pub const BUILT: &str = ".aws-sam/build";

/// All functions, for an emulator on this machine.
pub fn build(tools: &Tools) -> Result<()> {
    build_for(tools, "local", architecture())
}

/// All functions, for an environment of samconfig.toml.
pub fn build_for(tools: &Tools, environment: &str, architecture: &str) -> Result<()> {
    compile(tools, &CRATES, architecture)?;
    let step = Step::begin("Functions: package");
    quiet(&mut sam_build(tools, environment, architecture)).context("SAM could not package the functions")?;
    step.done(format!("in {BUILT}"));
    Ok(())
}

/// Compiles functions at once, for SAM to collect.
///
/// SAM would compile them by itself, one after the other, and say nothing for
/// minutes. This way Cargo's own progress is on the screen, and SAM finds each
/// function ready. That holds as long as the functions want the same features
/// of what they share; where one differs, SAM's turn takes longer.
pub fn compile(tools: &Tools, crates: &[&str], architecture: &str) -> Result<()> {
    can_compile_for(tools, architecture)?;
    let step = Step::begin(format!("Functions: compile for Lambda on {architecture} (minutes the first time)"));
    let mut compile = tools.cargo();
    compile.args(["lambda", "build", "--release"]);
    if architecture == "arm64" {
        compile.arg("--arm64");
    }
    for name in crates {
        compile.args(["--package", name]);
    }
    show(&mut compile)?;
    step.done("compiled");
    Ok(())
}

/// SAM's turn, for all functions or for what is added.
pub fn sam_build(tools: &Tools, environment: &str, architecture: &str) -> Command {
    let mut package = tools.offline("sam");
    package.args(["build", "--config-env", environment, "--parameter-overrides"]);
    package.arg(format!("Architecture={architecture}"));
    package
}

/// That the toolchain has the standard library of the processor. cargo-lambda
/// would have rustup fetch it, which without a network takes minutes to say
/// nothing.
fn can_compile_for(tools: &Tools, architecture: &str) -> Result<()> {
    let target = match architecture {
        "arm64" => "aarch64-unknown-linux-gnu",
        _ => "x86_64-unknown-linux-gnu",
    };
    let libraries = quiet(tools.at_root("rustc").args(["--print", "target-libdir", "--target", target]))?;
    ensure!(
        Path::new(libraries.trim()).exists(),
        "this toolchain cannot compile for {architecture}. Once: rustup target add {target}\n\
         Or deploy for x86_64: the parameter Architecture, in samconfig.toml"
    );
    Ok(())
}
