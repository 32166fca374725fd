//! The settings of the products function.

use chassis::{
    config::{Configuration, Env},
    dynamo::TableName,
    function::{FunctionConfig, ServiceConfig},
};

#[derive(Debug)]
pub struct Config {
    /// Settings that every service has.
    pub service: ServiceConfig,
    pub table: TableName,
}

impl AsRef<FunctionConfig> for Config {
    fn as_ref(&self) -> &FunctionConfig {
        &self.service.function
    }
}

impl Configuration for Config {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let (service, table) = (ServiceConfig::read(env), TableName::read(env, "PRODUCTS_TABLE"));
        Some(Self { service: service?, table: table? })
    }
}
