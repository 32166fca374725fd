//! The deployed stack: the URLs, ids and names of its resources, stored in
//! `.local/stack.json`.

use std::{collections::BTreeMap, fs, path::Path};

use heck::ToSnakeCase;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    emulator::Emulator,
    http::{self, Response, TIMEOUT},
    ports::local_url,
    prelude::*,
    project,
    service_health::EMULATOR_TIMEOUT,
    tools::REGION,
};

const FILE: &str = "stack.json";

/// The content of `stack.json`. The names of the fields must not change, because tests
/// and scripts of users read the file.
#[derive(Serialize, Deserialize)]
pub struct Stack {
    pub api_url: String,
    pub emulator_url: String,
    pub region: String,
    pub user_pool_id: String,
    pub client_id: String,
    /// The physical names of the tables. The keys are short names such as `sandbox_ledger`.
    pub tables: BTreeMap<String, String>,
    /// The URLs of the queues. The keys are short names such as `order_events`.
    pub queues: BTreeMap<String, String>,
    /// The addresses of the services for other services. The keys are short names such
    /// as `users`.
    pub services: BTreeMap<String, String>,
    /// The physical names of the functions. The keys are short names such as `users`.
    pub functions: BTreeMap<String, String>,
}

impl Stack {
    /// Creates the value from the outputs that the template declares, such as
    /// `UsersTableName`.
    pub fn from_outputs(emulator_url: &str, outputs: &BTreeMap<String, String>) -> Result<Self> {
        let output = |name: &str| outputs.get(name).cloned().with_context(|| format!("the stack has no output {name}"));
        let named = |ending: &str| -> Result<BTreeMap<String, String>> {
            let short = |name: &str| name.strip_suffix(ending).map(ToSnakeCase::to_snake_case);
            let found: BTreeMap<_, _> =
                outputs.iter().filter_map(|(name, value)| Some((short(name)?, value.clone()))).collect();
            ensure!(!found.is_empty(), "the stack has no output that ends with {ending}");
            Ok(found)
        };
        Ok(Self {
            api_url: output("PublicApiUrl")?,
            emulator_url: emulator_url.to_owned(),
            region: REGION.to_owned(),
            user_pool_id: output("UserPoolId")?,
            client_id: output("UserPoolClientId")?,
            tables: named("TableName")?,
            queues: named("QueueUrl")?,
            services: named("ServiceUrl")?,
            functions: named("Function")?,
        })
    }

    /// Reads the stack that `make up` has deployed, and checks that its emulator still
    /// responds.
    pub fn running(project: &Project) -> Result<Self> {
        let file = project.local().join(FILE);
        if !file.exists() {
            bail!("no stack is running here; `make up` starts one");
        }
        let stack = Self::read(&file).context("`make up` deploys a new stack")?;
        let own = Emulator::in_folder(project.local()).port().map(local_url);
        // An emulator that `make up` has not started may be of another make, so any
        // response counts.
        let responds =
            own.as_ref() == Some(&stack.emulator_url) || http::get(&stack.emulator_url, EMULATOR_TIMEOUT).is_ok();
        ensure!(responds, "no emulator answers at {}, where the stack was; `make up` starts one", stack.emulator_url);
        Ok(stack)
    }

    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} does not describe a stack", file.display()))
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("the stack cannot be written as JSON")?;
        project::write_file(&folder.join(FILE), text + "\n")
    }

    pub fn forget(folder: &Path) -> Result<()> {
        project::remove(&folder.join(FILE))
    }

    /// Sends a request through the public gateway.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Result<Response> {
        http::send(method, &format!("{}{path}", self.api_url), headers, body, TIMEOUT)
    }

    pub fn queue(&self, name: &str) -> Result<&str> {
        self.queues.get(name).map(String::as_str).with_context(|| format!("the stack has no queue `{name}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_name_of_a_resource_is_derived_from_its_output() {
        let names = [
            "PublicApiUrl",
            "UsersServiceUrl",
            "UserPoolId",
            "UserPoolClientId",
            "SandboxLedgerTableName",
            "UserEventsDeadLetterQueueUrl",
            "OrderWorkerFunction",
        ];
        let outputs = names.map(|name| (name.to_owned(), format!("the {name}"))).into();
        let stack = Stack::from_outputs("http://localhost:4566", &outputs).expect("a stack");
        assert_eq!(stack.tables["sandbox_ledger"], "the SandboxLedgerTableName");
        assert_eq!(stack.queue("user_events_dead_letter").expect("a queue"), "the UserEventsDeadLetterQueueUrl");
        assert_eq!(stack.services["users"], "the UsersServiceUrl");
        assert_eq!(stack.functions["order_worker"], "the OrderWorkerFunction");
    }
}
