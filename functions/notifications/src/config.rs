//! What can be set of the function.

use chassis::{
    aws::Endpoint,
    config::{Configuration, Env},
    contact::Email,
    dynamo::TableName,
    http::HttpConfig,
    telemetry::LogFilter,
};

/// The environment of the notifications function.
#[derive(Debug)]
pub struct Config {
    /// What is logged.
    pub log: LogFilter,
    /// As of every function that answers requests.
    pub http: HttpConfig,
    /// Where it is kept what was told.
    pub table: TableName,
    /// Whom e-mails come from.
    pub sender: Email,
}

impl Configuration for Config {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let (log, endpoint) = (LogFilter::read(env), Endpoint::read(env));
        let http = HttpConfig::read(env);
        let table = TableName::read(env, "NOTIFICATIONS_TABLE");
        let sender = env.required("EMAIL_SENDER", "the address that e-mails come from");
        endpoint?;
        Some(Self { log: log?, http: http?, table: table?, sender: sender? })
    }
}
