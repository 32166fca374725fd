//! The chaos test: many orders at once while functions are killed, events are
//! delivered twice, and a malformed message is in the queue. When all is quiet,
//! `invariants.rs` checks every promise against the tables, the provider's ledger
//! and the messages that customers got.
//!
//! The test kills processes of all functions, so nobody else can use the stack
//! meanwhile. `HOLDFAST_ORDERS` sets the number of orders. `HOLDFAST_SEED` sets
//! the seed of all random choices: what is ordered, killed, cancelled and sent
//! twice. The times depend on the machine, so a run with the same seed is similar
//! but not identical. With `HOLDFAST_CHAOS=long` the schedule alone finds open
//! orders; otherwise the test starts sweeps.

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
/// The unit prices of the products. 3 × 19.99 is wrong in binary floats.
const PRICES: [&str; 3] = ["19.99", "5.00", "0.07"];
/// The number of clients that send requests at the same time.
const CLIENTS: usize = 8;
/// The number of tries after which a client stops repeating a request whose order
/// is recorded and in progress.
const MAX_TRIES: usize = 10;
/// One of this number of orders is cancelled by its customer, on average.
const ORDERS_PER_CANCELLATION: usize = 6;
/// One event is sent twice for each this number of orders, on average.
const ORDERS_PER_DUPLICATE: usize = 2;
/// Functions are killed once for each this number of orders, on average.
const ORDERS_PER_KILL: usize = 2;
/// The time limit for all clients to get their answers.
const STORM_LIMIT: Duration = Duration::from_secs(600);
/// The time limit for recovery. The worker's longest pause is five minutes.
const RECOVERY_LIMIT: Duration = Duration::from_secs(600);

/// The settings of a run.
struct Plan {
    orders: usize,
    seed: u64,
    /// The schedule alone finds open orders, once a minute.
    is_long: bool,
}

impl Plan {
    /// The visibility timeout of the queue of order events. It is shorter than on
    /// AWS. Five of them are longer than the minute for which a killed notifier's
    /// claim is held: otherwise the message would reach the dead-letter queue
    /// before the claim ends. The timeout of a long run is longer, because a long
    /// run may kill the notifier of one message more than once.
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
    /// The time limit of the client for one answer.
    timeout: Duration,
    /// The client sends each request twice at the same time.
    is_doubled: bool,
}

/// A request with the final answers that its client got.
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
    /// The number of answers of each kind.
    answers: RefCell<BTreeMap<String, usize>>,
    /// The number of orders whose client is finished.
    answered: Cell<usize>,
    /// The number of requests for an order that wait for their answer.
    in_progress: Cell<usize>,
    /// The number of killed processes of each function.
    kills: RefCell<BTreeMap<String, usize>>,
    cancellations: RefCell<Cancellations>,
    /// The events that were seen in the queue, by id.
    seen_events: RefCell<BTreeMap<String, String>>,
    /// The number of events that were sent once more.
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

    // The run proves little unless orders ended in both ways, functions were
    // killed and events were sent twice.
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

    /// Sends all orders, and meanwhile kills functions, cancels orders and sends
    /// events twice. Returns when every client has an answer.
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

    /// Takes one waiting request after the other and sends it. When no request is
    /// waiting, the storm is over, so that the clients that still wait for an answer
    /// get it undisturbed.
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

    /// Places an order like a well-behaved client: repeats the request while there
    /// is no answer, or an answer that asks for another try. After
    /// [`MAX_TRIES`] answers that the order is in progress, the client stops, as a
    /// client would that comes back later. Returns the final answers.
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
    /// while requests are in progress. The number of kills grows with the number of
    /// answered orders, because on a slow machine no order would ever get an answer
    /// otherwise. Until a request was cut off, every other kill is aimed at the
    /// function `orders`, which chance alone may spare throughout a short run.
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

    /// Sends events that are or were in the queue once more.
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

    /// The messages of this run: they contain the e-mail address of a customer of
    /// this run.
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

    /// Waits until every order is in a final state and the queue is empty. Returns
    /// the orders and messages that are left at the time limit.
    async fn recover(&self) -> Vec<String> {
        let began = Instant::now();
        loop {
            let orders = self.orders().await;
            let open = orders.iter().filter(|order| order["state"] != "DONE" && order["state"] != "CANCELLED");
            let open: Vec<_> = open.map(|order| format!("{} is still {}", order["id"], order["state"])).collect();
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

    /// Sends duplicates of events whose messages were sent long before, and the
    /// malformed message beside them. Waits until the queue is empty. Returns a
    /// violation if customers got a message again.
    async fn send_late_duplicates(&self) -> Vec<String> {
        let began = Instant::now();
        // The claims that killed notifiers have left are over, so no event can reach
        // the dead-letter queue because of too many deliveries.
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

    /// Returns whether a client got a 502: the answer to a request whose function
    /// was killed.
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

/// Returns whether an answer is final.
fn is_decision(answer: &Answer) -> bool {
    [201, 402, 409, 422].contains(&answer.status.as_u16()) && !is_in_flight(answer)
}

fn is_in_flight(answer: &Answer) -> bool {
    code(answer).as_deref() == Some("idempotency_in_flight")
}

fn is_pending(answer: &Answer) -> bool {
    answer.status == StatusCode::ACCEPTED
}
