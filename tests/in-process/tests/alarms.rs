//! Each alarm of the template rings in the situation for which it was made, and stays
//! silent while the shop works.
//!
//! The alarms on the shop's own metrics are evaluated on the lines that the functions
//! write while the situation is played. The alarms on AWS's metrics get datapoints as
//! AWS would report them. `tests/stack/tests/deployed_alarms.rs` fires on the emulator all alarms
//! that the emulator supports.

use std::{collections::BTreeSet, time::Duration};

use chassis::{
    clock::Clock,
    metric::{Metric, Metrics, NAMESPACE, Start},
    service_client::CallTrouble,
};
use http::StatusCode;
use in_process_tests::{
    Caller, World,
    cloud::HostFault,
    cloudwatch::{Datapoint, datapoints, dimension_names, dimensions, metrics_of, metrics_of_dashboard, rings},
    shop::order_request,
    template::{Template, list},
};
use jiff::Timestamp;
use notifications::{
    message_holder::HeldMessage,
    service::{FeedbackWork, MessageWork},
};
use orders::metrics::{FoundMismatches, MismatchesOfKind, OrderWork, Sweep};
use payments::service::PaymentWork;
use serde_json::{Value, json};
use tokio::time::Instant;

const OWN: &[&[Metric]] = &[
    OrderWork::ALL,
    Sweep::ALL,
    FoundMismatches::ALL,
    MismatchesOfKind::ALL,
    PaymentWork::ALL,
    MessageWork::ALL,
    HeldMessage::ALL,
    FeedbackWork::ALL,
    CallTrouble::ALL,
    Start::ALL,
];

/// The metrics of AWS that the template uses, each with the sets of dimensions under
/// which AWS reports it.
/// <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html>
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-metrics-and-dimensions.html>
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html>
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/metrics-dimensions.html>
/// <https://docs.aws.amazon.com/ses/latest/dg/reputationdashboard-cloudwatch-alarm.html>
const OF_AWS: &[(&str, &str, &[&[&str]])] = &[
    ("AWS/ApiGateway", "4XXError", &[&["ApiName"]]),
    ("AWS/ApiGateway", "5XXError", &[&["ApiName"]]),
    ("AWS/ApiGateway", "Count", &[&["ApiName"]]),
    ("AWS/ApiGateway", "Latency", &[&["ApiName"]]),
    ("AWS/DynamoDB", "ReadThrottleEvents", &[&["TableName"]]),
    ("AWS/DynamoDB", "WriteThrottleEvents", &[&["TableName"]]),
    ("AWS/Lambda", "ConcurrentExecutions", &[&["FunctionName"]]),
    ("AWS/Lambda", "Duration", &[&["FunctionName"], &["FunctionName", "Resource"]]),
    ("AWS/Lambda", "Errors", &[&["FunctionName"], &["FunctionName", "Resource"]]),
    ("AWS/Lambda", "IteratorAge", &[&["FunctionName"], &["FunctionName", "Resource"]]),
    ("AWS/Lambda", "Throttles", &[&["FunctionName"], &["FunctionName", "Resource"]]),
    ("AWS/Lambda", "Url5xxCount", &[&["FunctionName"], &["FunctionName", "Resource"]]),
    ("AWS/SES", "Reputation.BounceRate", &[&[]]),
    ("AWS/SES", "Reputation.ComplaintRate", &[&[]]),
    ("AWS/SQS", "ApproximateAgeOfOldestMessage", &[&["QueueName"]]),
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible", &[&["QueueName"]]),
];

const MINUTE: Duration = Duration::from_secs(60);

fn alarm(template: &Template, id: &str) -> Value {
    template.get(&format!("Resources.{id}.Properties")).clone()
}

/// Asserts that the code, or AWS, reports this metric with exactly these dimensions.
#[track_caller]
fn expect_metric(place: &str, namespace: &str, name: &str, dimensions: &[String]) {
    let sorted = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let wanted: BTreeSet<_> = dimensions.iter().cloned().collect();
    let is_reported = if namespace == NAMESPACE {
        let mut own = OWN.iter().copied().flatten();
        own.any(|metric| metric.name == name && sorted(metric.dimensions) == wanted)
    } else {
        let mut sets = OF_AWS.iter().filter(|(of, known, _)| (*of, *known) == (namespace, name)).flat_map(|it| it.2);
        sets.any(|set| sorted(set) == wanted)
    };
    assert!(is_reported, "{place}: nobody reports {namespace} {name} with the dimensions {wanted:?}");
}

#[test]
fn an_alarm_watches_only_metrics_that_the_code_writes_or_aws_documents_with_their_dimensions() {
    let template = Template::read();
    for (id, alarm) in template.resources("AWS::CloudWatch::Alarm") {
        let metrics = metrics_of(&alarm["Properties"]);
        assert!(!metrics.is_empty(), "{id}");
        for metric in metrics {
            let text = |name: &str| metric[name].as_str().unwrap_or_default();
            expect_metric(id, text("Namespace"), text("MetricName"), &dimension_names(metric));
        }
    }
}

#[test]
fn an_expression_needs_what_emulators_do_not_have_and_so_its_alarm_exists_only_on_aws() {
    for (id, alarm) in Template::read().resources("AWS::CloudWatch::Alarm") {
        let has_expression = !alarm["Properties"]["Metrics"].is_null();
        assert_eq!(alarm["Condition"] == "IsAws", has_expression, "{id}");
    }
}

/// Every alarm has a test: here, or in `tests/stack/tests/deployed_alarms.rs`, which fires all
/// alarms with a single metric.
#[test]
fn every_alarm_with_an_expression_is_evaluated_by_a_test_of_this_file() {
    let source = include_str!("alarms.rs");
    for (id, alarm) in Template::read().resources("AWS::CloudWatch::Alarm") {
        let is_tested = source.contains(&format!("\"{id}\""));
        assert!(is_tested || alarm["Properties"]["Metrics"].is_null(), "{id}");
    }
}

/// A shop, and the time at which it opened.
struct Shop {
    world: World,
    ada: Caller,
    teapot: String,
    began: Instant,
    placed: u32,
}

impl Shop {
    async fn open() -> Self {
        fastrand::seed(7);
        let world = World::start_at(Clock::tokio(Timestamp::from_second(1_800_000_000).unwrap())).await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 1000).await;
        Self { world, ada, teapot, began: Instant::now(), placed: 0 }
    }

    async fn place(&mut self, payment: &str) -> StatusCode {
        self.placed += 1;
        let key = format!("key-{}", self.placed);
        self.world.place(&self.ada, order_request(&[(&self.teapot, 1)], payment), &key).await.status
    }

    /// Lets minutes pass. In each minute, customers place these orders, and the sweep, the
    /// stream and the queue do their work.
    async fn pass(&mut self, minutes: usize, payments: &[&str]) {
        for _ in 0..minutes {
            for payment in payments {
                self.place(payment).await;
            }
            self.world.pass_minutes(1).await;
        }
    }

    fn rings(&self, id: &str) -> bool {
        let data = datapoints(&self.world.cloud.metric_lines());
        rings(&alarm(&Template::read(), id), &data, self.began, Instant::now())
    }
}

#[tokio::test(start_paused = true)]
async fn the_alarm_on_failed_orders_rings_if_many_orders_fail_and_not_for_one_declined_card() {
    let mut shop = Shop::open().await;
    shop.pass(11, &["tok_accepted", "tok_declined"]).await;
    assert!(shop.rings("OrderFailuresAlarm"));

    // One order of nine fails.
    let mut shop = Shop::open().await;
    let mut payments = ["tok_accepted"; 9];
    payments[4] = "tok_declined";
    shop.pass(11, &payments).await;
    assert!(!shop.rings("OrderFailuresAlarm"));

    // In a quiet quarter of an hour, all orders fail.
    let mut shop = Shop::open().await;
    for _ in 0..4 {
        shop.place("tok_declined").await;
        shop.pass(4, &[]).await;
    }
    assert!(!shop.rings("OrderFailuresAlarm"));
}

#[tokio::test(start_paused = true)]
async fn the_alarm_on_failed_orders_rings_if_no_service_decides_the_orders() {
    let mut shop = Shop::open().await;
    shop.world.cloud.inject_fault("payments.internal", HostFault::Down);
    shop.pass(12, &["tok_accepted"; 3]).await;
    assert!(shop.rings("OrderFailuresAlarm"));
}

#[tokio::test(start_paused = true)]
async fn the_alarm_on_slow_orders_rings_if_the_payment_provider_is_slow() {
    let mut shop = Shop::open().await;
    shop.world.cloud.inject_fault("payments.internal", HostFault::Slow(Duration::from_secs(4)));
    shop.pass(16, &["tok_accepted"]).await;
    assert!(shop.rings("SlowOrdersAlarm"));

    let mut shop = Shop::open().await;
    shop.world.cloud.inject_fault("payments.internal", HostFault::Slow(Duration::from_secs(1)));
    shop.pass(16, &["tok_accepted"]).await;
    assert!(!shop.rings("SlowOrdersAlarm"));
}

#[tokio::test(start_paused = true)]
async fn the_alarm_on_overdue_orders_rings_if_an_order_stays_open_and_if_no_sweep_runs() {
    let mut shop = Shop::open().await;
    shop.place("tok_accepted").await;
    shop.world.cloud.inject_fault("payments.internal", HostFault::Down);
    shop.pass(14, &[]).await;
    assert!(!shop.rings("OrdersOverdueAlarm"));
    shop.pass(16, &[]).await;
    assert!(shop.rings("OrdersOverdueAlarm"));

    let mut shop = Shop::open().await;
    shop.pass(20, &["tok_accepted", "tok_declined"]).await;
    assert!(!shop.rings("OrdersOverdueAlarm"));
    // The schedule has stopped: no sweep runs.
    tokio::time::advance(MINUTE * 11).await;
    assert!(shop.rings("OrdersOverdueAlarm"));
}

#[tokio::test(start_paused = true)]
async fn the_alarm_on_mismatches_rings_if_one_reconciliation_of_a_day_has_found_one() {
    for is_wrong in [false, true] {
        let mut shop = Shop::open().await;
        shop.pass(2, &["tok_accepted"]).await;
        for hour in 0..25 {
            let shards = shop.world.cloud.scan("ProductsTable").into_iter().filter(|item| item["sk"]["S"] == "STOCK");
            let right: Vec<_> = shards.collect();
            if is_wrong && hour == 5 {
                let mut wrong = right[0].clone();
                wrong["available"] = json!({ "N": "1" });
                shop.world.cloud.put_item("ProductsTable", wrong);
            }
            let report = shop.world.invoke("order-worker", r#"{"reconcile":"recent"}"#).await.unwrap();
            assert_eq!(list(&report["mismatches"]).count(), usize::from(is_wrong && hour == 5));
            shop.world.cloud.put_item("ProductsTable", right[0].clone());
            tokio::time::advance(MINUTE * 60).await;
        }
        assert_eq!(shop.rings("MismatchesAlarm"), is_wrong);
    }
}

/// Datapoints of a metric of AWS: one each minute, with this value.
fn each_minute(metric: &Value, began: Instant, minutes: u32, value: f64) -> Vec<Datapoint> {
    let point = |minute| Datapoint {
        namespace: metric["Namespace"].as_str().unwrap().to_owned(),
        metric: metric["MetricName"].as_str().unwrap().to_owned(),
        dimensions: dimensions(metric),
        at: began + MINUTE * minute,
        value,
    };
    (0..minutes).map(point).collect()
}

/// The alarms on AWS's metrics, each with a value per minute that is normal, and a value
/// at which the alarm rings.
#[tokio::test(start_paused = true)]
async fn the_alarms_on_metrics_of_aws_ring_above_what_is_normal() {
    let template = Template::read();
    let began = Instant::now();
    let mut seen = BTreeSet::new();
    for (id, resource) in template.resources("AWS::CloudWatch::Alarm") {
        let alarm = &resource["Properties"];
        let metric = metrics_of(alarm)[0];
        let (normal, bad) = match metric["MetricName"].as_str().unwrap() {
            "Errors" => (0.0, 1.0),
            "Url5xxCount" => (0.3, 1.0),
            "5XXError" => (1.0, 2.0),
            "ApproximateAgeOfOldestMessage" => (800.0, 901.0),
            "ApproximateNumberOfMessagesVisible" => (0.0, 1.0),
            "IteratorAge" => (500.0, 45_000.0),
            "Throttles" => (2.0, 3.0),
            // The rates from which SES reviews an account, see the template.
            "Reputation.BounceRate" => (0.049, 0.05),
            "Reputation.ComplaintRate" => (0.0009, 0.001),
            _ => continue,
        };
        let ring = |value| rings(alarm, &each_minute(metric, began, 60, value), began, began + MINUTE * 60);
        assert_eq!((ring(normal), ring(bad)), (false, true), "{id}");
        assert!(!rings(alarm, &[], began, began + MINUTE * 60), "{id} rings without data");
        seen.insert(id);
    }
    for id in ["ThrottlesAlarm", "StreamBehindAlarm", "EmailBounceRateAlarm", "EmailComplaintRateAlarm"] {
        assert!(seen.contains(id), "{id}: {seen:?}");
    }
    // Each function counts in the sum of the throttled calls.
    let throttles = &template.get("Resources.ThrottlesAlarm.Properties");
    let functions: BTreeSet<_> =
        metrics_of(throttles).iter().map(|it| it["Dimensions"][0]["Value"]["Ref"].as_str().unwrap()).collect();
    assert_eq!(functions, template.functions().map(|function| function.id).collect());
}

/// The bodies of the dashboards, by the name of the resource. References have
/// placeholder values.
fn dashboards() -> Vec<(String, Value)> {
    let template = Template::read();
    let all = template.resources("AWS::CloudWatch::Dashboard").map(|(id, resource)| {
        let body = resource["Properties"]["DashboardBody"]["Fn::Sub"].as_str().expect("a body with references");
        let mut text = String::new();
        for (n, part) in body.split("${").enumerate() {
            text += if n == 0 { part } else { part.split_once('}').expect("the end of a reference").1 };
        }
        (id.to_owned(), serde_json::from_str(&text).unwrap_or_else(|error| panic!("{id}: {error}")))
    });
    all.collect()
}

#[test]
fn a_dashboard_shows_only_metrics_that_the_code_writes_or_aws_documents_with_their_dimensions() {
    let dashboards = dashboards();
    assert_eq!(dashboards.len(), 2);
    for (id, body) in &dashboards {
        let metrics = metrics_of_dashboard(body);
        assert!(metrics.len() > 10, "{id}");
        for (namespace, name, dimensions) in metrics {
            expect_metric(id, &namespace, &name, &dimensions);
        }
    }
    // A metric that nobody sees is not worth its price.
    let shown: BTreeSet<_> = dashboards.iter().flat_map(|(_, body)| metrics_of_dashboard(body)).collect();
    let searched: String = dashboards.iter().map(|(_, body)| body.to_string()).collect();
    for metric in OWN.iter().copied().flatten() {
        let is_shown = shown.iter().any(|(_, name, _)| name == metric.name);
        let is_searched = searched.contains(&format!(r#"MetricName=\"{}\""#, metric.name));
        assert!(is_shown || is_searched, "no dashboard shows {}", metric.name);
    }
}

#[test]
fn the_widgets_of_a_dashboard_have_titles_and_do_not_cover_each_other() {
    for (id, body) in dashboards() {
        let mut cells = BTreeSet::new();
        for widget in list(&body["widgets"]) {
            let number = |name: &str| widget[name].as_u64().unwrap_or_else(|| panic!("{id}: {widget} has no {name}"));
            let (x, y, width, height) = (number("x"), number("y"), number("width"), number("height"));
            assert!(width > 0 && height > 0 && x + width <= 24, "{id}: {widget}");
            for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
                assert!(cells.insert(cell), "{id}: {widget} covers another widget");
            }
            let properties = &widget["properties"];
            let is_text = widget["type"] == "text";
            assert!(is_text || properties["title"].as_str().is_some_and(|title| !title.is_empty()), "{id}: {widget}");
            assert!(is_text || !properties["region"].is_null() || widget["type"] == "alarm", "{id}: {widget}");
        }
    }
}

mod the_runbook {
    use super::*;

    const RUNBOOK: &str = include_str!("../../../docs/runbook.md");

    /// The names of the sections below "Alarms", as they stand in a link.
    fn entries() -> BTreeSet<String> {
        let (_, rest) = RUNBOOK.split_once("\n## Alarms\n").expect("a section on alarms");
        let section = rest.split("\n## ").next().unwrap();
        let titles = section.lines().filter_map(|line| line.strip_prefix("### "));
        titles.map(|title| title.to_lowercase().replace(' ', "-")).collect()
    }

    #[test]
    fn has_an_entry_for_each_alarm_and_an_alarm_for_each_entry() {
        let template = Template::read();
        let mut named = BTreeSet::new();
        for (id, alarm) in template.resources("AWS::CloudWatch::Alarm") {
            let description = alarm["Properties"]["AlarmDescription"].as_str().expect("a description");
            let entry = description.rsplit_once(" See docs/runbook.md#").unwrap_or_else(|| panic!("{id}")).1;
            named.insert(entry.to_owned());
        }
        assert_eq!(named, entries());
    }

    #[test]
    fn says_of_each_alarm_what_it_means_what_customers_see_how_to_look_what_to_do_and_when_it_is_over() {
        let (_, rest) = RUNBOOK.split_once("\n## Alarms\n").unwrap();
        for entry in rest.split("\n## ").next().unwrap().split("\n### ").skip(1) {
            for part in ["**Meaning**", "**Customers**", "**Look**", "**Do**", "**Over**"] {
                assert!(entry.contains(part), "{part} is missing in {entry}");
            }
        }
    }

    #[test]
    fn names_each_alarm_by_its_name_in_the_template() {
        for (id, _) in Template::read().resources("AWS::CloudWatch::Alarm") {
            assert!(RUNBOOK.contains(&format!("`{id}`")), "{id}");
        }
    }
}

#[test]
fn the_role_for_ci_may_create_dashboards() {
    let role = Template::read_from(".github/deploy-role.yaml");
    for action in ["cloudwatch:DeleteDashboards", "cloudwatch:GetDashboard", "cloudwatch:PutDashboard"] {
        let granted = role.statements().filter(|it| it.allows && it.actions.contains(&action));
        let dashboard = json!({
            "Fn::Sub": "arn:${AWS::Partition}:cloudwatch::${AWS::AccountId}:dashboard/holdfast-${Environment}-*",
        });
        let resources: Vec<_> = granted.flat_map(|statement| statement.resources).collect();
        assert!(resources.contains(&&dashboard), "{action}: {resources:?}");
    }
}
