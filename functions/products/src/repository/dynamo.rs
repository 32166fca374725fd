//! Products in DynamoDB.
//!
//! A product and its stock are one item. Each adjustment is an item in the product's partition. A reservation is an
//! item in a partition of its own. A change of stock is written in one transaction with its adjustment or its
//! reservation. See `docs/data-model.md`.

use async_trait::async_trait;
use chassis::{
    dynamo::{self, Key, List, Table, TransactionOutcome, WriteOutcome, attribute, number},
    id::UserId,
    idempotency::{InsertOutcome, KeyUse},
    page::{Cursor, Limit, ListError, Page},
    store::{SaveOutcome, StoreError},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Repository;
use crate::domain::{Adjustment, AdjustmentId, NewProduct, OrderId, Product, ProductId, Quote, Reservation};

/// The index of all products. The index contains only keys, and a product's keys never change. Therefore a sale, which
/// changes the product's item, writes nothing to the index.
const CATALOGUE_INDEX: &str = "catalogue";
/// The attribute that is the partition key of the index. Each product has the value `CATALOGUE`, so that one query
/// finds all products.
const CATALOGUE_ATTRIBUTE: &str = "catalogue";
const CATALOGUE: &str = "CATALOGUE";

#[derive(Clone, Debug)]
pub struct DynamoRepository {
    table: Table,
}

impl DynamoRepository {
    pub fn new(table: Table) -> Self {
        Self { table }
    }
}

#[async_trait]
impl Repository for DynamoRepository {
    async fn create(&self, product: &Product) -> Result<(), StoreError> {
        match self.table.send(self.table.put_new(&ProductRecord::new(product))?).await? {
            // The id was generated for this product. If an item with this id exists, an earlier attempt of this write
            // has stored it, and only the response of DynamoDB was lost.
            WriteOutcome::Written | WriteOutcome::ConditionFailed(_) => Ok(()),
        }
    }

    async fn create_once(
        &self,
        product: &Product,
        new: &NewProduct,
        administrator: UserId,
        key: &KeyUse,
    ) -> Result<InsertOutcome<Product>, StoreError> {
        let use_key = self
            .table
            .put(&KeyRecord::new(product, new, administrator, key))?
            // The condition checks the expiry, because DynamoDB may delete an item days after it has expired.
            .condition_expression("attribute_not_exists(pk) OR expires_at <= :now")
            .expression_attribute_values(":now", number(product.created_at.as_second()));
        let add_product = self.table.put_new(&ProductRecord::new(product))?;
        let earlier = match self.table.transact(use_key, [add_product]).await? {
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

    async fn find(&self, id: ProductId) -> Result<Option<Product>, StoreError> {
        let record: Option<ProductRecord> = self.table.get(&product_key(id)).await?;
        Ok(record.map(|record| record.product))
    }

    async fn find_all(&self, ids: &[ProductId]) -> Result<Vec<Product>, StoreError> {
        let records: Vec<ProductRecord> = self.table.get_all(ids.iter().map(|id| product_key(*id))).await?;
        Ok(records.into_iter().map(|record| record.product).collect())
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
        let mut products: Vec<_> = records.into_iter().map(|record| record.product).collect();
        // BatchGetItem returns the items in any order. The page must have the order of the index, which is sorted by
        // product id.
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
                let found = dynamo::from_item::<ProductRecord>(item)?.product;
                // If the stored product equals `after`, an earlier attempt of this write has stored it, and only the
                // response of DynamoDB was lost.
                let is_written = (found.version, &found.details, found.updated_at)
                    == (after.version, &after.details, after.updated_at);
                if is_written { SaveOutcome::Saved } else { SaveOutcome::Stale }
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

    async fn adjust(&self, adjustment: &Adjustment) -> Result<SaveOutcome, StoreError> {
        let (id, delta) = (adjustment.product_id, adjustment.delta);
        let key = adjustment_key(id, &adjustment.adjustment_id);
        let record = self.table.put_new(&AdjustmentRecord { key, adjustment: adjustment.clone() })?;
        let update = self
            .table
            .update(&product_key(id))
            .update_expression("SET available = available + :delta")
            // If the product does not exist, this condition fails, too.
            .condition_expression("available >= :required")
            .expression_attribute_values(":delta", number(delta.get()))
            .expression_attribute_values(":required", number(delta.required_units()));
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

    async fn transact_get_reservation(&self, order: OrderId) -> Result<Option<Reservation>, StoreError> {
        let record: Option<ReservationRecord> = self.table.transact_get(&reservation_key(order)).await?;
        record.map(Reservation::try_from).transpose()
    }

    async fn reserve(&self, order: OrderId, quote: &Quote, now: Timestamp) -> Result<SaveOutcome, StoreError> {
        let reservation = self.table.put_new(&ReservationRecord::held(order, quote, now))?;
        let lines = quote.lines.iter().map(|line| {
            self.table
                .update(&product_key(line.product_id))
                .update_expression("SET available = available - :quantity, reserved = reserved + :quantity")
                // `version` is the version of the details, which include the price. The condition compares it, so that
                // no customer pays an outdated price. If the product does not exist, both comparisons fail.
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
            // The transaction that stored the reservation also added its units to `reserved`. If a product has fewer
            // reserved units now, the stored data is wrong, and another attempt cannot succeed.
            TransactionOutcome::OtherConditionFailed => Err(StoreError::corrupt(
                self.table.name(),
                format!("the reservation of {order} has more units than the products show as reserved"),
            )),
        }
    }

    async fn put_tombstone(&self, order: OrderId, now: Timestamp) -> Result<SaveOutcome, StoreError> {
        Ok(match self.table.send(self.table.put_new(&ReservationRecord::tombstone(order, now))?).await? {
            WriteOutcome::Written => SaveOutcome::Saved,
            WriteOutcome::ConditionFailed(_) => SaveOutcome::Stale,
        })
    }
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
            (Status::Held, None) => Err(StoreError::corrupt("products", "a held reservation has no quote")),
        }
    }
}
