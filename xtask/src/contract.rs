//! What schemathesis has to say: a program that nobody here wrote reads the
//! API's document, and tries whether the deployed API does as it says.

use anyhow::{Context, Result};

use crate::{
    people::{Passwords, Person},
    process::show,
    progress::Step,
    project::Project,
    stack::Stack,
    tools::{Tools, virtual_environment},
};

/// Tries the API as nobody, as the customer and as the admin.
pub fn test(project: &Project, tools: &Tools, stack: &Stack, passwords: &Passwords) -> Result<()> {
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
        schemathesis.arg("run").arg(project.root().join("docs/openapi.yaml"));
        schemathesis.args(["--url", &stack.api_url, "--no-color", "--warnings=off"]);
        // In the environment, where other users of this machine can't read it.
        schemathesis.env("HOLDFAST_AUTHORIZATION", token.map_or_else(String::new, |token| format!("Bearer {token}")));
        schemathesis.env("NO_PROXY", "localhost,127.0.0.1");
        show(&mut schemathesis).with_context(|| format!("{who}, the API doesn't do what its document says"))?;
        step.done("the API does what its document says");
    }
    Ok(())
}
