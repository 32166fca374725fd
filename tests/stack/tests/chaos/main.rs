//! Many orders at once while functions are killed, events come twice and a
//! message poisons the queue. Afterwards every promise is checked on what the
//! tables, the provider's ledger and the customers' mailboxes hold.
//!
//! Ends any process of any function, so it wants a stack without other users.
//! `HOLDFAST_ORDERS` says how many orders, `HOLDFAST_SEED` what is drawn: what
//! is ordered, killed, cancelled and repeated. When it happens is the
//! machine's affair, so the same seed is a similar storm, not the same one.
//! With `HOLDFAST_CHAOS=long`, nobody helps the schedule to find open orders.

mod promises;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    env,
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures::future::join_all;
use http::{Method, StatusCode};
use promises::Found;
use serde_json::{Value, json};
use stack_tests::{Answer, Person, Stack, processes::Processes, queue::Queue};
use tokio::time::sleep;

const CUSTOMERS: [&str; 4] = ["Ada", "Grace", "Mary", "Joan"];
/// Prices of the products. 3 × 19.99 is one that inexact arithmetic gets wrong.
const PRICES: [&str; 3] = ["19.99", "5.00", "0.07"];
/// Clients at work at once.
const CLIENTS: usize = 8;
/// How often a client repeats a request that is recorded and worked on.
const MOST_TRIES: usize = 10;
/// More or less, one of so many orders is cancelled by its customer, and for one
/// of so many an event comes twice, and functions are struck.
const ONE_CANCELLED_OF: usize = 6;
const ONE_DUPLICATE_OF: usize = 2;
const ONE_STRIKE_OF: usize = 2;
/// How long the storm may last. The clients go on until each has an answer.
const STORM: Duration = Duration::from_secs(600);
/// How long recovery may take. The longest pause of the worker is five minutes.
const RECOVERY: Duration = Duration::from_secs(600);

struct Plan {
    orders: usize,
    seed: u64,
    /// Open orders are found by the schedule alone, which takes a minute.
    is_long: bool,
}

impl Plan {
    /// How long a message stays hidden that was delivered and not dealt with.
    /// Less than on AWS, yet so long that a message is not dead before the claim
    /// of a killed notifier ends, which holds for a minute: a long storm may
    /// kill a message's notifier more than once, a short one may not.
    fn hidden(&self) -> Duration {
        Duration::from_secs(if self.is_long { 65 } else { 20 })
    }

    fn from_env() -> Self {
        let number = |name: &str| {
            let text = env::var(name).ok()?;
            Some(text.parse::<u64>().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
        };
        let is_long = env::var("HOLDFAST_CHAOS").is_ok_and(|form| form == "long");
        let orders = number("HOLDFAST_ORDERS").unwrap_or(if is_long { 240 } else { 40 });
        let seed = number("HOLDFAST_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
        Self { orders: orders.try_into().expect("a number of orders"), seed, is_long }
    }
}

struct Product {
    id: String,
    stock: i64,
}

/// What a customer wants, once, however often it takes asking.
struct Intention {
    customer: usize,
    key: String,
    lines: Vec<(String, u32)>,
    token: &'static str,
    /// How long the client waits for an answer.
    patience: Duration,
    /// Whether it asks twice at the same time.
    is_doubled: bool,
}

/// The decisions that the client was told.
struct Story {
    intention: Intention,
    told: Vec<Answer>,
}

/// Which orders customers tried to cancel, and of which they were told that
/// they are.
#[derive(Default)]
struct Cancellations {
    tried: BTreeSet<String>,
    granted: BTreeSet<String>,
}

/// Everything that is at hand while it goes on.
struct Chaos {
    plan: Plan,
    stack: Stack,
    customers: Vec<Person>,
    products: Vec<Product>,
    events: Queue,
    dead_letters: Queue,
    poison: String,
    answers: RefCell<BTreeMap<String, usize>>,
    answered: Cell<usize>,
    /// How many requests for an order are being worked on.
    in_progress: Cell<usize>,
    kills: RefCell<BTreeMap<String, usize>>,
    cancellations: RefCell<Cancellations>,
    seen: RefCell<BTreeMap<String, String>>,
    duplicates: Cell<usize>,
    is_over: Cell<bool>,
}

#[tokio::test]
async fn every_order_comes_to_its_end_and_every_sum_holds_whatever_is_killed() {
    let chaos = Chaos::prepare(Plan::from_env()).await;
    let usual = chaos.events.deliver_again_after(chaos.plan.hidden()).await;
    let began = Instant::now();
    let stories = tokio::time::timeout(STORM, chaos.storm()).await.expect("an answer for every client, in time");
    let storm = began.elapsed();

    let began = Instant::now();
    let mut violations = chaos.recover().await;
    if violations.is_empty() {
        violations = chaos.stay_quiet().await;
    }
    let recovery = began.elapsed();
    chaos.events.deliver_again_after(usual).await;

    let found = promises::check(&chaos, &stories).await;
    violations.extend_from_slice(&found.violations);
    println!("{}", chaos.summary(&found, storm, recovery, violations.len()));
    assert!(violations.is_empty(), "HOLDFAST_SEED={}: {violations:#?}", chaos.plan.seed);

    // That nothing was violated would say little if nothing had happened.
    assert_eq!(found.ends.values().sum::<usize>(), chaos.plan.orders);
    assert!(["DONE", "CANCELLED"].iter().all(|end| found.ends.contains_key(*end)), "{:?}", found.ends);
    assert!(chaos.killed() >= 5 && chaos.kills.borrow().len() >= 3, "{:?}", chaos.kills.borrow());
    assert!(chaos.was_cut_off(), "no request was cut off: {:?}", chaos.answers.borrow());
    assert!(chaos.duplicates.get() > 0, "no event came twice");
}

impl Chaos {
    async fn prepare(plan: Plan) -> Self {
        println!("HOLDFAST_SEED={} HOLDFAST_ORDERS={}", plan.seed, plan.orders);
        let stack = Stack::deployed();
        let (admin, customers) =
            tokio::join!(stack.admin(), join_all(CUSTOMERS.iter().map(|name| stack.customer(name))));
        // Not enough for all.
        let stock = plan.orders / 2;
        let mut products = Vec::new();
        for price in PRICES {
            let price: Value = serde_json::from_str(price).unwrap();
            let body = json!({ "name": "Anchor", "description": "Holds fast.", "price": price, "stock": stock });
            let product = admin.post("/products", body).await.expect(StatusCode::CREATED);
            products.push(Product { id: product["id"].as_str().unwrap().to_owned(), stock: stock.try_into().unwrap() });
        }
        Self {
            events: stack.queue("order_events").await,
            dead_letters: stack.queue("dead_letter").await,
            poison: format!("poison for {}", customers[0].email),
            plan,
            stack,
            customers,
            products,
            answers: RefCell::default(),
            answered: Cell::default(),
            in_progress: Cell::default(),
            kills: RefCell::default(),
            cancellations: RefCell::default(),
            seen: RefCell::default(),
            duplicates: Cell::default(),
            is_over: Cell::default(),
        }
    }

    fn intend(&self, random: &mut Rng, number: usize) -> Intention {
        let mut products: Vec<_> = self.products.iter().collect();
        random.shuffle(&mut products);
        let lines = products.iter().take(random.usize(1..=2)).map(|product| (product.id.clone(), random.u32(1..=3)));
        Intention {
            customer: number % self.customers.len(),
            key: format!("{}-{number}", self.plan.seed),
            lines: lines.collect(),
            token: match random.u8(..16) {
                ..2 => "tok_declined",
                2..4 => "tok_capture_refused",
                4..6 => "tok_flaky",
                6..8 => "tok_slow",
                _ => "tok_accepted",
            },
            patience: match random.u8(..8) {
                0 => Duration::from_millis(random.u64(100..2000)),
                _ => Duration::from_secs(60),
            },
            is_doubled: random.u8(..8) == 0,
        }
    }

    /// Returns when every client has an answer.
    async fn storm(&self) -> Vec<Story> {
        let mut random = Rng::with_seed(self.plan.seed);
        let intentions: Vec<_> = (0..self.plan.orders).map(|number| self.intend(&mut random, number)).collect();
        let waiting = RefCell::new(intentions.into_iter());
        let clients = join_all((0..CLIENTS).map(|_| self.serve(&waiting, random.fork())));
        if self.plan.is_long {
            self.events.send(&[&self.poison]).await;
        }
        let (killing, cancelling, repeating) = (random.fork(), random.fork(), random.fork());
        let (stories, ..) = tokio::join!(clients, self.kill(killing), self.cancel(cancelling), self.repeat(repeating));
        stories.into_iter().flatten().collect()
    }

    /// A client, and then the next, until no one is waiting: then the storm is
    /// over, and those who still wait for an answer get it in peace.
    async fn serve(&self, waiting: &RefCell<impl Iterator<Item = Intention>>, mut random: Rng) -> Vec<Story> {
        let mut stories = Vec::new();
        loop {
            let Some(intention) = waiting.borrow_mut().next() else {
                self.is_over.set(true);
                return stories;
            };
            sleep(Duration::from_millis(random.u64(..2000))).await;
            let told = self.place(&intention, &mut random).await;
            self.answered.update(|answered| answered + 1);
            stories.push(Story { intention, told });
        }
    }

    /// Places an order as a well-behaved client: repeats while there is no
    /// answer, or one that says to try again; in the end a client comes back
    /// later that was told so again and again.
    async fn place(&self, intention: &Intention, random: &mut Rng) -> Vec<Answer> {
        let mut told = Vec::new();
        for tries in 1.. {
            let (one, other) = tokio::join!(self.ask(intention), async {
                if intention.is_doubled { self.ask(intention).await } else { None }
            });
            let answers: Vec<Answer> = one.into_iter().chain(other).collect();
            let is_recorded = |answer| is_pending(answer) || (tries > MOST_TRIES && is_in_flight(answer));
            let is_recorded = answers.iter().any(is_recorded);
            told.extend(answers.into_iter().filter(is_decision));
            if is_recorded || !told.is_empty() {
                break;
            }
            sleep(Duration::from_millis(random.u64(200..800))).await;
        }
        told
    }

    async fn ask(&self, intention: &Intention) -> Option<Answer> {
        let Intention { key, token, patience, .. } = intention;
        let lines = intention.lines();
        let answer = self.customers[intention.customer].try_order(&lines, token, key);
        self.in_progress.update(|requests| requests + 1);
        let answer = tokio::time::timeout(*patience, answer).await.ok().and_then(Result::ok);
        self.in_progress.update(|requests| requests - 1);
        let name = answer.as_ref().map_or("no answer".to_owned(), |answer| match code(answer) {
            Some(code) => format!("{} {code}", answer.status.as_u16()),
            None => answer.status.as_u16().to_string(),
        });
        *self.answers.borrow_mut().entry(name).or_default() += 1;
        answer
    }

    /// Kills one process of a function, or all, every now and then: while there
    /// is something to disturb, and no oftener than orders get their answers,
    /// lest on a slow machine none ever gets one. Any function, but until a
    /// request was cut off, every other strike is at the one that takes orders:
    /// chance alone may spare it throughout a short storm.
    async fn kill(&self, mut random: Rng) {
        let processes = Processes::of(&self.stack);
        let mut strikes = 0;
        while !self.is_over.get() {
            sleep(Duration::from_millis(random.u64(50..400))).await;
            if self.in_progress.get() == 0 || strikes > self.answered.get() / ONE_STRIKE_OF + CLIENTS {
                continue;
            }
            strikes += 1;
            let is_aimed = strikes % 2 == 1 && !self.was_cut_off();
            let mut running = processes.running();
            let mut functions: BTreeSet<_> = running.iter().map(|process| process.function.clone()).collect();
            if is_aimed {
                functions.retain(|function| function == "orders");
            }
            let Some(function) = random.choice(functions) else { continue };
            running.retain(|process| process.function == function);
            random.shuffle(&mut running);
            let struck = if is_aimed || random.bool() { running.len() } else { 1 };
            let killed = running.iter().take(struck).filter(|process| process.kill()).count();
            *self.kills.borrow_mut().entry(function).or_default() += killed;
        }
    }

    /// Lets customers cancel what they ordered last, whatever its state.
    async fn cancel(&self, mut random: Rng) {
        while !self.is_over.get() {
            sleep(Duration::from_millis(random.u64(50..300))).await;
            if self.cancellations.borrow().tried.len() > self.answered.get() / ONE_CANCELLED_OF {
                continue;
            }
            let Some(customer) = random.choice(&self.customers) else { continue };
            let newest = customer.get("/orders?limit=3").await;
            let Ok(newest) = serde_json::from_str::<Value>(&newest.text) else { continue };
            let Some(order) = newest["items"].as_array().and_then(|orders| random.choice(orders)) else { continue };
            let id = order["id"].as_str().expect("an id");
            self.cancellations.borrow_mut().tried.insert(id.to_owned());
            let answer = customer.send(Method::POST, &format!("/orders/{id}/cancel"), None, &[]).await;
            if answer.status.is_success() {
                self.cancellations.borrow_mut().granted.insert(id.to_owned());
            }
        }
    }

    /// Sends events once more that it sees in the queue.
    async fn repeat(&self, mut random: Rng) {
        while !self.is_over.get() {
            sleep(Duration::from_millis(random.u64(20..100))).await;
            for body in self.own(&self.events).await {
                let event: Value = serde_json::from_str(&body).unwrap_or_default();
                if let Some(id) = event["id"].as_str() {
                    self.seen.borrow_mut().insert(id.to_owned(), body);
                }
            }
            if self.duplicates.get() < self.answered.get() / ONE_DUPLICATE_OF {
                self.send_again(&mut random).await;
            }
        }
    }

    async fn send_again(&self, random: &mut Rng) {
        let body = random.choice(self.seen.borrow().values()).cloned();
        if let Some(body) = body {
            self.events.send(&[&body]).await;
            self.duplicates.update(|duplicates| duplicates + 1);
        }
    }

    /// Messages about this storm: they hold an address of one of its customers.
    async fn own(&self, queue: &Queue) -> Vec<String> {
        let mut bodies = queue.bodies().await;
        bodies.retain(|body| self.customers.iter().any(|customer| body.contains(&customer.email)));
        bodies
    }

    async fn orders(&self) -> Vec<Value> {
        let mut items = self.stack.scan("orders").await;
        items.retain(|item| {
            item["sk"] == "ORDER" && self.customers.iter().any(|customer| item["user_id"] == customer.id)
        });
        items
    }

    /// Waits until all is quiet, and returns what doesn't come to rest.
    async fn recover(&self) -> Vec<String> {
        let began = Instant::now();
        loop {
            let orders = self.orders().await;
            let open = orders.iter().filter(|order| order["state"] != "DONE" && order["state"] != "CANCELLED");
            let open: Vec<_> = open.map(|order| format!("{} is still {}", order["id"], order["state"])).collect();
            let waiting = self.own(&self.events).await.into_iter().filter(|body| *body != self.poison);
            let waiting: Vec<_> = waiting.map(|body| format!("still in the queue: {body}")).collect();
            if (open.is_empty() && waiting.is_empty()) || began.elapsed() > RECOVERY {
                return [open, waiting].concat();
            }
            if !open.is_empty() && !self.plan.is_long {
                self.stack.sweep().await;
            }
            sleep(Duration::from_secs(2)).await;
        }
    }

    /// Sends duplicates of events that were told long since, and poison beside
    /// them; waits for its death. Returns what was told again.
    async fn stay_quiet(&self) -> Vec<String> {
        let began = Instant::now();
        // No claim is held any more that a killed notifier has left, so nothing
        // else can die of being delivered too often.
        self.events.deliver_again_after(Duration::from_secs(1)).await;
        let seen: Vec<_> = self.seen.borrow().values().take(9).cloned().collect();
        let mut bodies: Vec<_> = seen.iter().map(String::as_str).collect();
        if !self.plan.is_long {
            bodies.push(&self.poison);
        }
        let told = self.told().await;
        self.events.send(&bodies).await;
        while !self.own(&self.events).await.is_empty() {
            if began.elapsed() > RECOVERY {
                return vec!["the poison is still in the queue".to_owned()];
            }
            sleep(Duration::from_millis(200)).await;
        }
        let repeated = self.told().await - told;
        if repeated > 0 { vec![format!("of {} late duplicates, {repeated} were told", seen.len())] } else { Vec::new() }
    }

    /// How many messages customers got.
    async fn told(&self) -> usize {
        let mut told = 0;
        for customer in &self.customers {
            told += self.stack.mails(&customer.email).await.len() + self.stack.texts(&customer.phone).await.len();
        }
        told
    }

    /// Whether a client was told that the function has died under its request.
    fn was_cut_off(&self) -> bool {
        self.answers.borrow().contains_key("502")
    }

    fn killed(&self) -> usize {
        self.kills.borrow().values().sum()
    }

    fn summary(&self, found: &Found, storm: Duration, recovery: Duration, violations: usize) -> String {
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
             duplicates   {} of {} events seen, and one poison message\n\
             ends         {}\n\
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
            self.seen.borrow().len(),
            counts(&found.ends),
            found.messages.join("; "),
            recovery.as_secs_f64(),
            if self.plan.is_long { "by the schedule alone" } else { "the schedule hurried" },
            violations,
        )
    }
}

impl Intention {
    fn lines(&self) -> Vec<(&str, u32)> {
        self.lines.iter().map(|(id, quantity)| (id.as_str(), *quantity)).collect()
    }
}

/// The stable code of a problem document.
fn code(answer: &Answer) -> Option<String> {
    let body: Value = serde_json::from_str(&answer.text).ok()?;
    body["code"].as_str().map(str::to_owned)
}

/// Whether an answer is one that holds for good.
fn is_decision(answer: &Answer) -> bool {
    [201, 402, 409, 422].contains(&answer.status.as_u16()) && !is_in_flight(answer)
}

fn is_in_flight(answer: &Answer) -> bool {
    code(answer).as_deref() == Some("idempotency_in_flight")
}

fn is_pending(answer: &Answer) -> bool {
    answer.status == StatusCode::ACCEPTED
}
