//! The environment variables of the orders function and of the order worker.

use std::time::Duration;

use chassis::{
    config::{Configuration, Env},
    dynamo::TableName,
    events::QueueUrl,
    function::FunctionConfig,
    http::HttpConfig,
};

use crate::clients::Addresses;

#[derive(Debug)]
pub struct OrdersConfig {
    pub saga: SagaConfig,
    pub http: HttpConfig,
    /// The time after placing an order during which it can be cancelled.
    pub cancellation_window: Duration,
}

pub type OrderWorkerConfig = SagaConfig;

/// The variables that the orders function and the order worker have in common.
#[derive(Debug)]
pub struct SagaConfig {
    pub function: FunctionConfig,
    pub table: TableName,
    pub services: Addresses,
    pub events: QueueUrl,
}

impl AsRef<FunctionConfig> for OrdersConfig {
    fn as_ref(&self) -> &FunctionConfig {
        &self.saga.function
    }
}

impl AsRef<FunctionConfig> for SagaConfig {
    fn as_ref(&self) -> &FunctionConfig {
        &self.function
    }
}

impl Configuration for OrdersConfig {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let (saga, http) = (SagaConfig::read(env), HttpConfig::read(env));
        let hours = env.required::<u32>("CANCELLATION_WINDOW_HOURS", "for how many hours an order can be cancelled");
        Some(Self { saga: saga?, http: http?, cancellation_window: Duration::from_secs(u64::from(hours?) * 3600) })
    }
}

impl Configuration for SagaConfig {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let (function, table) = (FunctionConfig::read(env), TableName::read(env, "ORDERS_TABLE"));
        let (services, events) = (Addresses::read(env), QueueUrl::of_order_events(env));
        Some(Self { function: function?, table: table?, services: services?, events: events? })
    }
}
