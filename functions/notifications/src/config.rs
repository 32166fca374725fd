//! The configuration of the notifications function.

use chassis::{configuration, contact::Email, dynamo::TableName, events::QueueUrl, http::HttpConfig};

configuration! {
    /// The environment of the notifications function.
    #[derive(Debug)]
    pub struct Config {
        pub http: HttpConfig,
        /// The table of claims, erased users and suppressed addresses.
        pub table: TableName = required("NOTIFICATIONS_TABLE", TableName::EXPECTED),
        /// The queue that this function consumes. While messages are paused, the function sends the events back to it.
        pub events: QueueUrl = required(QueueUrl::OF_ORDER_EVENTS, QueueUrl::EXPECTED),
        /// The configuration set with which each e-mail is sent, so that SES reports bounces and complaints.
        pub email_configuration_set: String =
            required("EMAIL_CONFIGURATION_SET", "the name of an SES configuration set"),
        pub sender: Email = required("EMAIL_SENDER", "the address that e-mails come from"),
    }
}
