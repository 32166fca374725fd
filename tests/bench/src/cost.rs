//! What a confirmed order costs, and what the shop costs while nobody orders.
//!
//! Everything is counted in one run of the real handlers: requests to API Gateway,
//! invocations and their durations, DynamoDB's units, requests to SQS, and bytes of logs.
//! The durations are those of the model of [`crate::throughput::TIMING`].

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chassis::metric::Metrics;
use http::StatusCode;
use in_process_tests::{
    World,
    cloud::{Capacity, MeteredRequest},
    cloudwatch::metrics_of,
    shop::order_request,
    template::Template,
    world::sqs_record,
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    fixture::Fixture,
    log_counter,
    original_flow::OriginalFlow,
    original_services,
    prices::{Kind, Prices, Usage},
    report::{BarSeries, Chart, ChartContent, Figure, Limit, Section, Table},
    table::{lines_of, number},
    throughput::TIMING,
    virtual_time,
};

pub const NAME: &str = "cost";
/// The numbers of lines of the measured orders.
const LINES: [usize; 2] = [1, 10];
/// The targets of what an order costs, over the original flow, for [`LINES`].
const TARGETS: [f64; 2] = [0.7, 0.5];
/// The most that an order may cost, over the original flow, for [`LINES`].
const LIMITS: [f64; 2] = [1.08, 0.5];
const MILLION: f64 = 1_000_000.0;

/// The processor's time of one invocation, on the share of a processor that Lambda gives
/// a function with 256 MB of memory. It is added to the time for which the invocation
/// waits.
const PROCESSOR_TIME: Duration = Duration::from_millis(2);
/// The bytes of the lines `START`, `END` and `REPORT` that Lambda writes for each
/// invocation by default.
const SYSTEM_LOG_BYTES: f64 = 270.0;
/// The memory of each of the original design's functions, in MB: the default of the
/// template.
const ORIGINAL_MEMORY: f64 = 256.0;
/// The table of the sandbox provider. It stands for another company's system, so it
/// costs the shop nothing.
const LEDGER: &str = "SandboxLedgerTable";
/// The kinds that an order causes, besides its messages.
const ORDER_KINDS: [Kind; 7] = [
    Kind::GatewayRequests,
    Kind::Invocations,
    Kind::GbSeconds,
    Kind::WriteUnits,
    Kind::ReadUnits,
    Kind::QueueRequests,
    Kind::LogBytes,
];
const MESSAGE_KINDS: [Kind; 2] = [Kind::Emails, Kind::TextMessages];

/// What an order used.
#[derive(Clone, Debug)]
pub struct OrderUsage {
    pub usage: Usage,
    /// The requests to DynamoDB, without those of the provider's ledger.
    pub requests: Vec<MeteredRequest>,
}

impl OrderUsage {
    /// The price of the order in dollars, without the messages to the customer.
    pub fn dollars(&self, prices: &Prices) -> f64 {
        ORDER_KINDS.iter().map(|kind| prices.dollars(*kind, self.usage.get(*kind))).sum()
    }
}

async fn metered_shop(lines: usize) -> Fixture {
    let fixture = Fixture::start(lines).await;
    fixture.world.cloud.start_metering();
    fixture.world.cloud.model_contention(TIMING);
    fixture
}

/// Places an order, and lets the worker and the notifier finish it. No other order is
/// placed meanwhile, so no batch has more than one order or message.
///
/// # Errors
///
/// If the order does not reach `DONE`.
pub fn of_order(lines: usize) -> Result<OrderUsage> {
    let template = Template::read();
    virtual_time::run(async {
        let Fixture { world, customer, products, .. } = metered_shop(lines).await;
        let lines: Vec<_> = products.iter().map(|product| (product.as_str(), 1)).collect();
        let (logged, before) = (log_counter::bytes() + metric_bytes(&world), world.cloud.ended_invocations().len());
        let answer = world.place(&customer, order_request(&lines, "tok_accepted"), "the-key").await;
        ensure!(answer.status == StatusCode::CREATED, "the order was answered with {}", answer.text);
        loop {
            let records = world.cloud.take_stream_records();
            if records.is_empty() {
                break;
            }
            for keys in records {
                let event = json!({ "Records": [{ "dynamodb": { "Keys": keys } }] });
                world.invoke("order-worker", &event.to_string()).await.map_err(anyhow::Error::from_boxed)?;
            }
        }
        ensure!(world.orders_in_state("DONE") == 1, "the order is not done");
        let messages = world.cloud.take_messages();
        for message in &messages {
            let event = json!({ "Records": [sqs_record("m-1", message)] });
            world.invoke_notifications(&event).await.map_err(anyhow::Error::from_boxed)?;
        }

        let mut usage = Usage::default();
        // Services call each other by function URLs, which have no fee for a request.
        usage.add(Kind::GatewayRequests, 1.0);
        for invocation in world.cloud.ended_invocations().split_off(before) {
            add_invocation(&mut usage, invocation.duration, memory(&template, invocation.function)?);
            usage.add(Kind::LogBytes, system_log_bytes(&template)?);
        }
        // Each message is sent, received and deleted by a request of its own.
        usage.add(Kind::QueueRequests, 3.0 * messages.len() as f64);
        usage.add(Kind::LogBytes, (log_counter::bytes() + metric_bytes(&world) - logged) as f64);
        usage.add(Kind::Emails, world.cloud.mails().len() as f64);
        usage.add(Kind::TextMessages, world.cloud.texts().len() as f64);
        let requests = add_requests(&mut usage, &world);
        Ok(OrderUsage { usage, requests })
    })
}

/// The bytes of the lines of metrics, which are lines of the log, too.
fn metric_bytes(world: &World) -> u64 {
    world.cloud.metric_lines().iter().map(|line| line.text.len() as u64 + 1).sum()
}

/// What an order of the original design's flow uses.
///
/// # Errors
///
/// If the order cannot be placed.
pub fn of_original_flow(lines: usize) -> Result<OrderUsage> {
    virtual_time::run(async {
        let Fixture { world, clock, customer, products } = metered_shop(lines).await;
        original_services::serve(&world, &products).await;
        let flow = OriginalFlow::new(&world, clock).await?;
        let before = world.cloud.ended_invocations().len();
        let internal_before = world.cloud.exchanges().len();
        let (placed, duration) = virtual_time::timed(flow.place(customer.id(), &products)).await;
        placed?;
        let mut usage = Usage::default();
        let internal = world.cloud.exchanges().len() - internal_before;
        usage.add(Kind::GatewayRequests, 1.0 + internal as f64);
        let mut add_invocation = |duration| {
            add_invocation(&mut usage, duration, ORIGINAL_MEMORY);
            usage.add(Kind::LogBytes, SYSTEM_LOG_BYTES);
        };
        add_invocation(duration);
        for invocation in world.cloud.ended_invocations().split_off(before) {
            add_invocation(invocation.duration);
        }
        // One event, and a function that sends the e-mail and the text message.
        add_invocation(TIMING.service * 2);
        usage.add(Kind::QueueRequests, 3.0);
        for kind in MESSAGE_KINDS {
            usage.add(kind, 1.0);
        }
        let requests = add_requests(&mut usage, &world);
        // The index that lists a customer's orders copies the whole order.
        let order = requests.iter().filter(|request| request.table == "OrdersTable");
        usage.add(Kind::WriteUnits, order.map(|request| request.table_write_units).sum());
        Ok(OrderUsage { usage, requests })
    })
}

fn add_invocation(usage: &mut Usage, waited: Duration, megabytes: f64) {
    // Lambda rounds the duration up to a millisecond.
    let billed = ((waited + PROCESSOR_TIME).as_secs_f64() * 1000.0).ceil() / 1000.0;
    usage.add(Kind::Invocations, 1.0);
    usage.add(Kind::GbSeconds, billed * megabytes / 1024.0);
}

/// The bytes that Lambda itself logs for a successful invocation of a function of the
/// template: none, if the template sets a level above `INFO`.
fn system_log_bytes(template: &Template) -> Result<f64> {
    let level = template.get("Parameters.SystemLogLevel.Default").as_str();
    let level = level.context("the template has no default of SystemLogLevel")?;
    Ok(if level == "WARN" { 0.0 } else { SYSTEM_LOG_BYTES })
}

fn add_requests(usage: &mut Usage, world: &World) -> Vec<MeteredRequest> {
    let requests: Vec<_> =
        world.cloud.metered_requests().into_iter().filter(|request| request.table != LEDGER).collect();
    let sum = Capacity::of(&requests);
    usage.add(Kind::WriteUnits, sum.write_units);
    usage.add(Kind::ReadUnits, sum.read_units);
    requests
}

/// The memory of a function in MB, as the template sets it.
fn memory(template: &Template, name: &str) -> Result<f64> {
    let function = template.functions().find(|function| function.name == name);
    let function = function.with_context(|| format!("the template has no function {name}"))?;
    let default = template.get("Globals.Function.MemorySize").as_f64();
    function.properties["MemorySize"].as_f64().or(default).context("a function has a memory size")
}

/// What the shop uses in a month of 30 days without any order. The quantities are those
/// of `docs/deploying.md`.
fn idle_month(template: &Template) -> Result<Usage> {
    const MINUTES: f64 = 30.0 * 24.0 * 60.0;
    const HOURS: f64 = 30.0 * 24.0;
    let mut usage = Usage::default();
    usage.add(Kind::ScheduleInvocations, MINUTES + HOURS);
    let mut sweep = Usage::default();
    add_invocation(&mut sweep, TIMING.read, memory(template, "order-worker")?);
    sweep.add(Kind::LogBytes, system_log_bytes(template)?);
    for kind in [Kind::Invocations, Kind::GbSeconds, Kind::LogBytes] {
        usage.add(kind, MINUTES * sweep.get(kind));
    }
    // A query of an empty partition that is not consistent costs half a unit.
    usage.add(Kind::ReadUnits, MINUTES * 0.5 * f64::from(orders::repository::SHARDS));
    // A reconciliation walks twice through the orders and the charges, each of which has as many partitions, and stores
    // how far it has come. It invokes the worker, products once and payments twice.
    usage.add(Kind::ReadUnits, HOURS * 4.0 * 0.5 * f64::from(orders::repository::SHARDS));
    usage.add(Kind::WriteUnits, HOURS);
    for kind in [Kind::Invocations, Kind::GbSeconds, Kind::LogBytes] {
        usage.add(kind, HOURS * 4.0 * sweep.get(kind));
    }
    // For each queue, Lambda keeps five long polls of 20 seconds open.
    let queues = template.functions().flat_map(|function| function.events("SQS").collect::<Vec<_>>()).count();
    usage.add(Kind::QueueRequests, queues as f64 * 5.0 * MINUTES * 3.0);
    // An alarm with an expression costs as much as an alarm for each of its metrics.
    let watched = template.resources("AWS::CloudWatch::Alarm").map(|(_, alarm)| metrics_of(&alarm["Properties"]).len());
    usage.add(Kind::Alarms, watched.sum::<usize>() as f64);
    // Only the metrics of the sweep and the reconciliation are reported all the time.
    let reported = orders::metrics::Sweep::ALL.len() + orders::metrics::FoundMismatches::ALL.len();
    usage.add(Kind::Metrics, reported as f64);
    Ok(usage)
}

/// The figures of an earlier commit, for [`LINES`].
#[derive(Deserialize)]
struct Before {
    date: String,
    commit: String,
    dollars_for_a_million_orders: [f64; 2],
    write_units: [f64; 2],
    gateway_requests: [f64; 2],
}

fn before_and_now(prices: &Prices, orders: &[OrderUsage]) -> Result<Table> {
    let before: Before = serde_json::from_str(include_str!("../before/cost.json"))?;
    let row = |name: &str, before: [f64; 2], now: &dyn Fn(&OrderUsage) -> f64| {
        let pairs = before.into_iter().zip(orders).flat_map(|(before, order)| [number(before), number(now(order))]);
        [name.to_owned()].into_iter().chain(pairs).collect()
    };
    let columns = |lines| [format!("{}, before", lines_of(lines)), format!("{}, now", lines_of(lines))];
    Ok(Table {
        title: format!("Before (commit {}, {}) and now", before.commit, before.date),
        columns: ["quantity".to_owned()].into_iter().chain(LINES.into_iter().flat_map(columns)).collect(),
        rows: vec![
            row("dollars for a million orders", before.dollars_for_a_million_orders, &|order| {
                MILLION * order.dollars(prices)
            }),
            row("write units", before.write_units, &|order| order.usage.get(Kind::WriteUnits)),
            row("requests to API Gateway", before.gateway_requests, &|order| order.usage.get(Kind::GatewayRequests)),
        ],
    })
}

pub fn measure() -> Result<Section> {
    let prices = Prices::read()?;
    let mut section = Section::new(NAME, "Cost of an order");
    let orders = LINES.map(of_order).into_iter().collect::<Result<Vec<_>>>()?;
    let originals = LINES.map(of_original_flow).into_iter().collect::<Result<Vec<_>>>()?;
    let all: Vec<_> = orders.iter().zip(&originals).flat_map(|(order, original)| [order, original]).collect();
    for (((lines, order), original), (target, limit)) in
        LINES.into_iter().zip(&orders).zip(&originals).zip(TARGETS.into_iter().zip(LIMITS))
    {
        let name = format!("a million orders of {}, without messages", lines_of(lines));
        let figure = Figure::new(name, MILLION * order.dollars(&prices), "$")
            .compared_with("original flow", MILLION * original.dollars(&prices));
        section.figures.push(figure.aiming_at(Limit::RatioAtMost(target)).within(Limit::RatioAtMost(limit)));
    }
    let columns = |first: &str| {
        let flows = |lines| [format!("{}, Holdfast", lines_of(lines)), format!("{}, original flow", lines_of(lines))];
        [first.to_owned()].into_iter().chain(LINES.into_iter().flat_map(flows)).collect()
    };
    let row = |name: &str, value: &dyn Fn(&OrderUsage) -> f64| {
        [name.to_owned()].into_iter().chain(all.iter().map(|order| number(value(order)))).collect()
    };
    section.tables.push(Table {
        title: "What one order uses".into(),
        columns: columns("quantity"),
        rows: ORDER_KINDS
            .iter()
            .chain(&MESSAGE_KINDS)
            .map(|kind| row(kind.name(), &|order| order.usage.get(*kind)))
            .collect(),
    });
    let dollars = |kind: Kind, order: &OrderUsage| MILLION * prices.dollars(kind, order.usage.get(kind));
    let mut rows: Vec<_> = ORDER_KINDS.iter().map(|kind| row(kind.name(), &|order| dollars(*kind, order))).collect();
    rows.push(row("**all, without messages**", &|order| MILLION * order.dollars(&prices)));
    rows.extend(MESSAGE_KINDS.iter().map(|kind| row(kind.name(), &|order| dollars(*kind, order))));
    section.tables.push(Table {
        title: format!("Dollars for a million orders (list prices of {}, {})", prices.date, prices.region),
        columns: columns("dollars"),
        rows,
    });
    section.tables.push(before_and_now(&prices, &orders)?);
    section.tables.push(units_of_tables(&orders));
    section.tables.push(idle_table(&prices)?);
    section.charts.push(Chart {
        file: NAME.into(),
        title: "Dollars for a million orders, without messages".into(),
        content: ChartContent::Bars {
            value_label: "dollars".into(),
            stacked: true,
            groups: columns("").split_off(1),
            series: SERVICES
                .iter()
                .map(|(name, kinds)| BarSeries {
                    name: (*name).to_owned(),
                    values: all.iter().map(|order| kinds.iter().map(|kind| dollars(*kind, order)).sum()).collect(),
                })
                .collect(),
        },
    });
    Ok(section)
}

/// The kinds of each AWS service.
const SERVICES: [(&str, &[Kind]); 5] = [
    ("API Gateway", &[Kind::GatewayRequests]),
    ("Lambda", &[Kind::Invocations, Kind::GbSeconds]),
    ("DynamoDB", &[Kind::WriteUnits, Kind::ReadUnits]),
    ("SQS", &[Kind::QueueRequests]),
    ("CloudWatch", &[Kind::LogBytes]),
];

/// The requests and units of each table, for each number of lines.
fn units_of_tables(orders: &[OrderUsage]) -> Table {
    let mut tables: Vec<_> = orders.iter().flat_map(|order| &order.requests).map(|r| r.table.clone()).collect();
    tables.sort_unstable();
    tables.dedup();
    let cells = |table: &str| {
        let of_order = |order: &OrderUsage| {
            let sum = Capacity::of(order.requests.iter().filter(|request| request.table == table));
            [number(sum.requests as f64), number(sum.write_units), number(sum.read_units)]
        };
        [table.to_owned()].into_iter().chain(orders.iter().flat_map(of_order)).collect()
    };
    let columns = |lines| ["requests", "write units", "read units"].map(|what| format!("{}: {what}", lines_of(lines)));
    Table {
        title: "Requests and units of each table, indexes included".into(),
        columns: ["table".to_owned()].into_iter().chain(LINES.into_iter().flat_map(columns)).collect(),
        rows: tables.iter().map(|table| cells(table)).collect(),
    }
}

fn idle_table(prices: &Prices) -> Result<Table> {
    let usage = idle_month(&Template::read())?;
    let kinds = [
        Kind::Invocations,
        Kind::GbSeconds,
        Kind::ReadUnits,
        Kind::QueueRequests,
        Kind::ScheduleInvocations,
        Kind::LogBytes,
        Kind::Alarms,
        Kind::Metrics,
    ];
    let row = |kind: &Kind| {
        let quantity = usage.get(*kind);
        vec![kind.name().to_owned(), number(quantity), format!("{:.2}", prices.dollars(*kind, quantity))]
    };
    let sum: f64 = kinds.iter().map(|kind| prices.dollars(*kind, usage.get(*kind))).sum();
    let mut rows: Vec<_> = kinds.iter().map(row).collect();
    rows.push(vec!["**all**".into(), String::new(), format!("{sum:.2}")]);
    Ok(Table {
        title: "A month of 30 days without orders".into(),
        columns: ["what", "quantity", "dollars"].map(Into::into).into(),
        rows,
    })
}
