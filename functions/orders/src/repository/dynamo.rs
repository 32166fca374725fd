//! Stores orders in DynamoDB. `docs/data-model.md` describes the items and indexes.

use async_trait::async_trait;
use chassis::{
    dynamo::{self, Item, Key, List, Table, TransactionOutcome, WriteOutcome, number, string},
    id::UserId,
    idempotency::{InsertOutcome, KeyUse},
    page::{ListError, Page},
    store::{SaveOutcome, StoreError},
    telemetry::chain,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DueOrder, DuePage, OrderList, Postponed, Repository, SHARDS};
use crate::domain::{Lease, Order, OrderId, OrderState};

const BY_USER: &str = "by_user";
const BY_USER_AND_STATUS: &str = "by_user_and_status";
const OPEN_ORDERS: &str = "open_orders";

#[derive(Clone, Debug)]
pub struct DynamoRepository {
    table: Table,
}

impl DynamoRepository {
    pub fn new(table: Table) -> Self {
        Self { table }
    }

    async fn insert_without_key(&self, order: &Order) -> Result<InsertOutcome<Order>, StoreError> {
        match self.table.send(self.table.put_new(&Record::of(order))?).await? {
            WriteOutcome::Written => Ok(InsertOutcome::Inserted),
            // An order with this id is already stored. The id is random, and only this request uses the id: so an
            // earlier attempt of this request stored the order, and the response to that attempt was lost.
            WriteOutcome::ConditionFailed(_) => Ok(InsertOutcome::Inserted),
        }
    }
}

#[async_trait]
impl Repository for DynamoRepository {
    async fn insert(
        &self,
        order: &Order,
        key: Option<&KeyUse>,
        now: Timestamp,
    ) -> Result<InsertOutcome<Order>, StoreError> {
        let Some(key) = key else { return self.insert_without_key(order).await };
        let used = KeyRecord::of(order, key);
        let use_key = self
            .table
            .put(&used)?
            // An expired key counts as missing, because TTL may delete an expired item days late.
            .condition_expression("attribute_not_exists(pk) OR expires_at <= :now")
            .expression_attribute_values(":now", number(now.as_second()));
        let place_order = self.table.put_new(&Record::of(order))?;
        let earlier = match self.table.transact(use_key, [place_order]).await? {
            TransactionOutcome::Written => return Ok(InsertOutcome::Inserted),
            TransactionOutcome::SubjectConditionFailed(Some(earlier)) => earlier,
            TransactionOutcome::SubjectConditionFailed(None) | TransactionOutcome::OtherConditionFailed => {
                return Err(StoreError::corrupt("orders", "a key exists already, but the stored key was not returned"));
            }
        };
        let earlier: KeyRecord = dynamo::from_item(earlier)?;
        if earlier.order_id == order.id {
            return Ok(InsertOutcome::Inserted);
        }
        if earlier.fingerprint != key.fingerprint {
            return Ok(InsertOutcome::KeyMismatch);
        }
        let order = match self.find(earlier.order_id).await? {
            // A plain read may find no order while the transaction that wrote the key is still writing the order.
            // TransactGetItems waits until that transaction has finished.
            None => self.table.transact_get(&order_key(earlier.order_id)).await?.map(|record: Record| record.order),
            found => found,
        };
        match order {
            Some(order) => Ok(InsertOutcome::Repeated(Box::new(order))),
            None => Err(StoreError::corrupt("orders", "a key names an order that does not exist")),
        }
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let record: Option<Record> = self.table.get(&order_key(id)).await?;
        Ok(record.map(|record| record.order))
    }

    async fn list(&self, list: &OrderList) -> Result<Page<Order>, ListError> {
        let user = list.user_id.to_string();
        let in_status = list.status.map(|status| user_status(list.user_id, status));
        let (index, partition_attribute, partition) = match &in_status {
            Some(in_status) => (BY_USER_AND_STATUS, "user_status", in_status),
            None => (BY_USER, "user_id", &user),
        };
        let cursor = list.cursor.as_ref();
        let list = List { index, partition_attribute, partition, newest_first: true, limit: list.limit, cursor };
        Ok(self.table.list::<Record>(list).await?.map(|record| record.order))
    }

    async fn transition(&self, from: OrderState, next: &Order) -> Result<SaveOutcome, StoreError> {
        let put = self
            .table
            .put(&Record::of(next))?
            .condition_expression("#state = :from AND (attribute_not_exists(is_erased) OR is_erased = :is_erased)")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":from", string(from.name()))
            .expression_attribute_values(":is_erased", dynamo::attribute(&next.is_erased)?);
        match self.table.send(put).await? {
            WriteOutcome::Written => Ok(SaveOutcome::Saved),
            // If the response to this write was lost, the SDK has repeated the write, and the condition fails because
            // the first attempt succeeded. Then the stored order has the history of `next`.
            WriteOutcome::ConditionFailed(Some(item))
                if dynamo::from_item::<Record>(item.clone())?.order.history == next.history =>
            {
                Ok(SaveOutcome::Saved)
            }
            WriteOutcome::ConditionFailed(_) => Ok(SaveOutcome::Stale),
        }
    }

    async fn record_refusal_answered(&self, order: &Order) -> Result<(), StoreError> {
        let Some(lease) = &order.lease else { return Ok(()) };
        let update = self
            .table
            .update(&order_key(order.id))
            .update_expression("SET is_refusal_answered = :answered")
            .condition_expression("#state = :cancelling AND #lease.#owner = :owner")
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#lease", "lease")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":answered", dynamo::attribute(&true)?)
            .expression_attribute_values(":cancelling", string(OrderState::Cancelling.name()))
            .expression_attribute_values(":owner", string(&lease.owner));
        match self.table.send(update).await? {
            WriteOutcome::Written => Ok(()),
            // Another request or worker continues with the order, and may already have published `OrderCancelled` with
            // `customer_told` set to false.
            WriteOutcome::ConditionFailed(_) => {
                Err(StoreError::unavailable("orders", "another request or worker has the order's lease"))
            }
        }
    }

    async fn erase_customer(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let update = self
            .table
            .update(&order_key(id))
            .update_expression("SET is_erased = :erased REMOVE recipient, contact")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":erased", dynamo::attribute(&true)?);
        Ok(self.table.send_returning::<Record>(update).await?.map(|record| record.order))
    }

    async fn acquire(&self, id: OrderId, lease: Lease, now: Timestamp) -> Result<Option<Order>, StoreError> {
        let update = self
            .table
            .update(&order_key(id))
            .update_expression("SET #lease = :lease, next_check = :until REMOVE wake")
            .condition_expression(
                "attribute_exists(next_check) AND (attribute_not_exists(#lease) OR #lease.#until <= :now \
                 OR #lease.#owner = :owner)",
            )
            .expression_attribute_names("#lease", "lease")
            .expression_attribute_names("#until", "until")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":lease", dynamo::attribute(&lease)?)
            .expression_attribute_values(":owner", string(&lease.owner))
            .expression_attribute_values(":until", number(lease.until.as_millisecond()))
            .expression_attribute_values(":now", number(now.as_millisecond()));
        Ok(self.table.send_returning::<Record>(update).await?.map(|record| record.order))
    }

    async fn postpone(&self, order: &Order, until: Postponed) -> Result<(), StoreError> {
        let Some(lease) = &order.lease else { return Ok(()) };
        let (next_check, expression, value) = match until {
            Postponed::AtOnce { now } => {
                (now, "SET next_check = :check, wake = :wake REMOVE #lease", Some((":wake", string(WAKE))))
            }
            Postponed::Contended { next_check } => (next_check, "SET next_check = :check REMOVE #lease", None),
            Postponed::Failed { next_check } => {
                (next_check, "SET next_check = :check ADD failures :one REMOVE #lease", Some((":one", number(1))))
            }
        };
        let update = self
            .table
            .update(&order_key(order.id))
            .update_expression(expression)
            .condition_expression("#lease.#owner = :owner AND attribute_exists(next_check)")
            .expression_attribute_names("#lease", "lease")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":owner", string(&lease.owner))
            .expression_attribute_values(":check", number(next_check.as_millisecond()));
        let update =
            value.into_iter().fold(update, |update, (name, value)| update.expression_attribute_values(name, value));
        match self.table.send(update).await? {
            // The condition fails if another worker has the lease, or if the order is in a final state. In either case
            // there is nothing to postpone.
            WriteOutcome::Written | WriteOutcome::ConditionFailed(_) => Ok(()),
        }
    }

    async fn due(&self, shard: u8, now: Timestamp, limit: u32) -> Result<DuePage, StoreError> {
        let query = self
            .table
            .query()
            .index_name(OPEN_ORDERS)
            .key_condition_expression("check_shard = :shard AND next_check <= :now")
            .expression_attribute_values(":shard", string(shard.to_string()))
            .expression_attribute_values(":now", number(now.as_millisecond()))
            .limit(limit as i32);
        let output = query.send().await.map_err(|error| self.table.unavailable(error))?;
        let mut page = DuePage { has_more: output.last_evaluated_key.is_some(), ..DuePage::default() };
        for item in output.items.unwrap_or_default() {
            match DueRecord::read(item) {
                Ok(due) => page.orders.push(due),
                // An unreadable entry must not keep the worker from the readable entries.
                Err(error) => {
                    tracing::error!(cause = chain(&error), "an entry in the index of open orders cannot be read");
                    page.unreadable += 1;
                }
            }
        }
        Ok(page)
    }
}

const ORDER_PREFIX: &str = "ORDER#";

/// The value of the attribute `wake`. In `template.yaml`, the filter of the table's stream selects writes with this
/// value.
const WAKE: &str = "now";

fn order_key(id: OrderId) -> Key {
    Key::new(format!("{ORDER_PREFIX}{id}"), "ORDER")
}

fn user_status(user_id: UserId, status: OrderState) -> String {
    format!("{user_id}#{status}")
}

/// A stored order, with the attributes of the indexes.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    order: Order,
    user_status: String,
    /// Absent if the order is in a final state, so that the index `open_orders` contains only open orders.
    #[serde(skip_serializing_if = "Option::is_none")]
    check_shard: Option<String>,
    /// Present if the write of this record must wake the worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    wake: Option<String>,
}

impl Record {
    fn of(order: &Order) -> Self {
        let open = order.next_check.is_some();
        let shard = order.id.uuid().as_bytes()[15] % SHARDS;
        Self {
            key: order_key(order.id),
            user_status: user_status(order.user_id, order.state),
            check_shard: open.then(|| shard.to_string()),
            wake: (open && order.lease.is_none()).then(|| WAKE.to_owned()),
            order: order.clone(),
        }
    }
}

/// An entry in the index of open orders.
#[derive(Debug, Deserialize)]
struct DueRecord {
    #[serde(flatten)]
    key: Key,
    #[serde(with = "jiff::fmt::serde::timestamp::millisecond::required")]
    next_check: Timestamp,
}

impl DueRecord {
    fn read(item: Item) -> Result<DueOrder, StoreError> {
        let Self { key, next_check: since } = dynamo::from_item(item)?;
        let id = key.pk.strip_prefix(ORDER_PREFIX).and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| {
            StoreError::corrupt("orders", "an entry in the index of open orders has no order id in its key")
        })?;
        Ok(DueOrder { id, since })
    }
}

/// An idempotency key that was used. The item's `pk` contains the caller and the route, so different callers can use
/// the same idempotency key.
#[derive(Debug, Serialize, Deserialize)]
struct KeyRecord {
    #[serde(flatten)]
    key: Key,
    fingerprint: String,
    order_id: OrderId,
    /// The time of expiry in epoch seconds, as DynamoDB's TTL requires.
    expires_at: i64,
}

impl KeyRecord {
    fn of(order: &Order, used: &KeyUse) -> Self {
        Self {
            key: Key::new(format!("KEY#{}#POST/orders#{}", order.user_id, used.key.as_str()), "KEY"),
            fingerprint: used.fingerprint.clone(),
            order_id: order.id,
            expires_at: used.expires_at.as_second(),
        }
    }
}
