//! What the stored item of an order says.

use serde_json::Value;

/// Whether an item of the orders table is an order. The table also has idempotency keys and
/// records of resends.
pub fn is_order(item: &Value) -> bool {
    item["sk"] == "ORDER"
}

pub fn is_open(order: &Value) -> bool {
    order["state"] != "DONE" && order["state"] != "CANCELLED"
}

/// Whether the order was ever in a state.
pub fn was(order: &Value, state: &str) -> bool {
    order["history"].as_array().into_iter().flatten().any(|entry| entry["status"] == state)
}
