//! The settings of the users function.

use chassis::{
    config::{Configuration, Env},
    dynamo::TableName,
    events::QueueUrl,
    function::{FunctionConfig, ServiceConfig},
};

#[derive(Debug)]
pub struct Config {
    /// Settings that every service has.
    pub service: ServiceConfig,
    pub table: TableName,
    /// The queue that notifies the notifications service of erased users.
    pub order_events: QueueUrl,
    /// The queue that notifies the orders service of erased users.
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
