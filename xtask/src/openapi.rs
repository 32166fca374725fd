//! `make openapi`: the API's document, from the code.

use std::process::Command;

use anyhow::Result;

use crate::{process::show, project::Project, say};

/// The test that compares document and code writes the document, if asked to.
pub fn write(project: &Project) -> Result<()> {
    let mut test = Command::new("cargo");
    // Of the whole workspace, for the sake of the libraries that other tests
    // have had compiled; alone, the package would want them with fewer features.
    test.args(["test", "--quiet", "--workspace", "--test", "api_document", "the_committed_document"]);
    show(test.current_dir(project.root()).env("HOLDFAST_UPDATE", "openapi"))?;
    say!("docs/openapi.yaml is what the code says.");
    Ok(())
}
