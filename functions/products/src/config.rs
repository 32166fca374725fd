//! The settings of the function.

use chassis::{configuration, dynamo::TableName, function::ServiceConfig};

configuration! {
    /// The environment of the products function.
    #[derive(Debug)]
    pub struct Config {
        pub service: ServiceConfig,
        pub table: TableName = required("PRODUCTS_TABLE", TableName::EXPECTED),
    }
}
