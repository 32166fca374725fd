//! The environment variables of the orders function and of the order worker.

use chassis::{configuration, dynamo::TableName, events::QueueUrl, http::HttpConfig};

use crate::clients::Addresses;

configuration! {
    #[derive(Debug)]
    pub struct OrdersConfig {
        pub saga: SagaConfig,
        pub http: HttpConfig,
        /// For this number of hours after an order was placed, the order can be cancelled.
        pub cancellation_window_hours: u32 =
            required("CANCELLATION_WINDOW_HOURS", "for how many hours an order can be cancelled"),
    }
}

pub type OrderWorkerConfig = SagaConfig;

configuration! {
    /// The environment variables that both the orders function and the order worker need.
    #[derive(Debug)]
    pub struct SagaConfig {
        pub table: TableName = required("ORDERS_TABLE", TableName::EXPECTED),
        pub services: Addresses,
        pub events: QueueUrl = required(QueueUrl::OF_ORDER_EVENTS, QueueUrl::EXPECTED),
    }
}
