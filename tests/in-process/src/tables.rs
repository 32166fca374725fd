//! Creates the tables as `template.yaml` declares them, so that an index that
//! exists only here can't make a test pass.

use std::sync::LazyLock;

use serde_json::{Value, json};

/// The template itself: the tables are read from it, not declared again.
const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../template.yaml");

/// The `CreateTable` request for each `AWS::DynamoDB::Table` of the template,
/// named by its logical id.
pub fn from_template() -> &'static [Value] {
    static TABLES: LazyLock<Vec<Value>> = LazyLock::new(read_template);
    &TABLES
}

fn read_template() -> Vec<Value> {
    let text = std::fs::read_to_string(TEMPLATE).expect("template.yaml is readable");
    let template: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).expect("template.yaml is YAML");
    let resources = template["Resources"].as_mapping().expect("the template has resources");
    let tables = resources.iter().filter(|(_, resource)| resource["Type"] == "AWS::DynamoDB::Table");
    tables.map(|(id, resource)| request(id.as_str().unwrap_or_default(), &resource["Properties"])).collect()
}

fn request(name: &str, properties: &serde_yaml_ng::Value) -> Value {
    let part = |key: &str| serde_json::to_value(&properties[key]).expect("YAML without tags is JSON");
    let mut request = json!({
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": part("AttributeDefinitions"),
        "KeySchema": part("KeySchema"),
    });
    if !properties["GlobalSecondaryIndexes"].is_null() {
        request["GlobalSecondaryIndexes"] = part("GlobalSecondaryIndexes");
    }
    request
}
