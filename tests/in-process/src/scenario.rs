//! Scenarios: the actions of one customer, and the guarantees that the system
//! must keep.
//!
//! [`play`] runs one scenario in six steps:
//!
//! 1. It starts a [`World`] with the scenario's products and, unless the
//!    customer is unknown, their profile.
//! 2. The customer acts while the faults of the plan occur. Requests are retried
//!    as a well-behaved client retries them.
//! 3. The system recovers: the stream, the queues and the schedule run until no
//!    order is open. Faults of the plan occur during recovery, too, because a
//!    real system is not safe from faults while it recovers.
//! 4. The faults end. Calls that [`FaultKind::DeliveredLate`] held back are
//!    delivered, and the system recovers again.
//! 5. The client repeats the request that places the order, and the system
//!    recovers once more. If every earlier request was lost before the order was
//!    stored, this request places the order.
//! 6. Every guarantee is checked: about stock, money, the order's states, events,
//!    messages to the customer, responses, cancellation and erasure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    time::Duration,
};

use chassis::{clock::Clock, pause::EFFECTIVE_WITHIN, time_limits::DECIDE_WITHIN};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use orders::{domain::OrderState, saga::steps::Saga};
use serde_json::{Value, json};
use strum::VariantArray;

use crate::{
    Answer, Caller, World,
    cloudwatch::datapoints,
    fault::{FaultKind, FaultPlan, FaultPoint},
    shop::{order_id, order_request},
};

/// The maximum number of rounds of recovery. Together, the rounds last longer
/// than an hour. This is enough, since the worker pauses for at most five
/// minutes between two attempts at an order.
const ROUNDS: usize = 60;
/// The duration of a round of recovery.
const ROUND: Duration = Duration::from_secs(65);
/// The visibility timeout of the queue of user events, in rounds of recovery:
/// for this time, the queue hides a message that was delivered but not
/// acknowledged.
const VISIBILITY_ROUNDS: usize = 6;
/// The stock of each product at the start.
const STOCK: u64 = 10;
/// The unit price of each product, in minor units.
const PRICE: i64 = 1999;

/// The case that a scenario plays: what the customer does, and which step
/// refuses the order, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::VariantArray)]
pub enum ScenarioKind {
    /// The customer places an order, and every step succeeds.
    Confirmed,
    /// The customer pays with a card that is declined.
    Declined,
    /// The customer orders more of a product than its stock.
    OutOfStock,
    /// The customer has no profile.
    UnknownUser,
    /// The provider authorises the payment and later refuses to capture it.
    CaptureRefused,
    /// The customer cancels while the order is undecided.
    CancelledBeforeThePivot,
    /// The customer cancels as soon as the order is confirmed.
    CancelledAfterThePivot,
    /// The customer cancels after the order has become `DONE`.
    CancelledWhenDone,
    /// The customer deletes their profile as soon as the order is placed.
    Erased,
    /// The customer orders more of each product than any shard of its stock has.
    SeveralShards,
    /// The customer orders more of each product than any shard of its stock has,
    /// and cancels after the order has become `DONE`.
    SeveralShardsCancelled,
    /// An administrator gives each product more shards after the order was
    /// placed. Then the customer cancels.
    ShardsAdded,
    /// An administrator pauses new orders and messages as soon as the order is
    /// placed, and resumes both after the stream and the queue were delivered.
    Paused,
}

/// The outcome of a scenario in which no fault occurs.
#[derive(Debug)]
pub struct ExpectedOutcome {
    pub states: &'static [OrderState],
    pub cancellation_reason: Option<&'static str>,
    /// The HTTP status of the response to the request that placed the order.
    pub status: u16,
}

impl ScenarioKind {
    fn payment_method(self) -> &'static str {
        match self {
            Self::Declined => "tok_declined",
            Self::CaptureRefused => "tok_capture_refused",
            // The provider responds slowly, which leaves the customer time to
            // cancel.
            Self::CancelledBeforeThePivot => "tok_slow",
            _ => "tok_accepted",
        }
    }

    pub fn expected(self) -> ExpectedOutcome {
        use OrderState::{Cancelled, Cancelling, Confirmed, Done, Pending};
        let (states, cancellation_reason, status): (&[_], _, _) = match self {
            Self::Confirmed | Self::Erased | Self::SeveralShards | Self::Paused => {
                (&[Pending, Confirmed, Done], None, 201)
            }
            Self::Declined => (&[Pending, Cancelling, Cancelled], Some("payment_declined"), 402),
            Self::OutOfStock => (&[Pending, Cancelling, Cancelled], Some("out_of_stock"), 409),
            Self::UnknownUser => (&[Pending, Cancelling, Cancelled], Some("user_not_found"), 422),
            Self::CaptureRefused => (&[Pending, Confirmed, Cancelling, Cancelled], Some("capture_refused"), 201),
            Self::CancelledBeforeThePivot => (&[Pending, Cancelling, Cancelled], Some("customer_request"), 409),
            Self::CancelledAfterThePivot | Self::ShardsAdded => {
                (&[Pending, Confirmed, Cancelling, Cancelled], Some("customer_request"), 201)
            }
            Self::CancelledWhenDone | Self::SeveralShardsCancelled => {
                (&[Pending, Confirmed, Done, Cancelling, Cancelled], Some("customer_request"), 201)
            }
        };
        ExpectedOutcome { states, cancellation_reason, status }
    }
}

/// A case that is played with an order of this number of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scenario {
    pub kind: ScenarioKind,
    pub lines: usize,
}

impl Scenario {
    /// Every kind of scenario, each with an order of one line and with an order
    /// of three lines.
    pub fn all() -> Vec<Self> {
        ScenarioKind::VARIANTS.iter().flat_map(|&kind| [1, 3].map(|lines| Self { kind, lines })).collect()
    }
}

impl Scenario {
    /// The number of stock shards that each product has at first. The stock is
    /// spread over them evenly, so that it makes no difference which shard an
    /// order tries first: that depends on the order's id, which is random.
    fn shards(self) -> u8 {
        match self.kind {
            ScenarioKind::SeveralShards | ScenarioKind::SeveralShardsCancelled => 2,
            ScenarioKind::OutOfStock if self.lines > 1 => 2,
            _ => 1,
        }
    }
}

/// Writes the kind and the number of lines in the form `Confirmed/1`.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.kind, self.lines)
    }
}

impl std::str::FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::all().into_iter().find(|scenario| scenario.to_string() == text);
        found.ok_or_else(|| format!("there is no scenario {text}"))
    }
}

/// The result of a trial.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every call that was made while faults could occur.
    pub points: Vec<FaultPoint>,
    pub final_state: Option<OrderState>,
    /// All states that the order had, oldest first.
    pub states: Vec<OrderState>,
    /// The guarantees that did not hold.
    pub violations: Vec<String>,
}

/// Plays a scenario with the faults of `plan`, lets the system recover, and
/// checks every guarantee. Must run on a single-threaded runtime with a paused
/// clock.
pub async fn play(scenario: Scenario, plan: &FaultPlan, sagas: &'static [&'static Saga]) -> Report {
    let clock = Clock::tokio(Timestamp::from_second(1_800_000_000).expect("a moment"));
    let world = World::start_with(clock, sagas).await;
    let customer = match scenario.kind {
        ScenarioKind::UnknownUser => Caller::named("Stranger"),
        _ => world.customer("Ada").await,
    };
    let mut products = Vec::new();
    for n in 0..scenario.lines {
        let body =
            json!({ "name": format!("Product {n}"), "description": "For sale.", "price": price(), "stock": STOCK });
        let product = world.post(&Caller::admin(), "/products", body).await.json();
        let product = product["id"].as_str().expect("a product").to_owned();
        if scenario.shards() > 1 {
            world.give_shards(&product, scenario.shards()).await.expect(StatusCode::OK);
        }
        products.push(product);
    }

    let (customer, admin) = (&customer, Caller::admin());
    let mut run = ScenarioRun { scenario, plan, world: &world, customer, admin, products, violations: Vec::new() };
    world.cloud.begin_trial(plan.clone());
    let answers = run.act().await;
    let sweeps = run.recover().await;
    let points = world.cloud.end_trial();
    if world.cloud.deliver_late_calls().await > 0 {
        run.recover().await;
    }
    run.place().await;
    run.recover().await;
    run.check(&answers, points, sweeps).await
}

/// The responses that the customer's client received.
#[derive(Default)]
struct ClientAnswers {
    placed: Vec<Answer>,
    cancelled: Option<Answer>,
    erased: Option<Answer>,
}

struct ScenarioRun<'a> {
    scenario: Scenario,
    plan: &'a FaultPlan,
    world: &'a World,
    customer: &'a Caller,
    admin: Caller,
    products: Vec<String>,
    violations: Vec<String>,
}

impl ScenarioRun<'_> {
    fn body(&self) -> Value {
        let quantities =
            self.products.iter().enumerate().map(|(n, product)| (product.as_str(), self.quantity(n) as u32));
        order_request(&quantities.collect::<Vec<_>>(), self.scenario.kind.payment_method())
    }

    /// The ordered quantity of a product. In [`ScenarioKind::OutOfStock`], the
    /// stock of the last product is too small.
    fn quantity(&self, product: usize) -> u64 {
        match self.scenario.kind {
            ScenarioKind::OutOfStock if product + 1 == self.products.len() => STOCK + 1,
            // More than half of the stock, which is spread over two shards.
            ScenarioKind::SeveralShards | ScenarioKind::SeveralShardsCancelled => STOCK / 2 + 1,
            _ => 2,
        }
    }

    /// The total of the order, in minor units.
    fn total(&self) -> i64 {
        let quantity: u64 = (0..self.products.len()).map(|product| self.quantity(product)).sum();
        PRICE * quantity as i64
    }

    async fn place_once(&self) -> Answer {
        self.world.place(self.customer, self.body(), "the-key").await
    }

    /// Places the order, and repeats the request as a well-behaved client does.
    async fn place(&self) -> Answer {
        retry(is_to_be_repeated, || self.place_once()).await
    }

    /// Cancels the order. Returns `None` if no order is stored.
    async fn cancel(&self) -> Option<Answer> {
        let order = json!({ "id": order_id(&self.order()?) });
        Some(retry(is_to_be_repeated, || self.world.cancel(self.customer, &order)).await)
    }

    /// Deletes the customer's profile.
    async fn erase(&self) -> Answer {
        let path = format!("/users/{}", self.customer.id());
        retry(|answer| answer.status.is_server_error(), || self.world.delete(self.customer, &path)).await
    }

    /// Pauses or resumes new orders and messages, and waits until that has an effect
    /// everywhere.
    async fn pause_everything(&self, paused: bool) {
        for part in ["orders", "messages"] {
            let body = json!({ "paused": paused, "reason": "A trial." });
            let path = format!("/pauses/{part}");
            retry(is_to_be_repeated, || self.world.post(&self.admin, &path, body.clone())).await;
        }
        tokio::time::advance(EFFECTIVE_WITHIN).await;
    }

    /// Sends the requests that the customer of this scenario sends.
    async fn act(&self) -> ClientAnswers {
        match self.scenario.kind {
            ScenarioKind::CancelledBeforeThePivot => {
                let (placed, cancelled) = tokio::join!(self.place(), async {
                    tokio::time::sleep(Duration::from_millis(1500)).await;
                    self.cancel().await
                });
                ClientAnswers { placed: vec![placed], cancelled, erased: None }
            }
            ScenarioKind::CancelledAfterThePivot => {
                let placed = vec![self.place().await];
                ClientAnswers { placed, cancelled: self.cancel().await, erased: None }
            }
            ScenarioKind::CancelledWhenDone | ScenarioKind::SeveralShardsCancelled => {
                let placed = vec![self.place().await];
                self.deliver().await;
                ClientAnswers { placed, cancelled: self.cancel().await, erased: None }
            }
            ScenarioKind::ShardsAdded => {
                let placed = vec![self.place().await];
                for product in &self.products {
                    retry(is_to_be_repeated, || self.world.give_shards(product, 3)).await;
                }
                ClientAnswers { placed, cancelled: self.cancel().await, erased: None }
            }
            ScenarioKind::Paused => {
                let mut placed = vec![self.place().await];
                self.pause_everything(true).await;
                placed.push(self.place_once().await);
                self.deliver().await;
                self.pause_everything(false).await;
                ClientAnswers { placed, cancelled: None, erased: None }
            }
            ScenarioKind::Erased => {
                let placed = vec![self.place().await];
                ClientAnswers { placed, cancelled: None, erased: Some(self.erase().await) }
            }
            _ => ClientAnswers { placed: vec![self.place().await], cancelled: None, erased: None },
        }
    }

    /// Delivers the new records of the orders table's stream, and then the
    /// queued order events.
    async fn deliver(&self) {
        self.world.deliver_stream().await;
        self.world.deliver_messages().await;
    }

    /// Lets time pass until no order is open and no message is queued. Returns
    /// the number of sweeps that ran while an order was open.
    async fn recover(&mut self) -> usize {
        let mut sweeps = 0;
        for round in 0..ROUNDS {
            self.deliver().await;
            let open = !self.open_orders().is_empty();
            // While an order is open, the worker may not acknowledge a user
            // event. The queue delivers such an event again only after the
            // visibility timeout.
            if !open || round % VISIBILITY_ROUNDS == 0 {
                self.world.deliver_user_events().await;
            }
            if !open && self.world.cloud.queued_messages() + self.world.cloud.queued_user_events() == 0 {
                return sweeps;
            }
            tokio::time::advance(ROUND).await;
            self.world.sweep().await;
            sweeps += usize::from(open);
        }
        let open = self.open_orders();
        self.violate(format!("still open: {open:?}, and {} messages are queued", self.world.cloud.queued_messages()));
        sweeps
    }

    fn order(&self) -> Option<Value> {
        self.world.stored_orders().pop()
    }

    fn open_orders(&self) -> Vec<String> {
        let open = self
            .world
            .stored_orders()
            .into_iter()
            .filter(|order| !matches!(state(order), Some(state) if !state.is_open()));
        open.map(|order| format!("{} {}", order_id(&order), order["state"]["S"])).collect()
    }

    /// The charges that the payment provider has recorded for an order.
    fn charges(&self, uuid: &str) -> Vec<Value> {
        let charges = self.world.cloud.scan("SandboxLedgerTable").into_iter();
        charges.filter(|charge| charge["pk"]["S"].as_str().is_some_and(|pk| pk.contains(uuid))).collect()
    }

    fn violate(&mut self, violation: impl Into<String>) {
        self.violations.push(violation.into());
    }

    async fn check(mut self, answers: &ClientAnswers, points: Vec<FaultPoint>, sweeps: usize) -> Report {
        let orders = self.world.stored_orders();
        if orders.len() != 1 {
            self.violate(format!("{} orders are stored under one idempotency key", orders.len()));
        }
        self.check_stock(&orders);
        for order in &orders {
            self.check_order(order);
        }
        self.check_money(&orders);
        self.check_events(&orders);
        self.check_messages(&points);
        self.check_metrics(&orders);
        self.check_notified(&answers.placed);
        self.check_erasure(answers.erased.as_ref());
        self.check_answers(&answers.placed, orders.first()).await;
        self.check_cancellation(answers.cancelled.as_ref()).await;
        if is_reconciled(self.plan) {
            for (kind, subject) in self.world.reconcile().await {
                self.violate(format!("reconciliation reports {kind} of {subject}"));
            }
        }
        let only_crash_all = self.plan.faults().map(|(_, fault)| fault).eq([FaultKind::CrashAll]);
        if only_crash_all && sweeps > 1 {
            self.violate(format!("recovery from a crash of all functions took {sweeps} sweeps"));
        }
        let order = self.order();
        Report {
            points,
            final_state: order.as_ref().and_then(state),
            states: order.as_ref().map(history).unwrap_or_default(),
            violations: self.violations,
        }
    }

    /// Checks that for each product, the available and the reserved stock of its
    /// shards add up to the initial stock and the adjustments, that none is
    /// negative, that exactly the quantities of finished orders are reserved, and
    /// that each shard has reserved what the reservations have taken from it.
    fn check_stock(&mut self, orders: &[Value]) {
        let done = orders.iter().filter(|order| state(order) == Some(OrderState::Done)).count() as u64;
        let items = self.world.cloud.scan("ProductsTable");
        for (n, product) in self.products.clone().iter().enumerate() {
            let of_product = |kind: &str, name: &str| -> Vec<&Value> {
                let is_kind = |item: &&Value| item["sk"]["S"].as_str().is_some_and(|sk| sk.starts_with(kind));
                items.iter().filter(is_kind).filter(|item| item[name]["S"] == *product).collect()
            };
            let initial: i64 = of_product("PRODUCT", "id").iter().map(|i| number_or_zero(&i["initial_stock"])).sum();
            let adjusted: i64 =
                of_product("ADJUSTMENT", "product_id").iter().map(|i| number_or_zero(&i["delta"])).sum();
            let (mut available, mut reserved) = (0, 0);
            for shard in of_product("STOCK", "product_id") {
                let stock = (number_or_zero(&shard["available"]), number_or_zero(&shard["reserved"]));
                let held = held_units(&items, product, number_or_zero(&shard["shard"]));
                if stock.0 < 0 || stock.1 != held {
                    self.violate(format!("a shard has {stock:?} available and reserved, and reservations hold {held}"));
                }
                (available, reserved) = (available + stock.0, reserved + stock.1);
            }
            if available + reserved != initial + adjusted || initial + adjusted != STOCK as i64 {
                self.violate(format!("{available} available and {reserved} reserved of {initial} + {adjusted}"));
            }
            let expected = done * self.quantity(n);
            if reserved != expected as i64 {
                self.violate(format!("{reserved} reserved for {done} finished orders instead of {expected}"));
            }
        }
    }

    /// Checks that the payment provider has captured the total of each finished
    /// order once, that it keeps no other money, and that no charge is still
    /// authorised.
    fn check_money(&mut self, orders: &[Value]) {
        let done = orders.iter().filter(|order| state(order) == Some(OrderState::Done)).count();
        let charges = self.world.cloud.scan("SandboxLedgerTable");
        let kept =
            |charge: &Value| number_or_zero(&charge["captured_minor"]) - number_or_zero(&charge["refunded_minor"]);
        let paid: Vec<_> = charges.iter().map(kept).filter(|kept| *kept != 0).collect();
        if paid != vec![self.total(); done] {
            self.violate(format!("the provider kept {paid:?} for {done} finished orders of {}", self.total()));
        }
        let authorised = charges.iter().filter(|charge| charge["status"]["S"] == "AUTHORISED").count();
        if authorised > 0 {
            self.violate(format!("{authorised} charges are still authorised"));
        }
        if charges.iter().any(|charge| number_or_zero(&charge["captured_minor"]) > self.total()) {
            self.violate(format!("more captured than {}: {charges:?}", self.total()));
        }
    }

    fn check_order(&mut self, order: &Value) {
        let states = history(order);
        if !states.windows(2).all(|pair| pair[0].may_become(pair[1])) || states.first() != Some(&OrderState::Pending) {
            self.violate(format!("the order must not have had these states in this order: {states:?}"));
        }
        let final_state = state(order);
        if states.last().copied() != final_state {
            self.violate(format!("state {final_state:?} after history {states:?}"));
        }
        if order["payment_method"].is_object() {
            self.violate("the payment token was kept");
        }
        let uuid = order_id(order).trim_start_matches("ord_").to_owned();
        let payments = self.world.cloud.scan("PaymentsTable");
        let payment = payments.into_iter().find(|p| p["pk"]["S"].as_str().is_some_and(|pk| pk.contains(&uuid)));
        let status = payment.as_ref().and_then(|payment| payment["status"]["S"].as_str()).unwrap_or("none").to_owned();
        let final_statuses: &[&str] = match final_state {
            Some(OrderState::Done) => &["CAPTURED"],
            _ => &["CANCELLED", "VOIDED", "REFUNDED", "DECLINED"],
        };
        if !final_statuses.contains(&status.as_str()) {
            self.violate(format!("the order is {final_state:?}, but the payment is {status}"));
        }
        self.check_outcome(order, &states);
    }

    /// Checks the order's outcome. Without faults, the order must have had
    /// exactly the states of the scenario. With faults, the order must end in
    /// the same state for the same reason, except in three cases: the order was
    /// undecided for too long and timed out, the customer's cancellation never
    /// arrived, or the customer was erased before the order was decided.
    fn check_outcome(&mut self, order: &Value, states: &[OrderState]) {
        let expected = self.scenario.kind.expected();
        let reason = order["cancellation_reason"]["M"]["code"]["S"].as_str();
        if (states, reason) == (expected.states, expected.cancellation_reason) {
            return;
        }
        let same_end = states.last() == expected.states.last() && reason == expected.cancellation_reason;
        let timed_out = reason == Some("timed_out") && undecided_for(order) >= Some(decision_deadline());
        // The request to cancel the order may have been lost. If the client was
        // nevertheless told that the order is cancelled, `check_cancellation`
        // reports a violation.
        let cancellation_lost = expected.cancellation_reason == Some("customer_request")
            && reason.is_none()
            && states.last() == Some(&OrderState::Done);
        let erased_before_the_decision = self.scenario.kind == ScenarioKind::Erased && reason == Some("user_inactive");
        let is_allowed = same_end || timed_out || cancellation_lost || erased_before_the_decision;
        if self.plan.is_empty() || !is_allowed {
            self.violate(format!("the order was {states:?} ({reason:?}) instead of {expected:?}"));
        }
    }

    /// Checks that the metrics count no transition twice, whatever is repeated, and
    /// without faults each transition once. With faults, a crash may lose a count.
    fn check_metrics(&mut self, orders: &[Value]) {
        let mut counted = BTreeMap::<String, f64>::new();
        for point in datapoints(&self.world.cloud.metric_lines()) {
            *counted.entry(point.metric).or_default() += point.value;
        }
        let entered = |state| orders.iter().flat_map(history).filter(|entry| *entry == state).count() as f64;
        for (metric, happened) in [
            ("OrdersPlaced", orders.len() as f64),
            ("OrdersConfirmed", entered(OrderState::Confirmed)),
            ("OrdersDone", entered(OrderState::Done)),
            ("OrdersCancelled", entered(OrderState::Cancelling)),
        ] {
            let counted = counted.get(metric).copied().unwrap_or_default();
            if counted > happened || (self.plan.is_empty() && counted < happened) {
                self.violate(format!("{metric} counted {counted} instead of {happened}"));
            }
        }
    }

    /// Checks that each event was published if and only if the change that it
    /// reports has happened.
    fn check_events(&mut self, orders: &[Value]) {
        let events = self.events();
        for order in orders {
            let id = order_id(order);
            let charge = self.charges(id.trim_start_matches("ord_")).into_iter().next().unwrap_or_default();
            let is_known_user = self.scenario.kind != ScenarioKind::UnknownUser;
            for (kind, happened) in [
                ("OrderCreated", history(order).contains(&OrderState::Confirmed)),
                ("OrderCancelled", state(order) == Some(OrderState::Cancelled) && is_known_user),
                ("PaymentCaptured", number_or_zero(&charge["captured_minor"]) > 0),
                ("PaymentRefunded", number_or_zero(&charge["refunded_minor"]) > 0),
            ] {
                let matches = |event: &&Value| event["type"] == kind && order_of(event) == id;
                let ids: BTreeSet<_> = events.iter().filter(matches).map(|event| event["id"].to_string()).collect();
                // If the customer was erased before the order was decided, the
                // order has no recipient, and its cancellation publishes no
                // event.
                let is_optional = kind == "OrderCancelled" && self.scenario.kind == ScenarioKind::Erased;
                if ids.len() != usize::from(happened) && !(is_optional && ids.is_empty()) {
                    self.violate(format!("{kind} happened: {happened}, but {} events say so", ids.len()));
                }
                // With faults, an event may be sent more than once, because
                // consumers recognise a repeated event by its id and ignore it.
                // Without faults, each event must be sent once.
                let sent = events.iter().filter(matches).count();
                // While messages are paused, the notifier sends the event back to its queue.
                let is_held = self.scenario.kind == ScenarioKind::Paused;
                if self.plan.is_empty() && sent > 1 && !is_held {
                    self.violate(format!("{kind} was sent {sent} times without a fault"));
                }
            }
        }
        let dead = self.world.cloud.dead_letters();
        if !dead.is_empty() {
            self.violate(format!("dead letters: {dead:?}"));
        }
    }

    /// All order events that were published.
    fn events(&self) -> Vec<Value> {
        let sent = self.world.cloud.sent_messages();
        sent.iter().map(|message| serde_json::from_str(message).unwrap_or_default()).collect()
    }

    /// Checks that the customer is notified of each event once by e-mail and
    /// once by text message. A message may be sent again only if the notifier
    /// crashed, or received no response, after sending the message and before
    /// recording that it was sent.
    fn check_messages(&mut self, points: &[FaultPoint]) {
        let mails: Vec<_> = self.world.cloud.mails().iter().map(Value::to_string).collect();
        let texts: Vec<_> = self.world.cloud.texts().iter().map(|form| format!("{form:?}")).collect();
        let events: BTreeMap<_, _> = self.events().into_iter().map(|e| (e["id"].to_string(), e)).collect();
        let mut expected = 0;
        for event in events.values() {
            let Some((subject, text)) = wording(event) else { continue };
            let subject = format!("{subject} ({})", order_of(event));
            let by_mail = mails.iter().filter(|mail| mail.contains(&subject)).count();
            let by_text = texts.iter().filter(|sent| sent.contains(text)).count();
            expected += 2;
            let is_erased = self.scenario.kind == ScenarioKind::Erased;
            if (by_mail == 0 || by_text == 0) && !is_erased {
                self.violate(format!("{}: {by_mail} e-mails and {by_text} text messages", event["type"]));
            }
            if by_mail + by_text > 0 && is_erased && self.plan.is_empty() {
                self.violate(format!("{}: an erased customer was notified", event["type"]));
            }
        }
        let sent = mails.len() + texts.len();
        let repeatable: usize =
            self.plan.faults().map(|(call, fault)| possible_repeats(fault, points.get(call), expected)).sum();
        if sent > expected + repeatable {
            self.violate(format!("{sent} messages instead of {expected}, of which {repeatable} may be repeated"));
        }
    }

    /// Checks that a customer is notified of a refusal if and only if no
    /// response has reported the refusal, and that no customer is notified of a
    /// payment that was not captured.
    fn check_notified(&mut self, answers: &[Answer]) {
        for event in self.events() {
            let data = &event["data"];
            if event["type"] == "OrderCancelled" && data["customer_told"] == true {
                if answers.iter().any(|answer| answer.status == StatusCode::ACCEPTED) {
                    self.violate("the client was told that the order is undecided, and the customer gets no message");
                }
            } else if event["type"] == "OrderCancelled" && self.plan.is_empty() && data["confirmed"] == false {
                // In this scenario, the customer's own cancellation ends the
                // order, and the customer is always notified of a cancellation
                // that they asked for.
                let is_own_cancellation = self.scenario.kind == ScenarioKind::CancelledBeforeThePivot;
                if !is_own_cancellation {
                    self.violate("a response and a message both report the refusal");
                }
            }
            if event["type"] == "OrderCreated" && data["paid"] == true {
                let id = order_of(&event);
                let charges = self.charges(id.trim_start_matches("ord_"));
                if !charges.iter().any(|charge| number_or_zero(&charge["captured_minor"]) > 0) {
                    self.violate("the event says that the order is paid, but nothing was captured");
                }
            }
        }
    }

    /// Checks that no service keeps the customer's e-mail address or phone
    /// number once the client was told that the customer is erased.
    fn check_erasure(&mut self, answer: Option<&Answer>) {
        let Some(answer) = answer else { return };
        if answer.status != StatusCode::NO_CONTENT {
            if self.plan.is_empty() {
                self.violate(format!("the customer could not be erased: {answer:?}"));
            }
            return;
        }
        for table in ["UsersTable", "OrdersTable", "PaymentsTable", "NotificationsTable"] {
            let items = Value::from(self.world.cloud.scan(table)).to_string();
            if items.contains(self.customer.email()) || items.contains(self.customer.phone()) {
                self.violate(format!("{table} still has contact details of an erased customer"));
            }
        }
    }

    /// Checks that the order is cancelled if the client was told so, and that
    /// cancelling a cancelled order again succeeds and changes nothing.
    async fn check_cancellation(&mut self, answer: Option<&Answer>) {
        let Some(order) = self.order() else { return };
        let is_accepted = answer.is_some_and(|answer| answer.status.is_success());
        let final_state = state(&order);
        if is_accepted && final_state != Some(OrderState::Cancelled) {
            self.violate(format!("the client was told that the order is cancelled, but it is {final_state:?}"));
        }
        if answer.is_some_and(|answer| !answer.status.is_success() && !is_to_be_repeated(answer)) {
            self.violate(format!("the order could not be cancelled: {answer:?}"));
        }
        if final_state == Some(OrderState::Cancelled) {
            let (events, again) = (self.world.cloud.sent_messages().len(), self.cancel().await);
            let same = again.as_ref().is_some_and(|a| a.status == StatusCode::OK && a.json()["status"] == "CANCELLED");
            if !same || self.world.cloud.sent_messages().len() != events {
                self.violate(format!("the second cancellation failed or changed something: {again:?}"));
            }
        }
    }

    /// Sends the request that placed the order twice more. Checks that both
    /// responses are final and equal, and that every final response that the
    /// client received before is equal to them.
    async fn check_answers(&mut self, answers: &[Answer], order: Option<&Value>) {
        let (once, again) = (self.place_once().await, self.place_once().await);
        if !is_final(&once) {
            self.violate(format!("the response is not final: {} {}", once.status, once.text));
        }
        if comparable(&once) != comparable(&again) {
            self.violate(format!("one request has two responses: {once:?} and {again:?}"));
        }
        let expected = self.scenario.kind.expected().status;
        if self.plan.is_empty() && once.status != expected {
            self.violate(format!("the response has status {} instead of {expected}", once.status));
        }
        for answer in answers {
            if is_final(answer) && comparable(answer) != comparable(&once) {
                self.violate(format!("the client first received {answer:?}, and later {once:?}"));
            }
            // A response with status 202 must name the order that is stored.
            let promised = (answer.status == StatusCode::ACCEPTED).then(|| answer.json()["id"].clone());
            if promised.is_some_and(|id| order.is_none_or(|order| order_id(order) != id)) {
                self.violate(format!("a 202 names an order that is not stored: {}", answer.text));
            }
        }
        if let Some(order) = order {
            let id = once.json();
            let id = id["id"].as_str().or(id["order_id"].as_str());
            if id != Some(order_id(order)) {
                self.violate("the response is about another order");
            }
        }
    }
}

/// Returns whether a trial ends with a reconciliation, which must find nothing: each trial
/// without a fault, and one of four others. A reconciliation takes half as long as the rest
/// of a trial.
fn is_reconciled(plan: &FaultPlan) -> bool {
    plan.faults().map(|(call, _)| call).sum::<usize>() % 4 == 0
}

/// The units that reservations hold in a shard of a product.
fn held_units(items: &[Value], product: &str, shard: i64) -> i64 {
    let list = |value: &Value| value["L"].as_array().cloned().unwrap_or_default();
    let held = items.iter().filter(|item| item["status"]["S"] == "HELD");
    let lines = held.flat_map(|item| list(&item["quote"]["M"]["lines"]).into_iter().zip(list(&item["allocated"])));
    let of_product = lines.filter(|(line, _)| line["M"]["product_id"]["S"] == product);
    let shares = of_product.flat_map(|(_, shares)| list(&shares));
    let of_shard = shares.filter(|share| number_or_zero(&share["L"][0]) == shard);
    of_shard.map(|share| number_or_zero(&share["L"][1])).sum()
}

/// Sends a request, and repeats the request up to three times while
/// `should_retry` returns `true` for the response, as a well-behaved client
/// does.
async fn retry<F: Future<Output = Answer>>(should_retry: impl Fn(&Answer) -> bool, send: impl Fn() -> F) -> Answer {
    let mut answer = send().await;
    for _ in 0..3 {
        if !should_retry(&answer) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        answer = send().await;
    }
    answer
}

/// Returns whether a response asks the client to repeat its request.
fn is_to_be_repeated(answer: &Answer) -> bool {
    let code = answer.json()["code"].clone();
    answer.status.is_server_error() || code == "idempotency_in_flight" || code == "contended"
}

/// Returns whether a response contains the final decision about the order.
fn is_final(answer: &Answer) -> bool {
    [201, 402, 409, 422].contains(&answer.status.as_u16()) && answer.json()["code"] != "idempotency_in_flight"
}

/// The parts of a response that must be equal for each repetition of a request.
fn comparable(answer: &Answer) -> (u16, &str, Option<&str>, Option<&str>) {
    (answer.status.as_u16(), &answer.text, answer.header("content-type"), answer.header("location"))
}

/// The id of the order that an event is about.
fn order_of(event: &Value) -> String {
    let uuid = event["subject"].as_str().unwrap_or_default().split('_').nth(1).unwrap_or_default();
    format!("ord_{uuid}")
}

/// The start of the subject of the e-mail about an event, and words from the
/// text message about the event. `None` if the customer is not notified of the
/// event.
fn wording(event: &Value) -> Option<(&'static str, &'static str)> {
    let data = &event["data"];
    let is_recalled = data["confirmed"] == true || data["reason"] == "customer_request";
    match event["type"].as_str() {
        Some("OrderCreated") => Some(("Your order is confirmed", "is confirmed")),
        Some("OrderCancelled") if data["confirmed"] == false && data["customer_told"] == true => None,
        Some("OrderCancelled") if is_recalled => Some(("Your order is cancelled", "is cancelled")),
        Some("OrderCancelled") => Some(("Your order could not be placed", "could not be placed")),
        Some("PaymentRefunded") => Some(("Your money is on its way back", "we have returned")),
        _ => None,
    }
}

/// The number of messages that may be sent twice because of a fault, since they
/// were sent but not recorded as sent. If the notifier crashes or cannot write
/// to its table for a whole invocation, up to every message of the batch can be
/// sent twice. After any other fault of a call of the notifier, one message can
/// be sent twice.
fn possible_repeats(fault: FaultKind, point: Option<&FaultPoint>, batch: usize) -> usize {
    let calls = |call: &str| point.is_some_and(|point| point.label.starts_with(&format!("notifications → {call}")));
    match fault {
        FaultKind::CrashBefore | FaultKind::CrashAfter | FaultKind::CrashAll if calls("") => batch,
        fault if fault.lasts() && calls("UpdateItem") => batch,
        _ => usize::from(calls("email") || calls("sns") || calls("UpdateItem")),
    }
}

/// The unit price in major units, as in the public API.
fn price() -> f64 {
    PRICE as f64 / 100.0
}

fn state(order: &Value) -> Option<OrderState> {
    serde_json::from_value(order["state"]["S"].clone()).ok()
}

fn history(order: &Value) -> Vec<OrderState> {
    let entries = order["history"]["L"].as_array().into_iter().flatten();
    entries.filter_map(|entry| serde_json::from_value(entry["M"]["status"]["S"].clone()).ok()).collect()
}

/// The time from placing an order to its decision.
fn undecided_for(order: &Value) -> Option<SignedDuration> {
    let at = |entry: &Value| entry["M"]["at"]["S"].as_str()?.parse::<Timestamp>().ok();
    let history = &order["history"]["L"];
    Some(at(&history[1])?.duration_since(at(&history[0])?))
}

/// The time after which an undecided order is timed out.
fn decision_deadline() -> SignedDuration {
    SignedDuration::try_from(DECIDE_WITHIN).expect("two minutes")
}

/// The number in a DynamoDB attribute; 0 if the attribute is missing.
fn number_or_zero(attribute: &Value) -> i64 {
    attribute["N"].as_str().and_then(|number| number.parse().ok()).unwrap_or_default()
}
