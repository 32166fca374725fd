//! `make record`: what the services of this version say to each other, publish
//! and store. For a new version, once: what is recorded holds.

use std::process::Command;

use anyhow::Result;

use crate::{process::show, project::Project, say};

/// The test that compares versions writes down the present one, if asked to.
pub fn write(project: &Project) -> Result<()> {
    let mut test = Command::new("cargo");
    test.args(["test", "--quiet", "--workspace", "--test", "versions", "the_present_version_is_recorded"]);
    show(test.current_dir(project.root()).env("HOLDFAST_UPDATE", "recorded"))?;
    say!("tests/in-process/recorded has this version.");
    Ok(())
}
