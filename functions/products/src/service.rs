//! The use cases of products.

use std::{sync::Arc, time::Duration};

use chassis::{
    clock::Clock,
    id::UserId,
    idempotency::{IdempotencyKey, InsertOutcome, KeyUse},
    money::{Amount, Currency},
    page::{Cursor, Limit, ListError, Page},
    store::{SaveOutcome, StoreError},
};

use crate::{
    domain::{
        Adjustment, AdjustmentId, Delta, Description, Details, InvalidPrice, Lines, Name, NewProduct, OrderId, Price,
        Product, ProductId, Quote, Reason, Reservation, ReservationRefusal,
    },
    repository::Repository,
};

/// The errors of the use cases, with the HTTP status of each.
#[derive(Debug, thiserror::Error)]
pub enum ProductError {
    /// HTTP 404.
    #[error("the product does not exist")]
    NotFound,
    /// HTTP 412: the version of the details is not the version that the caller expects.
    #[error("the details were changed since they were read")]
    Stale,
    /// HTTP 422: the amount is not a valid price in the product's currency.
    #[error("the price is not valid: {0}")]
    Price(#[from] InvalidPrice),
    /// HTTP 422.
    #[error("the idempotency key was used for another request")]
    KeyMismatch,
    /// HTTP 500: the request could not be serialised for its fingerprint.
    #[error(transparent)]
    Fingerprint(#[from] serde_json::Error),
    /// HTTP 409.
    #[error("another adjustment of the product has this id")]
    AdjustmentMismatch,
    /// HTTP 409: the adjustment would remove more units than are available.
    #[error("only {available} units are available")]
    InsufficientStock { available: u64 },
    /// HTTP 409 or 422, depending on the reason: nothing is reserved for the order.
    #[error(transparent)]
    Refused(#[from] ReservationRefusal),
    /// HTTP 409 (contention), 503 (the table is throttled or unavailable) or 500 (a stored item is corrupt).
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A change of a product's details. `None` leaves a value as it is.
#[derive(Clone, Debug, Default)]
pub struct DetailsChange {
    pub name: Option<Name>,
    pub description: Option<Description>,
    /// A price without a currency is in the product's present currency.
    pub price: Option<(Amount, Option<Currency>)>,
}

impl DetailsChange {
    fn apply_to(self, details: &Details) -> Result<Details, InvalidPrice> {
        let present = details.price.money().currency();
        let price = self.price.map(|(amount, currency)| Price::new(amount, currency.unwrap_or(present)));
        Ok(Details {
            name: self.name.unwrap_or_else(|| details.name.clone()),
            description: self.description.unwrap_or_else(|| details.description.clone()),
            price: price.transpose()?.unwrap_or(details.price),
        })
    }
}

/// The maximum number of attempts of a conditional write of stock. An attempt fails if another request has changed the
/// items since they were read; after a failed attempt, the items are read again.
const MAX_ATTEMPTS: usize = 5;

/// The maximum number of attempts to change a product's details. This number is higher than [`MAX_ATTEMPTS`]: if many
/// administrators change one product at the same time, one of their changes succeeds in each round of attempts, and all
/// others must try again.
const MAX_CHANGE_ATTEMPTS: u32 = 32;
/// The pause after a failed attempt is random. The maximum of the pause grows by this duration with each attempt.
const CHANGE_PAUSE: Duration = Duration::from_millis(5);

#[derive(Clone)]
pub struct Products {
    repository: Arc<dyn Repository>,
    clock: Clock,
}

impl Products {
    pub fn new(repository: impl Repository + 'static, clock: Clock) -> Self {
        Self { repository: Arc::new(repository), clock }
    }

    /// Adds a product to the catalogue. Repeated requests with the same key add one product.
    pub async fn create(
        &self,
        administrator: UserId,
        new: NewProduct,
        key: Option<IdempotencyKey>,
    ) -> Result<Product, ProductError> {
        let now = self.clock.now();
        let product = Product::new(ProductId::generate(), new.clone(), now);
        let Some(key) = key else {
            self.repository.create(&product).await?;
            return Ok(product);
        };
        let key = KeyUse::new(key, &new, now)?;
        match self.repository.create_once(&product, &new, administrator, &key).await? {
            InsertOutcome::Inserted => Ok(product),
            InsertOutcome::Repeated(earlier) => Ok(*earlier),
            InsertOutcome::KeyMismatch => Err(ProductError::KeyMismatch),
        }
    }

    pub async fn get(&self, id: ProductId) -> Result<Product, ProductError> {
        self.repository.find(id).await?.ok_or(ProductError::NotFound)
    }

    /// Reads a page of the catalogue. The oldest product comes first, so that a new product appears on the last page.
    pub async fn list(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<Product>, ListError> {
        self.repository.list(limit, cursor).await
    }

    /// Changes the details of a product if `is_expected` returns `true` for the stored version.
    pub async fn change(
        &self,
        id: ProductId,
        is_expected: impl Fn(u64) -> bool,
        change: DetailsChange,
    ) -> Result<Product, ProductError> {
        for attempt in 0..MAX_CHANGE_ATTEMPTS {
            let before = self.get(id).await?;
            if !is_expected(before.version) {
                return Err(ProductError::Stale);
            }
            let details = change.clone().apply_to(&before.details)?;
            if details == before.details {
                return Ok(before);
            }
            let after = before.with_details(details, self.clock.now());
            if let SaveOutcome::Saved = self.repository.change(&before, &after).await? {
                return Ok(after);
            }
            // Another request has changed the details. The next attempt succeeds if the caller expects the new version,
            // too (`If-Match: *`).
            tokio::time::sleep(CHANGE_PAUSE.mul_f64(fastrand::f64() * f64::from(attempt))).await;
        }
        Err(contended())
    }

    /// Adjusts the stock of a product, once for each adjustment id.
    pub async fn adjust(
        &self,
        product_id: ProductId,
        adjustment_id: AdjustmentId,
        delta: Delta,
        reason: Reason,
    ) -> Result<Adjustment, ProductError> {
        let adjustment = Adjustment { adjustment_id, product_id, delta, reason, applied_at: self.clock.now() };
        for _ in 0..MAX_ATTEMPTS {
            let product = self.get(product_id).await?;
            // The adjustment must be read after the product. If it was read before, the first of two equal requests
            // could be applied between the two reads. Then the second request would find no adjustment, but the reduced
            // stock, and could be refused for too little stock.
            if let Some(applied) =
                self.repository.transact_get_adjustment(product_id, &adjustment.adjustment_id).await?
            {
                return if applied.is_repeat_of(&adjustment) {
                    Ok(applied)
                } else {
                    Err(ProductError::AdjustmentMismatch)
                };
            }
            if product.stock.after_adjustment(delta).is_none() {
                return Err(ProductError::InsufficientStock { available: product.stock.available });
            }
            if let SaveOutcome::Saved = self.repository.adjust(&adjustment).await? {
                return Ok(adjustment);
            }
        }
        Err(contended())
    }

    /// Reserves all `lines` for an order, or nothing. A repeated request gets the first quote.
    pub async fn reserve(&self, order: OrderId, lines: &Lines) -> Result<Quote, ProductError> {
        let ids: Vec<_> = lines.iter().map(|line| line.product_id).collect();
        for _ in 0..MAX_ATTEMPTS {
            let products = self.repository.find_all(&ids).await?;
            let refusal = match Quote::new(lines, &products) {
                Err(refusal) => Some(refusal),
                Ok(quote) => match self.repository.reserve(order, &quote, self.clock.now()).await? {
                    SaveOutcome::Saved => return Ok(quote),
                    SaveOutcome::Stale => None,
                },
            };
            // The request may be repeated. The reservation must be read after the products: if it was read before, the
            // first of two equal requests could be carried out between the two reads. Then the second request would
            // find no reservation, but the reduced stock, and could be refused for too little stock. A reserve request
            // that succeeds at the first attempt does not need this read.
            if let Some(reservation) = self.repository.transact_get_reservation(order).await? {
                return Ok(reservation.answer_repeat(lines)?);
            }
            if let Some(refusal) = refusal {
                return Err(refusal.into());
            }
            // The write failed, because a price or a stock has changed since the products were read. The next attempt
            // reads them again.
        }
        Err(contended())
    }

    /// Releases an order's reservation for good. If the order has no reservation, stores a tombstone, so that `reserve`
    /// refuses a request that arrives after the release.
    pub async fn release(&self, order: OrderId) -> Result<(), ProductError> {
        for _ in 0..MAX_ATTEMPTS {
            let now = self.clock.now();
            let saved = match self.repository.find_reservation(order).await? {
                Some(Reservation::Released) => return Ok(()),
                Some(Reservation::Held(quote)) => self.repository.release(order, &quote, now).await?,
                None => self.repository.put_tombstone(order, now).await?,
            };
            if let SaveOutcome::Saved = saved {
                return Ok(());
            }
        }
        Err(contended())
    }
}

/// The error after the last attempt has failed, because other requests changed the items. The same request may succeed
/// in a moment.
fn contended() -> ProductError {
    StoreError::contended("products", "other requests changed the items before each attempt to write them").into()
}
