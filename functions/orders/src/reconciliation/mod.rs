//! Reconciliation: compares orders, reservations, stock, payments and the provider's charges, and reports each mismatch
//! with what to do. It changes nothing.
//!
//! | module | content |
//! |---|---|
//! | [`comparison`] | the comparisons, and the equation of stock |
//! | [`mismatch`] | the kinds of mismatches, and what to do about each |
//! | [`accounts`] | what the other services say |
//! | [`walk`] | how far a reconciliation has come |
//! | `calls` | asks the other services |
//!
//! **No order in progress is reported.** An order's state never returns, and once an order is in a final state, no service
//! changes anything for it. So if an order has the same history before and after the other services were asked, it was in
//! its final state all the time, and what they said belongs to that state. An order whose history has changed is left to
//! the next reconciliation. Stock has no states: it is read several times, and only a difference that stays the same is
//! reported.

pub mod accounts;
#[cfg(feature = "lambda")]
pub mod calls;
pub mod comparison;
pub mod mismatch;
pub mod walk;

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use async_trait::async_trait;
use chassis::{
    clock::Clock,
    deadline::Deadline,
    metric::{self, Labelled},
    store::StoreError,
    telemetry,
    time_limits::OVERDUE_AFTER,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::VariantArray;

use self::{
    accounts::{ChargePage, PaymentAccount, ReservationAccount, StockAccount, StockPage},
    comparison::{Accounts, Held, add_reservation, compare_order, surplus},
    mismatch::{Mismatch, MismatchKind, Subject},
    walk::{Place, Sums, Walk},
};
use crate::{
    domain::{Order, OrderId, PaymentId, ProductId},
    metrics::{FoundMismatches, MismatchesOfKind},
    repository::PlacedOrders,
};

/// The maximum number of orders that are compared at once: the payments service asks the provider for each.
const PAGE: u32 = 50;
/// A page begins only if the invocation has this time left: for two calls of each service, each of which may be repeated,
/// and the pauses between the reads of stock.
const PAGE_TIME: Duration = Duration::from_secs(25);
/// The number of times that the stock of a product is read before a difference is reported, and the pause between them.
const STOCK_READS: usize = 3;
const STOCK_PAUSE: Duration = Duration::from_millis(500);

/// The schedule looks at each order twice: soon after it should have ended, and once more when, with the default
/// cancellation window, it can no longer be cancelled.
const AGES: [Duration; 2] = [Duration::from_mins(30), Duration::from_hours(25)];
/// How far back the first scheduled reconciliation of a stack looks.
const FIRST_PERIOD: Duration = Duration::from_hours(24);

/// The reason why a reconciliation stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReconciliationError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a service gave no usable answer")]
    Service(#[source] Box<dyn Error + Send + Sync>),
    #[error("the progress of the reconciliation cannot be written")]
    Progress(#[from] serde_json::Error),
}

/// Asks the other services what they have stored. A page of orders or payments has at most 50 ids.
#[async_trait]
pub trait AccountSource: Send + Sync {
    /// The reservations of these orders. Orders without a reservation are left out.
    async fn reservations(
        &self,
        of: &[OrderId],
        deadline: Deadline,
    ) -> Result<Vec<ReservationAccount>, ReconciliationError>;

    async fn payments(&self, ids: &[PaymentId], deadline: Deadline)
    -> Result<Vec<PaymentAccount>, ReconciliationError>;

    async fn stock(&self, cursor: Option<&str>, deadline: Deadline) -> Result<StockPage, ReconciliationError>;

    /// The first charges from one payment to another, both included.
    async fn charges(
        &self,
        from: PaymentId,
        to: PaymentId,
        deadline: Deadline,
    ) -> Result<ChargePage, ReconciliationError>;
}

/// What is to be reconciled.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReconciliationRequest {
    /// What the schedule asks for: the stock, and the orders that were placed since the last time.
    Recent,
    All,
    Since(Timestamp),
    /// The rest of a walk that an earlier invocation has begun.
    Continue(Walk),
}

/// What an invocation has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReconciliationReport {
    pub mismatches: Vec<Mismatch>,
    pub orders: u64,
    pub products: u64,
    pub charges: u64,
    /// The rest of the walk, if the invocation had no time for it.
    pub next: Option<Walk>,
}

impl ReconciliationReport {
    /// Each mismatch has a line in the log, also if the invocation fails afterwards.
    fn add(&mut self, mismatches: impl IntoIterator<Item = Mismatch>) {
        for mismatch in mismatches {
            let Mismatch { kind, subject, found, what_to_do } = &mismatch;
            let kind = kind.name();
            match subject {
                Subject::Order(id) => {
                    tracing::error!(kind, order_id = %id, found, what_to_do, "mismatch between services");
                }
                Subject::Product(id) => {
                    tracing::error!(kind, product_id = %id, found, what_to_do, "mismatch between services");
                }
            }
            self.mismatches.push(mismatch);
        }
    }

    fn count(&self) {
        metric::write(&FoundMismatches { found: Some(self.mismatches.len() as u64) });
        for kind in MismatchKind::VARIANTS {
            let value = self.mismatches.iter().filter(|mismatch| mismatch.kind == *kind).count() as u64;
            if value > 0 {
                metric::write(&MismatchesOfKind { found: Some(Labelled { labels: [kind.name()], value }) });
            }
        }
    }
}

/// How far the schedule has come: for each of [`AGES`], the orders that it has looked at.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Progress {
    passes: [Pass; AGES.len()],
}

impl Progress {
    /// Progress that another version of the code has stored in another form is lost: the schedule then looks back as far as
    /// for the first time, and no order is left out unless it is older.
    fn read(stored: &str) -> Self {
        serde_json::from_str(stored).unwrap_or_else(|error| {
            tracing::warn!(cause = telemetry::chain(&error), "the progress of the reconciliation cannot be read");
            Self::default()
        })
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Pass {
    /// All orders that were placed before this time were looked at.
    reached: Option<Timestamp>,
    /// The walk that an invocation had no time to end.
    walk: Option<Walk>,
}

#[derive(Clone)]
pub struct Reconciler {
    orders: Arc<dyn PlacedOrders>,
    services: Arc<dyn AccountSource>,
    clock: Clock,
}

impl Reconciler {
    pub fn new(orders: impl PlacedOrders + 'static, services: impl AccountSource + 'static, clock: Clock) -> Self {
        Self { orders: Arc::new(orders), services: Arc::new(services), clock }
    }

    /// Reconciles as much as the invocation has time for.
    pub async fn reconcile(
        &self,
        request: ReconciliationRequest,
        deadline: Deadline,
    ) -> Result<ReconciliationReport, ReconciliationError> {
        let mut report = ReconciliationReport::default();
        let result = match request {
            ReconciliationRequest::Recent => self.reconcile_recent(&mut report, deadline).await,
            ReconciliationRequest::All => {
                self.begin(Walk::of_everything(self.clock.now()), &mut report, deadline).await
            }
            ReconciliationRequest::Since(from) => {
                self.begin(Walk::since(from, self.clock.now()), &mut report, deadline).await
            }
            ReconciliationRequest::Continue(walk) => self.begin(walk, &mut report, deadline).await,
        };
        report.count();
        let ReconciliationReport { orders, products, charges, .. } = report;
        tracing::info!(orders, products, charges, mismatches = report.mismatches.len(), "reconciled");
        result.map(|()| report)
    }

    async fn begin(
        &self,
        mut walk: Walk,
        report: &mut ReconciliationReport,
        deadline: Deadline,
    ) -> Result<(), ReconciliationError> {
        self.proceed(&mut walk, report, deadline).await?;
        report.next = (!walk.has_ended()).then_some(walk);
        Ok(())
    }

    async fn reconcile_recent(
        &self,
        report: &mut ReconciliationReport,
        deadline: Deadline,
    ) -> Result<(), ReconciliationError> {
        let stored = self.orders.reconciliation_progress().await?;
        let mut progress = stored.as_deref().map(Progress::read).unwrap_or_default();
        let mut result = Ok(());
        for (number, (age, pass)) in AGES.into_iter().zip(&mut progress.passes).enumerate() {
            let to = self.clock.now() - age;
            let from = pass.reached.unwrap_or(to - FIRST_PERIOD);
            let new = || if number == 0 { Walk::of_stock_and_orders(from, to) } else { Walk::of_orders(from, to) };
            let mut walk = pass.walk.take().unwrap_or_else(new);
            result = self.proceed(&mut walk, report, deadline).await;
            if walk.has_ended() {
                pass.reached = Some(walk.to());
            } else {
                pass.walk = Some(walk);
            }
            if result.is_err() {
                break;
            }
        }
        self.orders.save_reconciliation_progress(&serde_json::to_string(&progress)?).await?;
        result
    }

    /// Takes the walk to its end, or as far as there is time. If a page fails, the walk is still before that page.
    async fn proceed(
        &self,
        walk: &mut Walk,
        report: &mut ReconciliationReport,
        deadline: Deadline,
    ) -> Result<(), ReconciliationError> {
        while !walk.has_ended() && deadline.remaining() > PAGE_TIME {
            match walk.place().clone() {
                Place::Stock { cursor } => self.look_at_stock(walk, cursor, report, deadline).await?,
                Place::Orders { shard, next } => self.look_at_orders(walk, shard, next, report, deadline).await?,
                Place::Charges { next } => self.look_at_charges(walk, next, report, deadline).await?,
                Place::End => {}
            }
            if walk.has_ended() {
                self.add_up(walk, report);
            }
        }
        Ok(())
    }

    async fn look_at_stock(
        &self,
        walk: &mut Walk,
        cursor: Option<String>,
        report: &mut ReconciliationReport,
        deadline: Deadline,
    ) -> Result<(), ReconciliationError> {
        let page = self.services.stock(cursor.as_deref(), deadline).await?;
        let now = self.clock.now();
        if let Some(sums) = walk.sums() {
            sums.read.to = now;
            sums.held.extend(page.items.iter().map(|stock| (stock.product_id, Held::of(stock.reserved))));
        }
        if !walk.only_adds_up() {
            report.products += page.items.len() as u64;
            let wrong = self.stays_wrong(cursor.as_deref(), &page.items, deadline).await?;
            report.add(wrong.into_iter().map(|stock| {
                let StockAccount { product_id, initial_stock, adjustments, available, reserved } = stock;
                let found = format!(
                    "initial stock {initial_stock}, adjustments {adjustments}, available {available}, reserved {reserved}"
                );
                Mismatch::new(MismatchKind::StockDoesNotAddUp, Subject::Product(product_id), found)
            }));
        }
        walk.after_stock(page.next_cursor, now);
        Ok(())
    }

    /// Reads the page again until the stock of each of its products has added up, or has been wrong by the same number
    /// each time. The parts of an account are read one after another, so an adjustment meanwhile can make one read wrong.
    async fn stays_wrong(
        &self,
        cursor: Option<&str>,
        stock: &[StockAccount],
        deadline: Deadline,
    ) -> Result<Vec<StockAccount>, ReconciliationError> {
        let is_wrong = |stock: &&StockAccount| surplus(stock) != 0;
        let mut wrong: Vec<_> = stock.iter().filter(is_wrong).copied().collect();
        for _ in 1..STOCK_READS {
            if wrong.is_empty() {
                break;
            }
            tokio::time::sleep(STOCK_PAUSE).await;
            let again = self.services.stock(cursor, deadline).await?.items;
            wrong.retain_mut(|before| {
                let same = again.iter().find(|after| after.product_id == before.product_id);
                let stays = same.filter(|after| surplus(after) == surplus(before));
                *before = stays.copied().unwrap_or(*before);
                stays.is_some()
            });
        }
        Ok(wrong)
    }

    async fn look_at_orders(
        &self,
        walk: &mut Walk,
        shard: u8,
        next: OrderId,
        report: &mut ReconciliationReport,
        deadline: Deadline,
    ) -> Result<(), ReconciliationError> {
        let page = self.orders.placed(shard, next, walk.last_order(), PAGE).await?;
        if !page.ids.is_empty() {
            // The orders are read before the other services are asked, and again afterwards.
            let orders = if walk.only_adds_up() { Vec::new() } else { self.orders.read_all(&page.ids).await? };
            let reservations = self.services.reservations(&page.ids, deadline).await?;
            if let Some(Sums { read, held, .. }) = walk.sums() {
                reservations.iter().for_each(|reservation| add_reservation(held, reservation, *read));
            }
            report.orders += orders.len() as u64;
            let mismatches = self.compare(&orders, &reservations, deadline).await?;
            report.add(mismatches);
        }
        walk.after_orders(shard, page.ids.last().copied().filter(|_| page.has_more));
        Ok(())
    }

    async fn compare(
        &self,
        orders: &[Order],
        reservations: &[ReservationAccount],
        deadline: Deadline,
    ) -> Result<Vec<Mismatch>, ReconciliationError> {
        if orders.is_empty() {
            return Ok(Vec::new());
        }
        let payment_ids: Vec<_> = orders.iter().map(|order| order.id.payment()).collect();
        let payments = self.services.payments(&payment_ids, deadline).await?;
        let reservations: BTreeMap<_, _> = reservations.iter().map(|account| (account.order_id, account)).collect();
        let payments: BTreeMap<_, _> = payments.iter().map(|account| (account.payment_id, account)).collect();
        let mut suspects = Vec::new();
        for order in orders {
            let accounts = Accounts {
                reservation: reservations.get(&order.id).copied(),
                payment: payments.get(&order.id.payment()).copied(),
            };
            let mismatches = compare_order(order, accounts, self.clock.now(), OVERDUE_AFTER);
            if !mismatches.is_empty() {
                suspects.push((order, mismatches));
            }
        }
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = suspects.iter().map(|(order, _)| order.id).collect();
        let again = self.orders.read_all(&ids).await?;
        let is_unchanged = |order: &Order| again.iter().any(|now| now.id == order.id && now.history == order.history);
        Ok(suspects.into_iter().filter(|(order, _)| is_unchanged(order)).flat_map(|(_, found)| found).collect())
    }

    /// Looks for the orders of some charges. An order is stored before its charge is made, so a charge without an order
    /// needs no second look.
    async fn look_at_charges(
        &self,
        walk: &mut Walk,
        next: PaymentId,
        report: &mut ReconciliationReport,
        deadline: Deadline,
    ) -> Result<(), ReconciliationError> {
        let page = self.services.charges(next, walk.last_order().payment(), deadline).await?;
        let ids: Vec<_> = page.payment_ids.iter().map(|id| id.order()).collect();
        if !ids.is_empty() {
            let orders = self.orders.read_all(&ids).await?;
            report.charges += ids.len() as u64;
            let is_known = |id: &OrderId| orders.iter().any(|order| order.id == *id);
            report.add(ids.iter().filter(|id| !is_known(id)).map(|id| {
                let found = format!("the provider has a charge for {}", id.payment());
                Mismatch::new(MismatchKind::ChargeWithoutOrder, Subject::Order(*id), found)
            }));
        }
        walk.after_charges(ids.last().copied().filter(|_| page.has_more));
        Ok(())
    }

    /// Compares the reserved stock with the sums of what the reservations hold, at the end of a walk through everything.
    fn add_up(&self, walk: &mut Walk, report: &mut ReconciliationReport) {
        let Some(Sums { held, unexplained: before, .. }) = walk.end_sums() else { return };
        let units = |held: &Held| i64::try_from(held.unexplained()).unwrap_or(i64::MAX);
        let unexplained: BTreeMap<ProductId, i64> =
            held.iter().map(|(id, held)| (*id, units(held))).filter(|(_, units)| *units != 0).collect();
        match before {
            None if unexplained.is_empty() => {}
            None => walk.add_up_again(unexplained, self.clock.now()),
            Some(before) => report.add(
                unexplained.into_iter().filter(|(id, units)| before.get(id) == Some(units)).map(|(id, units)| {
                    let reserved = held.get(&id).map_or(0, |held| held.reserved);
                    let found = format!("reserved {reserved}, which is {units:+} units more than reservations hold");
                    Mismatch::new(MismatchKind::ReservedIsNotHeld, Subject::Product(id), found)
                }),
            ),
        }
    }
}
