//! What can be set of the function.

use chassis::{
    aws::Endpoint,
    caller::InternalAuth,
    config::{Configuration, Env},
    dynamo::TableName,
    http::HttpConfig,
    telemetry::LogFilter,
};

/// The environment of the products function.
#[derive(Debug)]
pub struct Config {
    /// What is logged.
    pub log: LogFilter,
    /// As of every function that answers requests.
    pub http: HttpConfig,
    /// How other services prove who they are.
    pub internal_auth: InternalAuth,
    /// Where products are kept.
    pub table: TableName,
}

impl Configuration for Config {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let (log, endpoint) = (LogFilter::read(env), Endpoint::read(env));
        let (http, internal_auth) = (HttpConfig::read(env), InternalAuth::read(env));
        let table = TableName::read(env, "PRODUCTS_TABLE");
        endpoint?;
        Some(Self { log: log?, http: http?, internal_auth: internal_auth?, table: table? })
    }
}
