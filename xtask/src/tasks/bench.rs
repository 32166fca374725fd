//! `make bench`: measures speed, throughput and cost.

use xshell::Shell;

use crate::prelude::*;

/// Runs all sections of the report, or only the section in `ONLY`.
pub fn run(project: &Project) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project.root());
    let only = make_variable("ONLY");
    // `--workspace` makes Cargo reuse the libraries that are compiled for the tests.
    show(cmd!(shell, "cargo build --quiet --workspace --bin bench"))?;
    show(cmd!(shell, "target/debug/bench {only...}"))
}
