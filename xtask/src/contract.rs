//! What strangers make of the API's document: programs that nobody here wrote
//! read it, generate a client from it, and try whether the deployed API does as
//! it says.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    people::{Passwords, Person},
    process::{quiet, show},
    progress::Step,
    project::{self, Project},
    stack::Stack,
    tools::{Tools, virtual_environment},
};

const DOCUMENT: &str = "docs/openapi.yaml";
/// What those programs are given to do.
const STRANGERS: &str = "tests/stack/strangers";

/// All of it. What is written on the way goes into `folder`.
pub fn test(project: &Project, tools: &Tools, stack: &Stack, passwords: &Passwords, folder: &Path) -> Result<()> {
    generated_client(project, tools, stack, passwords, folder)?;
    schemathesis(project, tools, stack, passwords)
}

/// The document's examples, and an order through a client that is generated
/// from it.
fn generated_client(
    project: &Project,
    tools: &Tools,
    stack: &Stack,
    passwords: &Passwords,
    folder: &Path,
) -> Result<()> {
    let step = Step::begin("Tools: openapi-python-client, openapi-spec-validator");
    let programs = virtual_environment(project, step, "client", "requirements-client.txt")?.join("bin");
    let strangers = project.root().join(STRANGERS);

    let step = Step::begin("The API's document, as others read it");
    let mut validate = tools.at_root(programs.join("python"));
    let said = quiet(validate.arg(strangers.join("examples.py")).arg(DOCUMENT));
    step.done(said.context("the API's document is not what it says of itself")?.trim());

    let step = Step::begin("A client that is generated from it");
    // Anew: what an earlier document had is not to help.
    let package = folder.join("client");
    project::remove(&package)?;
    fs::create_dir_all(&package).with_context(|| format!("cannot make {}", package.display()))?;
    let mut generate = tools.at_root(programs.join("openapi-python-client"));
    generate.args(["generate", "--path", DOCUMENT, "--meta", "none", "--fail-on-warning"]);
    generate.arg("--config").arg(strangers.join("generator.yaml"));
    generate.arg("--output-path").arg(package.join("holdfast_client"));
    quiet(&mut generate).context("no whole client can be generated from the API's document")?;
    let mut order = tools.at_root(programs.join("python"));
    order.arg(strangers.join("shop.py")).env("PYTHONPATH", &package);
    order.env("HOLDFAST_API", &stack.api_url).env("NO_PROXY", "localhost,127.0.0.1");
    order.env("HOLDFAST_TOKEN", passwords.sign_in(stack, Person::CUSTOMER)?);
    step.done(quiet(&mut order).context("the generated client cannot order")?.trim());
    Ok(())
}

/// Tries the API as nobody, as the customer and as the admin.
fn schemathesis(project: &Project, tools: &Tools, stack: &Stack, passwords: &Passwords) -> Result<()> {
    let step = Step::begin("Tools: schemathesis");
    let folder = virtual_environment(project, step, "schemathesis", "requirements-schemathesis.txt")?;
    for (who, person) in
        [("anonymous", None), ("as a customer", Some(Person::CUSTOMER)), ("as an admin", Some(Person::ADMIN))]
    {
        let step = Step::begin(format!("schemathesis, {who}"));
        let token = person.map(|person| passwords.sign_in(stack, person)).transpose()?;
        let mut schemathesis = tools.at_root(folder.join("bin/schemathesis"));
        // It leaves a folder of notes wherever it is.
        schemathesis.current_dir(project.local());
        schemathesis.arg("--config-file").arg(project.root().join("tests/stack/schemathesis.toml"));
        schemathesis.arg("run").arg(project.root().join(DOCUMENT));
        schemathesis.args(["--url", &stack.api_url, "--no-color", "--warnings=off"]);
        // In the environment, where other users of this machine can't read it.
        schemathesis.env("HOLDFAST_AUTHORIZATION", token.map_or_else(String::new, |token| format!("Bearer {token}")));
        schemathesis.env("NO_PROXY", "localhost,127.0.0.1");
        show(&mut schemathesis).with_context(|| format!("{who}, the API doesn't do what its document says"))?;
        step.done("the API does what its document says");
    }
    Ok(())
}
