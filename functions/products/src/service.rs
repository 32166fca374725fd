//! The use cases of products.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chassis::{
    audit::{Author, Reason},
    clock::{Clock, is_within},
    dynamo,
    id::UserId,
    idempotency::{IdempotencyKey, InsertOutcome, KeyUse},
    money::{Amount, Currency},
    page::{Cursor, Limit, ListError, Page},
    store::{SaveOutcome, StoreError},
    telemetry,
};
use jiff::Timestamp;

use crate::{
    domain::{
        Adjustment, AdjustmentId, AllocatedLine, Allocation, Delta, Description, Details, InvalidPrice, LinePlan,
        Lines, Name, NewProduct, OrderId, Price, Product, ProductId, ProductVersion, Quote, Reservation,
        ReservationAccount, ReservationRefusal, ShardCount, Shortage, StockAccount, StockedProduct, available,
        moves_to_spread,
    },
    repository::{MAX_SHARES, Repository, ReserveOutcome, Stocks},
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
    /// HTTP 422: the product has more stock shards than the request asks for, and keeps them.
    #[error("the product has {present} stock shards, and keeps them")]
    FewerShards { present: u8 },
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

/// A change of a product. `None` leaves a value as it is.
#[derive(Clone, Debug, Default)]
pub struct ProductChange {
    pub name: Option<Name>,
    pub description: Option<Description>,
    /// A price without a currency is in the product's present currency.
    pub price: Option<(Amount, Option<Currency>)>,
    /// The number of stock shards, which cannot become less.
    pub stock_shards: Option<ShardCount>,
}

impl ProductChange {
    fn apply_to(self, product: &Product) -> Result<(Details, ShardCount), ProductError> {
        let Product { details, stock_shards: present_shards, .. } = product;
        let present = details.price.money().currency();
        let price = self.price.map(|(amount, currency)| Price::new(amount, currency.unwrap_or(present)));
        let details = Details {
            name: self.name.unwrap_or_else(|| details.name.clone()),
            description: self.description.unwrap_or_else(|| details.description.clone()),
            price: price.transpose()?.unwrap_or(details.price),
        };
        let shards = self.stock_shards.unwrap_or(*present_shards);
        if shards < *present_shards {
            return Err(ProductError::FewerShards { present: present_shards.get() });
        }
        Ok((details, shards))
    }

    /// Returns whether the change may change a quote.
    fn affects_quotes(&self) -> bool {
        self.name.is_some() || self.price.is_some()
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

/// The time for which units are spread over the shards of a product, before the response to the administrator. If it is
/// not enough, the units stay unevenly spread. That costs orders some more reads, and nothing else.
const SPREAD_WITHIN: Duration = Duration::from_secs(2);
/// The number of times that units are spread, if sales have changed the shards meanwhile.
const SPREAD_ROUNDS: usize = 2;

/// The time for which an execution environment reads the shards of a product before it reserves units, after a shard
/// had too few units. Without this, each order of a sold-out product would first send a transaction that cannot succeed,
/// and these transactions would conflict with the reads that a refusal needs.
const SCARCE_FOR: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Products {
    repository: Arc<dyn Repository>,
    clock: Clock,
    scarce: ScarceProducts,
}

/// The products of which a shard had too few units lately. This only decides which requests are sent, and never what
/// they mean: each write has its conditions.
#[derive(Clone, Default)]
struct ScarceProducts(Arc<Mutex<BTreeMap<ProductId, Timestamp>>>);

impl ScarceProducts {
    fn among(&self, ids: &[ProductId], now: Timestamp) -> BTreeSet<ProductId> {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.retain(|_, at| is_within(SCARCE_FOR, *at, now));
        ids.iter().copied().filter(|id| noted.contains_key(id)).collect()
    }

    fn note(&self, ids: &BTreeSet<ProductId>, now: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(ids.iter().map(|id| (*id, now)));
    }
}

/// The result of planning a reservation.
enum Planned {
    Lines(Vec<LinePlan>),
    /// The order has this reservation already.
    Reserved(Reservation),
    /// The products have got more shards since they were read.
    Outdated,
}

impl Products {
    pub fn new(repository: impl Repository + 'static, clock: Clock) -> Self {
        Self { repository: Arc::new(repository), clock, scarce: ScarceProducts::default() }
    }

    /// Adds a product to the catalogue. Repeated requests with the same key add one product.
    pub async fn create(
        &self,
        administrator: UserId,
        new: NewProduct,
        key: Option<IdempotencyKey>,
    ) -> Result<StockedProduct, ProductError> {
        let author = Author { id: administrator, reason: new.reason.clone() };
        let now = self.clock.now();
        let product = Product::new(ProductId::generate(), new.clone(), now);
        let stocked = |product: Product| StockedProduct { available: product.initial_stock.get().into(), product };
        let Some(key) = key else {
            self.repository.create(&product, &author).await?;
            return Ok(stocked(product));
        };
        let key = KeyUse::new(key, &new, now)?;
        match self.repository.create_once(&product, &new, &author, &key).await? {
            InsertOutcome::Inserted => Ok(stocked(product)),
            InsertOutcome::Repeated(earlier) => Ok(stocked(*earlier)),
            InsertOutcome::KeyMismatch => Err(ProductError::KeyMismatch),
        }
    }

    pub async fn get(&self, id: ProductId) -> Result<StockedProduct, ProductError> {
        self.repository.find(id).await?.ok_or(ProductError::NotFound)
    }

    async fn get_without_stock(&self, id: ProductId) -> Result<Product, ProductError> {
        self.repository.find_all(&[id]).await?.pop().ok_or(ProductError::NotFound)
    }

    /// Reads a page of the catalogue. The oldest product comes first, so that a new product appears on the last page.
    pub async fn list(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<StockedProduct>, ListError> {
        self.repository.list(limit, cursor).await
    }

    /// Reads a page of the versions of a product, the oldest first. Only administrators may list them.
    pub async fn versions(
        &self,
        id: ProductId,
        limit: Limit,
        cursor: Option<&Cursor>,
    ) -> Result<Page<ProductVersion>, ListError> {
        self.repository.versions(id, limit, cursor).await
    }

    /// Reads a page of the adjustments of a product, sorted by their ids. Only administrators may list them.
    pub async fn adjustments(
        &self,
        id: ProductId,
        limit: Limit,
        cursor: Option<&Cursor>,
    ) -> Result<Page<Adjustment>, ListError> {
        self.repository.adjustments(id, limit, cursor).await
    }

    /// Changes a product if `is_expected` returns `true` for the stored version. `author` is recorded with the change.
    pub async fn change(
        &self,
        id: ProductId,
        is_expected: impl Fn(u64) -> bool,
        change: ProductChange,
        author: &Author,
    ) -> Result<StockedProduct, ProductError> {
        for attempt in 0..MAX_CHANGE_ATTEMPTS {
            let StockedProduct { product: before, available } = self.get(id).await?;
            if !is_expected(before.version) {
                return Err(ProductError::Stale);
            }
            let (details, stock_shards) = change.clone().apply_to(&before)?;
            let after = if (&details, stock_shards) == (&before.details, before.stock_shards) {
                // Perhaps an earlier request made this change, and ended before the shards knew of it.
                before
            } else {
                self.repository.add_shards(&before, stock_shards).await?;
                let after = before.changed_to(details, stock_shards, self.clock.now());
                if let SaveOutcome::Stale = self.repository.change(&before, &after, author).await? {
                    // Another request has changed the product. The next attempt succeeds if the caller expects the new
                    // version, too (`If-Match: *`).
                    tokio::time::sleep(CHANGE_PAUSE.mul_f64(fastrand::f64() * f64::from(attempt))).await;
                    continue;
                }
                after
            };
            if change.affects_quotes() {
                self.repository.refuse_older_versions(&after).await?;
            }
            if change.stock_shards.is_some() {
                self.spread(&after).await;
            }
            return Ok(StockedProduct { product: after, available });
        }
        Err(contended())
    }

    /// Spreads the available units over the shards of a product as evenly as possible. If that fails, or takes too
    /// long, the units stay as they are: orders find them in any shard.
    async fn spread(&self, product: &Product) {
        match tokio::time::timeout(SPREAD_WITHIN, self.spread_all(product)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(product = %product.id, cause = telemetry::chain(&error), "the stock was not spread");
            }
            Err(_) => tracing::info!(product = %product.id, "the time was not enough to spread the stock"),
        }
    }

    async fn spread_all(&self, product: &Product) -> Result<(), StoreError> {
        for _ in 0..SPREAD_ROUNDS {
            let stocks = self.repository.stocks(&[(product.id, product.stock_shards)]).await?;
            let moves = moves_to_spread(stocks.get(&product.id).map_or(&[], Vec::as_slice));
            let mut is_complete = true;
            for units in moves {
                match self.repository.move_units(product.id, &units).await {
                    Ok(SaveOutcome::Saved) => {}
                    // The units were sold meanwhile, or the shard is contended. The other moves are still useful.
                    Ok(SaveOutcome::Stale) => is_complete = false,
                    Err(error) if error.is_contended_or_throttled() => is_complete = false,
                    Err(error) => return Err(error),
                }
            }
            if is_complete {
                break;
            }
        }
        Ok(())
    }

    /// Adjusts the stock of a product, once for each adjustment id.
    pub async fn adjust(
        &self,
        product_id: ProductId,
        adjustment_id: AdjustmentId,
        delta: Delta,
        reason: Reason,
        adjusted_by: UserId,
    ) -> Result<Adjustment, ProductError> {
        let applied_at = self.clock.now();
        let adjustment = Adjustment { adjustment_id, product_id, delta, reason, adjusted_by, applied_at };
        let answer_repeat = |applied: Adjustment| match applied.is_repeat_of(&adjustment) {
            true => Ok(applied),
            false => Err(ProductError::AdjustmentMismatch),
        };
        for _ in 0..MAX_ATTEMPTS {
            let product = self.get_without_stock(product_id).await?;
            let of = (product_id, product.stock_shards);
            let mut shards = self.repository.stocks(&[of]).await?.remove(&product_id).unwrap_or_default();
            let mut planned = Allocation::of_adjustment(delta, &shards);
            // The adjustment must be read after the stock, or together with it. If it was read before, the first of two
            // equal requests could be applied between the two reads. Then the second request would find no adjustment,
            // but the reduced stock, and could be refused for too little stock.
            if planned.is_some() {
                let applied = self.repository.transact_get_adjustment(product_id, &adjustment.adjustment_id).await?;
                if let Some(applied) = applied {
                    return answer_repeat(applied);
                }
            } else {
                // The stock of several shards must be read at one moment, because units may move between them.
                let mut snapshot = self.repository.adjustment_snapshot(&adjustment.adjustment_id, of).await?;
                if let Some(applied) = snapshot.record {
                    return answer_repeat(applied);
                }
                if snapshot.grown.contains(&product_id) {
                    continue;
                }
                shards = snapshot.stocks.remove(&product_id).unwrap_or(shards);
                planned = Allocation::of_adjustment(delta, &shards);
            }
            let Some(shares) = planned else {
                return Err(ProductError::InsufficientStock { available: available(&shards) });
            };
            if let SaveOutcome::Saved = self.repository.adjust(&adjustment, &shares).await? {
                if !delta.is_removal() && product.stock_shards > ShardCount::ONE {
                    self.spread(&product).await;
                }
                return Ok(adjustment);
            }
        }
        Err(contended())
    }

    /// Reserves all `lines` for an order, or nothing. A repeated request gets the first quote.
    ///
    /// At first the shards are not read: the transaction takes the units of each line from one shard, which is derived
    /// from the order's id. Only if that fails, the shards of the product are read.
    pub async fn reserve(&self, order: OrderId, lines: &Lines) -> Result<Quote, ProductError> {
        let ids: Vec<_> = lines.iter().map(|line| line.product_id).collect();
        // The products whose shards are read before units are taken from them.
        let mut scarce = self.scarce.among(&ids, self.clock.now());
        for _ in 0..MAX_ATTEMPTS {
            let products = self.repository.find_all(&ids).await?;
            let quote = match Quote::new(lines, &products) {
                Ok(quote) => quote,
                Err(refusal) => {
                    // The request may be a repeat. The reservation must be read after the products.
                    return match self.repository.transact_get_reservation(order).await? {
                        Some(reservation) => Ok(reservation.answer_repeat(lines)?),
                        None => Err(refusal.into()),
                    };
                }
            };
            let counts: BTreeMap<_, _> = products.iter().map(|product| (product.id, product.stock_shards)).collect();
            let planned = match self.plan(order, lines, &counts, &scarce).await? {
                Planned::Lines(planned) => planned,
                Planned::Reserved(reservation) => return Ok(reservation.answer_repeat(lines)?),
                Planned::Outdated => continue,
            };
            let gathered = self.gather(&planned).await?;
            if !gathered.is_empty() {
                scarce.extend(gathered);
                continue;
            }
            match self.write(order, &quote, planned).await? {
                ReserveOutcome::Saved => return Ok(quote),
                ReserveOutcome::Exists(reservation) => return Ok(reservation.answer_repeat(lines)?),
                ReserveOutcome::Contended { error, .. } => return Err(error.into()),
                ReserveOutcome::Stale(stale) => {
                    // A price has changed since the products were read, or a shard has too few units. The next attempt
                    // reads the products and the shards.
                    let stale = stale.into_iter().filter_map(|line| ids.get(line).copied()).collect();
                    self.scarce.note(&stale, self.clock.now());
                    scarce.extend(stale);
                }
            }
        }
        Err(contended())
    }

    /// Chooses the shards from which each line takes its units. Refuses the order if there are too few units.
    async fn plan(
        &self,
        order: OrderId,
        lines: &Lines,
        counts: &BTreeMap<ProductId, ShardCount>,
        scarce: &BTreeSet<ProductId>,
    ) -> Result<Planned, ProductError> {
        let of: Vec<_> = counts.iter().filter(|(id, _)| scarce.contains(id)).map(|(id, count)| (*id, *count)).collect();
        let mut stocks = if of.is_empty() { Stocks::new() } else { self.repository.stocks(&of).await? };
        let shortages = match plan_lines(order, lines, counts, &stocks) {
            Ok(planned) => return Ok(Planned::Lines(planned)),
            Err(shortages) => shortages,
        };
        // The order is refused only if the stock was really too little at one moment, and if the order had no
        // reservation then. Shards that were read one after another don't show that: a concurrent request may have
        // moved units from a shard that was read late to a shard that was read early. And an earlier request for this
        // order may have taken the units that are lacking.
        let short: BTreeSet<_> = shortages.iter().map(|shortage| shortage.line.product_id).collect();
        let of: Vec<_> = of.into_iter().filter(|(id, _)| short.contains(id)).collect();
        let snapshot = self.repository.reservation_snapshot(order, &of).await?;
        if let Some(reservation) = snapshot.record {
            return Ok(Planned::Reserved(reservation));
        }
        if !snapshot.grown.is_empty() {
            return Ok(Planned::Outdated);
        }
        stocks.extend(snapshot.stocks);
        match plan_lines(order, lines, counts, &stocks) {
            Ok(planned) => Ok(Planned::Lines(planned)),
            Err(shortages) => Err(ReservationRefusal::OutOfStock(shortages).into()),
        }
    }

    /// If the lines take their units from more shards than one transaction can write, moves the units of the lines with
    /// the most shards to one shard each. Returns the products whose units were moved.
    async fn gather(&self, planned: &[LinePlan]) -> Result<BTreeSet<ProductId>, StoreError> {
        let mut gathered = BTreeSet::new();
        let shares = |line: &&LinePlan| line.allocated.shares.shares().len();
        let mut excess = planned.iter().map(|line| shares(&line)).sum::<usize>().saturating_sub(MAX_SHARES);
        let mut most_first: Vec<_> = planned.iter().collect();
        most_first.sort_by_key(|line| std::cmp::Reverse(shares(line)));
        for line in most_first {
            if excess == 0 {
                break;
            }
            let AllocatedLine { product_id, shares } = &line.allocated;
            for units in shares.moves_to_first() {
                match self.repository.move_units(*product_id, &units).await? {
                    // If the units were sold meanwhile, the next plan does without them.
                    SaveOutcome::Saved | SaveOutcome::Stale => excess = excess.saturating_sub(1),
                }
            }
            gathered.insert(*product_id);
        }
        Ok(gathered)
    }

    /// Writes a reservation. While it meets contention, tries other shards of the contended lines, or waits for those
    /// that have no other shard.
    async fn write(
        &self,
        order: OrderId,
        quote: &Quote,
        mut planned: Vec<LinePlan>,
    ) -> Result<ReserveOutcome, StoreError> {
        let mut pauses = dynamo::contention_pauses();
        loop {
            let allocated: Vec<_> = planned.iter().map(|line| line.allocated.clone()).collect();
            let outcome = self.repository.reserve(order, quote, &allocated, self.clock.now()).await?;
            let ReserveOutcome::Contended { lines, .. } = &outcome else { return Ok(outcome) };
            let Some(pause) = pauses.next() else { return Ok(outcome) };
            let mut must_wait = lines.is_empty();
            for line in lines {
                let plan = planned.get_mut(*line);
                must_wait |= !plan.is_some_and(|plan| plan.change_shard(|left| fastrand::usize(..left)));
            }
            if must_wait {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Reads what is stored of the reservations of these orders, for reconciliation.
    pub async fn reservation_accounts(&self, orders: &[OrderId]) -> Result<Vec<ReservationAccount>, ProductError> {
        Ok(self.repository.reservation_accounts(orders).await?)
    }

    /// Reads a page of the stock accounts of all products, for reconciliation.
    pub async fn stock_accounts(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<StockAccount>, ListError> {
        self.repository.stock_accounts(limit, cursor).await
    }

    /// Releases an order's reservation for good. If the order has no reservation, stores a tombstone, so that `reserve`
    /// refuses a request that arrives after the release.
    pub async fn release(&self, order: OrderId) -> Result<(), ProductError> {
        for _ in 0..MAX_ATTEMPTS {
            let now = self.clock.now();
            let saved = match self.repository.find_reservation(order).await? {
                Some(Reservation::Released) => return Ok(()),
                Some(Reservation::Held { allocated, .. }) => self.repository.release(order, &allocated, now).await?,
                None => self.repository.put_tombstone(order, now).await?,
            };
            if let SaveOutcome::Saved = saved {
                return Ok(());
            }
        }
        Err(contended())
    }
}

/// Plans each line: with the stock of its product if `stocks` has it, otherwise without. Fails with all lines for which
/// there are too few units.
fn plan_lines(
    order: OrderId,
    lines: &Lines,
    counts: &BTreeMap<ProductId, ShardCount>,
    stocks: &Stocks,
) -> Result<Vec<LinePlan>, Vec<Shortage>> {
    let (mut planned, mut shortages) = (Vec::new(), Vec::new());
    for line in lines.iter() {
        let Some(shards) = stocks.get(&line.product_id) else {
            let count = counts.get(&line.product_id).copied().unwrap_or(ShardCount::ONE);
            planned.push(LinePlan::without_reading(line, order, count));
            continue;
        };
        match LinePlan::with_stock(line, order, shards) {
            Some(plan) => planned.push(plan),
            None => shortages.push(Shortage { line: *line, available: available(shards) }),
        }
    }
    if shortages.is_empty() { Ok(planned) } else { Err(shortages) }
}

/// The error after the last attempt has failed, because other requests changed the items. The same request may succeed
/// in a moment.
fn contended() -> ProductError {
    StoreError::contended("products", "other requests changed the items before each attempt to write them").into()
}
