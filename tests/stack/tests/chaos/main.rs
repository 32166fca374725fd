//! The chaos test places many orders at once, while it kills functions, sends events
//! twice, and puts a malformed message into the queue. After all orders have reached
//! a final state, `invariants.rs` checks every promise against the tables, the payment
//! provider's ledger and the messages that customers got.
//!
//! The test kills processes of all functions, so no other test may use the stack at
//! the same time. `HOLDFAST_ORDERS` sets the number of orders. `HOLDFAST_SEED` sets
//! the seed of all random choices: which products are ordered, which functions are
//! killed, which orders are cancelled and which events are sent twice. The speed of
//! the machine also has an influence, so two runs with the same seed are similar but
//! not identical. With `HOLDFAST_CHAOS=long`, only the schedule starts the sweeps that
//! find open orders; otherwise the test starts sweeps, too.

mod invariants;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    env,
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures::future::join_all;
use http::StatusCode;
use invariants::Report;
use serde_json::Value;
use stack_tests::{Answer, Person, Stack, processes::Processes, queue::Queue, shop::Shop};
use tokio::time::sleep;

const CUSTOMERS: [&str; 4] = ["Ada", "Grace", "Mary", "Joan"];
/// The unit prices of the products. Binary floating-point numbers give a wrong result
/// for 3 × 19.99.
const PRICES: [&str; 3] = ["19.99", "5.00", "0.07"];
/// The number of clients that send requests at the same time.
const CLIENTS: usize = 8;
/// The number of tries after which a client stops repeating a request whose order
/// is recorded and in progress.
const MAX_TRIES: usize = 10;
/// On average, customers cancel one order out of this number of orders.
const ORDERS_PER_CANCELLATION: usize = 6;
/// On average, the test sends one event twice for this number of orders.
const ORDERS_PER_DUPLICATE: usize = 2;
/// On average, the test kills a function once for this number of orders.
const ORDERS_PER_KILL: usize = 2;
/// The time limit within which all clients must get their responses.
const STORM_LIMIT: Duration = Duration::from_secs(600);
/// The time limit for recovery. The worker may pause for five minutes before it tries
/// an order again.
const RECOVERY_LIMIT: Duration = Duration::from_secs(600);

/// The settings of a run.
struct Plan {
    orders: usize,
    seed: u64,
    /// Whether only the schedule starts sweeps, once a minute. Otherwise the test starts
    /// sweeps, too.
    is_long: bool,
}

impl Plan {
    /// The visibility timeout of the queue of order events during the test, which is
    /// shorter than on AWS.
    ///
    /// A killed notifier leaves a claim on its message, which lasts for a minute. Until
    /// then, no other notifier sends the message, and each delivery fails. After five
    /// failed deliveries the message would reach the dead-letter queue, so five timeouts
    /// must be longer than a minute. A long run may kill the notifier of one message more
    /// than once, so it has a longer timeout.
    fn visibility_timeout(&self) -> Duration {
        Duration::from_secs(if self.is_long { 65 } else { 20 })
    }

    fn from_env() -> Self {
        let number = |name: &str| {
            let text = env::var(name).ok()?;
            Some(text.parse::<u64>().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
        };
        let is_long = env::var("HOLDFAST_CHAOS").is_ok_and(|length| length == "long");
        let orders = number("HOLDFAST_ORDERS").unwrap_or(if is_long { 240 } else { 40 });
        let seed = number("HOLDFAST_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
        Self { orders: orders.try_into().expect("a number of orders"), seed, is_long }
    }
}

struct Product {
    id: String,
    /// The initial stock.
    stock: i64,
}

/// An order that a customer wants to place once, however often the client repeats
/// the request.
struct OrderRequest {
    /// An index into [`Chaos::customers`].
    customer: usize,
    key: String,
    /// Product ids and quantities.
    lines: Vec<(String, u32)>,
    payment_method: &'static str,
    /// The time for which the client waits for one response.
    timeout: Duration,
    /// Whether the client sends each request twice at the same time.
    is_doubled: bool,
}

/// A request with the final responses that its client got.
struct AnsweredRequest {
    request: OrderRequest,
    decisions: Vec<Answer>,
}

/// The ids of orders that customers tried to cancel, and of orders whose
/// cancellation was confirmed to the customer.
#[derive(Default)]
struct Cancellations {
    tried: BTreeSet<String>,
    granted: BTreeSet<String>,
}

/// The state of a run.
struct Chaos {
    plan: Plan,
    stack: Stack,
    customers: Vec<Person>,
    products: Vec<Product>,
    events: Queue,
    dead_letters: Queue,
    /// The body of a message that is not an event.
    malformed_message: String,
    /// The number of responses of each kind.
    answers: RefCell<BTreeMap<String, usize>>,
    /// The number of orders whose requests are no longer repeated by a client.
    answered: Cell<usize>,
    /// The number of `POST /orders` requests that wait for their response.
    in_progress: Cell<usize>,
    /// The number of killed processes of each function.
    kills: RefCell<BTreeMap<String, usize>>,
    cancellations: RefCell<Cancellations>,
    /// The events that were seen in the queue, by id.
    seen_events: RefCell<BTreeMap<String, String>>,
    /// The number of events that the test has sent once more.
    duplicates: Cell<usize>,
    is_storm_over: Cell<bool>,
}

#[tokio::test]
async fn every_order_reaches_a_final_state_and_every_sum_holds_while_functions_are_killed() {
    let chaos = Chaos::prepare(Plan::from_env()).await;
    let usual_timeout = chaos.events.set_visibility_timeout(chaos.plan.visibility_timeout()).await;
    let began = Instant::now();
    let requests = tokio::time::timeout(STORM_LIMIT, chaos.storm()).await.expect("an answer for every client, in time");
    let storm = began.elapsed();

    let began = Instant::now();
    let mut violations = chaos.recover().await;
    if violations.is_empty() {
        violations = chaos.send_late_duplicates().await;
    }
    let recovery = began.elapsed();
    chaos.events.set_visibility_timeout(usual_timeout).await;

    let report = invariants::check(&chaos, &requests).await;
    violations.extend_from_slice(&report.violations);
    println!("{}", chaos.summary(&report, storm, recovery, violations.len()));
    assert!(violations.is_empty(), "HOLDFAST_SEED={}: {violations:#?}", chaos.plan.seed);

    // The run proves little unless some orders were done and some cancelled,
    // functions were killed, and events were sent twice.
    let states = &report.final_states;
    assert_eq!(states.values().sum::<usize>(), chaos.plan.orders);
    assert!(["DONE", "CANCELLED"].iter().all(|state| states.contains_key(*state)), "{states:?}");
    assert!(chaos.killed() >= 5 && chaos.kills.borrow().len() >= 3, "{:?}", chaos.kills.borrow());
    assert!(chaos.was_cut_off(), "no request was cut off: {:?}", chaos.answers.borrow());
    assert!(chaos.duplicates.get() > 0, "no event was sent twice");
}

impl Chaos {
    async fn prepare(plan: Plan) -> Self {
        println!("HOLDFAST_SEED={} HOLDFAST_ORDERS={}", plan.seed, plan.orders);
        let stack = Stack::deployed();
        let (shop, customers) =
            tokio::join!(Shop::on(stack.clone()), join_all(CUSTOMERS.iter().map(|name| stack.customer(name))));
        // The stock is too small for all orders.
        let stock: u32 = (plan.orders / 2).try_into().unwrap();
        let mut products = Vec::new();
        for price in PRICES {
            products.push(Product { id: shop.product(price, stock).await, stock: stock.into() });
        }
        Self {
            events: stack.queue("order_events").await,
            dead_letters: stack.queue("dead_letter").await,
            malformed_message: format!("not an event, for {}", customers[0].email),
            plan,
            stack,
            customers,
            products,
            answers: RefCell::default(),
            answered: Cell::default(),
            in_progress: Cell::default(),
            kills: RefCell::default(),
            cancellations: RefCell::default(),
            seen_events: RefCell::default(),
            duplicates: Cell::default(),
            is_storm_over: Cell::default(),
        }
    }

    fn random_request(&self, random: &mut Rng, number: usize) -> OrderRequest {
        let mut products: Vec<_> = self.products.iter().collect();
        random.shuffle(&mut products);
        let lines = products.iter().take(random.usize(1..=2)).map(|product| (product.id.clone(), random.u32(1..=3)));
        OrderRequest {
            customer: number % self.customers.len(),
            key: format!("{}-{number}", self.plan.seed),
            lines: lines.collect(),
            payment_method: match random.u8(..16) {
                ..2 => "tok_declined",
                2..4 => "tok_capture_refused",
                4..6 => "tok_flaky",
                6..8 => "tok_slow",
                _ => "tok_accepted",
            },
            timeout: match random.u8(..8) {
                0 => Duration::from_millis(random.u64(100..2000)),
                _ => Duration::from_secs(60),
            },
            is_doubled: random.u8(..8) == 0,
        }
    }

    /// Places all orders, and at the same time kills functions, cancels orders and sends
    /// events twice. Returns when no client repeats its request any more.
    async fn storm(&self) -> Vec<AnsweredRequest> {
        let mut random = Rng::with_seed(self.plan.seed);
        let requests: Vec<_> = (0..self.plan.orders).map(|number| self.random_request(&mut random, number)).collect();
        let waiting = RefCell::new(requests.into_iter());
        let clients = join_all((0..CLIENTS).map(|_| self.run_client(&waiting, random.fork())));
        if self.plan.is_long {
            self.events.send(&[&self.malformed_message]).await;
        }
        let (for_kills, for_cancellations, for_duplicates) = (random.fork(), random.fork(), random.fork());
        let (answered, ..) = tokio::join!(
            clients,
            self.kill_functions(for_kills),
            self.cancel_orders(for_cancellations),
            self.duplicate_events(for_duplicates)
        );
        answered.into_iter().flatten().collect()
    }

    /// Sends the waiting requests one after the other. When no request is left, sets
    /// `is_storm_over`: nothing more is killed, so that the clients that still wait for
    /// a response get one.
    async fn run_client(
        &self,
        waiting: &RefCell<impl Iterator<Item = OrderRequest>>,
        mut random: Rng,
    ) -> Vec<AnsweredRequest> {
        let mut answered = Vec::new();
        loop {
            let Some(request) = waiting.borrow_mut().next() else {
                self.is_storm_over.set(true);
                return answered;
            };
            sleep(Duration::from_millis(random.u64(..2000))).await;
            let decisions = self.place(&request, &mut random).await;
            self.answered.update(|answered| answered + 1);
            answered.push(AnsweredRequest { request, decisions });
        }
    }

    /// Places an order as a well-behaved client does: repeats the request if no response
    /// arrives, or if the response asks for another try. After [`MAX_TRIES`] tries, the
    /// client also stops if the response says that the order is in progress: a real
    /// client would ask again later. Returns the final responses.
    async fn place(&self, request: &OrderRequest, random: &mut Rng) -> Vec<Answer> {
        let mut decisions = Vec::new();
        for tries in 1.. {
            let (first, second) = tokio::join!(self.try_once(request), async {
                if request.is_doubled { self.try_once(request).await } else { None }
            });
            let answers: Vec<Answer> = first.into_iter().chain(second).collect();
            let is_recorded = |answer| is_pending(answer) || (tries > MAX_TRIES && is_in_flight(answer));
            let is_recorded = answers.iter().any(is_recorded);
            decisions.extend(answers.into_iter().filter(is_decision));
            if is_recorded || !decisions.is_empty() {
                break;
            }
            sleep(Duration::from_millis(random.u64(200..800))).await;
        }
        decisions
    }

    async fn try_once(&self, request: &OrderRequest) -> Option<Answer> {
        let lines = request.lines();
        let customer = &self.customers[request.customer];
        let answer = customer.try_place_with_key(&lines, request.payment_method, &request.key);
        self.in_progress.update(|requests| requests + 1);
        let answer = tokio::time::timeout(request.timeout, answer).await.ok().and_then(Result::ok);
        self.in_progress.update(|requests| requests - 1);
        let kind = answer.as_ref().map_or("no answer".to_owned(), |answer| match code(answer) {
            Some(code) => format!("{} {code}", answer.status.as_u16()),
            None => answer.status.as_u16().to_string(),
        });
        *self.answers.borrow_mut().entry(kind).or_default() += 1;
        answer
    }

    /// Kills one process or all processes of a random function, again and again
    /// while requests are in progress. The number of kills is limited by the number of
    /// finished orders: otherwise, on a slow machine, functions would be killed so often
    /// that no order is ever finished. A short run might never kill the function `orders`
    /// by chance. So every second kill is aimed at this function until a kill has cut off
    /// a request.
    async fn kill_functions(&self, mut random: Rng) {
        let processes = Processes::of(&self.stack);
        let mut rounds = 0;
        while !self.is_storm_over.get() {
            sleep(Duration::from_millis(random.u64(50..400))).await;
            if self.in_progress.get() == 0 || rounds > self.answered.get() / ORDERS_PER_KILL + CLIENTS {
                continue;
            }
            rounds += 1;
            let is_aimed = rounds % 2 == 1 && !self.was_cut_off();
            let mut running = processes.running();
            let mut functions: BTreeSet<_> = running.iter().map(|process| process.function.clone()).collect();
            if is_aimed {
                functions.retain(|function| function == "orders");
            }
            let Some(function) = random.choice(functions) else { continue };
            running.retain(|process| process.function == function);
            random.shuffle(&mut running);
            let count = if is_aimed || random.bool() { running.len() } else { 1 };
            let killed = running.iter().take(count).filter(|process| process.kill()).count();
            *self.kills.borrow_mut().entry(function).or_default() += killed;
        }
    }

    /// Lets random customers cancel one of their newest orders, in any state.
    async fn cancel_orders(&self, mut random: Rng) {
        while !self.is_storm_over.get() {
            sleep(Duration::from_millis(random.u64(50..300))).await;
            if self.cancellations.borrow().tried.len() > self.answered.get() / ORDERS_PER_CANCELLATION {
                continue;
            }
            let Some(customer) = random.choice(&self.customers) else { continue };
            let newest = customer.get("/orders?limit=3").await;
            let Ok(newest) = serde_json::from_str::<Value>(&newest.text) else { continue };
            let Some(order) = newest["items"].as_array().and_then(|orders| random.choice(orders)) else { continue };
            let id = order["id"].as_str().expect("an id");
            self.cancellations.borrow_mut().tried.insert(id.to_owned());
            let answer = customer.cancel(id).await;
            if answer.status.is_success() {
                self.cancellations.borrow_mut().granted.insert(id.to_owned());
            }
        }
    }

    /// Records the events that are in the queue, and sends recorded events once more.
    async fn duplicate_events(&self, mut random: Rng) {
        while !self.is_storm_over.get() {
            sleep(Duration::from_millis(random.u64(20..100))).await;
            for body in self.own_messages(&self.events).await {
                let event: Value = serde_json::from_str(&body).unwrap_or_default();
                if let Some(id) = event["id"].as_str() {
                    self.seen_events.borrow_mut().insert(id.to_owned(), body);
                }
            }
            if self.duplicates.get() < self.answered.get() / ORDERS_PER_DUPLICATE {
                self.duplicate_one(&mut random).await;
            }
        }
    }

    async fn duplicate_one(&self, random: &mut Rng) {
        let body = random.choice(self.seen_events.borrow().values()).cloned();
        if let Some(body) = body {
            self.events.send(&[&body]).await;
            self.duplicates.update(|duplicates| duplicates + 1);
        }
    }

    /// The messages in a queue that belong to this run: they contain the e-mail address
    /// of a customer of this run.
    async fn own_messages(&self, queue: &Queue) -> Vec<String> {
        let mut bodies = queue.bodies().await;
        bodies.retain(|body| self.customers.iter().any(|customer| body.contains(&customer.email)));
        bodies
    }

    /// The items of this run's orders.
    async fn orders(&self) -> Vec<Value> {
        let mut items = self.stack.scan("orders").await;
        items.retain(|item| {
            item["sk"] == "ORDER" && self.customers.iter().any(|customer| item["user_id"] == customer.id)
        });
        items
    }

    /// Waits until every order is in a final state and the queue is empty. Returns a
    /// violation for each order and each message that is left at the time limit.
    async fn recover(&self) -> Vec<String> {
        let began = Instant::now();
        loop {
            let orders = self.orders().await;
            let open = orders.iter().filter(|order| order["state"] != "DONE" && order["state"] != "CANCELLED");
            let open: Vec<_> = open.map(|order| format!("{} is still {}", order["pk"], order["state"])).collect();
            let waiting =
                self.own_messages(&self.events).await.into_iter().filter(|body| *body != self.malformed_message);
            let waiting: Vec<_> = waiting.map(|body| format!("still in the queue: {body}")).collect();
            if (open.is_empty() && waiting.is_empty()) || began.elapsed() > RECOVERY_LIMIT {
                return [open, waiting].concat();
            }
            if !open.is_empty() && !self.plan.is_long {
                self.stack.sweep().await;
            }
            sleep(Duration::from_secs(2)).await;
        }
    }

    /// After recovery, sends events once more about which customers already got messages.
    /// In a short run, also sends the malformed message. Waits until the queue is empty.
    /// Returns a violation if customers got a message again.
    async fn send_late_duplicates(&self) -> Vec<String> {
        let began = Instant::now();
        // All claims of killed notifiers have ended, so each event is handled at its
        // first delivery. With a short timeout, the malformed message reaches the
        // dead-letter queue sooner.
        self.events.set_visibility_timeout(Duration::from_secs(1)).await;
        let seen: Vec<_> = self.seen_events.borrow().values().take(9).cloned().collect();
        let mut bodies: Vec<_> = seen.iter().map(String::as_str).collect();
        if !self.plan.is_long {
            bodies.push(&self.malformed_message);
        }
        let received = self.received_messages().await;
        self.events.send(&bodies).await;
        while !self.own_messages(&self.events).await.is_empty() {
            if began.elapsed() > RECOVERY_LIMIT {
                return vec!["the malformed message is still in the queue".to_owned()];
            }
            sleep(Duration::from_millis(200)).await;
        }
        match self.received_messages().await - received {
            0 => Vec::new(),
            repeated => vec![format!("{} late duplicates caused {repeated} messages to customers", seen.len())],
        }
    }

    /// The number of messages that customers got.
    async fn received_messages(&self) -> usize {
        let mut received = 0;
        for customer in &self.customers {
            received += self.stack.mails(&customer.email).await.len();
            received += self.stack.text_messages(&customer.phone).await.len();
        }
        received
    }

    /// Returns whether a client got a 502, which is the response if a function is killed
    /// while it handles the request.
    fn was_cut_off(&self) -> bool {
        self.answers.borrow().contains_key("502")
    }

    fn killed(&self) -> usize {
        self.kills.borrow().values().sum()
    }

    fn summary(&self, report: &Report, storm: Duration, recovery: Duration, violations: usize) -> String {
        let counts = |counts: &BTreeMap<String, usize>| {
            let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} × {count}")).collect();
            counts.join(", ")
        };
        let cancellations = self.cancellations.borrow();
        format!(
            "orders       {} by {} customers, {CLIENTS} at once, in {:.1} s\n\
             answers      {}\n\
             cancelled    {} tried, {} granted\n\
             killed       {}: {}\n\
             duplicates   {} of {} events seen, and one malformed message\n\
             final states {}\n\
             messages     {}\n\
             recovery     {:.1} s, {}\n\
             violations   {}",
            self.plan.orders,
            self.customers.len(),
            storm.as_secs_f64(),
            counts(&self.answers.borrow()),
            cancellations.tried.len(),
            cancellations.granted.len(),
            self.killed(),
            counts(&self.kills.borrow()),
            self.duplicates.get(),
            self.seen_events.borrow().len(),
            counts(&report.final_states),
            report.messages.join("; "),
            recovery.as_secs_f64(),
            if self.plan.is_long { "by the schedule alone" } else { "with additional sweeps" },
            violations,
        )
    }
}

impl OrderRequest {
    fn lines(&self) -> Vec<(&str, u32)> {
        self.lines.iter().map(|(id, quantity)| (id.as_str(), *quantity)).collect()
    }
}

/// The stable code of a problem document.
fn code(answer: &Answer) -> Option<String> {
    answer.json()["code"].as_str().map(str::to_owned)
}

/// Returns whether a response is final.
fn is_decision(answer: &Answer) -> bool {
    [201, 402, 409, 422].contains(&answer.status.as_u16()) && !is_in_flight(answer)
}

fn is_in_flight(answer: &Answer) -> bool {
    code(answer).as_deref() == Some("idempotency_in_flight")
}

fn is_pending(answer: &Answer) -> bool {
    answer.status == StatusCode::ACCEPTED
}
