//! Business metrics in CloudWatch's embedded metric format: a log line that
//! CloudWatch turns into a metric, without a call in the request's path.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use serde_json::json;

/// The namespace of every metric of this project.
pub const NAMESPACE: &str = "Holdfast";

/// Emits one count.
pub fn count(name: &str, value: u64) {
    println!("{}", line(name, value, jiff::Timestamp::now().as_millisecond()));
}

fn line(name: &str, value: u64, at_millis: i64) -> String {
    json!({
        "_aws": {
            "Timestamp": at_millis,
            "CloudWatchMetrics": [
                { "Namespace": NAMESPACE, "Dimensions": [[]], "Metrics": [{ "Name": name, "Unit": "Count" }] },
            ],
        },
        name: value,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_count_is_a_document_that_names_its_metric() {
        let line: serde_json::Value = serde_json::from_str(&super::line("OrdersOverdue", 3, 1)).unwrap();
        assert_eq!(line["OrdersOverdue"], 3);
        assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Metrics"][0]["Name"], "OrdersOverdue");
    }
}
