//! A model of how DynamoDB limits concurrent requests, in virtual time.
//!
//! The embedded database executes every request at once. With this model, requests take
//! time and get in each other's way, as far as it matters for the number of orders per
//! second:
//!
//! - **Time.** A read, a write and a transaction take as long as [`Timing`] says. A
//!   transaction writes each of its items twice, once to prepare and once to commit.
//! - **Conflicts.** From its preparation until its commit, a transaction holds its items.
//!   Every other transaction (also one that only reads) and every single write that names
//!   a held item is refused with a conflict. Plain reads are never refused, and see the
//!   item as it was before the transaction
//!   (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html>).
//! - **Throughput.** Each partition key of a table and of an index may consume
//!   [`WRITE_UNITS`] and [`READ_UNITS`] in a second, and saves up at most one second's
//!   units. A request to a partition key that has no units left is throttled. A write is
//!   also throttled if an index that it changes has none left.
//!   (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/burst-adaptive-capacity.html>)
//!
//! The model leaves out:
//!
//! - Several partition keys may share one partition. Adaptive capacity moves a key that
//!   is written often to a partition of its own, in minutes. The model begins after that.
//! - A new table with on-demand capacity begins with 4,000 write units a second and grows
//!   with its traffic. The model has no limit for a table as a whole.
//! - A query takes the time of a read, and consumes no units.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use dynoxide::{
    Item,
    types::{item_size, read_capacity_units, table_write_capacity_units, write_capacity_units},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Cloud,
    dynamodb::{cancelled, conflict, throttled},
    lock,
};
use crate::{running_function::RunningFunction, tables};

/// The write units that a partition key may consume in a second.
pub const WRITE_UNITS: f64 = 1000.0;
/// The read units that a partition key may consume in a second.
pub const READ_UNITS: f64 = 3000.0;

/// The time that calls take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A request to DynamoDB that reads.
    pub read: Duration,
    /// A request to DynamoDB that writes one item.
    pub write: Duration,
    /// A transaction, from the request to the response.
    pub transaction: Duration,
    /// The part of a transaction's time for which the transaction holds its items.
    pub held: Duration,
    /// A transaction that only reads.
    pub transactional_read: Duration,
    /// The way to another service and back, without the service's own work.
    pub service: Duration,
    /// A request to SQS.
    pub queue: Duration,
}

/// What the model has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentionCounts {
    /// The requests that were refused because of a conflict.
    pub conflicts: u64,
    /// The requests that were throttled.
    pub throttled: u64,
}

/// The model; off until [`Cloud::model_contention`] is called.
#[derive(Default)]
pub(super) struct Contention(Mutex<Option<Arc<Model>>>);

struct Model {
    timing: Timing,
    indexes: HashMap<String, Vec<Index>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The items that running transactions hold.
    held: BTreeSet<String>,
    /// The units that each partition key has left, for writes and for reads.
    write_units: HashMap<String, Units>,
    read_units: HashMap<String, Units>,
    counts: ContentionCounts,
    /// The keys of the orders whose records the stream has to deliver to the worker.
    stream: Vec<Value>,
}

/// The units that a partition key has left. A request is admitted while any are left, so
/// the number can become negative.
struct Units {
    left: f64,
    at: Instant,
}

/// An index of a table.
struct Index {
    name: String,
    partition: String,
    /// All attributes of the index's keys.
    keys: Vec<String>,
    projection: Projection,
}

enum Projection {
    All,
    /// The keys of the index and of the table, and these attributes.
    Some(Vec<String>),
}

impl Cloud {
    /// From now on, requests to DynamoDB take time, conflict and are throttled, and calls
    /// to services and queues take time.
    pub fn model_contention(&self, timing: Timing) {
        let model = Model { timing, indexes: indexes(), state: Mutex::default() };
        *lock(&self.0.contention.0) = Some(Arc::new(model));
    }

    /// Ends the model: requests take no time again.
    pub fn end_contention_model(&self) {
        *lock(&self.0.contention.0) = None;
    }

    /// What the model has done since it was started.
    pub fn contention_counts(&self) -> ContentionCounts {
        self.0.contention.model().map(|model| lock(&model.state).counts).unwrap_or_default()
    }

    /// Takes the records that the orders table's stream has for the worker, oldest first.
    /// Each record is the keys of an order whose write has set `wake`.
    pub fn take_stream_records(&self) -> Vec<Value> {
        self.0.contention.model().map(|model| std::mem::take(&mut lock(&model.state).stream)).unwrap_or_default()
    }

    /// The time that a call to a service or a queue takes in the model.
    pub(super) async fn travel(&self, host: &str) {
        let Some(model) = self.0.contention.model() else { return };
        let time = if host.starts_with("sqs") { model.timing.queue } else { model.timing.service };
        tokio::time::sleep(time).await;
    }

    /// Executes a request to DynamoDB, as the model says if it is on.
    pub(super) async fn execute_in_dynamodb(&self, operation: String, request: Vec<u8>) -> (u16, String) {
        let Some(model) = self.0.contention.model() else { return self.0.dynamodb.handle(&operation, &request) };
        // A request that has arrived is executed even if its caller gives up.
        let cloud = self.clone();
        let execution = async move { model.execute(&cloud, &operation, &request).await };
        let task = match RunningFunction::current() {
            Some(caller) => tokio::spawn(caller.scope(execution)),
            None => tokio::spawn(execution),
        };
        task.await.unwrap_or_else(|failure| std::panic::resume_unwind(failure.into_panic()))
    }
}

impl Contention {
    fn model(&self) -> Option<Arc<Model>> {
        lock(&self.0).clone()
    }
}

impl Model {
    async fn execute(&self, cloud: &Cloud, operation: &str, request: &[u8]) -> (u16, String) {
        let body: Value = serde_json::from_slice(request).expect("a request in JSON");
        let execute = |request: &[u8]| cloud.0.dynamodb.handle(operation, request);
        match operation {
            "GetItem" | "BatchGetItem" => self.during(self.timing.read, || self.read(operation, body, execute)).await,
            "Query" => self.during(self.timing.read, || execute(request)).await,
            "TransactGetItems" => {
                self.during(self.timing.transactional_read, || {
                    let refusal = self.refusal_of_transaction(&writes(operation, &body));
                    refusal.unwrap_or_else(|| execute(request))
                })
                .await
            }
            "TransactWriteItems" => self.transact(cloud, &body, || execute(request)).await,
            _ => {
                self.during(self.timing.write, || {
                    let writes = writes(operation, &body);
                    if self.is_held(&writes) {
                        self.count(|counts| counts.conflicts += 1);
                        return conflict(operation, request, None);
                    }
                    if writes.iter().any(|write| !self.admits(cloud, write)) {
                        self.count(|counts| counts.throttled += 1);
                        return throttled(operation, request, None);
                    }
                    self.write(cloud, &writes, 1.0, || execute(request))
                })
                .await
            }
        }
    }

    /// Does `work` in the middle of `time`.
    async fn during<T>(&self, time: Duration, work: impl FnOnce() -> T) -> T {
        tokio::time::sleep(time / 2).await;
        let result = work();
        tokio::time::sleep(time / 2).await;
        result
    }

    async fn transact(&self, cloud: &Cloud, body: &Value, execute: impl FnOnce() -> (u16, String)) -> (u16, String) {
        let way = (self.timing.transaction - self.timing.held) / 2;
        tokio::time::sleep(way).await;
        let writes = writes("TransactWriteItems", body);
        let refusal = self.refusal_of_transaction(&writes).or_else(|| {
            let admitted: Vec<_> = writes.iter().map(|write| self.admits(cloud, write)).collect();
            admitted.contains(&false).then(|| {
                self.count(|counts| counts.throttled += 1);
                let reason = |is_admitted: &bool| if *is_admitted { "None" } else { "ThrottlingError" };
                cancelled(admitted.iter().map(reason))
            })
        });
        if let Some(refusal) = refusal {
            tokio::time::sleep(way).await;
            return refusal;
        }
        lock(&self.state).held.extend(writes.iter().map(Write::item));
        tokio::time::sleep(self.timing.held).await;
        let answer = self.write(cloud, &writes, 2.0, execute);
        for write in &writes {
            lock(&self.state).held.remove(&write.item());
        }
        tokio::time::sleep(way).await;
        answer
    }

    /// The response to a transaction that names an item that another transaction holds.
    fn refusal_of_transaction(&self, items: &[Write<'_>]) -> Option<(u16, String)> {
        let held: Vec<_> = items.iter().map(|item| self.is_held(std::slice::from_ref(item))).collect();
        held.contains(&true).then(|| {
            self.count(|counts| counts.conflicts += 1);
            cancelled(held.iter().map(|is_held| if *is_held { "TransactionConflict" } else { "None" }))
        })
    }

    fn is_held(&self, items: &[Write<'_>]) -> bool {
        let state = lock(&self.state);
        items.iter().any(|item| state.held.contains(&item.item()))
    }

    fn count(&self, count: impl FnOnce(&mut ContentionCounts)) {
        count(&mut lock(&self.state).counts);
    }

    /// Reads items. The keys of a batch whose partition has no units left are returned as
    /// unprocessed.
    fn read(&self, operation: &str, mut body: Value, execute: impl FnOnce(&[u8]) -> (u16, String)) -> (u16, String) {
        let is_left = |table: &str, key: &Value| self.has_units(Direction::Read, &partition(table, &key["pk"]));
        let mut unprocessed = json!({});
        if operation == "GetItem" {
            if !is_left(text(&body["TableName"]), &body["Key"]) {
                self.count(|counts| counts.throttled += 1);
                return throttled(operation, &[], None);
            }
        } else {
            for (table, request) in body["RequestItems"].as_object_mut().into_iter().flatten() {
                let keys = request["Keys"].as_array().cloned().unwrap_or_default();
                let (now, later): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| is_left(table, key));
                if now.is_empty() {
                    self.count(|counts| counts.throttled += 1);
                    return throttled(operation, &[], None);
                }
                if !later.is_empty() {
                    unprocessed[table] = request.clone();
                    unprocessed[table]["Keys"] = later.into();
                }
                request["Keys"] = now.into();
            }
        }
        let (status, response) = execute(body.to_string().as_bytes());
        let mut response: Value = serde_json::from_str(&response).expect("a response in JSON");
        let consistent = |request: &Value| if request["ConsistentRead"] == true { 1.0 } else { 0.5 };
        if operation == "GetItem" {
            let units = consistent(&body) * read_units(&response["Item"]);
            self.consume(Direction::Read, partition(text(&body["TableName"]), &body["Key"]["pk"]), units);
        } else {
            for (table, items) in response["Responses"].as_object().into_iter().flatten() {
                for item in items.as_array().into_iter().flatten() {
                    let units = consistent(&body["RequestItems"][table]) * read_units(item);
                    self.consume(Direction::Read, partition(table, &item["pk"]), units);
                }
            }
            if unprocessed.as_object().is_some_and(|tables| !tables.is_empty()) {
                response["UnprocessedKeys"] = unprocessed;
            }
        }
        (status, response.to_string())
    }

    /// Returns whether the partition of the written item, and the partitions of its
    /// entries in the indexes, have units left.
    fn admits(&self, cloud: &Cloud, write: &Write<'_>) -> bool {
        let stored = cloud.0.dynamodb.stored(write.table, write.key);
        let before = stored.iter().chain(write.put);
        let entries = before.flat_map(|item| self.indexes_of(write.table).filter_map(|index| index.entry(item)));
        let partitions = entries.map(|(partition, _)| partition);
        std::iter::once(partition(write.table, &write.key["pk"]))
            .chain(partitions)
            .all(|partition| self.has_units(Direction::Write, &partition))
    }

    /// Executes writes, and counts the units that they consume. A transaction consumes
    /// `factor` times as many in the table, and no more in the indexes.
    fn write(
        &self,
        cloud: &Cloud,
        writes: &[Write<'_>],
        factor: f64,
        execute: impl FnOnce() -> (u16, String),
    ) -> (u16, String) {
        let stored = || writes.iter().map(|write| cloud.0.dynamodb.stored(write.table, write.key)).collect::<Vec<_>>();
        let before = stored();
        let answer = execute();
        let after = stored();
        for ((write, before), after) in writes.iter().zip(before).zip(after) {
            let size = |item: &Option<Value>| item.as_ref().map(size_of);
            let units = factor * table_write_capacity_units(size(&before), size(&after));
            self.consume(Direction::Write, partition(write.table, &write.key["pk"]), units);
            for index in self.indexes_of(write.table) {
                let entry = |item: &Option<Value>| item.as_ref().and_then(|item| index.entry(item));
                self.write_entry(entry(&before), entry(&after));
            }
            if let Some(after) = after.filter(|after| Some(after) != before.as_ref() && after["wake"]["S"] == "now") {
                lock(&self.state).stream.push(json!({ "pk": after["pk"], "sk": after["sk"] }));
            }
        }
        answer
    }

    /// Counts the units of a change of an index. If an entry moves to another key, the old
    /// entry is deleted and the new entry is written.
    fn write_entry(&self, before: Option<(String, Value)>, after: Option<(String, Value)>) {
        if before == after {
            return;
        }
        for (partition, entry) in before.into_iter().chain(after) {
            self.consume(Direction::Write, partition, write_capacity_units(size_of(&entry)));
        }
    }

    fn indexes_of(&self, table: &str) -> impl Iterator<Item = &Index> {
        self.indexes.get(table).into_iter().flatten()
    }

    fn has_units(&self, direction: Direction, partition: &str) -> bool {
        let mut state = lock(&self.state);
        let (units, rate) = direction.units(&mut state);
        units.get_mut(partition).is_none_or(|units| units.refill(rate) > 0.0)
    }

    fn consume(&self, direction: Direction, partition: String, consumed: f64) {
        let mut state = lock(&self.state);
        let (units, rate) = direction.units(&mut state);
        let units = units.entry(partition).or_insert_with(|| Units { left: rate, at: Instant::now() });
        units.refill(rate);
        units.left -= consumed;
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

impl Direction {
    /// The units of all partitions, and the units that each partition gets in a second.
    fn units(self, state: &mut State) -> (&mut HashMap<String, Units>, f64) {
        match self {
            Self::Read => (&mut state.read_units, READ_UNITS),
            Self::Write => (&mut state.write_units, WRITE_UNITS),
        }
    }
}

impl Units {
    /// Adds the units for the time since the last call. Returns the units that are left.
    fn refill(&mut self, rate: f64) -> f64 {
        let now = Instant::now();
        self.left = rate.min(self.left + rate * (now - self.at).as_secs_f64());
        self.at = now;
        self.left
    }
}

impl Index {
    /// The partition and the content of the entry that the index has for an item. A sparse
    /// index has no entry for an item without the index's key.
    fn entry(&self, item: &Value) -> Option<(String, Value)> {
        let item = item.as_object()?;
        if !self.keys.iter().all(|key| item.contains_key(key)) {
            return None;
        }
        let projects = |name: &str| match &self.projection {
            Projection::All => true,
            Projection::Some(names) => names.iter().any(|projected| projected == name),
        };
        let entry: serde_json::Map<_, _> =
            item.iter().filter(|(name, _)| projects(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
        Some((partition(&self.name, &item[&self.partition]), entry.into()))
    }
}

/// An item that a request writes, or that a transaction names.
struct Write<'a> {
    table: &'a str,
    /// An object that has the attributes of the item's key, and perhaps others.
    key: &'a Value,
    /// The whole item, if the request contains it.
    put: Option<&'a Value>,
}

impl Write<'_> {
    fn item(&self) -> String {
        format!("{}/{}", partition(self.table, &self.key["pk"]), self.key["sk"])
    }
}

/// The items that a request names.
fn writes<'a>(operation: &str, body: &'a Value) -> Vec<Write<'a>> {
    let write = |part: &'a Value| {
        let put = Some(&part["Item"]).filter(|item| item.is_object());
        Write { table: text(&part["TableName"]), key: put.unwrap_or(&part["Key"]), put }
    };
    if operation.starts_with("Transact") {
        let parts = body["TransactItems"].as_array().expect("a transaction has parts");
        parts.iter().flat_map(|part| part.as_object().expect("a part").values()).map(write).collect()
    } else {
        vec![write(body)]
    }
}

/// The name of a partition of a table or an index.
fn partition(of: &str, key: &Value) -> String {
    format!("{of}/{key}")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn size_of(item: &Value) -> usize {
    let item: Item = serde_json::from_value(item.clone()).expect("an item");
    item_size(&item)
}

/// The units of a consistent read of the item. To read no item costs as much as to read
/// a small item.
fn read_units(item: &Value) -> f64 {
    read_capacity_units(if item.is_object() { size_of(item) } else { 0 })
}

/// The indexes of the template's tables, by the name of the table.
fn indexes() -> HashMap<String, Vec<Index>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let attributes = |schema: &Value| -> Vec<String> {
        list(schema).iter().map(|key| text(&key["AttributeName"]).to_owned()).collect()
    };
    let of_table = |table: &Value| {
        let name = text(&table["TableName"]);
        let of_table = attributes(&table["KeySchema"]);
        let index = |index: &Value| {
            let keys = attributes(&index["KeySchema"]);
            let projection = match text(&index["Projection"]["ProjectionType"]) {
                "ALL" => Projection::All,
                _ => {
                    let included = list(&index["Projection"]["NonKeyAttributes"]);
                    let included = included.iter().map(|name| text(name).to_owned());
                    Projection::Some(included.chain(keys.clone()).chain(of_table.clone()).collect())
                }
            };
            let name = format!("{name}/index/{}", text(&index["IndexName"]));
            Index { name, partition: keys[0].clone(), keys, projection }
        };
        (name.to_owned(), list(&table["GlobalSecondaryIndexes"]).iter().map(index).collect())
    };
    tables::from_template().iter().map(of_table).collect()
}
