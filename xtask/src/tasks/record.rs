//! `make record`: records the requests, events and items of this version, once for
//! each new version. Later versions must understand what is recorded.

use xshell::Shell;

use crate::prelude::*;

/// Runs the test that compares versions; a variable tells the test to record the
/// present version.
pub fn run(project: &Project) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project.root());
    let test = cmd!(shell, "cargo test --quiet --workspace --test versions the_present_version_is_recorded");
    show(test.env("HOLDFAST_UPDATE", "recorded"))?;
    say!("tests/in-process/recorded contains this version.");
    Ok(())
}
