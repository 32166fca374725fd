//! Every alarm of the deployed stack that watches a single metric fires when the metric
//! is bad. The emulator knows no metric math;
//! `alarms.rs` of the in-process tests evaluates the other alarms.

use serde_json::{Value, json};
use stack_tests::Stack;

/// The alarms of the stack. (The emulator has no other stack.)
async fn alarms(stack: &Stack) -> Vec<Value> {
    let alarms = stack.aws(&["cloudwatch", "describe-alarms", "--output", "json"]).await;
    let mut alarms: Value = serde_json::from_str(&alarms).expect("alarms in JSON");
    match alarms["MetricAlarms"].take() {
        Value::Array(alarms) => alarms,
        other => panic!("{other} is no list of alarms"),
    }
}

/// Reports a value of the metric that an alarm watches, with exactly the alarm's
/// dimensions.
async fn report(stack: &Stack, alarm: &Value, value: f64) {
    let datum = json!([{
        "MetricName": alarm["MetricName"],
        "Dimensions": alarm["Dimensions"],
        "Value": value,
    }]);
    let namespace = alarm["Namespace"].as_str().expect("a namespace");
    let (namespace, datum) = (["--namespace", namespace], datum.to_string());
    stack.aws(&[&["cloudwatch", "put-metric-data"], &namespace[..], &["--metric-data", &datum]].concat()).await;
}

async fn state(stack: &Stack, alarm: &Value) -> String {
    let all = alarms(stack).await;
    let found = all.iter().find(|other| other["AlarmName"] == alarm["AlarmName"]).expect("the alarm");
    found["StateValue"].as_str().expect("a state").to_owned()
}

#[tokio::test]
async fn every_alarm_with_a_single_metric_fires() {
    let stack = Stack::deployed();
    let alarms = alarms(&stack).await;
    assert!(alarms.len() >= 16, "{alarms:#?}");
    for alarm in &alarms {
        let threshold = alarm["Threshold"].as_f64().expect("a threshold");
        // The largest value decides a maximum and a percentile, and adds to a sum.
        report(&stack, alarm, threshold * 2.0 + 1.0).await;
        let name = alarm["AlarmName"].as_str().expect("a name");
        assert_eq!(state(&stack, alarm).await, "ALARM", "{name}");
        let description = alarm["AlarmDescription"].as_str().expect("a description");
        assert!(description.contains("docs/runbook.md#"), "{name}: {description}");
    }
}

#[tokio::test]
async fn both_dashboards_exist() {
    let stack = Stack::deployed();
    let dashboards = stack.aws(&["cloudwatch", "list-dashboards", "--output", "json"]).await;
    for name in ["holdfast-business", "holdfast-services"] {
        assert!(dashboards.contains(name), "{dashboards}");
        let get = ["cloudwatch", "get-dashboard", "--dashboard-name", name, "--query", "DashboardBody"];
        let body = stack.aws(&[&get[..], &["--output", "text"]].concat()).await;
        let body: Value = serde_json::from_str(&body).expect("a body in JSON");
        assert!(body["widgets"].as_array().is_some_and(|widgets| widgets.len() > 8), "{body}");
    }
}
