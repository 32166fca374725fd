//! Creates the tables as `template.yaml` declares them. Therefore a test fails
//! if the code uses an index that the template does not declare.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::template::Template;

/// The `CreateTable` request for each table in the template. The name of a
/// table is its logical id.
pub fn from_template() -> &'static [Value] {
    static TABLES: LazyLock<Vec<Value>> = LazyLock::new(|| {
        let template = Template::read();
        template
            .resources("AWS::DynamoDB::Table")
            .map(|(id, resource)| create_table_request(id, &resource["Properties"]))
            .collect()
    });
    &TABLES
}

fn create_table_request(name: &str, properties: &Value) -> Value {
    let mut request = json!({
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": properties["AttributeDefinitions"],
        "KeySchema": properties["KeySchema"],
    });
    let indexes = &properties["GlobalSecondaryIndexes"];
    if !indexes.is_null() {
        request["GlobalSecondaryIndexes"] = indexes.clone();
    }
    request
}
