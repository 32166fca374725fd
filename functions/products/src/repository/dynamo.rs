//! Products in DynamoDB.
//!
//! A product's details are one item, and each shard of its stock is an item in a partition of its own: so a sale does
//! not touch the product's item, and each shard has the write capacity of a partition. Each adjustment and each version
//! of the details is an item in the product's partition. A reservation is an item in a partition of its own. A change of stock is written in one
//! transaction with its adjustment or its reservation. See `docs/data-model.md`.

use std::collections::BTreeSet;

use async_trait::async_trait;
use chassis::{
    audit::Author,
    dynamo::{
        self, AttemptOutcome, Item, ItemWrite, Key, List, Section, Table, TransactionOutcome, WriteOutcome, attribute,
        number,
    },
    id::{InvalidId, UserId},
    idempotency::{InsertOutcome, KeyUse},
    page::{Cursor, Limit, ListError, Page},
    store::{SaveOutcome, StoreError},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{MAX_SHARES, Repository, ReserveOutcome, Snapshot, Stocks};
use crate::domain::{
    Adjustment, AdjustmentId, AllocatedLine, Allocation, Move, NewProduct, OrderId, PricedLine, Product, ProductId,
    ProductVersion, Quote, Reservation, ReservationAccount, ReservedLine, Shard, ShardCount, ShardNumber, Stock,
    StockAccount, StockedProduct, available,
};

/// The index of all products. The index contains only keys, and a product's keys never change. Therefore a sale, which
/// changes the product's item, writes nothing to the index.
const CATALOGUE_INDEX: &str = "catalogue";
/// The attribute that is the partition key of the index. Each product has the value `CATALOGUE`, so that one query
/// finds all products.
const CATALOGUE_ATTRIBUTE: &str = "catalogue";
const CATALOGUE: &str = "CATALOGUE";

/// The maximum number of keys of one BatchGetItem request, and of items of one transaction.
const MAX_KEYS: usize = 100;

#[derive(Clone, Debug)]
pub struct DynamoRepository {
    table: Table,
}

impl DynamoRepository {
    pub fn new(table: Table) -> Self {
        Self { table }
    }

    /// Reads any number of items, in any order.
    async fn get_items(&self, keys: Vec<Key>, consistent: bool) -> Result<Vec<Item>, StoreError> {
        let mut found = Vec::new();
        for keys in keys.chunks(MAX_KEYS) {
            found.extend(self.table.get_items(keys.iter().cloned(), consistent).await?);
        }
        Ok(found)
    }

    /// Reads products with their stock, in any order. Products that don't exist are left out.
    ///
    /// A product with one shard is read consistently: a client sees what it has just changed. The further shards of a
    /// product with several are read inconsistently, which costs half as much: while such a product sells, the sum of
    /// its shards is outdated in any case when the client receives it.
    async fn stocked(&self, ids: &[ProductId]) -> Result<Vec<StockedProduct>, StoreError> {
        let first = |id: &ProductId| [product_key(*id), shard_key(*id, ShardNumber::FIRST)];
        let (mut products, mut shards) = (Vec::new(), Vec::new());
        for item in self.get_items(ids.iter().flat_map(first).collect(), true).await? {
            match item.contains_key("shard") {
                true => shards.push(dynamo::from_item::<ShardRecord>(item)?),
                false => products.push(dynamo::from_item::<ProductRecord>(item)?.product),
            }
        }
        let further = |product: &Product| {
            let id = product.id;
            product.stock_shards.added_to(ShardCount::ONE).map(move |number| shard_key(id, number))
        };
        let further: Vec<_> = products.iter().flat_map(further).collect();
        for item in self.get_items(further, false).await? {
            shards.push(dynamo::from_item(item)?);
        }
        let stocks = stocks_of(shards);
        let stocked = |product: Product| match stocks.get(&product.id) {
            Some(shards) => Ok(StockedProduct { available: available(shards), product }),
            None => Err(StoreError::corrupt(self.table.name(), format!("{} has no stock", product.id))),
        };
        products.into_iter().map(stocked).collect()
    }

    async fn sum_of_adjustments(&self, of: ProductId) -> Result<i64, ListError> {
        let (mut sum, mut cursor): (i64, Option<Cursor>) = (0, None);
        loop {
            let page = self.adjustments(of, Limit::MAX, cursor.as_ref()).await?;
            sum += page.items.iter().map(|adjustment| adjustment.delta.get()).sum::<i64>();
            let Some(next) = page.next_cursor else { return Ok(sum) };
            cursor = Some(next.parse()?);
        }
    }

    /// Reads a record and the shards of some products at one moment. The products must fit into one transaction.
    async fn snapshot(
        &self,
        record: &Key,
        products: &[(ProductId, ShardCount)],
    ) -> Result<(Option<Item>, Stocks, BTreeSet<ProductId>), StoreError> {
        let keys: Vec<_> = std::iter::once(record.clone()).chain(products.iter().flat_map(snapshot_keys)).collect();
        let mut items = self.table.transact_get_items(&keys).await?.into_iter();
        let record = items.next().flatten();
        let (mut found, mut shards) = (Vec::new(), Vec::new());
        for item in items.flatten() {
            match item.contains_key("shard") {
                true => shards.push(dynamo::from_item::<ShardRecord>(item)?),
                false => found.push(dynamo::from_item::<ProductRecord>(item)?.product),
            }
        }
        let is_current =
            |(id, count): &&(ProductId, ShardCount)| found.iter().any(|p| p.id == *id && p.stock_shards == *count);
        let grown: BTreeSet<_> = products.iter().filter(|product| !is_current(product)).map(|(id, _)| *id).collect();
        let mut stocks = stocks_of(shards);
        stocks.retain(|id, _| !grown.contains(id));
        Ok((record, stocks, grown))
    }
}

#[async_trait]
impl Repository for DynamoRepository {
    async fn create(&self, product: &Product, author: &Author) -> Result<(), StoreError> {
        let stock = self.table.put_new(&ShardRecord::first(product))?;
        let version = self.table.put_new(&VersionRecord::new(product, author))?;
        match self.table.transact(self.table.put_new(&ProductRecord::new(product))?, [stock, version]).await? {
            // The id was generated for this product. If an item with this id exists, an earlier attempt of this write
            // has stored it, and only the response of DynamoDB was lost.
            TransactionOutcome::Written | TransactionOutcome::SubjectConditionFailed(_) => Ok(()),
            TransactionOutcome::OtherConditionFailed => {
                Err(StoreError::corrupt(self.table.name(), "a new product already has stock"))
            }
        }
    }

    async fn create_once(
        &self,
        product: &Product,
        new: &NewProduct,
        author: &Author,
        key: &KeyUse,
    ) -> Result<InsertOutcome<Product>, StoreError> {
        let use_key = self
            .table
            .put(&KeyRecord::new(product, new, author.id, key))?
            // The condition checks the expiry, because DynamoDB may delete an item days after it has expired.
            .condition_expression("attribute_not_exists(pk) OR expires_at <= :now")
            .expression_attribute_values(":now", number(product.created_at.as_second()));
        let add_product = self.table.put_new(&ProductRecord::new(product))?;
        let add_stock = self.table.put_new(&ShardRecord::first(product))?;
        let add_version = self.table.put_new(&VersionRecord::new(product, author))?;
        let earlier = match self.table.transact(use_key, [add_product, add_stock, add_version]).await? {
            TransactionOutcome::Written => return Ok(InsertOutcome::Inserted),
            TransactionOutcome::SubjectConditionFailed(Some(earlier)) => earlier,
            TransactionOutcome::SubjectConditionFailed(None) | TransactionOutcome::OtherConditionFailed => {
                return Err(StoreError::corrupt(
                    "products",
                    "the condition of a new key failed, but DynamoDB returned no item",
                ));
            }
        };
        let earlier: KeyRecord = dynamo::from_item(earlier)?;
        Ok(if earlier.product_id == product.id {
            InsertOutcome::Inserted
        } else if earlier.fingerprint == key.fingerprint {
            InsertOutcome::Repeated(Box::new(Product::new(earlier.product_id, earlier.new_product, earlier.created_at)))
        } else {
            InsertOutcome::KeyMismatch
        })
    }

    async fn find(&self, id: ProductId) -> Result<Option<StockedProduct>, StoreError> {
        Ok(self.stocked(&[id]).await?.pop())
    }

    async fn find_all(&self, ids: &[ProductId]) -> Result<Vec<Product>, StoreError> {
        let records: Vec<ProductRecord> = self.table.get_all(ids.iter().map(|id| product_key(*id))).await?;
        Ok(records.into_iter().map(|record| record.product).collect())
    }

    async fn list(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<StockedProduct>, ListError> {
        let entries: Page<CatalogueEntry> = self.table.list(catalogue(limit, cursor)).await?;
        let ids: Vec<_> = entries.items.iter().map(|entry| entry.pk.0).collect();
        let mut products = self.stocked(&ids).await?;
        // BatchGetItem returns the items in any order. The page must have the order of the index, which is sorted by
        // product id.
        products.sort_unstable_by_key(|stocked| stocked.product.id);
        Ok(Page { items: products, next_cursor: entries.next_cursor })
    }

    async fn change(&self, before: &Product, after: &Product, author: &Author) -> Result<SaveOutcome, StoreError> {
        let update = self
            .table
            .update(&product_key(before.id))
            .update_expression(
                "SET #name = :name, description = :description, price = :price, stock_shards = :shards, \
                 version = :version, updated_at = :now",
            )
            .condition_expression("version = :expected")
            .expression_attribute_names("#name", "name")
            .expression_attribute_values(":name", attribute(&after.details.name)?)
            .expression_attribute_values(":description", attribute(&after.details.description)?)
            .expression_attribute_values(":price", attribute(&after.details.price)?)
            .expression_attribute_values(":shards", number(after.stock_shards.get()))
            .expression_attribute_values(":version", number(after.version))
            .expression_attribute_values(":now", attribute(&after.updated_at)?)
            .expression_attribute_values(":expected", number(before.version));
        let version = self.table.put_new(&VersionRecord::new(after, author))?;
        Ok(match self.table.transact(update, [version]).await? {
            TransactionOutcome::Written => SaveOutcome::Saved,
            TransactionOutcome::SubjectConditionFailed(None) => SaveOutcome::Stale,
            TransactionOutcome::SubjectConditionFailed(Some(item)) => {
                let found = dynamo::from_item::<ProductRecord>(item)?.product;
                // If the stored product equals `after`, an earlier attempt of this write has stored it, and only the
                // response of DynamoDB was lost.
                if found == *after { SaveOutcome::Saved } else { SaveOutcome::Stale }
            }
            TransactionOutcome::OtherConditionFailed => {
                return Err(StoreError::corrupt(self.table.name(), "the record of a new version exists already"));
            }
        })
    }

    async fn versions(
        &self,
        of: ProductId,
        limit: Limit,
        cursor: Option<&Cursor>,
    ) -> Result<Page<ProductVersion>, ListError> {
        let partition = product_key(of).pk;
        let section = Section { partition: &partition, prefix: VERSION_PREFIX, limit, cursor };
        let page: Page<VersionRecord> = self.table.list_section(section).await?;
        Ok(page.map(|record| record.version))
    }

    async fn adjustments(
        &self,
        of: ProductId,
        limit: Limit,
        cursor: Option<&Cursor>,
    ) -> Result<Page<Adjustment>, ListError> {
        let partition = product_key(of).pk;
        let section = Section { partition: &partition, prefix: ADJUSTMENT_PREFIX, limit, cursor };
        let page: Page<AdjustmentRecord> = self.table.list_section(section).await?;
        Ok(page.map(|record| record.adjustment))
    }

    async fn refuse_older_versions(&self, product: &Product) -> Result<(), StoreError> {
        let update = |number_of_shard| {
            self.table
                .update(&shard_key(product.id, number_of_shard))
                .update_expression("SET version = :version")
                .condition_expression("version < :version")
                .expression_attribute_values(":version", number(product.version))
        };
        let writes = product.stock_shards.shards().map(|shard| self.table.send(update(shard)));
        for outcome in futures::future::join_all(writes).await {
            match outcome? {
                // If the condition fails, the shard has this version already, or a newer one.
                WriteOutcome::Written | WriteOutcome::ConditionFailed(_) => {}
            }
        }
        Ok(())
    }

    async fn add_shards(&self, product: &Product, count: ShardCount) -> Result<(), StoreError> {
        let new = |number| {
            let shard = Shard { number, stock: Stock { available: 0, reserved: 0 } };
            self.table.put_new(&ShardRecord::new(product, shard))
        };
        let writes = count.added_to(product.stock_shards).map(new).collect::<Result<Vec<_>, _>>()?;
        for outcome in futures::future::join_all(writes.into_iter().map(|write| self.table.send(write))).await {
            match outcome? {
                // If the condition fails, an earlier request has stored the shard.
                WriteOutcome::Written | WriteOutcome::ConditionFailed(_) => {}
            }
        }
        Ok(())
    }

    async fn stocks(&self, products: &[(ProductId, ShardCount)]) -> Result<Stocks, StoreError> {
        let keys = products.iter().flat_map(|(id, count)| count.shards().map(|number| shard_key(*id, number)));
        let items = self.get_items(keys.collect(), true).await?;
        let shards = items.into_iter().map(dynamo::from_item).collect::<Result<Vec<ShardRecord>, _>>()?;
        Ok(stocks_of(shards))
    }

    async fn move_units(&self, of: ProductId, units: &Move) -> Result<SaveOutcome, StoreError> {
        let take = self
            .table
            .update(&shard_key(of, units.from))
            .update_expression("SET available = available - :units")
            .condition_expression("available >= :units")
            .expression_attribute_values(":units", number(units.units));
        let give = self
            .table
            .update(&shard_key(of, units.to))
            .update_expression("SET available = available + :units")
            // Without this condition, the update would fail for a shard that does not exist, but not as a condition.
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":units", number(units.units));
        Ok(match self.table.transact(take, [give]).await? {
            TransactionOutcome::Written => SaveOutcome::Saved,
            TransactionOutcome::SubjectConditionFailed(_) | TransactionOutcome::OtherConditionFailed => {
                SaveOutcome::Stale
            }
        })
    }

    async fn transact_get_adjustment(
        &self,
        of: ProductId,
        id: &AdjustmentId,
    ) -> Result<Option<Adjustment>, StoreError> {
        let record: Option<AdjustmentRecord> = self.table.transact_get(&adjustment_key(of, id)).await?;
        Ok(record.map(|record| record.adjustment))
    }

    async fn adjustment_snapshot(
        &self,
        id: &AdjustmentId,
        of: (ProductId, ShardCount),
    ) -> Result<Snapshot<Adjustment>, StoreError> {
        let (record, stocks, grown) = self.snapshot(&adjustment_key(of.0, id), &[of]).await?;
        let record = record.map(dynamo::from_item::<AdjustmentRecord>).transpose()?;
        Ok(Snapshot { record: record.map(|record| record.adjustment), stocks, grown })
    }

    async fn adjust(&self, adjustment: &Adjustment, shares: &Allocation) -> Result<SaveOutcome, StoreError> {
        let (id, delta) = (adjustment.product_id, adjustment.delta);
        let key = adjustment_key(id, &adjustment.adjustment_id);
        let record = self.table.put_new(&AdjustmentRecord { key, adjustment: adjustment.clone() })?;
        let updates = shares.shares().iter().map(|share| {
            let required = if delta.is_removal() { share.units } else { 0 };
            self.table
                .update(&shard_key(id, share.shard))
                .update_expression("SET available = available + :delta")
                .condition_expression("available >= :required")
                .expression_attribute_values(":delta", number(delta.of_share(share.units)))
                .expression_attribute_values(":required", number(required))
        });
        Ok(match self.table.transact(record, updates).await? {
            TransactionOutcome::Written => SaveOutcome::Saved,
            TransactionOutcome::SubjectConditionFailed(_) | TransactionOutcome::OtherConditionFailed => {
                SaveOutcome::Stale
            }
        })
    }

    async fn find_reservation(&self, order: OrderId) -> Result<Option<Reservation>, StoreError> {
        let record: Option<ReservationRecord> = self.table.get(&reservation_key(order)).await?;
        record.map(Reservation::try_from).transpose()
    }

    async fn transact_get_reservation(&self, order: OrderId) -> Result<Option<Reservation>, StoreError> {
        let record: Option<ReservationRecord> = self.table.transact_get(&reservation_key(order)).await?;
        record.map(Reservation::try_from).transpose()
    }

    async fn reservation_snapshot(
        &self,
        order: OrderId,
        products: &[(ProductId, ShardCount)],
    ) -> Result<Snapshot<Reservation>, StoreError> {
        let key = reservation_key(order);
        let mut all = Snapshot { record: None, stocks: Stocks::new(), grown: BTreeSet::new() };
        for group in groups(products) {
            let (record, stocks, grown) = self.snapshot(&key, group).await?;
            if let Some(record) = record {
                // The order has a reservation, so nobody needs the rest.
                all.record = Some(dynamo::from_item::<ReservationRecord>(record)?.try_into()?);
                break;
            }
            all.stocks.extend(stocks);
            all.grown.extend(grown);
        }
        Ok(all)
    }

    async fn reserve(
        &self,
        order: OrderId,
        quote: &Quote,
        allocated: &[AllocatedLine],
        now: Timestamp,
    ) -> Result<ReserveOutcome, StoreError> {
        let reservation = self.table.put_new(&ReservationRecord::held(order, quote, allocated, now))?;
        let (mut updates, mut lines) = (Vec::<ItemWrite>::new(), Vec::new());
        for (position, (line, AllocatedLine { product_id, shares })) in quote.lines.iter().zip(allocated).enumerate() {
            for share in shares.shares() {
                let update = self
                    .table
                    .update(&shard_key(*product_id, share.shard))
                    .update_expression("SET available = available - :units, reserved = reserved + :units")
                    // `version` is the newest version of the details of which the shard knows. Before a change of the
                    // price is acknowledged, every shard knows the new version, so that no customer pays an outdated
                    // price. If the shard does not exist, both comparisons fail.
                    .condition_expression("version <= :version AND available >= :units")
                    .expression_attribute_values(":units", number(share.units))
                    .expression_attribute_values(":version", number(line.version));
                updates.push(update);
                lines.push(position);
            }
        }
        let lines_of = |writes: Vec<usize>| {
            let mut of: Vec<usize> = writes.into_iter().filter_map(|write| lines.get(write).copied()).collect();
            of.dedup();
            of
        };
        Ok(match self.table.transact_once(reservation, updates).await? {
            AttemptOutcome::Written => ReserveOutcome::Saved,
            AttemptOutcome::SubjectConditionFailed(Some(item)) => {
                ReserveOutcome::Exists(dynamo::from_item::<ReservationRecord>(item)?.try_into()?)
            }
            AttemptOutcome::SubjectConditionFailed(None) => {
                return Err(StoreError::corrupt(
                    self.table.name(),
                    "the condition of a new reservation failed, but DynamoDB returned no item",
                ));
            }
            AttemptOutcome::OtherConditionsFailed(writes) => ReserveOutcome::Stale(lines_of(writes)),
            AttemptOutcome::Contended { others, error } => ReserveOutcome::Contended { lines: lines_of(others), error },
        })
    }

    async fn release(
        &self,
        order: OrderId,
        allocated: &[AllocatedLine],
        now: Timestamp,
    ) -> Result<SaveOutcome, StoreError> {
        let reservation = self
            .table
            .update(&reservation_key(order))
            .update_expression("SET #status = :released, released_at = :now")
            .condition_expression("#status = :held")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":held", attribute(&Status::Held)?)
            .expression_attribute_values(":released", attribute(&Status::Released)?)
            .expression_attribute_values(":now", attribute(&now)?);
        let mut updates = Vec::new();
        for AllocatedLine { product_id, shares } in allocated {
            for share in shares.shares() {
                let update = self
                    .table
                    .update(&shard_key(*product_id, share.shard))
                    .update_expression("SET available = available + :units, reserved = reserved - :units")
                    .condition_expression("reserved >= :units")
                    .expression_attribute_values(":units", number(share.units));
                updates.push(update);
            }
        }
        match self.table.transact(reservation, updates).await? {
            TransactionOutcome::Written => Ok(SaveOutcome::Saved),
            TransactionOutcome::SubjectConditionFailed(_) => Ok(SaveOutcome::Stale),
            // The transaction that stored the reservation also added its units to `reserved`. If a shard has fewer
            // reserved units now, the stored data is wrong, and another attempt cannot succeed.
            TransactionOutcome::OtherConditionFailed => Err(StoreError::corrupt(
                self.table.name(),
                format!("the reservation of {order} has more units than the shards show as reserved"),
            )),
        }
    }

    async fn reservation_accounts(&self, orders: &[OrderId]) -> Result<Vec<ReservationAccount>, StoreError> {
        let records: Vec<ReservationRecord> = self.table.get_all(orders.iter().copied().map(reservation_key)).await?;
        Ok(records.into_iter().map(ReservationRecord::account).collect())
    }

    async fn stock_accounts(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<StockAccount>, ListError> {
        let entries: Page<CatalogueEntry> = self.table.list(catalogue(limit, cursor)).await?;
        let ids: Vec<_> = entries.items.iter().map(|entry| entry.pk.0).collect();
        let products = self.find_all(&ids).await?;
        let counts: Vec<_> = products.iter().map(|product| (product.id, product.stock_shards)).collect();
        let mut stocks = self.stocks(&counts).await?;
        let mut items = Vec::new();
        for product in products {
            let shards = stocks.remove(&product.id).unwrap_or_default();
            items.push(StockAccount {
                product_id: product.id,
                initial_stock: product.initial_stock,
                adjustments: self.sum_of_adjustments(product.id).await?,
                available: available(&shards),
                reserved: shards.iter().map(|shard| shard.stock.reserved).sum(),
            });
        }
        items.sort_unstable_by_key(|account| account.product_id);
        Ok(Page { items, next_cursor: entries.next_cursor })
    }

    async fn put_tombstone(&self, order: OrderId, now: Timestamp) -> Result<SaveOutcome, StoreError> {
        Ok(match self.table.send(self.table.put_new(&ReservationRecord::tombstone(order, now))?).await? {
            WriteOutcome::Written => SaveOutcome::Saved,
            WriteOutcome::ConditionFailed(_) => SaveOutcome::Stale,
        })
    }
}

/// All products, the oldest first.
fn catalogue(limit: Limit, cursor: Option<&Cursor>) -> List<'_> {
    List {
        index: CATALOGUE_INDEX,
        partition_attribute: CATALOGUE_ATTRIBUTE,
        partition: CATALOGUE,
        newest_first: false,
        limit,
        cursor,
    }
}

const ADJUSTMENT_PREFIX: &str = "ADJUSTMENT#";
const VERSION_PREFIX: &str = "VERSION#";

fn product_key(id: ProductId) -> Key {
    Key::new(format!("PRODUCT#{id}"), "PRODUCT")
}

/// Each shard has a partition key of its own, so that each has the write capacity of a partition.
fn shard_key(of: ProductId, number: ShardNumber) -> Key {
    Key::new(format!("STOCK#{of}#{number}"), "STOCK")
}

fn adjustment_key(of: ProductId, id: &AdjustmentId) -> Key {
    Key::new(product_key(of).pk, format!("{ADJUSTMENT_PREFIX}{id}"))
}

/// The sort key has the number with leading zeros, so that it sorts as a number.
fn version_key(of: ProductId, version: u64) -> Key {
    Key::new(product_key(of).pk, format!("{VERSION_PREFIX}{version:010}"))
}

fn reservation_key(order: OrderId) -> Key {
    Key::new(format!("RESERVATION#{order}"), "RESERVATION")
}

/// The keys of a snapshot of one product: the product, and its shards if it has several. A single shard is not part of
/// the snapshot: to read it by itself is to read all stock at one moment, without a conflict with those who write it.
fn snapshot_keys((id, count): &(ProductId, ShardCount)) -> Vec<Key> {
    let mut keys = vec![product_key(*id)];
    if *count > ShardCount::ONE {
        keys.extend(count.shards().map(|number| shard_key(*id, number)));
    }
    keys
}

/// Divides products into groups that each fit into one snapshot.
fn groups(products: &[(ProductId, ShardCount)]) -> Vec<&[(ProductId, ShardCount)]> {
    let (mut groups, mut start, mut size) = (Vec::new(), 0, 0);
    for (position, product) in products.iter().enumerate() {
        let keys = snapshot_keys(product).len();
        if size + keys > MAX_SHARES {
            groups.push(&products[start..position]);
            (start, size) = (position, 0);
        }
        size += keys;
    }
    groups.push(&products[start..]);
    groups
}

fn stocks_of(shards: Vec<ShardRecord>) -> Stocks {
    let mut stocks = Stocks::new();
    for ShardRecord { product_id, shard, stock, .. } in shards {
        stocks.entry(product_id).or_default().push(Shard { number: shard, stock });
    }
    stocks.values_mut().for_each(|shards| shards.sort_unstable_by_key(|shard| shard.number));
    stocks
}

/// An entry of the index of all products, which contains the key of the product.
#[derive(Debug, Deserialize)]
struct CatalogueEntry {
    pk: ProductPartition,
}

/// The partition key of a product.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct ProductPartition(ProductId);

impl TryFrom<String> for ProductPartition {
    type Error = InvalidId;

    fn try_from(key: String) -> Result<Self, InvalidId> {
        key.strip_prefix("PRODUCT#").unwrap_or_default().parse().map(Self)
    }
}

/// The item of a product.
#[derive(Debug, Serialize, Deserialize)]
struct ProductRecord {
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    product: Product,
    /// The partition key of the index of all products. The index contains only items that have this attribute.
    #[serde(skip_deserializing)]
    catalogue: &'static str,
}

impl ProductRecord {
    fn new(product: &Product) -> Self {
        Self { key: product_key(product.id), product: product.clone(), catalogue: CATALOGUE }
    }
}

/// The item of a shard of a product's stock.
#[derive(Debug, Serialize, Deserialize)]
struct ShardRecord {
    #[serde(flatten)]
    key: Key,
    product_id: ProductId,
    shard: ShardNumber,
    #[serde(flatten)]
    stock: Stock,
    /// The newest version of the product's details of which this shard knows. No unit is reserved at an older price.
    version: u64,
}

impl ShardRecord {
    fn new(product: &Product, Shard { number, stock }: Shard) -> Self {
        let key = shard_key(product.id, number);
        Self { key, product_id: product.id, shard: number, stock, version: product.version }
    }

    /// The shard of a new product, which has all its units.
    fn first(product: &Product) -> Self {
        Self::new(product, Shard { number: ShardNumber::FIRST, stock: Stock::new(product.initial_stock) })
    }
}

/// The item of an idempotency key. The item's partition key contains the administrator, the route and the idempotency
/// key. The item also contains all values of the response to the first request, because the product may change before
/// the request is repeated.
#[derive(Debug, Serialize, Deserialize)]
struct KeyRecord {
    #[serde(flatten)]
    key: Key,
    fingerprint: String,
    product_id: ProductId,
    new_product: NewProduct,
    created_at: Timestamp,
    /// The time of expiry in seconds since the Unix epoch, which is the format that DynamoDB's TTL requires.
    expires_at: i64,
}

impl KeyRecord {
    fn new(product: &Product, new: &NewProduct, administrator: UserId, key: &KeyUse) -> Self {
        Self {
            key: Key::new(format!("KEY#{administrator}#POST/products#{}", key.key.as_str()), "KEY"),
            fingerprint: key.fingerprint.clone(),
            product_id: product.id,
            new_product: new.clone(),
            created_at: product.created_at,
            expires_at: key.expires_at.as_second(),
        }
    }
}

/// The item of a version of a product. It is never changed or deleted.
#[derive(Debug, Serialize, Deserialize)]
struct VersionRecord {
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    version: ProductVersion,
}

impl VersionRecord {
    fn new(product: &Product, author: &Author) -> Self {
        Self { key: version_key(product.id, product.version), version: ProductVersion::of(product, author) }
    }
}

/// The item of an adjustment.
#[derive(Debug, Serialize, Deserialize)]
struct AdjustmentRecord {
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    adjustment: Adjustment,
}

/// The stored status of a reservation. The release of a reservation requires the status `Held`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Held,
    Released,
}

/// The item of a reservation.
#[derive(Debug, Serialize, Deserialize)]
struct ReservationRecord {
    #[serde(flatten)]
    key: Key,
    order_id: OrderId,
    status: Status,
    /// The quote in the response to the reserve request. A tombstone has no quote, because nothing was reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    quote: Option<Quote>,
    /// For each line of the quote, the shards from which its units came, and the number of units of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allocated: Vec<Vec<(ShardNumber, u64)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    released_at: Option<Timestamp>,
}

impl ReservationRecord {
    fn held(order: OrderId, quote: &Quote, allocated: &[AllocatedLine], now: Timestamp) -> Self {
        Self {
            key: reservation_key(order),
            order_id: order,
            status: Status::Held,
            quote: Some(quote.clone()),
            allocated: allocated
                .iter()
                .map(|line| line.shares.shares().iter().map(|s| (s.shard, s.units)).collect())
                .collect(),
            reserved_at: Some(now),
            released_at: None,
        }
    }

    fn tombstone(order: OrderId, now: Timestamp) -> Self {
        Self {
            key: reservation_key(order),
            order_id: order,
            status: Status::Released,
            quote: None,
            allocated: Vec::new(),
            reserved_at: None,
            released_at: Some(now),
        }
    }
}

impl ReservationRecord {
    /// Takes the record as it is: to tell what is stored, also if it is wrong, is the purpose of an account.
    fn account(self) -> ReservationAccount {
        let lines = self.quote.map(|quote| quote.lines).unwrap_or_default();
        let mut allocated = self.allocated.into_iter();
        let line = |line: PricedLine| ReservedLine {
            product_id: line.product_id,
            quantity: line.quantity,
            units: allocated.next().unwrap_or_default().into_iter().map(|(_, units)| units).sum(),
        };
        let lines = lines.into_iter().map(line).collect();
        // A release keeps the time of the reservation, and the status decides.
        let released_at = self.released_at.filter(|_| self.status == Status::Released);
        ReservationAccount { order_id: self.order_id, reserved_at: self.reserved_at, released_at, lines }
    }
}

impl TryFrom<ReservationRecord> for Reservation {
    type Error = StoreError;

    fn try_from(record: ReservationRecord) -> Result<Self, StoreError> {
        match (record.status, record.quote) {
            (Status::Held, Some(quote)) if quote.lines.len() == record.allocated.len() => {
                let shares = record.allocated.into_iter().map(Allocation::from_iter);
                let lines = quote.lines.iter().zip(shares);
                let line = |(line, shares): (&PricedLine, _)| AllocatedLine { product_id: line.product_id, shares };
                let allocated = lines.map(line).collect();
                Ok(Self::Held { quote, allocated })
            }
            (Status::Held, Some(_)) => {
                Err(StoreError::corrupt("products", "a held reservation does not say where its units came from"))
            }
            (Status::Released, _) => Ok(Self::Released),
            (Status::Held, None) => Err(StoreError::corrupt("products", "a held reservation has no quote")),
        }
    }
}
