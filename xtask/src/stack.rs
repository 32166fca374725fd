//! What has been deployed, and where: `.local/stack.json`.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    emulator::{Emulator, local_url},
    project::{self, Project},
    shop::{Answer, Http},
    tools::REGION,
};

const FILE: &str = "stack.json";

/// A deployed stack. Tests and people's scripts read it as JSON, so these names
/// are for keeps.
#[derive(Serialize, Deserialize)]
pub struct Stack {
    pub api_url: String,
    pub internal_api_url: String,
    pub emulator_url: String,
    pub region: String,
    pub user_pool_id: String,
    pub client_id: String,
    pub tables: Tables,
    pub queues: Queues,
    pub functions: Functions,
}

#[derive(Serialize, Deserialize)]
pub struct Tables {
    pub users: String,
    pub products: String,
    pub orders: String,
    pub payments: String,
    pub notifications: String,
    pub sandbox_ledger: String,
}

/// The queues' addresses.
#[derive(Serialize, Deserialize)]
pub struct Queues {
    pub order_events: String,
    pub dead_letter: String,
    pub user_events: String,
    pub user_events_dead_letter: String,
}

#[derive(Serialize, Deserialize)]
pub struct Functions {
    pub users: String,
    pub products: String,
    pub orders: String,
    pub order_worker: String,
    pub payments: String,
    pub notifications: String,
}

impl Functions {
    /// The physical names of all.
    pub fn names(&self) -> [&str; 6] {
        let Self { users, products, orders, order_worker, payments, notifications } = self;
        [users, products, orders, order_worker, payments, notifications].map(String::as_str)
    }
}

impl Stack {
    /// From the outputs that the template declares.
    pub fn from_outputs(emulator_url: &str, outputs: &HashMap<String, String>) -> Result<Self> {
        let output = |name: &str| outputs.get(name).cloned().with_context(|| format!("the stack has no output {name}"));
        Ok(Self {
            api_url: output("PublicApiUrl")?,
            internal_api_url: output("InternalApiUrl")?,
            emulator_url: emulator_url.to_owned(),
            region: REGION.to_owned(),
            user_pool_id: output("UserPoolId")?,
            client_id: output("UserPoolClientId")?,
            tables: Tables {
                users: output("UsersTableName")?,
                products: output("ProductsTableName")?,
                orders: output("OrdersTableName")?,
                payments: output("PaymentsTableName")?,
                notifications: output("NotificationsTableName")?,
                sandbox_ledger: output("SandboxLedgerTableName")?,
            },
            queues: Queues {
                order_events: output("OrderEventsQueueUrl")?,
                dead_letter: output("DeadLetterQueueUrl")?,
                user_events: output("UserEventsQueueUrl")?,
                user_events_dead_letter: output("UserEventsDeadLetterQueueUrl")?,
            },
            functions: Functions {
                users: output("UsersFunction")?,
                products: output("ProductsFunction")?,
                orders: output("OrdersFunction")?,
                order_worker: output("OrderWorkerFunction")?,
                payments: output("PaymentsFunction")?,
                notifications: output("NotificationsFunction")?,
            },
        })
    }

    /// The stack that `make up` has deployed, if what it was deployed to still
    /// runs.
    pub fn running(project: &Project) -> Result<Self> {
        let Ok(text) = fs::read(project.local().join(FILE)) else {
            bail!("no stack is running here; `make up` starts one");
        };
        let stack: Self = serde_json::from_slice(&text).context(".local/stack.json is no stack: `make up`")?;
        let own = Emulator::in_folder(project.local()).port().map(local_url);
        // Somebody else's emulator is there if it says anything at all.
        let there = own.as_ref() == Some(&stack.emulator_url) || Http::unhurried().get(&stack.emulator_url).is_ok();
        ensure!(there, "nobody answers at {}, where the stack was; `make up` starts another", stack.emulator_url);
        Ok(stack)
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let file = folder.join(FILE);
        let mut text = serde_json::to_string_pretty(self).context("cannot render the stack")?;
        text.push('\n');
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    pub fn forget(folder: &Path) -> Result<()> {
        project::remove(&folder.join(FILE))
    }

    /// A request through the public gateway.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Result<Answer> {
        Http::new().send(method, &format!("{}{path}", self.api_url), headers, body)
    }
}
