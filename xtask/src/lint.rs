//! `make lint`: what can be told without running anything.

use anyhow::{Context, Result};

use crate::{
    process::{quiet, show},
    progress::Step,
    project::Project,
    tools::{REGION, Tools},
};

const CARGO_DENY: &str = "0.20.2";

pub fn lint(project: &Project) -> Result<()> {
    let tools = Tools::install(project)?;

    let step = Step::begin("Format");
    quiet(tools.cargo().args(["fmt", "--all", "--check"])).context("`cargo fmt --all` puts it right")?;
    step.done("as rustfmt has it");

    let step = Step::begin("Template");
    quiet(tools.offline("sam").args(["validate", "--lint", "--region", REGION]))?;
    quiet(tools.offline("cfn-lint").arg("template.yaml"))?;
    step.done("valid, and cfn-lint has no objection");

    let step = Step::begin("Clippy");
    show(tools.cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    step.done("no objection");

    let step = Step::begin("Dependencies: licences, sources, unwanted crates");
    let deny = project.local().join("cargo");
    if !deny.join("bin/cargo-deny").exists() {
        step.note("compiles cargo-deny into .local/cargo, once");
        let mut install = tools.cargo();
        // Unoptimised is fast enough, and ready in half the time.
        install.args(["install", "--quiet", "--locked", "--debug", "--root"]).arg(&deny);
        show(install.args(["--version", CARGO_DENY, "cargo-deny"]))?;
    }
    // Not the advisories: their database wants a network at each run.
    quiet(tools.at_root(deny.join("bin/cargo-deny")).args(["check", "bans", "licenses", "sources"]))?;
    step.done("as deny.toml allows");
    Ok(())
}
