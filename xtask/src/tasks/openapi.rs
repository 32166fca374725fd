//! `make openapi`: writes docs/openapi.yaml from the code.

use xshell::Shell;

use crate::prelude::*;

/// Runs the test that compares document and code; a variable tells the test to
/// write the document. Compiles the whole workspace, whose libraries the other
/// tests have compiled: for the package alone, Cargo would compile them again.
pub fn run(project: &Project) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project.root());
    let test = cmd!(shell, "cargo test --quiet --workspace --test api_document the_committed_document");
    show(test.env("HOLDFAST_UPDATE", "openapi"))?;
    say!("docs/openapi.yaml describes the code now.");
    Ok(())
}
