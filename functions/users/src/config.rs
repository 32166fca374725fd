//! What can be set of the function.

use chassis::{
    config::{Configuration, Env},
    dynamo::TableName,
    function::{FunctionConfig, ServiceConfig},
};

/// The environment of the users function.
#[derive(Debug)]
pub struct Config {
    /// As of every service.
    pub service: ServiceConfig,
    /// Where users are kept.
    pub table: TableName,
}

impl AsRef<FunctionConfig> for Config {
    fn as_ref(&self) -> &FunctionConfig {
        &self.service.function
    }
}

impl Configuration for Config {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let (service, table) = (ServiceConfig::read(env), TableName::read(env, "USERS_TABLE"));
        Some(Self { service: service?, table: table? })
    }
}
