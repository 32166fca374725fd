//! The settings of the payments function.

use chassis::{configuration, dynamo::TableName, events::QueueUrl, function::ServiceConfig};

configuration! {
    /// The settings of the payments function.
    #[derive(Debug)]
    pub struct Config {
        pub service: ServiceConfig,
        pub table: TableName = required("PAYMENTS_TABLE", TableName::EXPECTED),
        /// The table in which the sandbox provider keeps its own records.
        pub ledger: TableName = required("SANDBOX_LEDGER_TABLE", TableName::EXPECTED),
        /// The queue for events.
        pub events: QueueUrl = required(QueueUrl::OF_ORDER_EVENTS, QueueUrl::EXPECTED),
    }
}
