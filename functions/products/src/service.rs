//! What can be done with products.

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
        Addition, Adjustment, AdjustmentId, Delta, Description, Details, InvalidPrice, Lines, Name, OrderId, Price,
        Product, ProductId, Quote, Reason, Refusal, Reservation,
    },
    repository::{NamedUse, Repository},
};

/// Why a request about products is refused.
#[derive(Debug, thiserror::Error)]
pub enum ProductError {
    /// 404: no such product.
    #[error("no such product")]
    NotFound,
    /// 412: the details are not the ones that the caller knows.
    #[error("the details were changed meanwhile")]
    Stale,
    /// 422: the amount is no price in the product's currency.
    #[error("the price is not valid: {0}")]
    Price(#[from] InvalidPrice),
    /// 422: the key was used for another request.
    #[error("the key was used for another request")]
    KeyMismatch,
    /// 500: a request that can't be digested.
    #[error(transparent)]
    Fingerprint(#[from] serde_json::Error),
    /// 409: another adjustment has this id.
    #[error("another adjustment has this id")]
    AdjustmentMismatch,
    /// 409: more would go than there is.
    #[error("only {available} pieces are available")]
    InsufficientStock {
        /// How many pieces there are.
        available: u64,
    },
    /// 409 or 422: an order gets nothing.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// 503 or 500.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a change may touch; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// A new name.
    pub name: Option<Name>,
    /// A new description.
    pub description: Option<Description>,
    /// A new price; in the present currency, if it comes without one.
    pub price: Option<(Amount, Option<Currency>)>,
}

impl Change {
    fn of(self, details: &Details) -> Result<Details, InvalidPrice> {
        let present = details.price.money().currency();
        let price = self.price.map(|(amount, currency)| Price::new(amount, currency.unwrap_or(present)));
        Ok(Details {
            name: self.name.unwrap_or_else(|| details.name.clone()),
            description: self.description.unwrap_or_else(|| details.description.clone()),
            price: price.transpose()?.unwrap_or(details.price),
        })
    }
}

/// An adjustment as a client asks for it.
#[derive(Clone, Debug)]
pub struct NewAdjustment {
    /// The client's name for it.
    pub id: AdjustmentId,
    /// How many pieces come or go.
    pub delta: Delta,
    /// Why.
    pub reason: Reason,
}

/// How often something is decided again because what it was decided on has
/// changed before it could be written. Each time somebody else has got on.
const TRIES: usize = 5;

/// The same for details, which many administrators may change at once: each
/// try that fails is another's success, so that as many can be let in.
const CHANGE_TRIES: u32 = 32;
const CHANGE_PAUSE: Duration = Duration::from_millis(5);

/// The use cases.
#[derive(Clone)]
pub struct Products {
    repository: Arc<dyn Repository>,
    clock: Clock,
}

impl Products {
    /// On top of `repository`.
    pub fn new(repository: impl Repository + 'static, clock: Clock) -> Self {
        Self { repository: Arc::new(repository), clock }
    }

    /// Adds a product to the catalogue; under a key only once, however often
    /// it is asked for.
    pub async fn create(
        &self,
        by: UserId,
        addition: Addition,
        key: Option<IdempotencyKey>,
    ) -> Result<Product, ProductError> {
        let now = self.clock.now();
        let product = Product::added(ProductId::generate(), addition.clone(), now);
        let Some(key) = key else {
            self.repository.create(&product).await?;
            return Ok(product);
        };
        let key = KeyUse::new(key, &addition, now)?;
        match self.repository.create_once(&product, &NamedUse { by, key, addition }).await? {
            InsertOutcome::Inserted => Ok(product),
            InsertOutcome::Repeated(earlier) => Ok(*earlier),
            InsertOutcome::KeyMismatch => Err(ProductError::KeyMismatch),
        }
    }

    /// Reads a product.
    pub async fn get(&self, id: ProductId) -> Result<Product, ProductError> {
        self.repository.find(id).await?.ok_or(ProductError::NotFound)
    }

    /// Reads a page of the catalogue, oldest first: what is added while
    /// somebody leafs through it comes at the end.
    pub async fn list(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<Product>, ListError> {
        self.repository.list(limit, cursor).await
    }

    /// Changes the details of a product whose version is an `expected` one.
    pub async fn change(
        &self,
        id: ProductId,
        expected: impl Fn(u64) -> bool,
        change: Change,
    ) -> Result<Product, ProductError> {
        for attempt in 0..CHANGE_TRIES {
            let before = self.get(id).await?;
            if !expected(before.version) {
                return Err(ProductError::Stale);
            }
            let details = change.clone().of(&before.details)?;
            if details == before.details {
                return Ok(before);
            }
            let after = before.changed(details, self.clock.now());
            if let SaveOutcome::Saved = self.repository.change(&before, &after).await? {
                return Ok(after);
            }
            // Somebody else was faster. Who takes any version, or theirs, is
            // not refused for it.
            tokio::time::sleep(CHANGE_PAUSE.mul_f64(fastrand::f64() * f64::from(attempt))).await;
        }
        Err(restless())
    }

    /// Lets pieces come or go, once for each adjustment id.
    pub async fn adjust(&self, product_id: ProductId, wanted: NewAdjustment) -> Result<Adjustment, ProductError> {
        let NewAdjustment { id: adjustment_id, delta, reason } = wanted;
        let adjustment = Adjustment { adjustment_id, product_id, delta, reason, applied_at: self.clock.now() };
        for _ in 0..TRIES {
            let product = self.get(product_id).await?;
            // Looked for after the stock was read: a lack that this very
            // adjustment has caused must not be taken for a refusal.
            if let Some(applied) = self.repository.settled_adjustment(product_id, &adjustment.adjustment_id).await? {
                let repeated = applied.repeats(&adjustment);
                return if repeated { Ok(applied) } else { Err(ProductError::AdjustmentMismatch) };
            }
            if product.stock.adjusted(delta).is_none() {
                return Err(ProductError::InsufficientStock { available: product.stock.available });
            }
            if let SaveOutcome::Saved = self.repository.adjust(&adjustment).await? {
                return Ok(adjustment);
            }
        }
        Err(restless())
    }

    /// Reserves all `lines` for an order, or nothing. Asked again, it answers
    /// what it answered the first time.
    pub async fn reserve(&self, order: OrderId, lines: &Lines) -> Result<Quote, ProductError> {
        let ids: Vec<_> = lines.iter().map(|line| line.product_id).collect();
        for _ in 0..TRIES {
            let products = self.repository.find_all(&ids).await?;
            let refusal = match Quote::of(lines, &products) {
                Err(refusal) => Some(refusal),
                Ok(quote) => match self.repository.reserve(order, &quote, self.clock.now()).await? {
                    SaveOutcome::Saved => return Ok(quote),
                    SaveOutcome::Stale => None,
                },
            };
            // Is this a repeat? Looked for after the products were read: a lack
            // that this very order has caused must not be taken for a refusal.
            // An ordinary reserve never comes here.
            if let Some(reservation) = self.repository.settled_reservation(order).await? {
                return Ok(reservation.again(lines)?);
            }
            if let Some(refusal) = refusal {
                return Err(refusal.into());
            }
            // A price or the stock has changed since it was read.
        }
        Err(restless())
    }

    /// Ends an order's reservation, for good, whether or not there was one.
    pub async fn release(&self, order: OrderId) -> Result<(), ProductError> {
        for _ in 0..TRIES {
            let now = self.clock.now();
            let saved = match self.repository.find_reservation(order).await? {
                Some(Reservation::Released) => return Ok(()),
                Some(Reservation::Held(quote)) => self.repository.release(order, &quote, now).await?,
                None => self.repository.bury(order, now).await?,
            };
            if let SaveOutcome::Saved = saved {
                return Ok(());
            }
        }
        Err(restless())
    }
}

/// Not a refusal: the same may well work in a moment.
fn restless() -> ProductError {
    StoreError::contended("products", "what was read had changed each time it was written").into()
}
