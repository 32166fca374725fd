//! The deployed stack: its addresses and names, stored in `.local/stack.json`.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    emulator::Emulator,
    http::{self, Answer, TIMEOUT},
    ports::local_url,
    prelude::*,
    project,
    service_health::EMULATOR_TIMEOUT,
    tools::REGION,
};

const FILE: &str = "stack.json";

/// The names of these fields stay as they are: tests and scripts of users read
/// the file.
#[derive(Serialize, Deserialize)]
pub struct Stack {
    pub api_url: String,
    pub internal_api_url: String,
    pub emulator_url: String,
    pub region: String,
    pub user_pool_id: String,
    pub client_id: String,
    /// The physical names of the tables, by short names such as `sandbox_ledger`.
    pub tables: BTreeMap<String, String>,
    /// The addresses of the queues, by short names.
    pub queues: BTreeMap<String, String>,
    /// The physical names of the functions, by short names.
    pub functions: BTreeMap<String, String>,
}

impl Stack {
    /// Reads the outputs that the template declares, such as `UsersTableName`.
    pub fn from_outputs(emulator_url: &str, outputs: &BTreeMap<String, String>) -> Result<Self> {
        let output = |name: &str| outputs.get(name).cloned().with_context(|| format!("the stack has no output {name}"));
        let named = |ending: &str| -> Result<BTreeMap<String, String>> {
            let short = |name: &str| name.strip_suffix(ending).map(snake_case);
            let found: BTreeMap<_, _> =
                outputs.iter().filter_map(|(name, value)| Some((short(name)?, value.clone()))).collect();
            ensure!(!found.is_empty(), "the stack has no output that ends with {ending}");
            Ok(found)
        };
        Ok(Self {
            api_url: output("PublicApiUrl")?,
            internal_api_url: output("InternalApiUrl")?,
            emulator_url: emulator_url.to_owned(),
            region: REGION.to_owned(),
            user_pool_id: output("UserPoolId")?,
            client_id: output("UserPoolClientId")?,
            tables: named("TableName")?,
            queues: named("QueueUrl")?,
            functions: named("Function")?,
        })
    }

    /// The stack that `make up` has deployed, if its emulator still answers.
    pub fn running(project: &Project) -> Result<Self> {
        let file = project.local().join(FILE);
        if !file.exists() {
            bail!("no stack is running here; `make up` starts one");
        }
        let stack = Self::read(&file).context("`make up` deploys a new stack")?;
        let own = Emulator::in_folder(project.local()).port().map(local_url);
        // Any answer shows that an emulator of somebody else is there.
        let answers =
            own.as_ref() == Some(&stack.emulator_url) || http::get(&stack.emulator_url, EMULATOR_TIMEOUT).is_ok();
        ensure!(answers, "no emulator answers at {}, where the stack was; `make up` starts one", stack.emulator_url);
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
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Result<Answer> {
        http::send(method, &format!("{}{path}", self.api_url), headers, body, TIMEOUT)
    }

    pub fn queue(&self, name: &str) -> Result<&str> {
        self.queues.get(name).map(String::as_str).with_context(|| format!("the stack has no queue `{name}`"))
    }
}

/// `OrderEvents` becomes `order_events`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(character.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_the_short_names_of_their_outputs() {
        let names = [
            "PublicApiUrl",
            "InternalApiUrl",
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
        assert_eq!(stack.functions["order_worker"], "the OrderWorkerFunction");
    }
}
