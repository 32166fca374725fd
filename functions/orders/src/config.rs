//! What can be set of the two functions.

use std::time::Duration;

use chassis::{
    config::{Configuration, Env},
    dynamo::TableName,
    events::QueueUrl,
    function::FunctionConfig,
    http::HttpConfig,
};

use crate::clients::Addresses;

/// The environment of the orders function.
#[derive(Debug)]
pub struct OrdersConfig {
    /// What it has in common with the worker.
    pub saga: SagaConfig,
    /// As of every function that answers requests.
    pub http: HttpConfig,
    /// For how long an order can be cancelled.
    pub cancellation_window: Duration,
}

/// The environment of the order worker.
pub type OrderWorkerConfig = SagaConfig;

/// What is needed to run the saga.
#[derive(Debug)]
pub struct SagaConfig {
    /// As of every function.
    pub function: FunctionConfig,
    /// Where orders are kept.
    pub table: TableName,
    /// Where the other services are.
    pub services: Addresses,
    /// Where events go.
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
