//! The configuration of the notifications function.

use chassis::{configuration, contact::Email, dynamo::TableName, http::HttpConfig};

configuration! {
    /// The environment of the notifications function.
    #[derive(Debug)]
    pub struct Config {
        pub http: HttpConfig,
        /// The table of claims and erased users.
        pub table: TableName = required("NOTIFICATIONS_TABLE", TableName::EXPECTED),
        pub sender: Email = required("EMAIL_SENDER", "the address that e-mails come from"),
    }
}
