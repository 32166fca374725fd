//! What can be set of the function.

use chassis::{
    config::{Configuration, Env},
    dynamo::TableName,
    events::QueueUrl,
    function::{FunctionConfig, ServiceConfig},
};

/// The environment of the payments function.
#[derive(Debug)]
pub struct Config {
    /// As of every service.
    pub service: ServiceConfig,
    /// Where payments are kept.
    pub table: TableName,
    /// Where the sandbox provider keeps its own records.
    pub ledger: TableName,
    /// Where events go.
    pub events: QueueUrl,
}

impl AsRef<FunctionConfig> for Config {
    fn as_ref(&self) -> &FunctionConfig {
        &self.service.function
    }
}

impl Configuration for Config {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let service = ServiceConfig::read(env);
        let table = TableName::read(env, "PAYMENTS_TABLE");
        let ledger = TableName::read(env, "SANDBOX_LEDGER_TABLE");
        let events = QueueUrl::of_order_events(env);
        Some(Self { service: service?, table: table?, ledger: ledger?, events: events? })
    }
}
