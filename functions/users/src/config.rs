//! The settings of the function.

use chassis::{configuration, dynamo::TableName, events::QueueUrl, function::ServiceConfig};

configuration! {
    /// The environment of the users function.
    #[derive(Debug)]
    pub struct Config {
        pub service: ServiceConfig,
        pub table: TableName = required("USERS_TABLE", TableName::EXPECTED),
        /// The input queue of the notifications service, to which this function also sends the event `UserErased`.
        pub order_events: QueueUrl = required(QueueUrl::OF_ORDER_EVENTS, QueueUrl::EXPECTED),
        /// The input queue of the order worker, to which this function sends the event `UserErased`.
        pub user_events: QueueUrl = required(QueueUrl::OF_USER_EVENTS, QueueUrl::EXPECTED),
    }
}
