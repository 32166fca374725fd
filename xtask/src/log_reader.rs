//! Reads the lines that functions have written: from an emulator, or from AWS with the
//! AWS CLI and the user's own credentials.

use std::collections::BTreeSet;

use heck::ToKebabCase;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    deployment_environment::DeploymentEnvironment, emulator_api::LOGS, emulator_deployment::STACK, prelude::*,
};

/// How often an emulator is asked until it answers.
const ATTEMPTS: usize = 5;

/// An order's lines begin at most this number of milliseconds before the time in the
/// order's id. Clocks differ, and the request is older than its order.
const BEFORE_ORDER: i64 = 60_000;

/// The place where logs are read.
pub enum LogSource {
    Emulator(Stack),
    /// A stack on AWS.
    Aws {
        tools: Tools,
        stack: String,
    },
}

/// A line of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Milliseconds since 1970.
    pub time: i64,
    pub function: String,
    pub text: String,
}

impl Line {
    /// The time at which the function wrote the line, in microseconds since 1970. The log has
    /// one time for all lines that it received together.
    pub fn written_at(&self) -> i64 {
        let json = self.json();
        let timestamp = || json["timestamp"].as_str()?.parse().ok().map(Timestamp::as_microsecond);
        json["at"].as_i64().or_else(timestamp).unwrap_or(self.time * 1000)
    }

    /// Returns the line as JSON. Functions write only JSON, but Lambda does not.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// The id of an order, on make's command line.
pub struct OrderId(String);

impl OrderId {
    pub fn wanted(usage: &str) -> Result<Self> {
        Self::parse(&make_variable("ORDER").with_context(|| format!("which order? {usage}"))?)
    }

    pub fn parse(text: &str) -> Result<Self> {
        let uuid = text.strip_prefix("ord_").unwrap_or_default();
        let parts: Vec<_> = uuid.split('-').collect();
        let is_hex = parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let lengths_match = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
        ensure!(
            is_hex && lengths_match,
            "{text} is not the id of an order, such as ord_0195a8e0-0000-7000-8000-000000000001"
        );
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part of the id that the id of the order's payment has, too.
    fn uuid(&self) -> &str {
        &self.0["ord_".len()..]
    }

    /// The time at which the order was placed, in milliseconds since 1970: an order's id
    /// begins with it.
    fn placed_at(&self) -> i64 {
        let digits: String = self.uuid().chars().filter(|digit| *digit != '-').take(12).collect();
        i64::from_str_radix(&digits, 16).unwrap_or_default()
    }
}

impl LogSource {
    /// Returns the stack of `ENV` on AWS, or else the running stack.
    pub fn wanted(project: &Project) -> Result<Self> {
        let Some(name) = make_variable("ENV") else {
            // The tests set HOLDFAST_STACK to the file of their own stack.
            return Ok(Self::Emulator(match std::env::var_os("HOLDFAST_STACK") {
                Some(file) => Stack::read(file.as_ref())?,
                None => Stack::running(project)?,
            }));
        };
        let tools = Tools::install(project)?;
        let environment = DeploymentEnvironment::read(&tools, &name)?;
        Ok(Self::Aws { stack: environment.stack, tools })
    }

    fn prefix(&self) -> String {
        let stack = match self {
            Self::Emulator(_) => STACK,
            Self::Aws { stack, .. } => stack,
        };
        format!("/aws/lambda/{stack}/")
    }

    fn call(&self, action: &str, request: &Value) -> Result<Value> {
        match self {
            Self::Emulator(stack) => {
                let mut answer = LOGS.call(stack, action, request);
                // MiniStack fails if a function begins to log while its logs are read.
                for _ in 1..ATTEMPTS {
                    if answer.is_ok() {
                        break;
                    }
                    answer = LOGS.call(stack, action, request);
                }
                answer
            }
            Self::Aws { tools, .. } => {
                let cloud = tools.cloud(None);
                let arguments = cli_arguments(action, request);
                let output = quiet(cmd!(cloud, "aws {arguments...}"))?;
                serde_json::from_str(&output).context("the AWS CLI prints no JSON")
            }
        }
    }

    /// Reads the lines of all functions from `from` on, in milliseconds since 1970, the
    /// oldest first. On AWS, only lines that contain `word` are read, if there is one.
    pub fn lines(&self, from: i64, word: Option<&str>) -> Result<Vec<Line>> {
        let prefix = self.prefix();
        let groups = self.call("DescribeLogGroups", &json!({ "logGroupNamePrefix": prefix }))?;
        let mut lines = Vec::new();
        for group in groups["logGroups"].as_array().into_iter().flatten() {
            let group = group["logGroupName"].as_str().context("a log group has no name")?;
            let function = group.trim_start_matches(&prefix);
            let mut request = json!({ "logGroupName": group, "startTime": from });
            if let (Self::Aws { .. }, Some(word)) = (self, word) {
                request["filterPattern"] = format!("\"{word}\"").into();
            }
            loop {
                let mut page = self.call("FilterLogEvents", &request)?;
                lines.extend(page["events"].as_array().into_iter().flatten().filter_map(|event| line(function, event)));
                match page["nextToken"].take() {
                    Value::Null => break,
                    token => request["nextToken"] = token,
                }
            }
        }
        lines.sort_by_key(|line| line.time);
        Ok(lines)
    }

    /// Reads the lines of an order: the lines that contain its id, and all lines of its
    /// traces.
    pub fn lines_of(&self, order: &OrderId) -> Result<Vec<Line>> {
        let from = order.placed_at() - BEFORE_ORDER;
        let found = self.lines(from, Some(order.uuid()))?;
        let mut all = found.clone();
        if let Self::Aws { .. } = self {
            for trace in traces_of(&found, order) {
                all.extend(self.lines(from, Some(&trace))?);
            }
        }
        Ok(about(all, order))
    }
}

/// The arguments of the AWS CLI for a call. The CLI itself reads all pages of a response.
fn cli_arguments(action: &str, request: &Value) -> Vec<String> {
    let action = action.to_kebab_case();
    ["logs", &action, "--output", "json", "--cli-input-json", &request.to_string()].map(str::to_owned).to_vec()
}

fn line(function: &str, event: &Value) -> Option<Line> {
    let text = event["message"].as_str()?.trim_end().to_owned();
    Some(Line { time: event["timestamp"].as_i64()?, function: function.to_owned(), text })
}

/// The traces of the lines that contain the order's id.
fn traces_of(lines: &[Line], order: &OrderId) -> BTreeSet<String> {
    let of_order = lines.iter().filter(|line| line.text.contains(order.uuid()));
    of_order.filter_map(|line| line.json()["trace_id"].as_str().map(str::to_owned)).collect()
}

/// Selects the lines about an order, in the order of their time, each once.
fn about(mut lines: Vec<Line>, order: &OrderId) -> Vec<Line> {
    let traces = traces_of(&lines, order);
    lines.retain(|line| {
        let json = line.json();
        let is_of_trace = json["trace_id"].as_str().is_some_and(|trace| traces.contains(trace));
        // A client may send several requests with one trace context.
        let is_of_another_order = json["order_id"].as_str().is_some_and(|id| id != order.as_str());
        line.text.contains(order.uuid()) || is_of_trace && !is_of_another_order
    });
    lines.sort_by(|a, b| (a.time, &a.function, &a.text).cmp(&(b.time, &b.function, &b.text)));
    lines.dedup();
    lines.sort_by_key(Line::written_at);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = "ord_0195a8e0-0000-7000-8000-000000000001";

    fn line_at(time: i64, json: Value) -> Line {
        Line { time, function: "orders".to_owned(), text: json.to_string() }
    }

    #[test]
    fn the_lines_of_an_order_are_those_with_its_id_and_those_of_its_trace() {
        let order = OrderId::parse(ORDER).expect("an id");
        let lines = vec![
            line_at(5, json!({ "message": "later", "trace_id": "t", "timestamp": "1970-01-01T00:00:00.005Z" })),
            line_at(5, json!({ "message": "earlier", "trace_id": "t", "timestamp": "1970-01-01T00:00:00.004Z" })),
            line_at(
                6,
                json!({ "message": "by the payment", "payment_id": ORDER.replace("ord", "pay"), "trace_id": "t" }),
            ),
            line_at(7, json!({ "message": "another trace", "trace_id": "u" })),
            line_at(8, json!({ "message": "another order", "trace_id": "t", "order_id": "ord_2" })),
            Line { time: 9, function: "orders".to_owned(), text: "START RequestId: 1".to_owned() },
        ];
        let twice = [lines.clone(), lines].concat();
        let found = about(twice, &order);
        let messages: Vec<_> = found.iter().map(|line| line.json()["message"].clone()).collect();
        assert_eq!(messages, ["earlier", "later", "by the payment"]);
    }

    #[test]
    fn an_orders_id_says_from_when_on_its_lines_are_read() {
        assert_eq!(OrderId::parse(ORDER).expect("an id").placed_at(), 0x0195_a8e0_0000);
        for bad in ["", "ord_", "pay_0195a8e0-0000-7000-8000-000000000001", "ord_0195a8e0-0000-7000-8000-00000000000g"]
        {
            assert!(OrderId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn aws_is_asked_by_its_cli() {
        let request = json!({ "logGroupName": "/aws/lambda/holdfast-dev/users", "filterPattern": "\"t\"" });
        let arguments = cli_arguments("FilterLogEvents", &request);
        assert_eq!(arguments[..5], ["logs", "filter-log-events", "--output", "json", "--cli-input-json"]);
        assert_eq!(serde_json::from_str::<Value>(&arguments[5]).expect("JSON"), request);
    }
}
