//! The settings of the function.

use chassis::{configuration, dynamo::TableName, events::QueueUrl, function::ServiceConfig};

configuration! {
    /// The environment of the users function.
    #[derive(Debug)]
    pub struct Config {
        pub service: ServiceConfig,
        pub table: TableName = required("USERS_TABLE", TableName::EXPECTED),
        /// The queue that tells the notifications service of erased users.
        pub order_events: QueueUrl = required(QueueUrl::OF_ORDER_EVENTS, QueueUrl::EXPECTED),
        /// The queue that tells the orders service of erased users.
        pub user_events: QueueUrl = required(QueueUrl::OF_USER_EVENTS, QueueUrl::EXPECTED),
    }
}
