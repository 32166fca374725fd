//! How many orders the shop confirms in a second.
//!
//! Customers place orders at a given rate, at random moments, whether or not the earlier
//! orders are answered. The orders go through the real handlers. The tables behave like
//! DynamoDB's under concurrent requests ([`in_process_tests::cloud::Timing`]), in virtual
//! time. So neither this machine nor the embedded database limits the result.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use chassis::clock::Clock;
use http::{Method, StatusCode};
use in_process_tests::{
    Answer, Caller, World,
    cloud::{ContentionCounts, Timing},
    shop::order_request,
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    log_counter,
    report::{Axis, Chart, ChartContent, Figure, Limit, LineSeries, Scale, Section, Table},
    table::number,
    virtual_time,
};

pub const NAME: &str = "throughput";

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
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The orders' price in minor units.
const PRICE: i64 = 1999;
/// The initial stock of each product, more than any load sells.
const STOCK: u32 = 100_000;
/// The worker's batches that run side by side: four for each of the stream's four shards.
const BATCHES: usize = 16;
/// The orders in a batch.
const BATCH_SIZE: usize = 8;

/// Orders that arrive at random moments. Each buys one unit of one product.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The orders in a second.
    pub rate: f64,
    /// The time for which orders arrive.
    pub seconds: f64,
    pub demand: Demand,
}

/// The products that customers order.
#[derive(Clone, Copy, Debug)]
pub enum Demand {
    /// This number of products, one after the other.
    Spread(usize),
    /// One product whose stock has this number of shards.
    Hot { shards: u8 },
    /// One product with this number of shards. In addition, this number of orders in a
    /// second is for other products, and only these orders are part of the outcome.
    BesideHot { shards: u8, others: f64 },
}

/// The number of products that are not hot.
const OTHER_PRODUCTS: usize = 50;

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

/// An order that a customer is going to place.
struct Planned {
    at: Duration,
    customer: Caller,
    product: String,
    /// Whether the order is part of the outcome.
    is_counted: bool,
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
        let (orders, products) = plan(&world, load).await;
        world.cloud.model_contention(TIMING);
        let (outcome, confirmed) = place_all(&world, orders).await?;
        check(&world, &confirmed, products)?;
        anyhow::Ok(outcome)
    })?;
    outcome.refused_by_breaker = log_counter::refused_by_breaker() - refused_before;
    Ok(outcome)
}

/// Adds the products and customers of a load. Returns the planned orders and the number of
/// products.
async fn plan(world: &World, load: Load) -> (Vec<Planned>, usize) {
    let add = async |count: usize| {
        let mut products = Vec::new();
        for _ in 0..count {
            products.push(world.product("19.99", STOCK).await);
        }
        products
    };
    let hot = async |shards: u8| {
        let products = add(1).await;
        if shards > 1 {
            give_shards(world, &products[0], shards).await;
        }
        products
    };
    let (products, others) = match load.demand {
        Demand::Spread(count) => (add(count).await, None),
        Demand::Hot { shards } => (hot(shards).await, None),
        Demand::BesideHot { shards, others } => (hot(shards).await, Some((add(OTHER_PRODUCTS).await, others))),
    };
    let count = products.len() + others.as_ref().map_or(0, |(products, _)| products.len());
    let only_others_count = others.is_some();
    let groups =
        [Some((products, load.rate, !only_others_count)), others.map(|(products, rate)| (products, rate, true))];
    let mut orders = Vec::new();
    for (products, rate, is_counted) in groups.into_iter().flatten() {
        for (n, at) in arrivals(rate, load.seconds).into_iter().enumerate() {
            // Both groups have customers of their own.
            let customer = world.customer(&format!("Customer {}", orders.len())).await;
            orders.push(Planned { at, customer, product: products[n % products.len()].clone(), is_counted });
        }
    }
    (orders, count)
}

/// Divides a product's stock into shards.
async fn give_shards(world: &World, product: &str, shards: u8) {
    let (path, body) = (format!("/products/{product}"), json!({ "stock_shards": shards }));
    let headers = [("if-match", "*")];
    world.send_with(&Caller::admin(), Method::PATCH, &path, Some(body), &headers).await.expect(StatusCode::OK);
}

/// The moments at which orders arrive, independent of each other (a Poisson process).
fn arrivals(rate: f64, seconds: f64) -> Vec<Duration> {
    let mut at = 0.0;
    std::iter::from_fn(|| {
        at -= (1.0 - fastrand::f64()).ln() / rate;
        (at < seconds).then(|| Duration::from_secs_f64(at))
    })
    .collect()
}

/// Places the orders while the worker runs, and lets the worker finish all orders. Returns
/// the outcome, and the ids of the orders that were answered with 201.
async fn place_all(world: &Arc<World>, orders: Vec<Planned>) -> Result<(Outcome, Vec<String>)> {
    let worker = tokio::spawn(deliver_stream(world.clone()));
    let begin = Instant::now();
    let mut requests = JoinSet::new();
    for Planned { at, customer, product, is_counted } in orders {
        let body = order_request(&[(&product, 1)], "tok_accepted");
        let world = world.clone();
        requests.spawn(async move {
            tokio::time::sleep_until(begin + at).await;
            (is_counted, virtual_time::timed(world.place(&customer, body, "the-key")).await)
        });
    }
    let answers: Vec<(bool, (Answer, Duration))> = requests.join_all().await;
    let mut outcome = Outcome { contention: world.cloud.contention_counts(), ..Outcome::default() };
    let mut confirmed = Vec::new();
    for (is_counted, (answer, latency)) in answers {
        let status = answer.status.as_u16();
        if status == 201 {
            confirmed.push(answer.json()["id"].as_str().context("an order without an id")?.to_owned());
        }
        ensure!([201, 202, 409, 503].contains(&status), "unexpected: {status} {}", answer.text);
        if is_counted {
            outcome.orders += 1;
            *outcome.statuses.entry(status).or_default() += 1;
            outcome.latencies.push(latency);
            outcome.confirmed_in_time += usize::from(status == 201 && latency <= PATIENCE);
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
fn check(world: &World, confirmed: &[String], products: usize) -> Result<()> {
    let orders = world.stored_orders();
    ensure!(!orders.iter().any(is_open), "an order stays open");
    let done: Vec<_> = orders.iter().filter(|order| order["state"]["S"] == "DONE").collect();
    let ids: std::collections::BTreeSet<_> =
        done.iter().filter_map(|order| order["pk"]["S"].as_str()?.strip_prefix("ORDER#")).collect();
    for id in confirmed {
        let stored = || orders.iter().find(|order| order["pk"]["S"] == format!("ORDER#{id}"));
        ensure!(ids.contains(id.as_str()), "the order {id} was confirmed, and is not done: {:?}", stored());
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
    Ok(())
}

/// The throughput of one hot product before stock had shards.
#[derive(Deserialize)]
struct Before {
    commit: String,
    /// The highest sustained rate.
    orders_per_second: f64,
}

/// The rate that is tried first for one product, for each of its shards.
const FIRST_RATE: f64 = 64.0;
/// The lowest rate that is tried.
const SLOWEST: f64 = 4.0;
/// The highest rate that is tried. A higher rate would take this machine too long, because
/// it really executes each order.
const FASTEST: f64 = 1024.0;
/// The shards with which the hot product is measured.
const SHARDS: [u8; 4] = [1, 4, 16, 64];

/// The time for which orders arrive at a rate: long enough for a queue to grow beyond
/// [`PATIENCE`], and short enough for this machine.
fn seconds(rate: f64) -> f64 {
    (1500.0 / rate).clamp(3.0, 6.0)
}

/// Tries the rate `first`. Doubles the rate until it is no longer sustained, or halves it
/// until it is sustained, and then tries a rate in the middle. Returns the highest
/// sustained rate, and all outcomes, the lowest rate first.
fn highest_sustained(name: &str, demand: Demand, first: f64) -> Result<(f64, Vec<(f64, Outcome)>)> {
    let mut outcomes = Vec::new();
    let mut attempt = |rate: f64| -> Result<bool> {
        let outcome = run(Load { rate, seconds: seconds(rate), demand })?;
        let is_sustained = outcome.is_sustained();
        // The whole section takes minutes.
        eprintln!("  {}", attempt_row(name, rate, &outcome).join(", "));
        outcomes.push((rate, outcome));
        Ok(is_sustained)
    };
    let mut rate = first;
    let mut sustained = 0.0;
    while sustained == 0.0 && rate >= SLOWEST {
        if attempt(rate)? {
            sustained = rate;
        } else {
            rate /= 2.0;
        }
    }
    // If a lower rate than the first is sustained, its double is not.
    while sustained >= first && rate < FASTEST {
        rate *= 2.0;
        if !attempt(rate)? {
            break;
        }
        sustained = rate;
    }
    if (SLOWEST..FASTEST).contains(&sustained) {
        let middle = sustained * std::f64::consts::SQRT_2;
        if attempt(middle)? {
            sustained = middle;
        }
    }
    outcomes.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    Ok((sustained, outcomes))
}

/// The unit of a highest sustained rate. If the highest rate that is tried is sustained,
/// the limit is not known.
fn unit(sustained: f64) -> &'static str {
    if sustained >= FASTEST { "orders/s or more" } else { "orders/s" }
}

pub fn measure() -> Result<Section> {
    let before: Before = serde_json::from_str(include_str!("../before/throughput.json"))?;
    let mut section = Section::new(NAME, "Throughput and contention");
    let mut attempts = Vec::new();
    let mut measured = |name: &str, demand: Demand, first: f64| -> Result<f64> {
        let (sustained, outcomes) = highest_sustained(name, demand, first)?;
        attempts.extend(outcomes.iter().map(|(rate, outcome)| attempt_row(name, *rate, outcome)));
        Ok(sustained)
    };
    let spread = measured("100 products", Demand::Spread(100), FASTEST)?;
    section.figures.push(Figure::new("100 products", spread, unit(spread)));
    let mut points = Vec::new();
    for shards in SHARDS {
        let name = format!("one hot product, {shards} stock {}", if shards == 1 { "shard" } else { "shards" });
        let first = FASTEST.min(FIRST_RATE * f64::from(shards));
        let sustained = measured(&name, Demand::Hot { shards }, first)?;
        let figure = Figure::new(name, sustained, unit(sustained))
            .compared_with(format!("before stock had shards ({})", before.commit), before.orders_per_second);
        let is_last = Some(&shards) == SHARDS.last();
        section.figures.push(if is_last { figure.within(Limit::RatioAtLeast(10.0)) } else { figure });
        points.push((f64::from(shards), sustained));
    }
    section.figures.push(isolation(points[0].1)?);
    section.tables.push(Table {
        title: "All attempts".into(),
        columns: ["demand", "orders/s", "201 in time", "202", "others", "p50", "p99", "conflicts", "throttled"]
            .map(Into::into)
            .into(),
        rows: attempts,
    });
    let constant = points.iter().map(|(shards, _)| (*shards, before.orders_per_second)).collect();
    let series = |name: &str, points| LineSeries { name: name.into(), points };
    let axis = |label: &str| Axis { label: label.into(), scale: Scale::Logarithmic };
    section.charts.push(Chart {
        file: NAME.into(),
        title: "Orders of one hot product in a second".into(),
        content: ChartContent::Lines {
            x: axis("stock shards"),
            y: axis("orders/s"),
            series: vec![series("with shards", points), series("before stock had shards", constant)],
        },
    });
    Ok(section)
}

/// The latency of orders of other products while a product with one shard is ordered twice
/// as often as it sustains, compared with their latency alone.
fn isolation(sustained: f64) -> Result<Figure> {
    const OTHERS: f64 = 20.0;
    let seconds = 4.0;
    let alone = run(Load { rate: OTHERS, seconds, demand: Demand::Spread(OTHER_PRODUCTS) })?;
    let demand = Demand::BesideHot { shards: 1, others: OTHERS };
    let beside = run(Load { rate: 2.0 * sustained, seconds, demand })?;
    ensure!(beside.confirmed_in_time == beside.orders, "orders of other products wait for the hot product");
    let millis = |outcome: &Outcome| outcome.percentile(0.99).as_secs_f64() * 1000.0;
    Ok(Figure::new("99 % of the orders of other products, while a hot product is overloaded", millis(&beside), "ms")
        .compared_with("without the hot product", millis(&alone))
        .within(Limit::RatioAtMost(1.1)))
}

fn attempt_row(name: &str, rate: f64, outcome: &Outcome) -> Vec<String> {
    let count = |status: u16| outcome.statuses.get(&status).copied().unwrap_or_default();
    let others = outcome.orders - count(201) - count(202);
    let millis = |share: f64| format!("{} ms", number(outcome.percentile(share).as_secs_f64() * 1000.0));
    let in_time = 100.0 * outcome.confirmed_in_time as f64 / outcome.orders.max(1) as f64;
    vec![
        name.to_owned(),
        number(rate),
        format!("{in_time:.1} %"),
        count(202).to_string(),
        others.to_string(),
        millis(0.5),
        millis(0.99),
        number(outcome.contention.conflicts as f64),
        number(outcome.contention.throttled as f64),
    ]
}
