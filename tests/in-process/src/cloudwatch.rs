//! What CloudWatch makes of the lines of metrics that the functions write, and of
//! the template's alarms: datapoints, statistics, metric math, and the state of an
//! alarm.
//!
//! The emulator makes no metrics of log lines, and knows no metric math. So this
//! module shows that the alarms ring. It supports what the template uses, and
//! panics at anything else.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use crate::{running_function::MetricLine, template::list};

/// The value of the dimension `Stack` outside Lambda.
const LOCAL: &str = "local";

/// The values of a metric's dimensions, by name.
pub type Dimensions = BTreeMap<String, String>;

/// One value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Datapoint {
    pub namespace: String,
    pub metric: String,
    pub dimensions: Dimensions,
    pub at: Instant,
    pub value: f64,
}

/// The datapoints that CloudWatch extracts from lines in the embedded metric
/// format.
///
/// # Panics
///
/// If a line breaks the format.
pub fn datapoints(lines: &[MetricLine]) -> Vec<Datapoint> {
    lines.iter().flat_map(datapoints_of).collect()
}

fn datapoints_of(line: &MetricLine) -> Vec<Datapoint> {
    let members: Value = serde_json::from_str(&line.text).expect("a line of metrics is JSON");
    assert!(members["_aws"]["Timestamp"].is_u64(), "{members}");
    let mut points = Vec::new();
    for directive in list(&members["_aws"]["CloudWatchMetrics"]) {
        for names in list(&directive["Dimensions"]) {
            let dimension = |name: &Value| {
                let name = name.as_str().expect("a dimension's name");
                let value = members[name].as_str().unwrap_or_else(|| panic!("{members} has no dimension {name}"));
                (name.to_owned(), value.to_owned())
            };
            let dimensions: Dimensions = list(names).map(dimension).collect();
            for metric in list(&directive["Metrics"]) {
                let name = metric["Name"].as_str().expect("a metric's name");
                points.push(Datapoint {
                    namespace: directive["Namespace"].as_str().expect("a namespace").to_owned(),
                    metric: name.to_owned(),
                    dimensions: dimensions.clone(),
                    at: line.at,
                    value: members[name].as_f64().unwrap_or_else(|| panic!("{members} has no value {name}")),
                });
            }
        }
    }
    assert!(!points.is_empty(), "{members} has no metric");
    points
}

/// The dimensions of an alarm's metric. A reference to the stack's name has the value
/// that lines have outside Lambda, and any other reference has the name of its resource.
pub fn dimensions(metric: &Value) -> Dimensions {
    let value = |value: &Value| match (value.as_str(), value["Ref"].as_str()) {
        (Some(text), _) => text.to_owned(),
        (None, Some("AWS::StackName")) => LOCAL.to_owned(),
        (None, Some(resource)) => resource.to_owned(),
        // Only AWS's own metrics have values that are made from several parts.
        (None, None) => value.to_string(),
    };
    list(&metric["Dimensions"])
        .map(|dimension| (dimension["Name"].as_str().expect("a name").to_owned(), value(&dimension["Value"])))
        .collect()
}

/// The metrics that an alarm watches: its only metric, or the metrics of its
/// expression.
pub fn metrics_of(alarm: &Value) -> Vec<&Value> {
    match &alarm["Metrics"] {
        Value::Null => vec![alarm],
        metrics => list(metrics).map(|it| &it["MetricStat"]["Metric"]).filter(|metric| !metric.is_null()).collect(),
    }
}

/// Returns whether an alarm rings at any time between `from` and `until`.
/// `alarm` has the properties of the alarm in the template.
pub fn rings(alarm: &Value, data: &[Datapoint], from: Instant, until: Instant) -> bool {
    let period = period(alarm);
    let values: Vec<_> = (0..)
        .map(|n| from + period * n)
        .take_while(|begin| *begin + period <= until)
        .map(|begin| value(alarm, data, begin, begin + period))
        .collect();
    let number = |name: &str| alarm[name].as_u64().map(|number| number as usize);
    let evaluated = number("EvaluationPeriods").expect("EvaluationPeriods");
    let needed = number("DatapointsToAlarm").unwrap_or(evaluated);
    values.windows(evaluated).any(|window| window.iter().filter(|value| breaches(alarm, **value)).count() >= needed)
}

fn period(alarm: &Value) -> Duration {
    let seconds = |value: &Value| value["Period"].as_u64();
    let mut own = list(&alarm["Metrics"]).filter_map(|it| seconds(&it["MetricStat"]));
    let period = seconds(alarm).or_else(|| own.next()).expect("a period");
    assert!(own.all(|other| other == period), "the metrics of an expression have one period");
    Duration::from_secs(period)
}

fn breaches(alarm: &Value, value: Option<f64>) -> bool {
    let threshold = alarm["Threshold"].as_f64().expect("a threshold");
    let Some(value) = value else {
        return match alarm["TreatMissingData"].as_str() {
            Some("breaching") => true,
            Some("notBreaching") => false,
            other => panic!("missing data is treated as {other:?}"),
        };
    };
    match alarm["ComparisonOperator"].as_str() {
        Some("GreaterThanThreshold") => value > threshold,
        Some("GreaterThanOrEqualToThreshold") => value >= threshold,
        other => panic!("the alarm compares with {other:?}"),
    }
}

/// The value that an alarm compares with its threshold, for one period; `None` if
/// data is missing.
fn value(alarm: &Value, data: &[Datapoint], begin: Instant, end: Instant) -> Option<f64> {
    let statistic = |metric: &Value, name: &Value| {
        let (namespace, wanted) = (&metric["Namespace"], dimensions(metric));
        let values = data
            .iter()
            .filter(|point| point.namespace == *namespace && metric["MetricName"] == point.metric)
            .filter(|point| point.dimensions == wanted && (begin..end).contains(&point.at))
            .map(|point| point.value);
        statistic(name.as_str().expect("a statistic"), values.collect())
    };
    if alarm["Metrics"].is_null() {
        let name = if alarm["Statistic"].is_null() { &alarm["ExtendedStatistic"] } else { &alarm["Statistic"] };
        return statistic(alarm, name);
    }
    let mut values = BTreeMap::new();
    let mut expressions = Vec::new();
    for query in list(&alarm["Metrics"]) {
        let id = query["Id"].as_str().expect("an id");
        match query["Expression"].as_str() {
            Some(expression) => expressions.push((id, expression, query)),
            None => {
                assert_eq!(query["ReturnData"], false, "{id}: only the expression is compared with the threshold");
                let of = &query["MetricStat"];
                values.insert(id, statistic(&of["Metric"], &of["Stat"]));
            }
        }
    }
    let [(_, expression, query)] = expressions[..] else { panic!("an alarm has one expression") };
    assert_ne!(query["ReturnData"], false);
    evaluate(expression, &values)
}

fn statistic(name: &str, mut values: Vec<f64>) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let sum: f64 = values.iter().sum();
    Some(match name {
        "Sum" => sum,
        "Average" => sum / values.len() as f64,
        "Maximum" => values[values.len() - 1],
        "Minimum" => values[0],
        "SampleCount" => values.len() as f64,
        percentile => {
            let share = percentile.strip_prefix('p').and_then(|text| text.parse::<f64>().ok());
            let share = share.unwrap_or_else(|| panic!("the statistic {percentile}"));
            let rank = (share / 100.0 * values.len() as f64).ceil() as usize;
            values[rank.clamp(1, values.len()) - 1]
        }
    })
}

/// Evaluates an expression of metric math: numbers, ids of metrics, `+ - * /`,
/// comparisons, `IF` and `FILL`. A missing value makes the result missing, except
/// in `FILL`.
///
/// # Panics
///
/// If the expression has anything else.
pub fn evaluate(expression: &str, values: &BTreeMap<&str, Option<f64>>) -> Option<f64> {
    let mut parser = Parser { rest: expression, values };
    let value = parser.comparison();
    assert!(parser.rest.trim().is_empty(), "{expression} has {:?} at its end", parser.rest);
    value
}

struct Parser<'a> {
    rest: &'a str,
    values: &'a BTreeMap<&'a str, Option<f64>>,
}

impl<'a> Parser<'a> {
    fn accept(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, token: &str) {
        assert!(self.accept(token), "{token} is expected before {:?}", self.rest);
    }

    fn comparison(&mut self) -> Option<f64> {
        let left = self.sum();
        type Compare = fn(f64, f64) -> bool;
        let operators: [(&str, Compare); 4] =
            [(">=", |a, b| a >= b), ("<=", |a, b| a <= b), (">", |a, b| a > b), ("<", |a, b| a < b)];
        for (token, compare) in operators {
            if self.accept(token) {
                let right = self.sum();
                return Some(f64::from(u8::from(compare(left?, right?))));
            }
        }
        left
    }

    fn sum(&mut self) -> Option<f64> {
        let mut value = self.product();
        loop {
            if self.accept("+") {
                value = value.zip(self.product()).map(|(a, b)| a + b);
            } else if self.accept("-") {
                value = value.zip(self.product()).map(|(a, b)| a - b);
            } else {
                return value;
            }
        }
    }

    fn product(&mut self) -> Option<f64> {
        let mut value = self.operand();
        loop {
            if self.accept("*") {
                value = value.zip(self.operand()).map(|(a, b)| a * b);
            } else if self.accept("/") {
                // CloudWatch has no value where an expression divides by zero.
                value = value.zip(self.operand()).and_then(|(a, b)| (b != 0.0).then(|| a / b));
            } else {
                return value;
            }
        }
    }

    fn operand(&mut self) -> Option<f64> {
        if self.accept("(") {
            let value = self.comparison();
            self.expect(")");
            return value;
        }
        if self.accept("IF(") {
            let condition = self.comparison();
            self.expect(",");
            let then = self.comparison();
            self.expect(",");
            let otherwise = self.comparison();
            self.expect(")");
            return if condition? == 0.0 { otherwise } else { then };
        }
        if self.accept("FILL(") {
            let value = self.comparison();
            self.expect(",");
            let filling = self.comparison();
            self.expect(")");
            return value.or(filling);
        }
        let rest = self.rest.trim_start();
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_').unwrap_or(rest.len());
        let (word, rest) = rest.split_at(length);
        self.rest = rest;
        match word.parse() {
            Ok(number) => Some(number),
            Err(_) => *self.values.get(word).unwrap_or_else(|| panic!("the expression names {word:?}")),
        }
    }
}

/// The dimensions that a metric has in a template: their names, sorted.
pub fn dimension_names(metric: &Value) -> Vec<String> {
    dimensions(metric).into_keys().collect()
}

/// The lists of the metrics of all graphs of a dashboard, each with the namespace,
/// the name and the dimensions of the metric. Expressions are left out.
pub fn metrics_of_dashboard(body: &Value) -> Vec<(String, String, Vec<String>)> {
    let mut metrics = Vec::new();
    for widget in list(&body["widgets"]) {
        let mut earlier: Vec<String> = Vec::new();
        for metric in list(&widget["properties"]["metrics"]) {
            let words: Vec<_> = list(metric).filter_map(Value::as_str).map(str::to_owned).collect();
            if words.is_empty() {
                continue;
            }
            // A point stands for the same word of the metric above it.
            let word = |(n, word): (usize, String)| if word == "." { earlier[n].clone() } else { word };
            let words: Vec<_> = words.into_iter().enumerate().map(word).collect();
            let mut names: Vec<_> = words[2..].iter().step_by(2).cloned().collect();
            names.sort_unstable();
            metrics.push((words[0].clone(), words[1].clone(), names));
            earlier = words;
        }
    }
    metrics
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use tokio::time::{Duration, Instant};

    use super::{Datapoint, evaluate, rings, statistic};

    #[test]
    fn an_expression_is_missing_if_a_value_is_missing_unless_the_value_is_filled() {
        let values = BTreeMap::from([("m1", Some(6.0)), ("m2", None), ("zero", Some(0.0))]);
        let of = |expression: &str| evaluate(expression, &values);
        assert_eq!(of("100 * m1 / (m1 + FILL(m2, 2))"), Some(75.0));
        assert_eq!(of("m1 - 2 * 2"), Some(2.0));
        assert_eq!((of("m1 + m2"), of("m1 / zero")), (None, None));
        assert_eq!((of("IF(m1 >= 5, m1, 0)"), of("IF(m1 < 5, m1, 0)")), (Some(6.0), Some(0.0)));
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let values = || (1..=200).map(f64::from).collect::<Vec<_>>();
        assert_eq!(statistic("p99", values()), Some(198.0));
        assert_eq!(statistic("Average", values()), Some(100.5));
        assert_eq!(statistic("Sum", Vec::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_if_enough_periods_breach_its_threshold() {
        let began = Instant::now();
        let alarm = |needed: u64, missing: &str| {
            json!({
                "Namespace": "N", "MetricName": "M", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 3,
                "DatapointsToAlarm": needed, "Threshold": 1, "ComparisonOperator": "GreaterThanThreshold",
                "TreatMissingData": missing,
            })
        };
        let point = |second| Datapoint {
            namespace: "N".into(),
            metric: "M".into(),
            dimensions: BTreeMap::new(),
            at: began + Duration::from_secs(second),
            value: 1.0,
        };
        let data = [point(0), point(59), point(60), point(130), point(131)];
        let until = began + Duration::from_secs(180);
        assert!(rings(&alarm(2, "notBreaching"), &data, began, until));
        assert!(!rings(&alarm(3, "notBreaching"), &data, began, until));
        assert!(rings(&alarm(3, "breaching"), &[], began, until));
    }
}
