//! Products in DynamoDB.
//!
//! A product with its stock is one item; each adjustment of it is one beside
//! it; an order's reservation is an item by itself. Whatever moves stock is
//! one transaction with the item that says why. See `docs/data-model.md`.

use async_trait::async_trait;
use chassis::{
    dynamo::{self, Item, Key, List, Table, TransactionOutcome, WriteOutcome, attribute, number},
    idempotency::InsertOutcome,
    page::{Cursor, Limit, ListError, Page},
    store::{SaveOutcome, StoreError},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{NamedUse, Repository};
use crate::domain::{
    Addition, Adjustment, AdjustmentId, Description, Details, Name, OrderId, Price, Product, ProductId, Quote,
    Reservation, Stock,
};

/// The index of all products. It carries keys only, and none of them ever
/// changes: so sales, which change a product's item all the time, write
/// nothing to it.
const CATALOGUE_INDEX: &str = "catalogue";
/// The index's partition key, and the one partition it has.
const CATALOGUE_ATTRIBUTE: &str = "catalogue";
const CATALOGUE: &str = "CATALOGUE";

/// Products in one table.
#[derive(Clone, Debug)]
pub struct DynamoRepository {
    table: Table,
}

impl DynamoRepository {
    /// On `table`.
    pub fn new(table: Table) -> Self {
        Self { table }
    }
}

#[async_trait]
impl Repository for DynamoRepository {
    async fn create(&self, product: &Product) -> Result<(), StoreError> {
        match self.table.send(self.table.put_new(&ListedProduct::of(product))?).await? {
            // Nobody else has this id: what stands in the way is this same
            // product, whose first answer was lost.
            WriteOutcome::Written | WriteOutcome::ConditionFailed(_) => Ok(()),
        }
    }

    async fn create_once(&self, product: &Product, used: &NamedUse) -> Result<InsertOutcome<Product>, StoreError> {
        let use_key = self
            .table
            .put(&KeyRecord::of(product, used))?
            // Expiry is tested here: TTL may delete an item days late.
            .condition_expression("attribute_not_exists(pk) OR expires_at <= :now")
            .expression_attribute_values(":now", number(product.created_at.as_second()));
        let add_product = self.table.put_new(&ListedProduct::of(product))?;
        let earlier = match self.table.transact(use_key, [add_product]).await? {
            TransactionOutcome::Written => return Ok(InsertOutcome::Inserted),
            TransactionOutcome::SubjectConditionFailed(Some(earlier)) => earlier,
            TransactionOutcome::SubjectConditionFailed(None) | TransactionOutcome::OtherConditionFailed => {
                return Err(StoreError::corrupt("products", "a key was refused without saying what stood in the way"));
            }
        };
        let earlier: KeyRecord = dynamo::from_item(earlier)?;
        Ok(if earlier.product_id == product.id {
            InsertOutcome::Inserted
        } else if earlier.fingerprint == used.key.fingerprint {
            InsertOutcome::Repeated(Box::new(Product::added(earlier.product_id, earlier.addition, earlier.created_at)))
        } else {
            InsertOutcome::KeyMismatch
        })
    }

    async fn find(&self, id: ProductId) -> Result<Option<Product>, StoreError> {
        let record: Option<ProductRecord> = self.table.get(&product_key(id)).await?;
        Ok(record.map(Product::from))
    }

    async fn find_all(&self, ids: &[ProductId]) -> Result<Vec<Product>, StoreError> {
        let records: Vec<ProductRecord> = self.table.get_all(ids.iter().map(|id| product_key(*id))).await?;
        Ok(records.into_iter().map(Product::from).collect())
    }

    async fn list(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<Product>, ListError> {
        let list = List {
            index: CATALOGUE_INDEX,
            partition_attribute: CATALOGUE_ATTRIBUTE,
            partition: CATALOGUE,
            newest_first: false,
            limit,
            cursor,
        };
        let keys: Page<Key> = self.table.list(list).await?;
        let records: Vec<ProductRecord> = self.table.get_all(keys.items).await?;
        let mut products: Vec<_> = records.into_iter().map(Product::from).collect();
        // A batch comes back in any order; the index is in that of the ids.
        products.sort_unstable_by_key(|product| product.id);
        Ok(Page { items: products, next_cursor: keys.next_cursor })
    }

    async fn change(&self, before: &Product, after: &Product) -> Result<SaveOutcome, StoreError> {
        let update = self
            .table
            .update(&product_key(before.id))
            .update_expression(
                "SET #name = :name, description = :description, price = :price, version = :version, updated_at = :now",
            )
            .condition_expression("version = :expected")
            .expression_attribute_names("#name", "name")
            .expression_attribute_values(":name", attribute(&after.details.name)?)
            .expression_attribute_values(":description", attribute(&after.details.description)?)
            .expression_attribute_values(":price", attribute(&after.details.price)?)
            .expression_attribute_values(":version", number(after.version))
            .expression_attribute_values(":now", attribute(&after.updated_at)?)
            .expression_attribute_values(":expected", number(before.version));
        Ok(match self.table.send(update).await? {
            WriteOutcome::Written => SaveOutcome::Saved,
            WriteOutcome::ConditionFailed(None) => SaveOutcome::Stale,
            WriteOutcome::ConditionFailed(Some(item)) => {
                let found = product_of(item)?;
                // This very change, whose first answer was lost?
                let ours = (found.version, &found.details, found.updated_at)
                    == (after.version, &after.details, after.updated_at);
                if ours { SaveOutcome::Saved } else { SaveOutcome::Stale }
            }
        })
    }

    async fn settled_adjustment(&self, of: ProductId, id: &AdjustmentId) -> Result<Option<Adjustment>, StoreError> {
        let record: Option<AdjustmentRecord> = self.table.transact_get(&adjustment_key(of, id)).await?;
        Ok(record.map(|record| record.adjustment))
    }

    async fn adjust(&self, adjustment: &Adjustment) -> Result<SaveOutcome, StoreError> {
        let (id, delta) = (adjustment.product_id, adjustment.delta);
        let key = adjustment_key(id, &adjustment.adjustment_id);
        let record = self.table.put_new(&AdjustmentRecord { key, adjustment: adjustment.clone() })?;
        let update = self
            .table
            .update(&product_key(id))
            .update_expression("SET available = available + :delta")
            // Where there is no product there is nothing available either:
            // the comparison fails.
            .condition_expression("available >= :needed")
            .expression_attribute_values(":delta", number(delta.get()))
            .expression_attribute_values(":needed", number(delta.needs()));
        Ok(match self.table.transact(record, [update]).await? {
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

    async fn settled_reservation(&self, order: OrderId) -> Result<Option<Reservation>, StoreError> {
        let record: Option<ReservationRecord> = self.table.transact_get(&reservation_key(order)).await?;
        record.map(Reservation::try_from).transpose()
    }

    async fn reserve(&self, order: OrderId, quote: &Quote, now: Timestamp) -> Result<SaveOutcome, StoreError> {
        let reservation = self.table.put_new(&ReservationRecord::held(order, quote, now))?;
        let lines = quote.lines.iter().map(|line| {
            self.table
                .update(&product_key(line.product_id))
                .update_expression("SET available = available - :quantity, reserved = reserved + :quantity")
                // The version is the price's: nobody pays one that no longer
                // holds. Where there is no product, both comparisons fail.
                .condition_expression("version = :version AND available >= :quantity")
                .expression_attribute_values(":quantity", number(line.quantity.get()))
                .expression_attribute_values(":version", number(line.version))
        });
        Ok(match self.table.transact(reservation, lines).await? {
            TransactionOutcome::Written => SaveOutcome::Saved,
            TransactionOutcome::SubjectConditionFailed(_) | TransactionOutcome::OtherConditionFailed => {
                SaveOutcome::Stale
            }
        })
    }

    async fn release(&self, order: OrderId, quote: &Quote, now: Timestamp) -> Result<SaveOutcome, StoreError> {
        let reservation = self
            .table
            .update(&reservation_key(order))
            .update_expression("SET #status = :released, released_at = :now")
            .condition_expression("#status = :held")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":held", attribute(&Status::Held)?)
            .expression_attribute_values(":released", attribute(&Status::Released)?)
            .expression_attribute_values(":now", attribute(&now)?);
        let lines = quote.lines.iter().map(|line| {
            self.table
                .update(&product_key(line.product_id))
                .update_expression("SET available = available + :quantity, reserved = reserved - :quantity")
                .condition_expression("reserved >= :quantity")
                .expression_attribute_values(":quantity", number(line.quantity.get()))
        });
        match self.table.transact(reservation, lines).await? {
            TransactionOutcome::Written => Ok(SaveOutcome::Saved),
            TransactionOutcome::SubjectConditionFailed(_) => Ok(SaveOutcome::Stale),
            // What a reservation holds was counted as reserved in the same
            // transaction: reading again will not mend this.
            TransactionOutcome::OtherConditionFailed => {
                Err(StoreError::corrupt(self.table.name(), format!("{order} holds more than is reserved")))
            }
        }
    }

    async fn bury(&self, order: OrderId, now: Timestamp) -> Result<SaveOutcome, StoreError> {
        Ok(match self.table.send(self.table.put_new(&ReservationRecord::tombstone(order, now))?).await? {
            WriteOutcome::Written => SaveOutcome::Saved,
            WriteOutcome::ConditionFailed(_) => SaveOutcome::Stale,
        })
    }
}

fn product_of(item: Item) -> Result<Product, StoreError> {
    dynamo::from_item::<ProductRecord>(item).map(Product::from)
}

fn product_key(id: ProductId) -> Key {
    Key::new(format!("PRODUCT#{id}"), "PRODUCT")
}

fn adjustment_key(of: ProductId, id: &AdjustmentId) -> Key {
    Key::new(format!("PRODUCT#{of}"), format!("ADJUSTMENT#{id}"))
}

fn reservation_key(order: OrderId) -> Key {
    Key::new(format!("RESERVATION#{order}"), "RESERVATION")
}

/// A product as stored.
#[derive(Debug, Serialize, Deserialize)]
struct ProductRecord {
    #[serde(flatten)]
    key: Key,
    id: ProductId,
    name: Name,
    description: Description,
    price: Price,
    version: u64,
    available: u64,
    reserved: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl ProductRecord {
    fn of(product: &Product) -> Self {
        let Product { id, details, version, stock, created_at, updated_at } = product.clone();
        let (Details { name, description, price }, Stock { available, reserved }) = (details, stock);
        let key = product_key(id);
        Self { key, id, name, description, price, version, available, reserved, created_at, updated_at }
    }
}

impl From<ProductRecord> for Product {
    fn from(record: ProductRecord) -> Self {
        let ProductRecord {
            id, name, description, price, version, available, reserved, created_at, updated_at, ..
        } = record;
        let (details, stock) = (Details { name, description, price }, Stock { available, reserved });
        Self { id, details, version, stock, created_at, updated_at }
    }
}

/// The use of an idempotency key, scoped to its caller and its route, with all
/// that the answer tells: the product itself changes, its first answer doesn't.
#[derive(Debug, Serialize, Deserialize)]
struct KeyRecord {
    #[serde(flatten)]
    key: Key,
    fingerprint: String,
    product_id: ProductId,
    addition: Addition,
    created_at: Timestamp,
    /// Epoch seconds, for TTL.
    expires_at: i64,
}

impl KeyRecord {
    fn of(product: &Product, used: &NamedUse) -> Self {
        let NamedUse { by, key, addition } = used;
        Self {
            key: Key::new(format!("KEY#{by}#POST/products#{}", key.key.as_str()), "KEY"),
            fingerprint: key.fingerprint.clone(),
            product_id: product.id,
            addition: addition.clone(),
            created_at: product.created_at,
            expires_at: key.expires_at.as_second(),
        }
    }
}

/// A new product, and what puts it into the index of all.
#[derive(Debug, Serialize)]
struct ListedProduct {
    #[serde(flatten)]
    record: ProductRecord,
    catalogue: &'static str,
}

impl ListedProduct {
    fn of(product: &Product) -> Self {
        Self { record: ProductRecord::of(product), catalogue: CATALOGUE }
    }
}

/// An adjustment as stored.
#[derive(Debug, Serialize, Deserialize)]
struct AdjustmentRecord {
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    adjustment: Adjustment,
}

/// What a reservation is, in a word that conditions can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Held,
    Released,
}

/// A reservation as stored.
#[derive(Debug, Serialize, Deserialize)]
struct ReservationRecord {
    #[serde(flatten)]
    key: Key,
    order_id: OrderId,
    status: Status,
    /// What was reserved, as it was answered; a tombstone has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    quote: Option<Quote>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    released_at: Option<Timestamp>,
}

impl ReservationRecord {
    fn held(order: OrderId, quote: &Quote, now: Timestamp) -> Self {
        Self {
            key: reservation_key(order),
            order_id: order,
            status: Status::Held,
            quote: Some(quote.clone()),
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
            reserved_at: None,
            released_at: Some(now),
        }
    }
}

impl TryFrom<ReservationRecord> for Reservation {
    type Error = StoreError;

    fn try_from(record: ReservationRecord) -> Result<Self, StoreError> {
        match (record.status, record.quote) {
            (Status::Held, Some(quote)) => Ok(Self::Held(quote)),
            (Status::Released, _) => Ok(Self::Released),
            (Status::Held, None) => Err(StoreError::corrupt("products", "a reservation of nothing")),
        }
    }
}
