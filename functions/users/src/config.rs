//! What can be set of the function.

use chassis::{
    config::{Configuration, Env},
    dynamo::TableName,
    events::QueueUrl,
    function::{FunctionConfig, ServiceConfig},
};

/// The environment of the users function.
#[derive(Debug)]
pub struct Config {
    /// As of every service.
    pub service: ServiceConfig,
    /// Where users are kept.
    pub table: TableName,
    /// The queue by which the notifications service hears of erased users.
    pub order_events: QueueUrl,
    /// The queue by which the orders service hears of erased users.
    pub user_events: QueueUrl,
}

impl AsRef<FunctionConfig> for Config {
    fn as_ref(&self) -> &FunctionConfig {
        &self.service.function
    }
}

impl Configuration for Config {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let (service, table) = (ServiceConfig::read(env), TableName::read(env, "USERS_TABLE"));
        let (order_events, user_events) = (QueueUrl::of_order_events(env), QueueUrl::of_user_events(env));
        Some(Self { service: service?, table: table?, order_events: order_events?, user_events: user_events? })
    }
}
