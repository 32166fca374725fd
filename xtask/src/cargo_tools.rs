//! The Cargo subcommands that the tasks use, compiled into `.local/cargo`.

use std::path::PathBuf;

use crate::prelude::*;

pub struct CargoTool {
    name: &'static str,
    version: &'static str,
}

/// Checks licences, sources and known vulnerabilities of dependencies.
pub const CARGO_DENY: CargoTool = CargoTool { name: "cargo-deny", version: "0.20.2" };
/// Runs the fuzz targets.
pub const CARGO_FUZZ: CargoTool = CargoTool { name: "cargo-fuzz", version: "0.13.2" };
/// Changes lines of code and reports each change that no test notices.
pub const CARGO_MUTANTS: CargoTool = CargoTool { name: "cargo-mutants", version: "27.1.0" };

impl CargoTool {
    /// Compiles the program if this version is not installed yet. Returns the path of
    /// the program.
    pub fn install(&self, tools: &Tools, step: &Step) -> Result<PathBuf> {
        let Self { name, version } = self;
        let folder = tools.project.local().join("cargo").join(format!("{name}-{version}"));
        let program = folder.join("bin").join(name);
        if !program.exists() {
            step.note(format!("compiles {name} {version} into .local/cargo, once"));
            // A debug build compiles in half the time of a release build, and the program is
            // fast enough.
            show(cmd!(tools, "cargo install --quiet --locked --debug --root {folder} --version {version} {name}"))?;
        }
        Ok(program)
    }
}
