//! The configuration of the notifications function.

use chassis::{
    config::{Configuration, Env},
    contact::Email,
    dynamo::TableName,
    function::FunctionConfig,
    http::HttpConfig,
};

/// The environment of the notifications function.
#[derive(Debug)]
pub struct Config {
    /// The settings that every function has.
    pub function: FunctionConfig,
    /// The settings of every function that answers HTTP requests.
    pub http: HttpConfig,
    /// The table of claims and erased users.
    pub table: TableName,
    /// The address that e-mails come from.
    pub sender: Email,
}

impl AsRef<FunctionConfig> for Config {
    fn as_ref(&self) -> &FunctionConfig {
        &self.function
    }
}

impl Configuration for Config {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let (function, http) = (FunctionConfig::read(env), HttpConfig::read(env));
        let table = TableName::read(env, "NOTIFICATIONS_TABLE");
        let sender = env.required("EMAIL_SENDER", "the address that e-mails come from");
        Some(Self { function: function?, http: http?, table: table?, sender: sender? })
    }
}
