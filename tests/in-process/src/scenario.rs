//! Whole runs: a customer, a shop in which things go wrong, recovery, and the
//! promises that must hold afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use chassis::clock::Clock;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use orders::domain::{DECIDE_WITHIN, OrderState};
use serde_json::{Value, json};

use crate::{
    Answer, Person, World,
    fault::{Point, Script},
};

/// How many rounds of recovery an order may take. Each lets more than a minute
/// pass; the longest pause of the worker is five.
const ROUNDS: usize = 60;
/// How long a round of recovery lasts.
const ROUND: Duration = Duration::from_secs(65);
/// Stock of each product at the start.
const STOCK: u64 = 10;

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
}

impl Plot {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Confirmed,
        Self::Declined,
        Self::OutOfStock,
        Self::UnknownUser,
        Self::CaptureRefused,
        Self::CancelledBeforeThePivot,
        Self::CancelledAfterThePivot,
        Self::CancelledWhenDone,
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

    fn quantity(self) -> u64 {
        if self == Self::OutOfStock { STOCK + 1 } else { 2 }
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
pub async fn play(scenario: Scenario, script: &Script) -> Report {
    let clock = Clock::tokio(Timestamp::from_second(1_800_000_000).expect("a moment"));
    let world = World::start_at(clock).await;
    let customer = match scenario.plot {
        Plot::UnknownUser => Person::named("Stranger"),
        _ => world.customer("Ada").await,
    };
    let mut products = Vec::new();
    for n in 0..scenario.lines {
        let body =
            json!({ "name": format!("Product {n}"), "description": "For sale.", "price": 19.99, "stock": STOCK });
        let product = world.post(&Person::admin(), "/products", body).await.json();
        products.push(product["id"].as_str().expect("a product").to_owned());
    }

    let mut run = Run { scenario, script, world: &world, customer: &customer, products, violations: Vec::new() };
    world.cloud.begin_trial(script.clone());
    let answers = run.act().await;
    run.settle().await;
    let points = world.cloud.end_trial();
    run.recover().await;
    if world.cloud.deliver_late().await > 0 {
        run.recover().await;
    }
    // A client that never got an answer asks again. If every earlier try was
    // lost before it was recorded, this places the order.
    run.place().await;
    run.recover().await;
    run.check(&answers, points).await
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
        let line = |product| json!({ "product_id": product, "quantity": self.scenario.plot.quantity() });
        let items: Vec<_> = self.products.iter().map(line).collect();
        json!({ "items": items, "payment_method": self.scenario.plot.token() })
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
            if !answer.status.is_server_error() && answer.json()["code"] != "idempotency_in_flight" {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            answer = self.place_once().await;
        }
        answer
    }

    async fn cancel(&self) -> Answer {
        let Some(id) = self.order().and_then(|order| Some(order["id"]["S"].as_str()?.to_owned())) else {
            return self.place_once().await;
        };
        let path = format!("/orders/{id}/cancel");
        let mut answer = self.world.send(self.customer, Method::POST, &path, None).await;
        for _ in 0..3 {
            if !answer.status.is_server_error() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            answer = self.world.send(self.customer, Method::POST, &path, None).await;
        }
        answer
    }

    /// What the customer does. Returns the answers to placing the order.
    async fn act(&self) -> Vec<Answer> {
        match self.scenario.plot {
            Plot::CancelledBeforeThePivot => {
                let (placed, _) = tokio::join!(self.place(), async {
                    tokio::time::sleep(Duration::from_millis(1500)).await;
                    self.cancel().await
                });
                vec![placed]
            }
            Plot::CancelledAfterThePivot => {
                let placed = self.place().await;
                self.cancel().await;
                vec![placed]
            }
            Plot::CancelledWhenDone => {
                let placed = self.place().await;
                self.settle().await;
                self.cancel().await;
                vec![placed]
            }
            _ => vec![self.place().await],
        }
    }

    /// What happens by itself right away: the stream, and the queue.
    async fn settle(&self) {
        self.world.stream().await;
        self.world.deliver_messages().await;
    }

    /// What happens by itself in time, until nothing is left to do.
    async fn recover(&mut self) {
        for _ in 0..ROUNDS {
            self.settle().await;
            let open = self.open_orders();
            if open.is_empty() && self.world.cloud.waiting() == 0 {
                return;
            }
            tokio::time::advance(ROUND).await;
            self.world.sweep().await;
        }
        let open = self.open_orders();
        self.violations.push(format!("still open: {open:?}, and {} messages wait", self.world.cloud.waiting()));
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

    async fn check(mut self, answers: &[Answer], points: Vec<Point>) -> Report {
        let orders = self.orders();
        if orders.len() > 1 {
            self.violate(format!("{} orders under one key", orders.len()));
        }
        self.check_stock(&orders);
        for order in &orders {
            self.check_order(order);
        }
        self.check_events(&orders, &points);
        self.check_answers(answers, orders.first()).await;
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
        let wanted = self.scenario.plot.quantity();
        let done = orders.iter().filter(|order| state(order) == Some(OrderState::Done)).count() as u64;
        for item in self.world.cloud.scan("ProductsTable") {
            if item["sk"]["S"] != "PRODUCT" {
                continue;
            }
            let (available, reserved) = (number(&item["available"]), number(&item["reserved"]));
            if available + reserved != STOCK as i64 || available < 0 || reserved < 0 {
                self.violate(format!("stock: {available} available, {reserved} reserved of {STOCK}"));
            }
            if reserved != (done * wanted) as i64 {
                self.violate(format!("{reserved} reserved for {done} orders of {wanted}"));
            }
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
        let total = number(&order["quote"]["M"]["total"]["M"]["minor"]);
        let charges = self.charges(&uuid);
        if charges.len() > 1 {
            self.violate(format!("{} charges for one order", charges.len()));
        }
        let charge = charges.first();
        let kept = charge.map_or(0, |charge| number(&charge["captured_minor"]) - number(&charge["refunded_minor"]));
        let held = charge.is_some_and(|charge| charge["status"]["S"] == "AUTHORISED");
        let payments = self.world.cloud.scan("PaymentsTable");
        let payment = payments.into_iter().find(|p| p["pk"]["S"].as_str().is_some_and(|pk| pk.contains(&uuid)));
        let status = payment.as_ref().and_then(|payment| payment["status"]["S"].as_str()).unwrap_or("none").to_owned();
        match end {
            Some(OrderState::Done) => {
                if kept != total || total == 0 {
                    self.violate(format!("DONE for {total}, but {kept} kept"));
                }
                if status != "CAPTURED" {
                    self.violate(format!("DONE, but the payment is {status}"));
                }
            }
            Some(OrderState::Cancelled) => {
                if kept != 0 || held {
                    self.violate(format!("CANCELLED, but {kept} kept; authorised: {held}"));
                }
                if !["CANCELLED", "VOIDED", "REFUNDED", "DECLINED"].contains(&status.as_str()) {
                    self.violate(format!("CANCELLED, but the payment is {status}"));
                }
            }
            _ => {}
        }
        self.check_end(end);
    }

    /// Faults delay; they don't decide. Only an order whose decision took
    /// longer than it may can end otherwise than the plot has it.
    fn check_end(&mut self, end: Option<OrderState>) {
        let expected = match self.scenario.plot {
            Plot::Confirmed => OrderState::Done,
            _ => OrderState::Cancelled,
        };
        let reason = self.order().and_then(|order| order["refusal"]["M"]["code"]["S"].as_str().map(str::to_owned));
        let excused = match self.scenario.plot {
            Plot::Confirmed => {
                reason.as_deref() == Some("timed_out")
                    && self.order().is_some_and(|order| undecided_for(&order) >= Some(patience()))
            }
            // A client that got no answer may have cancelled nothing.
            Plot::CancelledBeforeThePivot | Plot::CancelledAfterThePivot | Plot::CancelledWhenDone => {
                self.script.last().is_some()
            }
            _ => false,
        };
        if end.is_some_and(|end| end != expected) && !excused {
            self.violate(format!("ended as {end:?} ({reason:?}) instead of {expected:?}"));
        }
    }

    fn check_events(&mut self, orders: &[Value], points: &[Point]) {
        let mut ids = BTreeMap::<(String, String), BTreeSet<String>>::new();
        let mut all = BTreeMap::<String, Value>::new();
        for message in self.world.cloud.sent_messages() {
            let event: Value = serde_json::from_str(&message).unwrap_or_default();
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            let uuid = text("subject").split('_').nth(1).unwrap_or_default().to_owned();
            ids.entry((text("type"), uuid)).or_default().insert(text("id"));
            all.insert(text("id"), event);
        }
        // What happened is announced, once, and nothing else is.
        for order in orders {
            let uuid = order["id"]["S"].as_str().unwrap_or_default().trim_start_matches("ord_").to_owned();
            let charge = self.charges(&uuid).into_iter().next().unwrap_or_default();
            let known = order["recipient"].is_object();
            for (kind, happened) in [
                ("OrderCreated", history(order).contains(&OrderState::Confirmed)),
                ("OrderCancelled", state(order) == Some(OrderState::Cancelled) && known),
                ("PaymentCaptured", number(&charge["captured_minor"]) > 0),
                ("PaymentRefunded", number(&charge["refunded_minor"]) > 0),
            ] {
                let announced = ids.get(&(kind.to_owned(), uuid.clone())).map_or(0, BTreeSet::len);
                if announced != usize::from(happened) {
                    self.violate(format!("{kind} happened: {happened}, but {announced} events say so"));
                }
            }
        }
        let dead = self.world.cloud.dead_letters();
        if !dead.is_empty() {
            self.violate(format!("dead letters: {dead:?}"));
        }
        // Each event is told at least once on each of its channels; more than
        // once only where a notifier died between sending and noting it.
        let (mails, texts) = (self.world.cloud.mails().len(), self.world.cloud.texts().len());
        let with_text = all.values().filter(|event| event["type"] != "PaymentCaptured").count();
        let disturbed = self
            .script
            .faults()
            .any(|(call, _)| points.get(call).is_some_and(|point| point.label.starts_with("notifications")));
        for (channel, sent, owed) in [("e-mail", mails, all.len()), ("text message", texts, with_text)] {
            if sent < owed || (sent > owed && !disturbed) {
                self.violate(format!("{sent} messages by {channel} for {owed} events"));
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
        if (once.status, &once.text) != (again.status, &again.text) {
            self.violate(format!("two answers: {} and {}", once.text, again.text));
        }
        for answer in answers {
            let final_one = [201, 402, 409, 422].contains(&answer.status.as_u16())
                && answer.json()["code"] != "idempotency_in_flight";
            if final_one && (answer.status, &answer.text) != (once.status, &once.text) {
                self.violate(format!("the client was told {}, and later {}", answer.text, once.text));
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
