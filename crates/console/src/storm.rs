//! The storm: a hundred customers order for a minute in drawn weather. Then the weather is
//! cleared, the open orders are waited for, and the books are read.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    task::{AbortHandle, JoinSet},
    time::{sleep, sleep_until},
};

use crate::{
    books::{Books, Records},
    emulator::COGNITO,
    people::sign_in,
    shop::{Answer, Line, Shop},
    stored_order::is_order,
    watch::Watch,
    weather::{control::Control, kinds::Kind, redelivery},
};

const CUSTOMERS: usize = 100;
const LASTS: Duration = Duration::from_secs(60);
/// The last customer orders this long before the storm ends.
const LAST_ORDER: Duration = Duration::from_secs(5);
/// How many customers wait for an answer at the same time. Each needs processes of several
/// functions.
const AT_ONCE: usize = 8;
const SIGN_UPS_AT_ONCE: usize = 4;
/// A customer gives up after this many tries. The order, if there is one, is finished anyway.
const TRIES: usize = 12;
/// The pause between two draws of weather, in milliseconds.
const BETWEEN: std::ops::Range<u64> = 3000..6000;
/// How long drawn weather lasts, in seconds.
const DRAWN: std::ops::Range<u64> = 4..10;
/// How long the open orders are waited for.
const PATIENCE: Duration = Duration::from_secs(240);
const LISTED: usize = 8;
/// The kinds that are drawn. A poisonous message would leave the books red on purpose.
const KINDS: [Kind; 8] = [
    Kind::KillNow,
    Kind::KillHalfway,
    Kind::PaymentsSlow,
    Kind::PaymentsDead,
    Kind::PaymentsForgetful,
    Kind::LoseAnswer,
    Kind::DeliverTwice,
    Kind::ThrottleTable,
];
/// Most cards are accepted.
const CARDS: [&str; 8] = [
    "tok_accepted",
    "tok_accepted",
    "tok_accepted",
    "tok_accepted",
    "tok_declined",
    "tok_flaky",
    "tok_slow",
    "tok_capture_refused",
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Idle,
    /// The customers sign up.
    Preparing,
    Storm,
    /// The weather is over, and the open orders are waited for.
    Clearing,
    Over,
    Stopped,
    Failed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct State {
    pub phase: Phase,
    pub seed: u64,
    pub customers: usize,
    pub placed: usize,
    pub done: usize,
    pub cancelled: usize,
    pub open: usize,
    pub seconds_left: u64,
    /// What the weather did, the newest first.
    pub weather: VecDeque<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub green: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl State {
    fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Preparing | Phase::Storm | Phase::Clearing)
    }
}

#[derive(Clone)]
pub struct Storm {
    shop: Shop,
    control: Control,
    watch: Watch,
    state: watch::Sender<State>,
    task: Arc<Mutex<Option<AbortHandle>>>,
}

/// A storm is raging already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a storm is raging already")]
pub struct AlreadyRunning;

/// A customer of the storm.
struct Customer {
    id: String,
    token: String,
}

impl Storm {
    pub fn new(shop: Shop, control: Control, watch: Watch) -> Self {
        Self { shop, control, watch, state: watch::Sender::default(), task: Arc::default() }
    }

    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Starts a storm.
    ///
    /// # Errors
    ///
    /// If one is raging already.
    pub fn start(&self) -> Result<State, AlreadyRunning> {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state.borrow().is_running() {
            return Err(AlreadyRunning);
        }
        let seed = fastrand::u64(..1_000_000);
        let state = State { phase: Phase::Preparing, seed, customers: CUSTOMERS, ..State::default() };
        self.state.send_replace(state.clone());
        let storm = self.clone();
        let running = tokio::spawn(async move {
            let result = storm.run(seed).await;
            storm.control.weather.end(|_| true);
            storm.restore_queue().await;
            if let Err(error) = result {
                eprintln!("console: {error:#}");
                storm.state.send_modify(|state| {
                    state.phase = Phase::Failed;
                    state.error = Some(format!("{error:#}"));
                });
            }
        });
        *task = Some(running.abort_handle());
        Ok(state)
    }

    /// Stops the storm and clears its weather. Returns whether one was raging.
    pub fn stop(&self) -> bool {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let was_running = self.state.borrow().is_running();
        if was_running {
            if let Some(task) = task {
                task.abort();
            }
            self.control.weather.end(|_| true);
            self.state.send_modify(|state| (state.phase, state.seconds_left) = (Phase::Stopped, 0));
            let storm = self.clone();
            tokio::spawn(async move { storm.restore_queue().await });
        }
        was_running
    }

    async fn restore_queue(&self) {
        if let Err(error) = redelivery::restore(&self.shop.emulator).await {
            eprintln!("console: {error:#}");
        }
    }

    async fn run(&self, seed: u64) -> Result<()> {
        let _looking = self.watch.look();
        // An event of a killed notifier is delivered again after the storm, and not minutes later.
        redelivery::hasten(&self.shop.emulator).await?;
        let mut random = Rng::with_seed(seed);
        let products = self.shop.products().await?;
        let products: Vec<_> =
            products.iter().filter_map(|product| product["id"].as_str().map(str::to_owned)).collect();
        ensure!(!products.is_empty(), "the shop has no products: `make up` adds some");
        let customers: Vec<Customer> = stream::iter(0..CUSTOMERS)
            .map(|number| self.sign_up(seed, number))
            .buffer_unordered(SIGN_UPS_AT_ONCE)
            .try_collect()
            .await?;
        let ids: HashSet<_> = customers.iter().map(|customer| customer.id.clone()).collect();

        let ends = Instant::now() + LASTS;
        self.state.send_modify(|state| state.phase = Phase::Storm);
        let placed = Arc::new(AtomicUsize::new(0));
        let mut ordering = self.order(customers, &products, &mut random, &placed);
        tokio::select! {
            () = self.draw_weather(random.fork(), ends) => {}
            () = self.count(&ids, &placed, ends) => {}
        }
        self.control.weather.end(|_| true);
        self.state.send_modify(|state| (state.phase, state.seconds_left) = (Phase::Clearing, 0));
        let ended = Instant::now();
        loop {
            while ordering.try_join_next().is_some() {}
            let books = self.look(&ids, &placed).await?;
            if ordering.is_empty() && !books.working {
                self.state.send_modify(|state| (state.phase, state.green) = (Phase::Over, Some(books.green)));
                return Ok(());
            }
            ensure!(ended.elapsed() < PATIENCE, "orders are still open {} seconds after the storm", PATIENCE.as_secs());
            if books.open_orders > 0 {
                self.control.emulator.sweep().await?;
            }
            sleep(Duration::from_secs(2)).await;
        }
    }

    /// Creates a customer with an account and a profile.
    async fn sign_up(&self, seed: u64, number: usize) -> Result<Customer> {
        let emulator = &self.shop.emulator;
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let email = format!("customer-{number}-of-storm-{seed}-{}@example.com", &unique[..8]);
        let password = format!("A-{unique}-z9");
        let name = format!("Customer {number}");
        let attributes = [("name", name.as_str()), ("email", &email), ("email_verified", "true")];
        let attributes = attributes.map(|(name, value)| json!({ "Name": name, "Value": value }));
        let pool = &emulator.stack.user_pool_id;
        let create = json!({
            "UserPoolId": pool, "Username": email, "MessageAction": "SUPPRESS", "UserAttributes": attributes,
        });
        emulator.call(COGNITO, "AdminCreateUser", &create).await?;
        let set = json!({ "UserPoolId": pool, "Username": email, "Password": password, "Permanent": true });
        emulator.call(COGNITO, "AdminSetUserPassword", &set).await?;
        let token = sign_in(emulator, &email, &password).await?;
        let profile = self.shop.request(Method::POST, "/users").bearer_auth(&token);
        let profile = Answer::receive(profile.json(&json!({ "name": name, "email": email }))).await?;
        let id = profile.json()["id"].as_str().map(str::to_owned);
        let id = id.with_context(|| format!("a profile was refused with {}", profile.status))?;
        Ok(Customer { id, token })
    }

    /// Lets each customer order once, at a random time of the storm.
    fn order(
        &self,
        customers: Vec<Customer>,
        products: &[String],
        random: &mut Rng,
        placed: &Arc<AtomicUsize>,
    ) -> JoinSet<()> {
        let (began, permits) = (tokio::time::Instant::now(), Arc::new(Semaphore::new(AT_ONCE)));
        let mut ordering = JoinSet::new();
        for Customer { token, .. } in customers {
            let time = Duration::from_millis(random.u64(..(LASTS - LAST_ORDER).as_millis() as u64));
            let lines = (0..random.usize(1..=2)).filter_map(|_| {
                let product_id = random.choice(products)?.clone();
                Some(Line { product_id, quantity: random.u32(1..=2) })
            });
            let lines: Vec<_> = lines.collect();
            let card = random.choice(CARDS).unwrap_or_default();
            let (shop, permits, placed) = (self.shop.clone(), permits.clone(), placed.clone());
            ordering.spawn(async move {
                sleep_until(began + time).await;
                // The semaphore is never closed.
                if let Ok(_permit) = permits.acquire().await {
                    placed.fetch_add(1, Ordering::Relaxed);
                    place(&shop, &token, &lines, card).await;
                }
            });
        }
        ordering
    }

    /// Draws weather until the storm ends.
    async fn draw_weather(&self, mut random: Rng, ends: Instant) {
        while Instant::now() < ends {
            sleep(Duration::from_millis(random.u64(BETWEEN))).await;
            let Some(kind) = random.choice(KINDS) else { continue };
            let Some(target) = random.choice(kind.targets()) else { continue };
            let seconds = random.u64(DRAWN);
            // Weather that is active already, or cannot be used now, is drawn in vain.
            if let Ok(active) = self.control.begin(kind, target, Some(seconds)).await {
                let lasts = if kind.seconds() == 0 { String::new() } else { format!(", for {seconds} s") };
                let line = format!("{}: {}{lasts}", active.title, active.target_name);
                self.state.send_modify(|state| {
                    state.weather.push_front(line);
                    state.weather.truncate(LISTED);
                });
            }
        }
    }

    /// Counts the orders until the storm ends.
    async fn count(&self, ids: &HashSet<String>, placed: &AtomicUsize, ends: Instant) {
        let mut orders = self.watch.orders();
        while Instant::now() < ends {
            let items = orders.borrow_and_update().clone();
            self.tally(&items, ids, placed, ends.saturating_duration_since(Instant::now()).as_secs());
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn look(&self, ids: &HashSet<String>, placed: &AtomicUsize) -> Result<Books> {
        let records = Records::read(&self.shop.emulator).await?;
        self.tally(&records.orders, ids, placed, 0);
        Ok(Books::of(&records))
    }

    fn tally(&self, orders: &[Value], ids: &HashSet<String>, placed: &AtomicUsize, seconds_left: u64) {
        let own = orders.iter().filter(|order| order["user_id"].as_str().is_some_and(|id| ids.contains(id)));
        let own: Vec<_> = own.filter(|item| is_order(item)).collect();
        let count = |state: &str| own.iter().filter(|order| order["state"] == state).count();
        let (done, cancelled) = (count("DONE"), count("CANCELLED"));
        let open = own.len() - done - cancelled;
        let placed = placed.load(Ordering::Relaxed);
        self.state.send_if_modified(|state| {
            let next = State { placed, done, cancelled, open, seconds_left, ..state.clone() };
            let is_new = *state != next;
            *state = next;
            is_new
        });
    }
}

/// Places an order as a well-behaved client does: repeats the request, with the same key,
/// until the answer is a decision, or says that the order is not decided yet.
async fn place(shop: &Shop, token: &str, lines: &[Line], card: &str) {
    let key = uuid::Uuid::new_v4().to_string();
    for _ in 0..TRIES {
        let answer = shop.place(token, lines, card, &key).await;
        if answer.is_ok_and(|answer| is_answer(&answer)) {
            return;
        }
        sleep(Duration::from_millis(fastrand::u64(300..1200))).await;
    }
}

fn is_answer(answer: &Answer) -> bool {
    let is_in_flight = answer.json()["code"] == "idempotency_in_flight";
    [201, 202, 402, 409, 422].contains(&answer.status) && !is_in_flight
}
