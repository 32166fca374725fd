//! A stand-in for DynamoDB: an embedded database with DynamoDB's semantics.
//! Tests can also make it behave as a real table does under concurrent
//! requests: commits are delayed, conflicts are reported, and requests are
//! throttled.

use std::{sync::Mutex, time::Duration};

use dynoxide::Database;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Cloud, capacity::Meter, lock};
use crate::tables;

pub(super) struct Dynamodb {
    database: Database,
    /// For each fault: the affected key, the fault, and the time at which the
    /// fault ends.
    item_faults: Mutex<Vec<(String, ItemFault, Instant)>>,
    /// Every version of every item, with the name of the item's table; `None`
    /// unless a test has called [`Cloud::record_items`].
    recorded: Mutex<Option<Vec<(String, Value)>>>,
    meter: Meter,
}

/// An effect that concurrent requests of other clients have on an item or a
/// partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ItemFault {
    /// A transaction has committed its other items, but not this item yet.
    CommitPending,
    /// Other transactions write the item all the time.
    Contended,
    /// The throughput of the item's partition is used up.
    Throttled,
}

impl Cloud {
    /// For `time`, DynamoDB delays the commit of the item with this partition
    /// or sort key, while the other items of its transaction are committed:
    /// `GetItem` does not find the item, and every other request that names the
    /// item gets a conflict.
    pub fn delay_commit(&self, key: &str, time: Duration) {
        self.0.dynamodb.inject(key, ItemFault::CommitPending, time);
    }

    /// For `time`, transactions of other clients write the item with this key
    /// (or the items of the table with this name) all the time: every write and
    /// every transactional read of the services gets a conflict. Plain reads
    /// are not affected.
    pub fn contend(&self, key: &str, time: Duration) {
        self.0.dynamodb.inject(key, ItemFault::Contended, time);
    }

    /// For `time`, DynamoDB throttles every request to the partition with this
    /// key or to the table with this name.
    pub fn throttle(&self, key: &str, time: Duration) {
        self.0.dynamodb.inject(key, ItemFault::Throttled, time);
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.0.dynamodb.meter
    }

    pub(super) fn clear_item_faults(&self) {
        lock(&self.0.dynamodb.item_faults).clear();
    }

    /// Starts to record every version of every item.
    pub fn record_items(&self) {
        *lock(&self.0.dynamodb.recorded) = Some(Vec::new());
    }

    /// The recorded versions of items, each with the name of the item's table,
    /// oldest first.
    pub fn recorded_items(&self) -> Vec<(String, Value)> {
        lock(&self.0.dynamodb.recorded).clone().unwrap_or_default()
    }

    /// All items of the table with this logical id.
    pub fn scan(&self, table: &str) -> Vec<Value> {
        self.0.dynamodb.scan(table)
    }

    /// Puts an item directly into a table, without calling a function.
    pub fn put_item(&self, table: &str, item: Value) {
        self.0.dynamodb.expect_success("PutItem", &json!({ "TableName": table, "Item": item }));
    }

    /// Ends the lease of every order, as if the process that holds the lease
    /// had taken too long.
    pub fn expire_leases(&self) {
        for item in self.scan("OrdersTable").into_iter().filter(|item| item["lease"].is_object()) {
            let update = json!({
                "TableName": "OrdersTable",
                "Key": { "pk": item["pk"], "sk": item["sk"] },
                "UpdateExpression": "SET #lease.#until = :past, next_check = :past",
                "ExpressionAttributeNames": { "#lease": "lease", "#until": "until" },
                "ExpressionAttributeValues": { ":past": { "N": "0" } },
            });
            self.0.dynamodb.expect_success("UpdateItem", &update);
        }
    }
}

impl Dynamodb {
    /// A database that has the tables of the template.
    pub(super) fn start() -> Self {
        let database = Database::memory().expect("an in-memory database");
        for request in tables::from_template() {
            database
                .create_table(serde_json::from_value(request.clone()).expect("a CreateTable request"))
                .expect("a table");
        }
        Self { database, item_faults: Mutex::default(), recorded: Mutex::default(), meter: Meter::default() }
    }

    fn inject(&self, key: &str, fault: ItemFault, time: Duration) {
        lock(&self.item_faults).push((format!("{key:?}"), fault, Instant::now() + time));
    }

    /// The current fault of an item or a table that the request names, and the
    /// name as it stands in the request.
    fn item_fault(&self, request: &[u8]) -> Option<(String, ItemFault)> {
        let named = |key: &str| String::from_utf8_lossy(request).contains(key);
        let faults = lock(&self.item_faults);
        let current = faults.iter().find(|(key, _, until)| Instant::now() < *until && named(key));
        current.map(|(key, fault, _)| (key.clone(), *fault))
    }

    /// Executes a request. If the request names an item that has a fault, the
    /// response is the one that the fault causes.
    pub(super) fn handle(&self, operation: &str, request: &[u8]) -> (u16, String) {
        let is_plain_read = ["GetItem", "BatchGetItem", "Query"].contains(&operation);
        let answer = match self.item_fault(request) {
            Some((_, ItemFault::CommitPending)) if operation == "GetItem" => (200, json!({}).to_string()),
            Some((key, ItemFault::CommitPending)) => conflict(operation, request, Some(&key)),
            Some((key, ItemFault::Contended)) if !is_plain_read => conflict(operation, request, Some(&key)),
            Some((key, ItemFault::Throttled)) => throttled(operation, request, Some(&key)),
            Some((_, ItemFault::Contended)) | None => self.execute_metered(operation, request),
        };
        if !is_plain_read {
            self.record_changes();
        }
        answer
    }

    fn execute_metered(&self, operation: &str, request: &[u8]) -> (u16, String) {
        if !self.meter.is_running() {
            return self.execute(operation, request);
        }
        self.meter.measure(&self.database, operation, request, |request| self.execute(operation, request))
    }

    fn execute(&self, operation: &str, request: &[u8]) -> (u16, String) {
        let database = &self.database;
        macro_rules! dispatch {
            ($($operation:literal => $method:ident),* $(,)?) => {
                match operation {
                    $($operation => {
                        let request = serde_json::from_slice(request).expect(concat!("a request for ", $operation));
                        match database.$method(request) {
                            Ok(response) => (200, serde_json::to_string(&response).expect("a response in JSON")),
                            Err(error) => (error.status_code(), error.to_json()),
                        }
                    })*
                    other => panic!("no role allows the operation {other}"),
                }
            };
        }
        dispatch! {
            "GetItem" => get_item,
            "BatchGetItem" => batch_get_item,
            "PutItem" => put_item,
            "UpdateItem" => update_item,
            "DeleteItem" => delete_item,
            "Query" => query,
            "TransactGetItems" => transact_get_items,
            "TransactWriteItems" => transact_write_items,
        }
    }

    fn expect_success(&self, operation: &str, request: &Value) {
        let (status, answer) = self.execute(operation, request.to_string().as_bytes());
        assert_eq!(status, 200, "{answer}");
    }

    /// The stored item with the key attributes of `key`, which may have other
    /// attributes, too.
    pub(super) fn stored(&self, table: &str, key: &Value) -> Option<Value> {
        let key = json!({ "pk": key["pk"], "sk": key["sk"] });
        let request = json!({ "TableName": table, "Key": key, "ConsistentRead": true });
        let (status, response) = self.execute("GetItem", request.to_string().as_bytes());
        assert_eq!(status, 200, "{response}");
        let mut response: Value = serde_json::from_str(&response).expect("a response in JSON");
        Some(response["Item"].take()).filter(Value::is_object)
    }

    /// All items of a table. A response has at most 1 MB, so a large table needs several
    /// requests.
    fn scan(&self, table: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut request = json!({ "TableName": table });
        loop {
            let page = serde_json::from_value(request.clone()).expect("a Scan request");
            let response = self.database.scan(page).expect("a scan");
            let mut response = serde_json::to_value(response).expect("a response in JSON");
            match response["Items"].take() {
                Value::Array(items) => all.extend(items),
                other => panic!("the scan returned {other}"),
            }
            match response["LastEvaluatedKey"].take() {
                Value::Null => return all,
                last => request["ExclusiveStartKey"] = last,
            }
        }
    }

    /// Records every version of an item that is not recorded yet.
    fn record_changes(&self) {
        let mut recorded = lock(&self.recorded);
        let Some(recorded) = recorded.as_mut() else { return };
        for table in tables::from_template().iter().filter_map(|request| request["TableName"].as_str()) {
            for item in self.scan(table) {
                if !recorded.iter().any(|(of, known)| of == table && *known == item) {
                    recorded.push((table.to_owned(), item));
                }
            }
        }
    }
}

/// The error response that reports a conflict with another transaction: for the
/// parts of a transaction that name `key`, or else for its last part. The last
/// part is usually an item for which several requests compete.
pub(super) fn conflict(operation: &str, request: &[u8], key: Option<&str>) -> (u16, String) {
    let message = "Transaction is ongoing for the item";
    if operation.starts_with("Transact") {
        cancelled(reasons("TransactionConflict", request, key).into_iter())
    } else {
        (400, error("TransactionConflictException", message).to_string())
    }
}

/// The error response that reports a throttled partition: for the parts of a
/// transaction that name `key`, or else for its last part.
pub(super) fn throttled(operation: &str, request: &[u8], key: Option<&str>) -> (u16, String) {
    let message = "Throughput exceeds the current capacity of your table or index.";
    if operation.starts_with("Transact") {
        cancelled(reasons("ThrottlingError", request, key).into_iter())
    } else {
        (400, error("ThrottlingException", message).to_string())
    }
}

/// The codes for the parts of a transaction, of which some have failed with
/// `code`.
fn reasons(code: &'static str, request: &[u8], key: Option<&str>) -> Vec<&'static str> {
    let request: Value = serde_json::from_slice(request).expect("a request in JSON");
    let parts = request["TransactItems"].as_array().expect("the parts of a transaction");
    let has_failed = |position: usize, part: &Value| match key {
        Some(key) => part.to_string().contains(key),
        None => position + 1 == parts.len(),
    };
    let code = |(position, part)| if has_failed(position, part) { code } else { "None" };
    parts.iter().enumerate().map(code).collect()
}

/// The error response to a transaction that was cancelled. `reasons` has one code for each
/// part of the transaction; the code of a part that is not the reason is `None`.
pub(super) fn cancelled(reasons: impl Iterator<Item = &'static str>) -> (u16, String) {
    let reasons: Vec<_> = reasons.collect();
    let why = reasons.join(", ");
    let why = format!("Transaction cancelled, please refer cancellation reasons for specific reasons [{why}]");
    let mut body = error("TransactionCanceledException", &why);
    body["CancellationReasons"] = reasons.iter().map(|code| json!({ "Code": code })).collect();
    (400, body.to_string())
}

fn error(name: &str, message: &str) -> Value {
    json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{name}"), "message": message, "Message": message })
}
