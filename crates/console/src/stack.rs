//! The deployed stack, as `make up` describes it in `stack.json`.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, de::DeserializeOwned};

/// The addresses and names of the stack's resources, by their short names.
#[derive(Clone, Debug, Deserialize)]
pub struct Stack {
    pub api_url: String,
    pub emulator_url: String,
    pub region: String,
    pub user_pool_id: String,
    pub client_id: String,
    pub tables: BTreeMap<String, String>,
    pub queues: BTreeMap<String, String>,
    pub services: BTreeMap<String, String>,
    pub functions: BTreeMap<String, String>,
}

impl Stack {
    pub fn in_folder(folder: &Path) -> Result<Self> {
        read(&folder.join("stack.json")).context("no stack is running here; `make up` starts one")
    }

    pub fn table(&self, name: &str) -> Result<&str> {
        self.tables.get(name).map(String::as_str).with_context(|| format!("the stack has no table `{name}`"))
    }

    pub fn queue(&self, name: &str) -> Result<&str> {
        self.queues.get(name).map(String::as_str).with_context(|| format!("the stack has no queue `{name}`"))
    }

    pub fn function(&self, name: &str) -> Result<&str> {
        self.functions.get(name).map(String::as_str).with_context(|| format!("the stack has no function `{name}`"))
    }
}

/// Reads a file of JSON.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} has another form than expected", file.display()))
}

#[cfg(test)]
pub fn sample() -> Stack {
    let named = |names: &[&str], address: &dyn Fn(&str) -> String| {
        names.iter().map(|name| ((*name).to_owned(), address(name))).collect::<BTreeMap<_, _>>()
    };
    Stack {
        api_url: "http://localhost:1/api".into(),
        emulator_url: "http://localhost:1".into(),
        region: "us-east-1".into(),
        user_pool_id: "pool".into(),
        client_id: "client".into(),
        tables: named(&["orders", "products", "payments", "sandbox_ledger"], &|name| format!("shop-{name}")),
        queues: named(&["order_events", "dead_letter"], &|name| format!("http://localhost:1/0/{name}")),
        services: named(&["users", "products", "payments"], &|name| {
            format!("http://localhost:1/_aws/lambda-url/{name}id")
        }),
        functions: named(&["orders", "order_worker", "payments"], &|name| format!("shop-{name}")),
    }
}
