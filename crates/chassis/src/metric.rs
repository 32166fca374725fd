//! Business metrics in CloudWatch's embedded metric format: a log line that
//! CloudWatch turns into a metric, without a call in the request's path.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::{env, sync::LazyLock};

use serde_json::json;

/// The namespace of every metric of this project.
pub const NAMESPACE: &str = "Holdfast";

/// The dimension of every metric: the function's name. Without this dimension,
/// CloudWatch would add up the metrics of two stacks in one account.
pub const DIMENSION: &str = "FunctionName";

/// The function's name. The variable that holds it is set by Lambda itself, so
/// no function declares the variable in its configuration.
static FUNCTION: LazyLock<String> = LazyLock::new(|| function(env::var("AWS_LAMBDA_FUNCTION_NAME").ok()));

/// Writes one value of the metric `name` to the log.
pub fn count(name: &str, value: u64) {
    println!("{}", line(&FUNCTION, name, value, jiff::Timestamp::now().as_millisecond()));
}

fn function(name: Option<String>) -> String {
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "local".to_owned())
}

fn line(function: &str, name: &str, value: u64, at_millis: i64) -> String {
    json!({
        "_aws": {
            "Timestamp": at_millis,
            "CloudWatchMetrics": [
                { "Namespace": NAMESPACE, "Dimensions": [[DIMENSION]], "Metrics": [{ "Name": name, "Unit": "Count" }] },
            ],
        },
        DIMENSION: function,
        name: value,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_count_is_a_document_that_names_its_metric_and_the_function() {
        let line: serde_json::Value = serde_json::from_str(&super::line("worker", "OrdersOverdue", 3, 1)).unwrap();
        assert_eq!(line["OrdersOverdue"], 3);
        assert_eq!(line["FunctionName"], "worker");
        let declared = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(declared["Metrics"][0]["Name"], "OrdersOverdue");
        assert_eq!(declared["Dimensions"], serde_json::json!([["FunctionName"]]));
    }

    #[test]
    fn outside_lambda_the_name_of_a_function_is_local() {
        assert_eq!(super::function(None), "local");
        assert_eq!(super::function(Some(String::new())), "local");
        assert_eq!(super::function(Some("worker".to_owned())), "worker");
    }
}
