//! Tests the OpenAPI document with third-party programs. A validator checks the
//! document, a generator creates a client from the document, and schemathesis compares
//! the deployed API with the document.

use std::path::Path;

use crate::{
    demo_users::{Passwords, Person},
    prelude::*,
    project,
    tools::virtual_environment,
};

const DOCUMENT: &str = "docs/openapi.yaml";
/// The folder of the Python programs that use the generated client, and of the
/// generator's settings.
const PROGRAMS: &str = "tests/stack/openapi_clients";

/// Runs all tests of the OpenAPI document. The generated client is written into `folder`.
pub fn test(tools: &Tools, stack: &Stack, passwords: &Passwords, folder: &Path) -> Result<()> {
    generated_client(tools, stack, passwords, folder)?;
    schemathesis(tools, stack, passwords)
}

/// Validates the OpenAPI document and its examples, and places an order through a
/// client that is generated from the document.
fn generated_client(tools: &Tools, stack: &Stack, passwords: &Passwords, folder: &Path) -> Result<()> {
    let step = Step::begin("Tools: openapi-python-client, openapi-spec-validator");
    let programs = virtual_environment(&tools.project, step, "client", "requirements-client.txt")?.join("bin");
    let python = programs.join("python");

    let step = Step::begin("The OpenAPI document, read by a validator");
    let output = quiet(cmd!(tools, "{python} {PROGRAMS}/validate_examples.py {DOCUMENT}"));
    step.done(output.context("the OpenAPI document contradicts itself")?.trim());

    let step = Step::begin("A client that is generated from the OpenAPI document");
    // A file that the generator no longer writes would still be there from an earlier
    // run, and the test would not notice that it is missing.
    let package = folder.join("client");
    project::remove(&package)?;
    create_folder(&package)?;
    let (generator, client) = (programs.join("openapi-python-client"), package.join("holdfast_client"));
    let generate = cmd!(tools, "{generator} generate --path {DOCUMENT} --meta none --fail-on-warning");
    quiet(generate.arg("--config").arg(format!("{PROGRAMS}/generator.yaml")).arg("--output-path").arg(client))
        .context("no complete client can be generated from the OpenAPI document")?;
    let order = cmd!(tools, "{python} {PROGRAMS}/place_orders.py")
        .env("PYTHONPATH", &package)
        .env("HOLDFAST_API", &stack.api_url)
        .env("NO_PROXY", "localhost,127.0.0.1")
        .env("HOLDFAST_TOKEN", passwords.sign_in(stack, Person::CUSTOMER)?);
    step.done(quiet(order).context("the generated client cannot order")?.trim());
    Ok(())
}

/// Runs schemathesis three times: without a token, as the customer, and as the admin.
fn schemathesis(tools: &Tools, stack: &Stack, passwords: &Passwords) -> Result<()> {
    let step = Step::begin("Tools: schemathesis");
    let folder = virtual_environment(&tools.project, step, "schemathesis", "requirements-schemathesis.txt")?;
    let (program, root) = (folder.join("bin/schemathesis"), tools.root());
    let (config, document) = (root.join("tests/stack/schemathesis.toml"), root.join(DOCUMENT));
    for (who, person) in
        [("anonymous", None), ("as a customer", Some(Person::CUSTOMER)), ("as an admin", Some(Person::ADMIN))]
    {
        let step = Step::begin(format!("schemathesis, {who}"));
        let token = person.map(|person| passwords.sign_in(stack, person)).transpose()?;
        let url = &stack.api_url;
        let run = cmd!(tools, "{program} --config-file {config} run {document} --url {url} --no-color --warnings=off")
            // The token is in the environment: other users of this machine can read the
            // arguments of a process, but not its environment.
            .env("HOLDFAST_AUTHORIZATION", token.map_or_else(String::new, |token| format!("Bearer {token}")))
            .env("NO_PROXY", "localhost,127.0.0.1");
        show(run).with_context(|| format!("{who}, the API behaves differently from its document"))?;
        step.done("the API behaves as its document says");
    }
    Ok(())
}
