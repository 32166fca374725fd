//! Stores orders in DynamoDB. `docs/data-model.md` describes the items and indexes.

use std::{cmp::Reverse, collections::BTreeSet};

use async_trait::async_trait;
use chassis::{
    dynamo::{self, Filter, List, Section, Table, TransactionOutcome, WriteOutcome, number, string},
    id::UserId,
    idempotency::{InsertOutcome, KeyUse},
    page::{self, Cursor, Limit, ListError, Page},
    store::{SaveOutcome, StoreError},
    telemetry::chain,
};
use jiff::Timestamp;

use super::{
    DueOrder, DuePage, FoundBy, OrderList, PlacedOrders, PlacedPage, Postponed, Repository, SHARDS,
    record::{
        DueRecord, KeyRecord, ListedRecord, ProgressRecord, RESEND_PREFIX, Record, ResendRecord, WAKE, order_id,
        order_key,
    },
};
use crate::domain::{Lease, Order, OrderId, OrderState, Resend};

const BY_USER: &str = "by_user";
const OPEN_ORDERS: &str = "open_orders";
const BY_AGE: &str = "by_age";

#[derive(Clone, Debug)]
pub struct DynamoRepository {
    table: Table,
}

impl DynamoRepository {
    pub fn new(table: Table) -> Self {
        Self { table }
    }

    /// Reads the orders of a page of the index, in the order of the page. The index contains only keys, because every
    /// change of another attribute would write the index, too.
    async fn read_listed(&self, listed: Vec<ListedRecord>) -> Result<Vec<Order>, StoreError> {
        let records: Vec<Record> = self.table.get_all(listed.into_iter().map(|record| record.key)).await?;
        let mut orders = records.into_iter().map(Record::order).collect::<Result<Vec<_>, _>>()?;
        // BatchGetItem returns the items in any order. The id of a newer order is greater.
        orders.sort_unstable_by_key(|order| Reverse(order.id));
        Ok(orders)
    }

    /// Reads the keys of all open orders of a shard, and returns the `count` oldest of those that are younger than
    /// `after`.
    ///
    /// The index is sorted by `next_check`, which changes. Only the key of an order says how old the order is. An entry
    /// of the index has some 100 bytes, so this reads some 80 orders per read unit.
    async fn oldest_open(
        &self,
        shard: u8,
        after: Option<OrderId>,
        count: usize,
    ) -> Result<BTreeSet<OrderId>, StoreError> {
        let (mut oldest, mut start) = (BTreeSet::new(), None);
        loop {
            let query = self
                .table
                .query()
                .index_name(OPEN_ORDERS)
                .key_condition_expression("check_shard = :shard")
                .expression_attribute_values(":shard", string(shard.to_string()))
                .set_exclusive_start_key(start);
            let output = query.send().await.map_err(|error| self.table.unavailable(error))?;
            for item in output.items.unwrap_or_default() {
                match DueRecord::read(item) {
                    Ok(due) if after.is_none_or(|after| due.id > after) => {
                        oldest.insert(due.id);
                        if oldest.len() > count {
                            oldest.pop_last();
                        }
                    }
                    Ok(_) => {}
                    // An unreadable entry must not hide the readable entries. Each sweep reports it.
                    Err(error) => {
                        tracing::warn!(cause = chain(&error), "an entry in the index of open orders cannot be read");
                    }
                }
            }
            start = output.last_evaluated_key;
            if start.is_none() {
                return Ok(oldest);
            }
        }
    }

    async fn insert_without_key(&self, order: &Order) -> Result<InsertOutcome<Order>, StoreError> {
        match self.table.send(self.table.put_new(&Record::of(order))?).await? {
            WriteOutcome::Written => Ok(InsertOutcome::Inserted),
            // An order with this id is already stored. The id is random, and only this request uses the id: so an
            // earlier attempt of this request stored the order, and the response to that attempt was lost.
            WriteOutcome::ConditionFailed(_) => Ok(InsertOutcome::Inserted),
        }
    }

    /// The outcome for a request whose idempotency key an earlier request has used.
    async fn repeated(&self, earlier: KeyRecord, key: &KeyUse) -> Result<InsertOutcome<Order>, StoreError> {
        if earlier.fingerprint != key.fingerprint {
            return Ok(InsertOutcome::KeyMismatch);
        }
        let order = match self.find(earlier.order_id).await? {
            // A plain read may find no order while the transaction that wrote the key is still writing the order.
            // TransactGetItems waits until that transaction has finished.
            None => {
                let record: Option<Record> = self.table.transact_get(&order_key(earlier.order_id)).await?;
                record.map(Record::order).transpose()?
            }
            found => found,
        };
        match order {
            Some(order) => Ok(InsertOutcome::Repeated(Box::new(order))),
            None => Err(StoreError::corrupt("orders", "a key names an order that does not exist")),
        }
    }
}

/// All orders of a customer, the newest first.
fn by_user<'a>(user: &'a str, limit: Limit, cursor: Option<&'a Cursor>) -> List<'a> {
    List { index: BY_USER, partition_attribute: "user_id", partition: user, newest_first: true, limit, cursor }
}

/// Selects the index entries of the orders that may be in this state. The index contains the final state of an order,
/// and nothing else that changes: an order makes its other transitions without a write in the index.
fn status_filter(status: OrderState) -> Filter<'static> {
    let name = status.name();
    if status.is_open() {
        Filter { name, expression: "attribute_not_exists(final_state)", value: None }
    } else {
        Filter { name, expression: "final_state = :final_state", value: Some((":final_state", name)) }
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
        self.repeated(earlier, key).await
    }

    async fn find_earlier(
        &self,
        user: UserId,
        key: &KeyUse,
        now: Timestamp,
    ) -> Result<Option<InsertOutcome<Order>>, StoreError> {
        let earlier: Option<KeyRecord> = self.table.get(&KeyRecord::key_of(user, key)).await?;
        match earlier.filter(|earlier| earlier.expires_at > now.as_second()) {
            Some(earlier) => self.repeated(earlier, key).await.map(Some),
            None => Ok(None),
        }
    }

    async fn find(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let record: Option<Record> = self.table.get(&order_key(id)).await?;
        record.map(Record::order).transpose()
    }

    async fn list(&self, list: &OrderList) -> Result<Page<Order>, ListError> {
        let user = list.user_id.to_string();
        let Some(status) = list.status else {
            let keys: Page<ListedRecord> = self.table.list(by_user(&user, list.limit, list.cursor.as_ref())).await?;
            let items = self.read_listed(keys.items).await?;
            return Ok(Page { items, next_cursor: keys.next_cursor });
        };
        let (wanted, filter) = (list.limit.get() as usize, Some(status_filter(status)));
        let mut cursor = list.cursor.clone();
        let mut found: Vec<Order> = Vec::new();
        loop {
            // One order more than the page has shows whether another page follows.
            let missing = Limit::at_most((wanted + 1 - found.len()) as u32);
            let keys: Page<ListedRecord> =
                self.table.list_filtered(by_user(&user, missing, cursor.as_ref()), filter).await?;
            let orders = self.read_listed(keys.items).await?;
            // The index does not distinguish the states of open orders, and may be a moment behind the table.
            found.extend(orders.into_iter().filter(|order| order.state == status));
            match keys.next_cursor {
                Some(next) if found.len() <= wanted => cursor = Some(next.parse()?),
                _ => break,
            }
        }
        let mut next_cursor = None;
        if found.len() > wanted {
            found.truncate(wanted);
            let last = found.last().map(|order| order_key(order.id));
            let list = by_user(&user, list.limit, None);
            next_cursor = last.map(|key| list.cursor_after(filter, &key)).transpose()?;
        }
        Ok(Page { items: found, next_cursor })
    }

    async fn list_open(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<Order>, ListError> {
        let after: Option<OrderId> = cursor.map(|cursor| cursor.decode(OPEN_ORDERS)).transpose()?;
        let wanted = limit.get() as usize;
        // One order more than the page has shows whether another page follows.
        let shards = (0..SHARDS).map(|shard| self.oldest_open(shard, after, wanted + 1));
        let mut ids: Vec<_> = futures::future::try_join_all(shards).await?.into_iter().flatten().collect();
        ids.sort_unstable();
        let mut next_cursor = None;
        if ids.len() > wanted {
            ids.truncate(wanted);
            let encode = |id| page::encode(OPEN_ORDERS, id);
            let encoded = ids.last().map(encode).transpose();
            next_cursor = encoded.map_err(|error| StoreError::corrupt("orders", error))?;
        }
        let records: Vec<Record> = self.table.get_all(ids.into_iter().map(order_key)).await?;
        let mut orders = records.into_iter().map(Record::order).collect::<Result<Vec<_>, _>>()?;
        // The index may be a moment behind the table.
        orders.retain(|order| order.state.is_open());
        orders.sort_unstable_by_key(|order| order.id);
        Ok(Page { items: orders, next_cursor })
    }

    async fn order_ids(&self, user: UserId, cursor: Option<&Cursor>) -> Result<Page<OrderId>, ListError> {
        let user = user.to_string();
        let keys: Page<ListedRecord> = self.table.list(by_user(&user, Limit::MAX, cursor)).await?;
        let ids = keys.items.iter().map(|record| order_id(&record.key)).collect::<Result<_, _>>()?;
        Ok(Page { items: ids, next_cursor: keys.next_cursor })
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
            WriteOutcome::ConditionFailed(Some(item)) if Record::read(item.clone())?.history == next.history => {
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
        self.table.send_returning::<Record>(update).await?.map(Record::order).transpose()
    }

    async fn acquire(&self, due: DueOrder, lease: Lease, now: Timestamp) -> Result<Option<Order>, StoreError> {
        let update = self.table.update(&order_key(due.id));
        let update = match due.found {
            FoundBy::Stream => {
                match self.find(due.id).await? {
                    // A read costs a fifth of the write that would take the lease.
                    Some(order) if order.is_handed_over && order.is_leased(now) => return Ok(Some(order)),
                    Some(order) if order.next_check.is_some() => {}
                    Some(_) | None => return Ok(None),
                }
                update.update_expression("SET #lease = :lease REMOVE wake")
            }
            // Another sweep must not find the order again while this worker has the lease.
            FoundBy::Sweep => update
                .update_expression("SET #lease = :lease, next_check = :until REMOVE wake")
                .expression_attribute_values(":until", number(lease.until.as_millisecond())),
        };
        let update = update
            .condition_expression(
                "attribute_exists(next_check) AND (attribute_not_exists(#lease) OR #lease.#until <= :now \
                 OR #lease.#owner = :owner)",
            )
            .expression_attribute_names("#lease", "lease")
            .expression_attribute_names("#until", "until")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":lease", dynamo::attribute(&lease)?)
            .expression_attribute_values(":owner", string(&lease.owner))
            .expression_attribute_values(":now", number(now.as_millisecond()));
        self.table.send_returning::<Record>(update).await?.map(Record::order).transpose()
    }

    async fn postpone(&self, order: &Order, until: Postponed) -> Result<(), StoreError> {
        let Some(lease) = &order.lease else { return Ok(()) };
        let (next_check, expression, value) = match until {
            Postponed::AtOnce { now } => {
                (now, "SET next_check = :check, wake = :wake REMOVE #lease", Some((":wake", string(WAKE))))
            }
            // Without `REMOVE wake`, this write of an order that was handed over would wake the worker again at once.
            Postponed::Contended { next_check } => (next_check, "SET next_check = :check REMOVE #lease, wake", None),
            Postponed::Failed { next_check } => {
                let expression = "SET next_check = :check ADD failures :one REMOVE #lease, wake";
                (next_check, expression, Some((":one", number(1))))
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

    async fn record_resend(&self, order: OrderId, resend: &Resend) -> Result<Resend, StoreError> {
        match self.table.send(self.table.put_new(&ResendRecord::of(order, resend))?).await? {
            WriteOutcome::Written => Ok(resend.clone()),
            WriteOutcome::ConditionFailed(Some(earlier)) => Ok(dynamo::from_item::<ResendRecord>(earlier)?.resend),
            WriteOutcome::ConditionFailed(None) => {
                Err(StoreError::corrupt("orders", "a resend exists already, but the stored resend was not returned"))
            }
        }
    }

    async fn resends(&self, order: OrderId, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<Resend>, ListError> {
        let partition = order_key(order).pk;
        let section = Section { partition: &partition, prefix: RESEND_PREFIX, limit, cursor };
        let page: Page<ResendRecord> = self.table.list_section(section).await?;
        Ok(page.map(|record| record.resend))
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

#[async_trait]
impl PlacedOrders for DynamoRepository {
    async fn placed(&self, shard: u8, from: OrderId, to: OrderId, limit: u32) -> Result<PlacedPage, StoreError> {
        // DynamoDB refuses a range that ends before it begins.
        if from > to {
            return Ok(PlacedPage::default());
        }
        let query = self
            .table
            .query()
            .index_name(BY_AGE)
            .key_condition_expression("age_shard = :shard AND pk BETWEEN :from AND :to")
            .expression_attribute_values(":shard", string(shard.to_string()))
            .expression_attribute_values(":from", string(order_key(from).pk))
            .expression_attribute_values(":to", string(order_key(to).pk))
            .limit(limit as i32);
        let output = query.send().await.map_err(|error| self.table.unavailable(error))?;
        let has_more = output.last_evaluated_key.is_some();
        let id = |item| order_id(&dynamo::from_item::<ListedRecord>(item)?.key);
        Ok(PlacedPage {
            ids: output.items.unwrap_or_default().into_iter().map(id).collect::<Result<_, _>>()?,
            has_more,
        })
    }

    async fn read_all(&self, ids: &[OrderId]) -> Result<Vec<Order>, StoreError> {
        let records: Vec<Record> = self.table.get_all(ids.iter().copied().map(order_key)).await?;
        records.into_iter().map(Record::order).collect()
    }

    async fn reconciliation_progress(&self) -> Result<Option<String>, StoreError> {
        let record: Option<ProgressRecord> = self.table.get(&ProgressRecord::key()).await?;
        Ok(record.map(|record| record.progress))
    }

    async fn save_reconciliation_progress(&self, progress: &str) -> Result<(), StoreError> {
        match self.table.send(self.table.put(&ProgressRecord::of(progress))?).await? {
            // The write has no condition.
            WriteOutcome::Written | WriteOutcome::ConditionFailed(_) => Ok(()),
        }
    }
}
