//! How many orders the shop confirms in a second.
//!
//! Customers place orders at a given rate, at random moments, whether or not the earlier
//! orders are answered. The orders go through the real handlers. The tables behave like
//! DynamoDB's under concurrent requests ([`in_process_tests::cloud::Timing`]), in virtual
//! time. So neither this machine nor the embedded database limits the result.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use chassis::clock::Clock;
use in_process_tests::{
    Answer, Caller, World,
    cloud::{ContentionCounts, Timing},
    shop::order_request,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{log_counter, virtual_time};

/// The times of the model. AWS promises "single-digit milliseconds" for reads and writes.
/// A transaction writes each item twice, one write after the other.
pub const TIMING: Timing = Timing {
    read: Duration::from_millis(3),
    write: Duration::from_millis(5),
    transaction: Duration::from_millis(12),
    held: Duration::from_millis(8),
    transactional_read: Duration::from_millis(6),
    service: Duration::from_millis(8),
    queue: Duration::from_millis(8),
};
/// The time within which a confirmation counts as fast enough.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// The orders' price in minor units.
const PRICE: i64 = 1999;
/// The initial stock of each product, more than any load sells.
const STOCK: u32 = 100_000;
/// The worker's batches that run side by side: four for each of the stream's four shards.
const BATCHES: usize = 16;
/// The orders in a batch.
const BATCH_SIZE: usize = 8;

/// Orders that arrive at random moments.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The orders in a second.
    pub rate: f64,
    /// The time for which orders arrive.
    pub seconds: f64,
    /// The products, of which each order buys one unit of one product.
    pub products: usize,
}

/// How the orders of a load were answered.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub orders: usize,
    /// The number of responses with each status.
    pub statuses: BTreeMap<u16, usize>,
    /// The orders that were answered with 201 within [`PATIENCE`].
    pub confirmed_in_time: usize,
    /// The time until each response, shortest first.
    pub latencies: Vec<Duration>,
    /// The calls that an open circuit breaker refused.
    pub refused_by_breaker: u64,
    pub contention: ContentionCounts,
}

impl Outcome {
    /// Returns whether at least 99 % of the orders were confirmed in time, none was left to
    /// the worker, and no circuit breaker opened.
    pub fn is_sustained(&self) -> bool {
        self.confirmed_in_time * 100 >= self.orders * 99
            && !self.statuses.contains_key(&202)
            && self.refused_by_breaker == 0
    }

    /// The latency that this share of the responses does not exceed.
    pub fn percentile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }
}

/// Places the orders of a load, lets the worker finish all of them, and checks that
/// nothing is lost, sold twice or charged twice.
///
/// # Errors
///
/// If an order is lost, or if stock or money do not add up.
pub fn run(load: Load) -> Result<Outcome> {
    fastrand::seed(1);
    let refused_before = log_counter::refused_by_breaker();
    let mut outcome = virtual_time::run(async {
        let world = Arc::new(World::start_at(Clock::tokio(Timestamp::now())).await);
        let mut products = Vec::new();
        for _ in 0..load.products {
            products.push(world.product("19.99", STOCK).await);
        }
        let moments = arrivals(load);
        let mut customers = Vec::new();
        for n in 0..moments.len() {
            customers.push(world.customer(&format!("Customer {n}")).await);
        }
        world.cloud.model_contention(TIMING);
        let (outcome, confirmed) = place_all(&world, &products, customers, moments).await?;
        check(&world, &outcome, &confirmed, load.products)?;
        anyhow::Ok(outcome)
    })?;
    outcome.refused_by_breaker = log_counter::refused_by_breaker() - refused_before;
    Ok(outcome)
}

/// The moments at which orders arrive, independent of each other (a Poisson process).
fn arrivals(load: Load) -> Vec<Duration> {
    let mut at = 0.0;
    std::iter::from_fn(|| {
        at -= (1.0 - fastrand::f64()).ln() / load.rate;
        (at < load.seconds).then(|| Duration::from_secs_f64(at))
    })
    .collect()
}

/// Places an order at each moment while the worker runs, and lets the worker finish all
/// orders. Returns the outcome, and the ids of the orders that were answered with 201.
async fn place_all(
    world: &Arc<World>,
    products: &[String],
    customers: Vec<Caller>,
    moments: Vec<Duration>,
) -> Result<(Outcome, Vec<String>)> {
    let worker = tokio::spawn(deliver_stream(world.clone()));
    let begin = Instant::now();
    let mut requests = JoinSet::new();
    for (n, (customer, moment)) in customers.into_iter().zip(moments).enumerate() {
        let body = order_request(&[(&products[n % products.len()], 1)], "tok_accepted");
        let world = world.clone();
        requests.spawn(async move {
            tokio::time::sleep_until(begin + moment).await;
            virtual_time::timed(world.place(&customer, body, "the-key")).await
        });
    }
    let answers: Vec<(Answer, Duration)> = requests.join_all().await;
    let mut outcome =
        Outcome { orders: answers.len(), contention: world.cloud.contention_counts(), ..Outcome::default() };
    let mut confirmed = Vec::new();
    for (answer, latency) in answers {
        let status = answer.status.as_u16();
        *outcome.statuses.entry(status).or_default() += 1;
        outcome.latencies.push(latency);
        if status == 201 {
            outcome.confirmed_in_time += usize::from(latency <= PATIENCE);
            confirmed.push(answer.json()["id"].as_str().context("an order without an id")?.to_owned());
        }
    }
    outcome.latencies.sort_unstable();
    // The schedule starts a sweep each minute until no order is open.
    for _ in 0..20 {
        sleep(Duration::from_secs(60)).await;
        if !world.stored_orders().iter().any(is_open) {
            break;
        }
        world.sweep().await;
    }
    worker.abort();
    Ok((outcome, confirmed))
}

fn is_open(order: &Value) -> bool {
    order["check_shard"].is_object()
}

/// Acts as the stream of the orders table, which invokes the worker with batches.
async fn deliver_stream(world: Arc<World>) {
    let slots = Arc::new(Semaphore::new(BATCHES));
    loop {
        for batch in world.cloud.take_stream_records().chunks(BATCH_SIZE) {
            let records: Vec<_> = batch.iter().map(|keys| json!({ "dynamodb": { "Keys": keys } })).collect();
            let event = json!({ "Records": records }).to_string();
            let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
            let world = world.clone();
            tokio::spawn(async move {
                // An invocation that fails leaves its orders to the sweep.
                world.invoke("order-worker", &event).await.ok();
                drop(slot);
            });
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Checks the promises: each order has reached a final state, the orders that were
/// answered with 201 are done, and stock and money add up.
fn check(world: &World, outcome: &Outcome, confirmed: &[String], products: usize) -> Result<()> {
    let orders = world.stored_orders();
    ensure!(!orders.iter().any(is_open), "an order stays open");
    let done: Vec<_> = orders.iter().filter(|order| order["state"]["S"] == "DONE").collect();
    let ids: std::collections::BTreeSet<_> = done.iter().filter_map(|order| order["id"]["S"].as_str()).collect();
    for id in confirmed {
        ensure!(ids.contains(id.as_str()), "the order {id} was confirmed, and is not done");
    }
    let sold = done.len() as i64;
    let initial = i64::from(STOCK) * products as i64;
    ensure!(world.stock_sums() == (initial - sold, sold), "the stock does not add up: {:?}", world.stock_sums());
    ensure!(world.kept_money() == sold * PRICE, "the money does not add up: {}", world.kept_money());
    let events = world.cloud.sent_messages().into_iter().map(|text| serde_json::from_str::<Value>(&text));
    let events = events.collect::<Result<Vec<_>, _>>()?;
    let created: std::collections::BTreeSet<_> =
        events.iter().filter(|event| event["type"] == "OrderCreated").map(|event| event["id"].to_string()).collect();
    ensure!(created.len() == done.len(), "{} orders are done, and {} are announced", done.len(), created.len());
    let known = [201, 202, 409];
    ensure!(outcome.statuses.keys().all(|status| known.contains(status)), "unexpected: {:?}", outcome.statuses);
    Ok(())
}
