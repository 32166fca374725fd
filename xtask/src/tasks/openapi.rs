//! `make openapi`: writes docs/openapi.yaml from the code.

use xshell::Shell;

use crate::prelude::*;

const TEST: &str = "the_committed_document_is_the_one_that_the_code_generates";

/// Runs the test that compares document and code; a variable tells the test to
/// write the document. Compiles the whole workspace, whose libraries the other
/// tests have compiled: for the package alone, Cargo would compile them again.
pub fn run(project: &Project) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project.root());
    let test = cmd!(shell, "cargo test --quiet --workspace --test api_document {TEST}");
    show(test.env("HOLDFAST_UPDATE", "openapi"))?;
    say!("docs/openapi.yaml describes the code now.");
    Ok(())
}

#[cfg(test)]
mod tests {
    /// Cargo reports success if no test has the name.
    #[test]
    fn the_test_exists() {
        let tests = include_str!("../../../tests/in-process/tests/api_document/main.rs");
        assert!(tests.contains(&format!("fn {}()", super::TEST)));
    }
}
