//! Meters the capacity of DynamoDB that the functions consume.
//!
//! The embedded database computes the units of a successful request as DynamoDB
//! reports them in `ConsumedCapacity`:
//!
//! - A write costs one unit for each started KB of the item before or after the
//!   write, whichever is larger. In a transaction it costs twice as much.
//! - An index costs nothing if the write does not change the index's entry. A
//!   changed entry costs one unit for each started KB of the entry, and two
//!   entries if the entry moves to another key. Transactions do not double the
//!   cost of indexes.
//! - A strongly consistent read costs one unit for each started 4 KB, an
//!   eventually consistent read half of that, and a transactional read twice
//!   that.
//!
//! DynamoDB reports no capacity for a request that failed. This module computes
//! the units of failed writes itself. A write whose condition fails costs as
//! much as a write that succeeds, but no index costs anything
//! (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>).
//! AWS does not publish what a cancelled transaction costs. It is counted as if
//! it had succeeded. Throttled requests and conflicts cost nothing here.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use dynoxide::{
    Database, Item,
    types::{ConsumedCapacity, item_size, table_write_capacity_units},
};
use serde_json::{Value, json};

use super::{Cloud, call::calling_function, lock};

/// One request to DynamoDB, with the capacity that it consumed in one table.
#[derive(Clone, Debug, PartialEq)]
pub struct MeteredRequest {
    /// The function that sent the request; `nobody` for a test.
    pub function: &'static str,
    pub operation: String,
    /// The logical id of the table.
    pub table: String,
    /// The sort keys of the items that the request names.
    pub items: Vec<String>,
    /// Whether the response was an error, such as a condition that failed.
    pub failed: bool,
    /// The write units of the table itself, without its indexes.
    pub table_write_units: f64,
    /// The write units of each index that the request changed.
    pub index_write_units: BTreeMap<String, f64>,
    pub read_units: f64,
}

impl MeteredRequest {
    /// The write units of the table and its indexes.
    pub fn write_units(&self) -> f64 {
        self.table_write_units + self.index_write_units.values().sum::<f64>()
    }
}

/// The sums of several requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Capacity {
    pub requests: u64,
    /// The write units of the table and its indexes.
    pub write_units: f64,
    pub read_units: f64,
}

impl Capacity {
    pub fn of<'a>(requests: impl IntoIterator<Item = &'a MeteredRequest>) -> Self {
        requests.into_iter().fold(Self::default(), |sum, request| Self {
            requests: sum.requests + 1,
            write_units: sum.write_units + request.write_units(),
            read_units: sum.read_units + request.read_units,
        })
    }
}

/// The requests since the meter was started; `None` if it was never started.
#[derive(Default)]
pub(super) struct Meter(Mutex<Option<Vec<MeteredRequest>>>);

impl Cloud {
    /// Starts to meter all requests to DynamoDB, or starts again from zero.
    /// Until a test calls this method, nothing is metered, because metering
    /// takes time.
    pub fn start_metering(&self) {
        *lock(&self.meter().0) = Some(Vec::new());
    }

    /// All metered requests, oldest first.
    ///
    /// # Panics
    ///
    /// If [`Cloud::start_metering`] was not called.
    pub fn metered_requests(&self) -> Vec<MeteredRequest> {
        lock(&self.meter().0).clone().expect("the test has started the meter")
    }

    /// The capacity that each function has consumed in each table, by the name
    /// of the function and the logical id of the table.
    ///
    /// # Panics
    ///
    /// If [`Cloud::start_metering`] was not called.
    pub fn consumed(&self) -> BTreeMap<(&'static str, String), Capacity> {
        let mut requests: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for request in self.metered_requests() {
            requests.entry((request.function, request.table.clone())).or_default().push(request);
        }
        requests.into_iter().map(|(of, requests)| (of, Capacity::of(&requests))).collect()
    }
}

impl Meter {
    pub(super) fn is_running(&self) -> bool {
        lock(&self.0).is_some()
    }

    /// Executes a request with `execute`, and records the capacity that the
    /// request consumes. The response is the same as without the meter.
    pub(super) fn measure(
        &self,
        database: &Database,
        operation: &str,
        request: &[u8],
        execute: impl FnOnce(&[u8]) -> (u16, String),
    ) -> (u16, String) {
        let mut request: Value = serde_json::from_slice(request).expect("a request in JSON");
        // A failed write costs as much as the item that is stored before it.
        let units_if_it_fails = failed_write_units(database, operation, &request);
        request["ReturnConsumedCapacity"] = "INDEXES".into();
        let (status, response) = execute(request.to_string().as_bytes());
        let mut response: Value = serde_json::from_str(&response).expect("a response in JSON");
        let consumed = response.as_object_mut().and_then(|response| response.remove("ConsumedCapacity"));
        let base = MeteredRequest {
            function: calling_function(),
            operation: operation.to_owned(),
            table: String::new(),
            items: sort_keys(&request),
            failed: status != 200,
            table_write_units: 0.0,
            index_write_units: BTreeMap::new(),
            read_units: 0.0,
        };
        let metered: Vec<_> = match consumed {
            None => units_if_it_fails
                .into_iter()
                .map(|(table, table_write_units)| MeteredRequest { table, table_write_units, ..base.clone() })
                .collect(),
            Some(consumed) => {
                let of_tables = if consumed.is_array() { consumed } else { json!([consumed]) };
                let of_tables: Vec<ConsumedCapacity> = serde_json::from_value(of_tables).expect("consumed capacity");
                of_tables.into_iter().map(|capacity| of_table(&base, capacity)).collect()
            }
        };
        lock(&self.0).get_or_insert_default().extend(metered);
        (status, response.to_string())
    }
}

fn of_table(base: &MeteredRequest, capacity: ConsumedCapacity) -> MeteredRequest {
    let is_read = capacity.read_capacity_units.is_some()
        || ["GetItem", "BatchGetItem", "Query", "TransactGetItems"].contains(&base.operation.as_str());
    let request = MeteredRequest { table: capacity.table_name, ..base.clone() };
    if is_read {
        return MeteredRequest { read_units: capacity.capacity_units, ..request };
    }
    let indexes = capacity.global_secondary_indexes.unwrap_or_default().into_iter();
    MeteredRequest {
        table_write_units: capacity.table.unwrap_or_default().capacity_units,
        index_write_units: indexes.map(|(index, units)| (index, units.capacity_units)).collect(),
        ..request
    }
}

/// The write units that the request costs in each table if its conditions fail.
/// A request that only reads has none.
fn failed_write_units(database: &Database, operation: &str, request: &Value) -> HashMap<String, f64> {
    let mut units = HashMap::new();
    match operation {
        "PutItem" | "UpdateItem" | "DeleteItem" => {
            let (table, of_write) = item_write_units(database, request);
            units.insert(table, of_write);
        }
        "TransactWriteItems" => {
            let actions = request["TransactItems"].as_array().expect("a transaction has actions");
            for write in actions.iter().flat_map(|action| action.as_object().expect("an action").values()) {
                let (table, of_write) = item_write_units(database, write);
                *units.entry(table).or_default() += 2.0 * of_write;
            }
        }
        _ => {}
    }
    units
}

/// The table of a write, and the write units that it costs without indexes: for
/// each started KB of the stored item or of the item that a put contains,
/// whichever is larger.
fn item_write_units(database: &Database, write: &Value) -> (String, f64) {
    let size = |item: &Value| {
        let item: Option<Item> = serde_json::from_value(item.clone()).expect("an item");
        item.as_ref().map(item_size)
    };
    let named = if write["Key"].is_null() { &write["Item"] } else { &write["Key"] };
    let key = json!({ "pk": named["pk"], "sk": named["sk"] });
    let get = json!({ "TableName": write["TableName"], "Key": key });
    let stored = database.get_item(serde_json::from_value(get).expect("a GetItem request")).expect("a response");
    let stored = serde_json::to_value(stored).expect("a response in JSON");
    let table = write["TableName"].as_str().expect("a write names its table").to_owned();
    (table, table_write_capacity_units(size(&stored["Item"]), size(&write["Item"])))
}

/// The sort keys of all items that the request names, at any depth.
fn sort_keys(request: &Value) -> Vec<String> {
    match request {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| match value["S"].as_str() {
                Some(sort_key) if name == "sk" => vec![sort_key.to_owned()],
                _ => sort_keys(value),
            })
            .collect(),
        Value::Array(values) => values.iter().flat_map(sort_keys).collect(),
        _ => Vec::new(),
    }
}
