//! The permissions that functions have and need.
//!
//! Every call that a function makes in a test is checked against the role that
//! the template gives the function, and is refused if the role does not allow the
//! call, as IAM would refuse it. All permissions that calls need are recorded, so
//! that a test can find permissions that no function uses.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::LazyLock,
};

use serde_json::Value;

use crate::template::Template;

/// A permission that a function has or needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    pub function: String,
    /// The IAM action, such as `dynamodb:GetItem`.
    pub action: String,
    /// The end of the resource's ARN, such as `OrdersTable/index/by_user`.
    pub resource: String,
}

impl Permission {
    pub fn new(function: &str, action: &str, resource: &str) -> Self {
        Self { function: function.into(), action: action.into(), resource: resource.into() }
    }
}

/// Writes the permission in the form `orders: dynamodb:GetItem on OrdersTable`.
impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} on {}", self.function, self.action, self.resource)
    }
}

/// The permissions that the template's roles grant.
pub static GRANTED: LazyLock<BTreeSet<Permission>> = LazyLock::new(granted);

/// The action and resource of each permission that a DynamoDB request needs. IAM
/// has no action for a transaction; each part of a transaction needs the
/// permission of its own operation.
pub fn of_dynamodb(operation: &str, request: &Value) -> Vec<(String, String)> {
    let table = |part: &Value| part["TableName"].as_str().expect("a table's name").to_owned();
    let action = |operation: &str| format!("dynamodb:{operation}");
    match operation {
        "BatchGetItem" => {
            let tables = request["RequestItems"].as_object().into_iter().flatten();
            tables.map(|(table, _)| (action(operation), table.clone())).collect()
        }
        "TransactWriteItems" | "TransactGetItems" => {
            let parts = request["TransactItems"].as_array().into_iter().flatten();
            let parts = parts.flat_map(|part| part.as_object().into_iter().flatten());
            let named = |kind: &str| {
                if kind == "ConditionCheck" { action("ConditionCheckItem") } else { action(&format!("{kind}Item")) }
            };
            parts.map(|(kind, part)| (named(kind), table(part))).collect()
        }
        _ => {
            let index = request["IndexName"].as_str().map(|index| format!("/index/{index}"));
            vec![(action(operation), table(request) + &index.unwrap_or_default())]
        }
    }
}

/// The action of the permission to call a route of another service. This is no
/// action of IAM: the service itself checks the permission, see
/// [`chassis::internal_callers`].
pub const CALL: &str = "call";

/// The resource of the permission to call a route, such as `POST /payments/*`.
/// Each id in the path is replaced by `*`.
pub fn route(method: &str, path: &str) -> String {
    let segments = path.split('/').map(|segment| if segment.contains(['_', '{']) { "*" } else { segment });
    format!("{method} {}", segments.collect::<Vec<_>>().join("/"))
}

fn granted() -> BTreeSet<Permission> {
    let template = Template::read();
    let functions: HashMap<_, _> =
        template.functions().map(|function| (function.role().to_owned(), function.name.to_owned())).collect();
    let mut granted = BTreeSet::new();
    for statement in template.statements().filter(|statement| statement.allows) {
        for action in &statement.actions {
            for resource in &statement.resources {
                granted.insert(Permission::new(&functions[statement.role], action, &resource_name(resource)));
            }
        }
    }
    for internal in template.internal_routes() {
        granted.insert(Permission::new(&functions[internal.caller], CALL, &route(internal.method, internal.path)));
    }
    granted
}

/// Shortens a resource: `!GetAtt OrdersTable.Arn` to `OrdersTable`, and
/// `!Sub arn:…:identity/*` to `identity/*`.
fn resource_name(resource: &Value) -> String {
    if let Some(attribute) = resource["Fn::GetAtt"].as_str() {
        return attribute.trim_end_matches(".Arn").to_owned();
    }
    let text = resource["Fn::Sub"]
        .as_str()
        .or(resource["Ref"].as_str())
        .or(resource.as_str())
        .expect("a resource is named directly");
    let text = text.replace("${AWS::", "").replace(".Arn}", "").replace(['$', '{', '}'], "");
    text.rsplit(':').next().unwrap_or_default().to_owned()
}
