//! What can be set of the function.

use chassis::{
    aws::Endpoint,
    caller::InternalAuth,
    config::{Configuration, Env},
    dynamo::TableName,
    events::QueueUrl,
    http::HttpConfig,
    telemetry::LogFilter,
};

/// The environment of the payments function.
#[derive(Debug)]
pub struct Config {
    /// What is logged.
    pub log: LogFilter,
    /// As of every function that answers requests.
    pub http: HttpConfig,
    /// How other services prove who they are.
    pub internal_auth: InternalAuth,
    /// Where payments are kept.
    pub table: TableName,
    /// Where the sandbox provider keeps its own records.
    pub ledger: TableName,
    /// Where events go.
    pub events: QueueUrl,
}

impl Configuration for Config {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let (log, endpoint) = (LogFilter::read(env), Endpoint::read(env));
        let (http, internal_auth) = (HttpConfig::read(env), InternalAuth::read(env));
        let table = TableName::read(env, "PAYMENTS_TABLE");
        let ledger = TableName::read(env, "SANDBOX_LEDGER_TABLE");
        let events = QueueUrl::read(env);
        endpoint?;
        Some(Self {
            log: log?,
            http: http?,
            internal_auth: internal_auth?,
            table: table?,
            ledger: ledger?,
            events: events?,
        })
    }
}
