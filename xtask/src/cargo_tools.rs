//! Cargo's helpers that this project brings along, in `.local/cargo`.

use std::path::PathBuf;

use anyhow::Result;

use crate::{process::show, progress::Step, project::Project, tools::Tools};

/// A program that Cargo can install.
pub struct CargoTool {
    name: &'static str,
    version: &'static str,
}

/// What dependencies may be.
pub const CARGO_DENY: CargoTool = CargoTool { name: "cargo-deny", version: "0.20.2" };
/// Bytes that break parsers.
pub const CARGO_FUZZ: CargoTool = CargoTool { name: "cargo-fuzz", version: "0.13.2" };
/// Changes that no test notices.
pub const CARGO_MUTANTS: CargoTool = CargoTool { name: "cargo-mutants", version: "27.1.0" };

impl CargoTool {
    /// The program, which is compiled unless this version is there already.
    pub fn install(&self, project: &Project, tools: &Tools, step: &Step) -> Result<PathBuf> {
        let folder = project.local().join("cargo").join(format!("{}-{}", self.name, self.version));
        let program = folder.join("bin").join(self.name);
        if !program.exists() {
            step.note(format!("compiles {} {} into .local/cargo, once", self.name, self.version));
            let mut install = tools.cargo();
            // Unoptimised is fast enough, and ready in half the time.
            install.args(["install", "--quiet", "--locked", "--debug", "--root"]).arg(&folder);
            show(install.args(["--version", self.version, self.name]))?;
        }
        Ok(program)
    }
}
