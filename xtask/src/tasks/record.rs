//! `make record`: records the requests, events and items of this version, once for
//! each new version. Later versions must understand what is recorded.

use xshell::Shell;

use crate::prelude::*;

const TEST: &str = "the_current_version_is_recorded";

/// Runs the test that compares versions; a variable tells the test to record the
/// current version.
pub fn run(project: &Project) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project.root());
    let test = cmd!(shell, "cargo test --quiet --workspace --test versions {TEST}");
    show(test.env("HOLDFAST_UPDATE", "recorded"))?;
    say!("tests/in-process/recorded contains this version.");
    Ok(())
}

#[cfg(test)]
mod tests {
    /// Cargo reports success if no test has the name.
    #[test]
    fn the_test_exists() {
        let tests = include_str!("../../../tests/in-process/tests/versions/main.rs");
        assert!(tests.contains(&format!("fn {}()", super::TEST)));
    }
}
