//! The metrics that the functions write: which events they count, how often, and with
//! which dimensions. `docs/metrics.md` lists them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chassis::{
    clock::Clock,
    metric::{Metric, MetricUnit, Metrics, NAMESPACE, Start},
    service_client::CallTrouble,
};
use http::StatusCode;
use in_process_tests::{
    Caller, World,
    cloud::HostFault,
    cloudwatch::{Datapoint, datapoints},
    generated_region,
    shop::order_request,
    world::email_feedback,
};
use jiff::Timestamp;
use notifications::{
    message_holder::HeldMessage,
    service::{FeedbackWork, MessageWork},
};
use orders::{
    domain::CancellationReason,
    metrics::{FoundMismatches, MismatchesOfKind, OrderWork, Sweep},
    reconciliation::mismatch::MismatchKind,
};
use payments::service::PaymentWork;
use serde_json::json;
use strum::VariantNames;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
const BEGIN: &str = "<!-- The following table is generated from the code. -->\n\n";
const END: &str = "\n<!-- The generated table ends here. -->\n";
/// The price of a metric for a month, in cents. Each combination of the values of its
/// dimensions is a metric. <https://aws.amazon.com/cloudwatch/pricing/>
const CENTS: usize = 30;

/// All units of work, each with the functions that write it.
const UNITS: &[(&[Metric], &[&str])] = &[
    (OrderWork::ALL, &["orders", "order-worker"]),
    (Sweep::ALL, &["order-worker"]),
    (FoundMismatches::ALL, &["order-worker"]),
    (MismatchesOfKind::ALL, &["order-worker"]),
    (PaymentWork::ALL, &["payments"]),
    (MessageWork::ALL, &["notifications"]),
    (HeldMessage::ALL, &["notifications"]),
    (FeedbackWork::ALL, &["notifications"]),
    (CallTrouble::ALL, &["orders", "order-worker"]),
    (Start::ALL, &["users", "products", "orders", "order-worker", "payments", "notifications"]),
];

/// The values that a dimension may have.
fn values_of(dimension: &str) -> &'static [&'static str] {
    match dimension {
        "Stack" => &["local"],
        "Reason" => CancellationReason::VARIANTS,
        // Each currency in which the shop has prices. The document counts one.
        "Currency" => &["USD"],
        "Result" => &["authorised", "declined", "captured", "capture_refused", "voided", "refunded"],
        "Kind" => MismatchKind::VARIANTS,
        "Channel" => &["email", "sms"],
        "Bounce" => &["permanent", "transient"],
        "Dependency" => &["users", "products", "payments"],
        "FunctionName" => &["users", "products", "orders", "order-worker", "payments", "notifications"],
        other => panic!("{other} is not a known dimension"),
    }
}

/// The results of a message, which share the name of their dimension with the results of
/// a payment.
const MESSAGE_RESULTS: [&str; 3] = ["sent", "refused", "failed"];

fn combinations(metric: &Metric) -> usize {
    if metric.name == "Notifications" {
        return values_of("Channel").len() * MESSAGE_RESULTS.len();
    }
    metric.dimensions.iter().map(|dimension| values_of(dimension).len()).product()
}

fn declared() -> impl Iterator<Item = (&'static Metric, &'static [&'static str])> {
    UNITS.iter().flat_map(|(metrics, functions)| metrics.iter().map(move |metric| (metric, *functions)))
}

fn dollars(combinations: usize) -> String {
    let cents = combinations * CENTS;
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// The table of all metrics, in Markdown.
fn table() -> String {
    let mut text =
        "| metric | unit | dimensions | written by | $ a month | what it says |\n|---|---|---|---|---|---|\n"
            .to_owned();
    let mut all = 0;
    for (metric, functions) in declared() {
        let unit = match metric.unit {
            MetricUnit::Count => "count",
            MetricUnit::Milliseconds => "ms",
            MetricUnit::Seconds => "s",
        };
        let dimensions: Vec<_> = metric.dimensions.iter().map(|name| format!("`{name}`")).collect();
        let by = if functions.len() == 6 { "all functions".to_owned() } else { functions.join(", ") };
        let count = combinations(metric);
        all += count;
        let (dimensions, price, meaning) = (dimensions.join(", "), dollars(count), metric.meaning.trim());
        text += &format!("| `{}` | {unit} | {dimensions} | {by} | {price} | {meaning} |\n", metric.name);
    }
    text += &format!(
        "| **all** | | | | **{}** | {all} metrics, if each has every value of its dimensions |\n",
        dollars(all)
    );
    text
}

#[test]
fn the_document_lists_the_metrics_that_the_code_declares() {
    generated_region::check(DOCUMENT, (BEGIN, END), &table(), "metrics");
}

#[test]
fn no_two_metrics_have_one_name() {
    let names: BTreeSet<_> = declared().map(|(metric, _)| metric.name).collect();
    assert_eq!(names.len(), declared().count());
}

/// A shop with one customer and one product, on Tokio's clock.
struct Shop {
    world: World,
    ada: Caller,
    teapot: String,
}

impl Shop {
    async fn open() -> Self {
        fastrand::seed(7);
        let world = World::start_at(Clock::tokio(Timestamp::from_second(1_800_000_000).unwrap())).await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 100).await;
        Self { world, ada, teapot }
    }

    async fn place(&self, payment: &str, quantity: u32, key: &str) -> in_process_tests::Answer {
        self.world.place(&self.ada, order_request(&[(&self.teapot, quantity)], payment), key).await
    }

    /// The sums of all metrics so far, by name and the values of the dimensions besides
    /// the stack.
    fn sums(&self) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for point in self.points() {
            let labels: Vec<_> = point.dimensions.iter().filter(|(name, _)| *name != "Stack").collect();
            let labels: Vec<_> = labels.into_iter().map(|(_, value)| value.as_str()).collect();
            *sums.entry([&[point.metric.as_str()], &labels[..]].concat().join(" ")).or_insert(0.0) += point.value;
        }
        sums
    }

    fn points(&self) -> Vec<Datapoint> {
        datapoints(&self.world.cloud.metric_lines())
    }

    /// Asserts that the counts with these names have these sums, and returns all sums.
    #[track_caller]
    fn expect(&self, expected: &[(&str, f64)]) -> BTreeMap<String, f64> {
        let sums = self.sums();
        for (name, sum) in expected {
            assert_eq!(sums.get(*name).copied().unwrap_or_default(), *sum, "{name}: {sums:#?}");
        }
        sums
    }
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_order_is_counted_once_in_each_metric_that_concerns_it() {
    let shop = Shop::open().await;
    shop.place("tok_accepted", 2, "key-1").await.expect(StatusCode::CREATED);
    shop.world.settle().await;
    shop.world.deliver_messages().await;
    // Everything happens once more: the request, the worker's run and the sweep.
    shop.place("tok_accepted", 2, "key-1").await.expect(StatusCode::CREATED);
    shop.world.sweep().await;
    shop.world.settle().await;
    let sums = shop.expect(&[
        ("OrdersPlaced", 1.0),
        ("OrderReplays", 1.0),
        ("OrdersConfirmed", 1.0),
        ("OrdersDone", 1.0),
        ("OrdersRecovered", 0.0),
        ("Revenue USD", 3998.0),
        ("Payments authorised", 1.0),
        ("Payments captured", 1.0),
        ("Notifications email sent", 1.0),
        ("Notifications sms sent", 1.0),
    ]);
    assert!(!sums.keys().any(|name| name.starts_with("OrdersCancelled") || name == "OrdersFailed"), "{sums:#?}");
}

/// Logs cost money, and so the work of an invocation on an order is one line, and not a
/// line for each metric.
#[tokio::test(start_paused = true)]
async fn an_invocation_writes_one_line_for_an_order() {
    let shop = Shop::open().await;
    shop.place("tok_declined", 1, "key-1").await.expect(StatusCode::PAYMENT_REQUIRED);
    shop.place("tok_accepted", 1, "key-2").await.expect(StatusCode::CREATED);
    shop.world.settle().await;
    let lines = shop.world.cloud.metric_lines();
    let of = |function: &str| lines.iter().filter(|line| line.function == function).count();
    assert_eq!((of("orders"), of("order-worker")), (2, 1), "{lines:#?}");
    // An order that is done needs four lines besides those of its messages.
    let bytes: usize = lines.iter().map(|line| line.text.len()).sum();
    assert!(bytes < 2000, "{bytes}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_order_is_counted_by_its_reason_and_its_refund_once_it_is_undone() {
    let shop = Shop::open().await;
    shop.place("tok_declined", 1, "key-1").await.expect(StatusCode::PAYMENT_REQUIRED);
    shop.place("tok_accepted", 101, "key-2").await.expect(StatusCode::CONFLICT);
    let order = shop.place("tok_accepted", 1, "key-3").await.expect(StatusCode::CREATED);
    shop.world.settle().await;
    shop.world.cancel(&shop.ada, &order).await.expect(StatusCode::OK);
    shop.world.cancel(&shop.ada, &order).await.expect(StatusCode::OK);
    shop.expect(&[
        ("OrdersPlaced", 3.0),
        ("OrdersCancelled payment_declined", 1.0),
        ("OrdersCancelled out_of_stock", 1.0),
        ("OrdersCancelled customer_request", 1.0),
        ("OrdersFailed", 1.0),
        ("StockOuts", 1.0),
        ("Revenue USD", 1999.0),
        ("Refunds USD", 1999.0),
        ("Payments declined", 1.0),
        ("Payments refunded", 1.0),
    ]);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_the_worker_finishes_for_a_request_is_recovered_once_and_its_age_is_reported_until_then() {
    let shop = Shop::open().await;
    shop.world.cloud.inject_fault("payments.internal", HostFault::Silent);
    for n in 0..3 {
        shop.place("tok_accepted", 1, &format!("key-{n}")).await.expect(StatusCode::ACCEPTED);
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    shop.world.sweep().await;
    let oldest = |shop: &Shop| shop.points().into_iter().rfind(|it| it.metric == "OldestOpenOrder");
    // The sweep makes several passes, which wait for the dead service.
    assert!((60.0..180.0).contains(&oldest(&shop).unwrap().value), "{:?}", oldest(&shop));
    let sums = shop.expect(&[("OrdersPlaced", 3.0), ("OrdersConfirmed", 0.0), ("OrdersRecovered", 0.0)]);
    assert!(sums["CallRetries payments"] >= 1.0 && sums["BreakerOpenings payments"] >= 1.0, "{sums:#?}");
    shop.world.cloud.bring_back();
    shop.world.pass_minutes(4).await;
    assert_eq!(shop.world.orders_in_state("DONE") + shop.world.orders_in_state("CANCELLED"), 3);
    shop.expect(&[("OrdersRecovered", 3.0)]);
    assert_eq!(oldest(&shop).unwrap().value, 0.0);
}

#[tokio::test(start_paused = true)]
async fn the_duration_of_each_phase_is_measured_also_of_an_order_that_the_request_leaves_open() {
    let shop = Shop::open().await;
    shop.world.cloud.inject_fault("payments.internal", HostFault::Slow(Duration::from_secs(2)));
    shop.place("tok_accepted", 1, "key-1").await.expect(StatusCode::CREATED);
    shop.world.settle().await;
    let value = |shop: &Shop, name: &str| shop.points().into_iter().find(|it| it.metric == name).map(|it| it.value);
    for phase in ["PlaceTime", "DecisionTime", "CompletionTime"] {
        assert!((2000.0..2100.0).contains(&value(&shop, phase).unwrap()), "{phase}: {:?}", value(&shop, phase));
    }
    let shop = Shop::open().await;
    shop.world.cloud.inject_fault("products.internal", HostFault::Silent);
    shop.place("tok_accepted", 1, "key-1").await.expect(StatusCode::ACCEPTED);
    assert!(value(&shop, "PlaceTime").unwrap() >= 4000.0, "{:?}", value(&shop, "PlaceTime"));
}

/// Plays every situation that a metric counts, and compares the lines with the
/// declarations.
#[tokio::test(start_paused = true)]
async fn every_declared_metric_is_written_by_its_functions_and_nothing_else_is_written() {
    let mut lines = Vec::new();
    let shop = Shop::open().await;
    // Confirmed, repeated, refused, out of stock, and cancelled when it was done.
    let order = shop.place("tok_accepted", 1, "key-1").await.expect(StatusCode::CREATED);
    shop.place("tok_accepted", 1, "key-1").await.expect(StatusCode::CREATED);
    shop.place("tok_declined", 1, "key-2").await;
    shop.place("tok_accepted", 101, "key-3").await;
    shop.world.settle().await;
    shop.world.cancel(&shop.ada, &order).await.expect(StatusCode::OK);
    shop.world.cloud.refuse_texts("InvalidParameter");
    shop.world.deliver_messages().await;
    // SES reports that the e-mails were not welcome. The next one is not sent.
    for report in [
        email_feedback("Email Bounced", &shop.world.cloud.mails()[0]),
        email_feedback("Email Complaint Received", &shop.world.cloud.mails()[0]),
    ] {
        shop.world.cloud.put_message(report.to_string());
    }
    shop.world.deliver_messages().await;
    shop.place("tok_accepted", 1, "key-4").await.expect(StatusCode::CREATED);
    shop.world.settle().await;
    shop.world.deliver_messages().await;
    lines.extend(shop.world.cloud.metric_lines());

    // A dead service, and then a sweep that finishes the orders.
    let shop = Shop::open().await;
    shop.world.cloud.inject_fault("payments.internal", HostFault::Silent);
    for n in 0..3 {
        shop.place("tok_accepted", 1, &format!("key-{n}")).await.expect(StatusCode::ACCEPTED);
    }
    shop.world.cloud.bring_back();
    shop.world.cloud.inject_fault("products.internal", HostFault::Answered(429, "{}"));
    shop.place("tok_accepted", 1, "key-4").await.expect(StatusCode::ACCEPTED);
    shop.world.cloud.bring_back();
    shop.world.pass_minutes(4).await;
    // SES does not answer, so nobody knows whether it has sent the message.
    shop.place("tok_accepted", 1, "key-5").await.expect(StatusCode::CREATED);
    shop.world.cloud.inject_fault("email", HostFault::Silent);
    shop.world.pass_minutes(1).await;
    shop.world.cloud.bring_back();
    shop.world.pass_minutes(3).await;
    // A product whose stock does not add up.
    let shard = shop.world.cloud.scan("ProductsTable").into_iter().find(|item| item["sk"]["S"] == "STOCK");
    let mut wrong = shard.expect("stock");
    wrong["available"] = serde_json::json!({ "N": "1" });
    shop.world.cloud.put_item("ProductsTable", wrong);
    shop.world.reconcile().await;
    lines.extend(shop.world.cloud.metric_lines());

    // Everything is paused.
    let shop = Shop::open().await;
    shop.place("tok_accepted", 1, "key-1").await.expect(StatusCode::CREATED);
    shop.world.settle().await;
    for part in ["orders", "messages"] {
        let body = json!({ "paused": true, "reason": "A trial." });
        shop.world.post(&Caller::admin(), &format!("/pauses/{part}"), body).await.expect(StatusCode::OK);
    }
    shop.place("tok_accepted", 1, "key-2").await.expect_problem(503, "orders_paused");
    shop.world.deliver_messages().await;
    lines.extend(shop.world.cloud.metric_lines());

    let declared: BTreeMap<_, _> = declared().map(|(metric, functions)| (metric.name, (metric, functions))).collect();
    let mut seen = BTreeSet::new();
    for line in &lines {
        for point in datapoints(std::slice::from_ref(line)) {
            let Some((metric, functions)) = declared.get(point.metric.as_str()) else {
                panic!("{} is not declared", point.metric);
            };
            assert_eq!(point.namespace, NAMESPACE);
            assert!(functions.contains(&line.function), "{} is written by {}", metric.name, line.function);
            let names: BTreeSet<_> = point.dimensions.keys().map(String::as_str).collect();
            assert_eq!(names, metric.dimensions.iter().copied().collect(), "{}", metric.name);
            for (name, value) in &point.dimensions {
                let known = values_of(name).contains(&value.as_str());
                let is_result = metric.name == "Notifications" && MESSAGE_RESULTS.contains(&value.as_str());
                assert!(known || is_result, "{} has the {name} {value}", metric.name);
            }
            seen.insert(point.metric);
        }
    }
    // `function::start` writes this one, and here no function starts in its own process.
    let elsewhere = ["ColdStarts"];
    let missing: BTreeSet<_> = declared.into_keys().filter(|name| !seen.contains(*name)).collect();
    assert_eq!(missing, BTreeSet::from(elsewhere));
}
