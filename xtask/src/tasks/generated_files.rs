//! `make openapi`, `make asyncapi` and `make record`: write files that are generated from the code. The
//! tests that compare these files with the code also write them, if the variable
//! HOLDFAST_UPDATE tells them to.

use xshell::Shell;

use crate::prelude::*;

const OPENAPI_TEST: &str = "the_committed_document_is_the_one_that_the_code_generates";
const ASYNCAPI_TEST: &str = "the_committed_document_of_events_is_the_one_that_the_code_generates";
const RECORD_TEST: &str = "the_current_version_is_recorded";

/// `make openapi`: writes docs/openapi.yaml.
pub fn openapi(project: &Project) -> Result<()> {
    update(project, "openapi", "api_document", OPENAPI_TEST)?;
    say!("docs/openapi.yaml describes the code now.");
    Ok(())
}

/// `make asyncapi`: writes docs/asyncapi.yaml.
pub fn asyncapi(project: &Project) -> Result<()> {
    update(project, "asyncapi", "event_document", ASYNCAPI_TEST)?;
    say!("docs/asyncapi.yaml describes the code now.");
    Ok(())
}

/// `make record`: records the requests, events and items of this version, once for
/// each new version. Later versions must understand these records.
pub fn recorded_version(project: &Project) -> Result<()> {
    update(project, "recorded", "versions", RECORD_TEST)?;
    say!("tests/in-process/recorded contains this version.");
    Ok(())
}

/// Runs the test `name` of the file `file` with HOLDFAST_UPDATE. `--workspace` makes Cargo
/// reuse the libraries that are compiled for the other tests.
fn update(project: &Project, what: &str, file: &str, name: &str) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project.root());
    show(cmd!(shell, "cargo test --quiet --workspace --test {file} {name}").env("HOLDFAST_UPDATE", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cargo reports success if no test has the name.
    #[test]
    fn the_tests_exist() {
        let api_document = include_str!("../../../tests/in-process/tests/api_document/main.rs");
        let event_document = include_str!("../../../tests/in-process/tests/event_document.rs");
        let versions = include_str!("../../../tests/in-process/tests/versions/main.rs");
        assert!(api_document.contains(&format!("fn {OPENAPI_TEST}()")));
        assert!(event_document.contains(&format!("fn {ASYNCAPI_TEST}()")));
        assert!(versions.contains(&format!("fn {RECORD_TEST}()")));
    }
}
