//! Whole runs: a customer, a shop in which things go wrong, recovery, and the
//! promises that must hold afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use chassis::clock::Clock;
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use orders::{
    domain::{DECIDE_WITHIN, OrderState},
    saga::steps::Saga,
};
use serde_json::{Value, json};

use crate::{
    Answer, Person, World,
    fault::{Fault, Point, Script},
};

/// How many rounds of recovery an order may take. Each lets more than a minute
/// pass; the longest pause of the worker is five.
const ROUNDS: usize = 60;
/// How long a round of recovery lasts.
const ROUND: Duration = Duration::from_secs(65);
/// For how many rounds the queue of events about users hides a message that was
/// delivered.
const VISIBILITY_ROUNDS: usize = 6;
/// Stock of each product at the start.
const STOCK: u64 = 10;
/// What a piece costs, in minor units.
const PRICE: i64 = 1999;

/// What a customer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plot {
    /// Orders, and all goes well.
    Confirmed,
    /// Orders with a card that is declined.
    Declined,
    /// Orders more than there is.
    OutOfStock,
    /// Orders without a profile.
    UnknownUser,
    /// Orders, and the provider later refuses to capture.
    CaptureRefused,
    /// Cancels while the order is still undecided.
    CancelledBeforeThePivot,
    /// Cancels as soon as the order is confirmed.
    CancelledAfterThePivot,
    /// Cancels when the order is done.
    CancelledWhenDone,
    /// Leaves the shop for good as soon as the order is placed.
    Erased,
}

impl Plot {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Confirmed,
        Self::Declined,
        Self::OutOfStock,
        Self::UnknownUser,
        Self::CaptureRefused,
        Self::CancelledBeforeThePivot,
        Self::CancelledAfterThePivot,
        Self::CancelledWhenDone,
        Self::Erased,
    ];

    fn token(self) -> &'static str {
        match self {
            Self::Declined => "tok_declined",
            Self::CaptureRefused => "tok_capture_refused",
            // Leaves time for a cancellation while the provider thinks.
            Self::CancelledBeforeThePivot => "tok_slow",
            _ => "tok_accepted",
        }
    }

    /// What it comes to if nothing goes wrong: the states, why it is undone if
    /// it is, and the answer.
    pub fn course(self) -> (&'static [OrderState], Option<&'static str>, u16) {
        use OrderState::{Cancelled, Cancelling, Confirmed, Done, Pending};
        match self {
            Self::Confirmed | Self::Erased => (&[Pending, Confirmed, Done], None, 201),
            Self::Declined => (&[Pending, Cancelling, Cancelled], Some("payment_declined"), 402),
            Self::OutOfStock => (&[Pending, Cancelling, Cancelled], Some("out_of_stock"), 409),
            Self::UnknownUser => (&[Pending, Cancelling, Cancelled], Some("user_not_found"), 422),
            Self::CaptureRefused => (&[Pending, Confirmed, Cancelling, Cancelled], Some("capture_refused"), 201),
            Self::CancelledBeforeThePivot => (&[Pending, Cancelling, Cancelled], Some("customer_request"), 409),
            Self::CancelledAfterThePivot => {
                (&[Pending, Confirmed, Cancelling, Cancelled], Some("customer_request"), 201)
            }
            Self::CancelledWhenDone => {
                (&[Pending, Confirmed, Done, Cancelling, Cancelled], Some("customer_request"), 201)
            }
        }
    }
}

/// A plot, and how many products are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scenario {
    /// What happens.
    pub plot: Plot,
    /// How many lines the order has.
    pub lines: usize,
}

impl Scenario {
    /// Every plot with one line and with three.
    pub fn all() -> Vec<Self> {
        Plot::ALL.into_iter().flat_map(|plot| [1, 3].map(|lines| Self { plot, lines })).collect()
    }
}

/// `Confirmed/1`.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.plot, self.lines)
    }
}

impl std::str::FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::all().into_iter().find(|scenario| scenario.to_string() == text);
        found.ok_or_else(|| format!("{text} is no scenario"))
    }
}

/// How a run went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every call that was made while things could go wrong.
    pub points: Vec<Point>,
    /// The state in which the order ended.
    pub end: Option<OrderState>,
    /// All states that it went through.
    pub states: Vec<OrderState>,
    /// Promises that were broken.
    pub violations: Vec<String>,
}

/// Plays a scenario with these faults, recovers, and checks every promise.
/// Must run on a single-threaded runtime with a paused clock.
pub async fn play(scenario: Scenario, script: &Script, sagas: &'static [&'static Saga]) -> Report {
    let clock = Clock::tokio(Timestamp::from_second(1_800_000_000).expect("a moment"));
    let world = World::start_with(clock, sagas).await;
    let customer = match scenario.plot {
        Plot::UnknownUser => Person::named("Stranger"),
        _ => world.customer("Ada").await,
    };
    let mut products = Vec::new();
    for n in 0..scenario.lines {
        let body =
            json!({ "name": format!("Product {n}"), "description": "For sale.", "price": price(), "stock": STOCK });
        let product = world.post(&Person::admin(), "/products", body).await.json();
        products.push(product["id"].as_str().expect("a product").to_owned());
    }

    let mut run = Run { scenario, script, world: &world, customer: &customer, products, violations: Vec::new() };
    world.cloud.begin_trial(script.clone());
    let told = run.act().await;
    // Recovery is no safer than what it recovers from: it goes wrong, too.
    let sweeps = run.recover().await;
    let points = world.cloud.end_trial();
    if world.cloud.deliver_late().await > 0 {
        run.recover().await;
    }
    // A client that never got an answer asks again. If every earlier try was
    // lost before it was recorded, this places the order.
    run.place().await;
    run.recover().await;
    run.check(&told, points, sweeps).await
}

/// What the customer was told.
#[derive(Default)]
struct Told {
    /// Of placing the order.
    placed: Vec<Answer>,
    /// Of cancelling it.
    cancelled: Option<Answer>,
    /// Of leaving the shop.
    erased: Option<Answer>,
}

struct Run<'a> {
    scenario: Scenario,
    script: &'a Script,
    world: &'a World,
    customer: &'a Person,
    products: Vec<String>,
    violations: Vec<String>,
}

impl Run<'_> {
    fn body(&self) -> Value {
        let line = |(n, product)| json!({ "product_id": product, "quantity": self.quantity(n) });
        let items: Vec<_> = self.products.iter().enumerate().map(line).collect();
        json!({ "items": items, "payment_method": self.scenario.plot.token() })
    }

    /// How much is wanted of a product. If there isn't enough, it is of the last.
    fn quantity(&self, product: usize) -> u64 {
        let lacking = self.scenario.plot == Plot::OutOfStock && product + 1 == self.products.len();
        if lacking { STOCK + 1 } else { 2 }
    }

    /// What the order comes to, in minor units.
    fn total(&self) -> i64 {
        let pieces: u64 = (0..self.products.len()).map(|product| self.quantity(product)).sum();
        PRICE * pieces as i64
    }

    async fn place_once(&self) -> Answer {
        let key = [("idempotency-key", "the-key")];
        self.world.send_with(self.customer, Method::POST, "/orders", Some(self.body()), &key).await
    }

    /// Places the order as a well-behaved client: repeats while there is no
    /// answer, or one that says to try again.
    async fn place(&self) -> Answer {
        let mut answer = self.place_once().await;
        for _ in 0..3 {
            if !is_to_be_repeated(&answer) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            answer = self.place_once().await;
        }
        answer
    }

    /// Cancels the order, as a well-behaved client does. `None` if there is
    /// none that it could know of.
    async fn cancel(&self) -> Option<Answer> {
        let id = self.order()?["id"]["S"].as_str()?.to_owned();
        let path = format!("/orders/{id}/cancel");
        let mut answer = self.world.send(self.customer, Method::POST, &path, None).await;
        for _ in 0..3 {
            if !is_to_be_repeated(&answer) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            answer = self.world.send(self.customer, Method::POST, &path, None).await;
        }
        Some(answer)
    }

    /// Leaves the shop, as a well-behaved client does.
    async fn leave(&self) -> Answer {
        let path = format!("/users/{}", self.customer.id());
        let mut answer = self.world.delete(self.customer, &path).await;
        for _ in 0..3 {
            if !answer.status.is_server_error() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            answer = self.world.delete(self.customer, &path).await;
        }
        answer
    }

    /// What the customer does, and is told.
    async fn act(&self) -> Told {
        match self.scenario.plot {
            Plot::CancelledBeforeThePivot => {
                let (placed, cancelled) = tokio::join!(self.place(), async {
                    tokio::time::sleep(Duration::from_millis(1500)).await;
                    self.cancel().await
                });
                Told { placed: vec![placed], cancelled, erased: None }
            }
            Plot::CancelledAfterThePivot => {
                let placed = vec![self.place().await];
                Told { placed, cancelled: self.cancel().await, erased: None }
            }
            Plot::CancelledWhenDone => {
                let placed = vec![self.place().await];
                self.settle().await;
                Told { placed, cancelled: self.cancel().await, erased: None }
            }
            Plot::Erased => {
                let placed = vec![self.place().await];
                Told { placed, cancelled: None, erased: Some(self.leave().await) }
            }
            _ => Told { placed: vec![self.place().await], cancelled: None, erased: None },
        }
    }

    /// What happens by itself right away: the stream, and the queue.
    async fn settle(&self) {
        self.world.stream().await;
        self.world.deliver_messages().await;
    }

    /// What happens by itself in time, until nothing is left to do. How many
    /// sweeps it took until no order was open.
    async fn recover(&mut self) -> usize {
        let mut sweeps = 0;
        for round in 0..ROUNDS {
            self.settle().await;
            let open = !self.open_orders().is_empty();
            // A message about a user that is not acknowledged comes again only
            // when its visibility timeout is over.
            if !open || round % VISIBILITY_ROUNDS == 0 {
                self.world.deliver_user_events().await;
            }
            if !open && self.world.cloud.waiting() + self.world.cloud.waiting_user_events() == 0 {
                return sweeps;
            }
            tokio::time::advance(ROUND).await;
            self.world.sweep().await;
            sweeps += usize::from(open);
        }
        let open = self.open_orders();
        self.violate(format!("still open: {open:?}, and {} messages wait", self.world.cloud.waiting()));
        sweeps
    }

    fn orders(&self) -> Vec<Value> {
        let items = self.world.cloud.scan("OrdersTable");
        items.into_iter().filter(|item| item["sk"]["S"] == "ORDER").collect()
    }

    fn order(&self) -> Option<Value> {
        self.orders().pop()
    }

    fn open_orders(&self) -> Vec<String> {
        let open = self.orders().into_iter().filter(|order| !matches!(state(order), Some(state) if !state.is_open()));
        open.map(|order| format!("{} {}", order["id"]["S"], order["state"]["S"])).collect()
    }

    /// What the provider has of an order.
    fn charges(&self, uuid: &str) -> Vec<Value> {
        let charges = self.world.cloud.scan("SandboxLedgerTable").into_iter();
        charges.filter(|charge| charge["pk"]["S"].as_str().is_some_and(|pk| pk.contains(uuid))).collect()
    }

    fn violate(&mut self, violation: impl Into<String>) {
        self.violations.push(violation.into());
    }

    async fn check(mut self, told: &Told, points: Vec<Point>, sweeps: usize) -> Report {
        let orders = self.orders();
        if orders.len() != 1 {
            self.violate(format!("{} orders under one key", orders.len()));
        }
        self.check_stock(&orders);
        for order in &orders {
            self.check_order(order);
        }
        self.check_money(&orders);
        self.check_events(&orders);
        self.check_messages(&points);
        self.check_told(&told.placed);
        self.check_erasure(told.erased.as_ref());
        self.check_answers(&told.placed, orders.first()).await;
        self.check_cancellation(told.cancelled.as_ref()).await;
        let blackout = self.script.faults().map(|(_, fault)| fault).eq([Fault::Blackout]);
        if blackout && sweeps > 1 {
            self.violate(format!("it took {sweeps} sweeps to come back from a blackout"));
        }
        let order = self.order();
        Report {
            points,
            end: order.as_ref().and_then(state),
            states: order.as_ref().map(history).unwrap_or_default(),
            violations: self.violations,
        }
    }

    /// Initial stock = available + reserved, none negative; and what is
    /// reserved is what finished orders have.
    fn check_stock(&mut self, orders: &[Value]) {
        let done = orders.iter().filter(|order| state(order) == Some(OrderState::Done)).count() as u64;
        let items = self.world.cloud.scan("ProductsTable");
        for (n, product) in self.products.clone().iter().enumerate() {
            let item = items.iter().find(|item| item["sk"]["S"] == "PRODUCT" && item["id"]["S"] == *product);
            let item = item.cloned().unwrap_or_default();
            let (available, reserved) = (number(&item["available"]), number(&item["reserved"]));
            if available + reserved != STOCK as i64 || available < 0 || reserved < 0 {
                self.violate(format!("stock: {available} available, {reserved} reserved of {STOCK}"));
            }
            let wanted = done * self.quantity(n);
            if reserved != wanted as i64 {
                self.violate(format!("{reserved} reserved for {done} orders of {wanted}"));
            }
        }
    }

    /// At the provider: each finished order's total was captured once and is
    /// kept, and nothing else is, whatever it is for.
    fn check_money(&mut self, orders: &[Value]) {
        let done = orders.iter().filter(|order| state(order) == Some(OrderState::Done)).count();
        let charges = self.world.cloud.scan("SandboxLedgerTable");
        let kept = |charge: &Value| number(&charge["captured_minor"]) - number(&charge["refunded_minor"]);
        let paid: Vec<_> = charges.iter().map(kept).filter(|kept| *kept != 0).collect();
        if paid != vec![self.total(); done] {
            self.violate(format!("{paid:?} kept for {done} orders of {}", self.total()));
        }
        let held = charges.iter().filter(|charge| charge["status"]["S"] == "AUTHORISED").count();
        if held > 0 {
            self.violate(format!("{held} charges are authorised for nothing"));
        }
        if charges.iter().any(|charge| number(&charge["captured_minor"]) > self.total()) {
            self.violate(format!("more captured than {}: {charges:?}", self.total()));
        }
    }

    fn check_order(&mut self, order: &Value) {
        let states = history(order);
        if !states.windows(2).all(|pair| pair[0].may_become(pair[1])) || states.first() != Some(&OrderState::Pending) {
            self.violate(format!("history: {states:?}"));
        }
        let end = state(order);
        if states.last().copied() != end {
            self.violate(format!("state {end:?} after history {states:?}"));
        }
        if order["payment_method"].is_object() {
            self.violate("the payment token was kept");
        }
        let uuid = order["id"]["S"].as_str().unwrap_or_default().trim_start_matches("ord_").to_owned();
        let payments = self.world.cloud.scan("PaymentsTable");
        let payment = payments.into_iter().find(|p| p["pk"]["S"].as_str().is_some_and(|pk| pk.contains(&uuid)));
        let status = payment.as_ref().and_then(|payment| payment["status"]["S"].as_str()).unwrap_or("none").to_owned();
        let settled: &[&str] = match end {
            Some(OrderState::Done) => &["CAPTURED"],
            _ => &["CANCELLED", "VOIDED", "REFUNDED", "DECLINED"],
        };
        if !settled.contains(&status.as_str()) {
            self.violate(format!("{end:?}, but the payment is {status}"));
        }
        self.check_course(order, &states);
    }

    /// Without faults an order goes exactly as the plot has it. Faults delay,
    /// and don't decide: only an order whose decision took longer than it may,
    /// or whose cancellation nobody heard, can end otherwise.
    fn check_course(&mut self, order: &Value, states: &[OrderState]) {
        let (course, why, _) = self.scenario.plot.course();
        let reason = order["refusal"]["M"]["code"]["S"].as_str();
        if (states, reason) == (course, why) {
            return;
        }
        let undisturbed = self.script.is_empty();
        let ends_alike = states.last() == course.last() && reason == why;
        let too_late = reason == Some("timed_out") && undecided_for(order) >= Some(patience());
        // Whoever was told of it is a matter of check_cancellation.
        let not_cancelled =
            why == Some("customer_request") && reason.is_none() && states.last() == Some(&OrderState::Done);
        // The customer had left before the order was decided.
        let has_left = self.scenario.plot == Plot::Erased && reason == Some("user_inactive");
        if undisturbed || !(ends_alike || too_late || not_cancelled || has_left) {
            self.violate(format!("went {states:?} ({reason:?}) instead of {course:?} ({why:?})"));
        }
    }

    /// What happened is announced, once, and nothing else is.
    fn check_events(&mut self, orders: &[Value]) {
        let events = self.events();
        for order in orders {
            let id = order["id"]["S"].as_str().unwrap_or_default();
            let charge = self.charges(id.trim_start_matches("ord_")).into_iter().next().unwrap_or_default();
            let somebody = self.scenario.plot != Plot::UnknownUser;
            for (kind, happened) in [
                ("OrderCreated", history(order).contains(&OrderState::Confirmed)),
                ("OrderCancelled", state(order) == Some(OrderState::Cancelled) && somebody),
                ("PaymentCaptured", number(&charge["captured_minor"]) > 0),
                ("PaymentRefunded", number(&charge["refunded_minor"]) > 0),
            ] {
                let of_it = |event: &&Value| event["type"] == kind && order_of(event) == id;
                let ids: BTreeSet<_> = events.iter().filter(of_it).map(|event| event["id"].to_string()).collect();
                // Of a customer who has left nobody may be known to be told.
                let is_optional = kind == "OrderCancelled" && self.scenario.plot == Plot::Erased;
                if ids.len() != usize::from(happened) && !(is_optional && ids.is_empty()) {
                    self.violate(format!("{kind} happened: {happened}, but {} events say so", ids.len()));
                }
                // Repeats are known by their id; but nobody repeats without need.
                let sent = events.iter().filter(of_it).count();
                if self.script.is_empty() && sent > 1 {
                    self.violate(format!("{kind} was sent {sent} times for nothing"));
                }
            }
        }
        let dead = self.world.cloud.dead_letters();
        if !dead.is_empty() {
            self.violate(format!("dead letters: {dead:?}"));
        }
    }

    /// Everything that was published.
    fn events(&self) -> Vec<Value> {
        let sent = self.world.cloud.sent_messages();
        sent.iter().map(|message| serde_json::from_str(message).unwrap_or_default()).collect()
    }

    /// Each event is told on each of its channels, and more than once only
    /// where a notifier died, or heard nothing, between sending it and noting
    /// that it was sent.
    fn check_messages(&mut self, points: &[Point]) {
        let mails: Vec<_> = self.world.cloud.mails().iter().map(Value::to_string).collect();
        let texts: Vec<_> = self.world.cloud.texts().iter().map(|form| format!("{form:?}")).collect();
        let events: BTreeMap<_, _> = self.events().into_iter().map(|e| (e["id"].to_string(), e)).collect();
        let mut owed = 0;
        for event in events.values() {
            let Some((subject, text)) = wording(event) else { continue };
            let subject = format!("{subject} ({})", order_of(event));
            let by_mail = mails.iter().filter(|mail| mail.contains(&subject)).count();
            let by_text = texts.iter().filter(|sent| sent.contains(text)).count();
            owed += 2;
            let has_left = self.scenario.plot == Plot::Erased;
            if (by_mail == 0 || by_text == 0) && !has_left {
                self.violate(format!("{}: told {by_mail} times by e-mail, {by_text} by text", event["type"]));
            }
            if by_mail + by_text > 0 && has_left && self.script.is_empty() {
                self.violate(format!("{}: told to a customer who had left", event["type"]));
            }
        }
        let sent = mails.len() + texts.len();
        let repeatable: usize = self.script.faults().map(|(call, fault)| unnoted(fault, points.get(call), owed)).sum();
        if sent > owed + repeatable {
            self.violate(format!("{sent} messages for {owed}, of which {repeatable} may be repeated"));
        }
    }

    /// Only a customer who got the refusal as an answer is not told of it by a
    /// message; and nobody hears of a payment that was not captured.
    fn check_told(&mut self, answers: &[Answer]) {
        for event in self.events() {
            let data = &event["data"];
            if event["type"] == "OrderCancelled" && data["customer_told"] == true {
                if answers.iter().any(|answer| answer.status == StatusCode::ACCEPTED) {
                    self.violate("the client was told \"not decided yet\", and gets no message");
                }
            } else if event["type"] == "OrderCancelled" && self.script.is_empty() && data["confirmed"] == false {
                // The answer came from the request that was overtaken by a cancellation.
                let is_overtaken = self.scenario.plot == Plot::CancelledBeforeThePivot;
                if !is_overtaken {
                    self.violate("a refusal that the client was told is told again");
                }
            }
            if event["type"] == "OrderCreated" && data["paid"] == true {
                let id = order_of(&event);
                let charges = self.charges(id.trim_start_matches("ord_"));
                if !charges.iter().any(|charge| number(&charge["captured_minor"]) > 0) {
                    self.violate("told that it is paid, and it is not");
                }
            }
        }
    }

    /// Once a customer was told that they are erased, no service keeps their
    /// name or how to reach them.
    fn check_erasure(&mut self, erased: Option<&Answer>) {
        let Some(answer) = erased else { return };
        if answer.status != StatusCode::NO_CONTENT {
            if self.script.is_empty() {
                self.violate(format!("could not leave: {answer:?}"));
            }
            return;
        }
        for table in ["UsersTable", "OrdersTable", "PaymentsTable", "NotificationsTable"] {
            let items = Value::from(self.world.cloud.scan(table)).to_string();
            if items.contains(self.customer.email()) || items.contains(self.customer.phone()) {
                self.violate(format!("{table} still has the address of a customer who has left"));
            }
        }
    }

    /// Once a client was told that an order is cancelled, every read shows it as
    /// cancelled, and the client may cancel it again.
    async fn check_cancellation(&mut self, told: Option<&Answer>) {
        let Some(order) = self.order() else { return };
        let heard = told.is_some_and(|answer| answer.status.is_success());
        let end = state(&order);
        if heard && end != Some(OrderState::Cancelled) {
            self.violate(format!("told that it is cancelled, but it is {end:?}"));
        }
        if told.is_some_and(|answer| !answer.status.is_success() && !is_to_be_repeated(answer)) {
            self.violate(format!("could not be cancelled: {told:?}"));
        }
        if end == Some(OrderState::Cancelled) {
            let (events, again) = (self.world.cloud.sent_messages().len(), self.cancel().await);
            let same = again.as_ref().is_some_and(|a| a.status == StatusCode::OK && a.json()["status"] == "CANCELLED");
            if !same || self.world.cloud.sent_messages().len() != events {
                self.violate(format!("cancelled again: {again:?}"));
            }
        }
    }

    /// The same request has the same answer for good, and it is one that the
    /// client may have got before.
    async fn check_answers(&mut self, answers: &[Answer], order: Option<&Value>) {
        let (once, again) = (self.place_once().await, self.place_once().await);
        let decided = [201, 402, 409, 422].contains(&once.status.as_u16());
        if !decided || once.json()["code"] == "idempotency_in_flight" {
            self.violate(format!("no final answer: {} {}", once.status, once.text));
        }
        if same(&once) != same(&again) {
            self.violate(format!("two answers: {once:?} and {again:?}"));
        }
        let (_, _, expected) = self.scenario.plot.course();
        if self.script.is_empty() && once.status != expected {
            self.violate(format!("answered {} instead of {expected}", once.status));
        }
        for answer in answers {
            let final_one = [201, 402, 409, 422].contains(&answer.status.as_u16())
                && answer.json()["code"] != "idempotency_in_flight";
            if final_one && same(answer) != same(&once) {
                self.violate(format!("the client was told {answer:?}, and later {once:?}"));
            }
            // An order that was promised is the one that came.
            let promised = (answer.status == StatusCode::ACCEPTED).then(|| answer.json()["id"].clone());
            if promised.is_some_and(|id| order.is_none_or(|order| order["id"]["S"] != id)) {
                self.violate(format!("promised, and not there: {}", answer.text));
            }
        }
        if let Some(order) = order {
            let id = once.json();
            let id = id["id"].as_str().or(id["order_id"].as_str());
            if id != order["id"]["S"].as_str() {
                self.violate("the answer is another order's");
            }
        }
    }
}

/// Whether an answer says no more than that the request should come again.
fn is_to_be_repeated(answer: &Answer) -> bool {
    let code = answer.json()["code"].clone();
    answer.status.is_server_error() || code == "idempotency_in_flight" || code == "contended"
}

/// What of an answer is the same each time.
fn same(answer: &Answer) -> (u16, &str, Option<&str>, Option<&str>) {
    (answer.status.as_u16(), &answer.text, answer.header("content-type"), answer.header("location"))
}

/// The id of the order that an event tells of.
fn order_of(event: &Value) -> String {
    let uuid = event["subject"].as_str().unwrap_or_default().split('_').nth(1).unwrap_or_default();
    format!("ord_{uuid}")
}

/// How the e-mail and the text message about an event are known. `None` if the
/// customer knows already what the event says.
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

/// How many messages may have been sent without being noted because of a
/// fault. A notifier that dies may have been about to note each of its batch,
/// and one whose table is out notes none.
fn unnoted(fault: Fault, point: Option<&Point>, batch: usize) -> usize {
    let calls = |call: &str| point.is_some_and(|point| point.label.starts_with(&format!("notifications → {call}")));
    match fault {
        Fault::CrashBefore | Fault::CrashAfter | Fault::Blackout if calls("") => batch,
        fault if fault.lasts() && calls("UpdateItem") => batch,
        _ => usize::from(calls("email") || calls("sns") || calls("UpdateItem")),
    }
}

/// What a piece costs, as a request says it.
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

/// How long an order waited for its decision.
fn undecided_for(order: &Value) -> Option<SignedDuration> {
    let at = |entry: &Value| entry["M"]["at"]["S"].as_str()?.parse::<Timestamp>().ok();
    let history = &order["history"]["L"];
    Some(at(&history[1])?.duration_since(at(&history[0])?))
}

/// How long it may wait.
fn patience() -> SignedDuration {
    SignedDuration::try_from(DECIDE_WITHIN).expect("two minutes")
}

fn number(attribute: &Value) -> i64 {
    attribute["N"].as_str().and_then(|number| number.parse().ok()).unwrap_or_default()
}
