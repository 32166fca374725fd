//! `make logs`: follows the logs of all functions until the user interrupts it. The code
//! is home-made, because `aws logs tail` can follow only one log group.

use std::{collections::HashSet, thread, time::Duration};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{emulator_api::LOGS, emulator_deployment::STACK, inbox::plain, prelude::*};

const PAUSE: Duration = Duration::from_millis(500);
/// How many milliseconds of the past each query covers. Lines may arrive late and out of
/// order, so two successive queries overlap.
const OVERLAP: i64 = 10_000;
/// How many milliseconds of the past the first query covers.
const PAST: i64 = 300_000;

pub fn run(project: &Project) -> Result<()> {
    let stack = Stack::running(project)?;
    let prefix = format!("/aws/lambda/{STACK}/");
    let mut seen = HashSet::new();
    let mut from = now() - PAST;
    complain!("The logs of the last five minutes, and new lines as they arrive. Ctrl-C ends it.");
    loop {
        let mut lines = Vec::new();
        let groups = LOGS.call(&stack, "DescribeLogGroups", &json!({ "logGroupNamePrefix": prefix }))?;
        for group in groups["logGroups"].as_array().into_iter().flatten() {
            let group = group["logGroupName"].as_str().context("a log group has no name")?;
            let function = group.trim_start_matches(&prefix);
            for event in events(&stack, group, from)? {
                let time = event["timestamp"].as_i64().unwrap_or_default();
                if seen.insert((time, event.to_string()))
                    && let Some(text) = event["message"].as_str().and_then(readable)
                {
                    lines.push((time, format!("{} {function:<13} {text}", clock(time))));
                }
            }
        }
        lines.sort_by_key(|(time, _)| *time);
        for (_, line) in lines {
            say!("{line}");
        }
        from = now() - OVERLAP;
        seen.retain(|(time, _)| *time >= from);
        thread::sleep(PAUSE);
    }
}

fn events(stack: &Stack, group: &str, from: i64) -> Result<Vec<Value>> {
    let mut events = Vec::new();
    let mut request = json!({ "logGroupName": group, "startTime": from });
    loop {
        let mut page = LOGS.call(stack, "FilterLogEvents", &request)?;
        if let Some(found) = page["events"].as_array_mut() {
            events.append(found);
        }
        match page["nextToken"].take() {
            Value::Null => return Ok(events),
            token => request["nextToken"] = token,
        }
    }
}

/// Formats a log line, which is JSON if the function wrote it. Returns `None` for the
/// lines that Lambda adds at the start and the end of each invocation.
fn readable(message: &str) -> Option<String> {
    let message = message.trim_end();
    if ["START RequestId", "END RequestId", "REPORT RequestId"].iter().any(|start| message.starts_with(start)) {
        return None;
    }
    let Ok(Value::Object(mut fields)) = serde_json::from_str(message) else { return Some(message.to_owned()) };
    let mut take = |name: &str| fields.remove(name).as_ref().map(plain).unwrap_or_default();
    // `run` prints the time of the log event.
    take("timestamp");
    let is_metric = !take("_aws").is_empty();
    if is_metric {
        // `run` prints the function's name before each line.
        take("FunctionName");
    }
    let (level, text) = if is_metric { ("count".to_owned(), String::new()) } else { (take("level"), take("message")) };
    let span = match fields.remove("span") {
        Some(Value::Object(span)) => span,
        _ => Map::new(),
    };
    let rest = fields.iter().chain(span.iter().filter(|(name, _)| *name != "name"));
    let rest: String = rest.map(|(name, value)| format!(" {name}={}", bare(value))).collect();
    Some(format!("{level:<5} {text}{rest}"))
}

/// Formats a value without quotes, unless it contains white space.
fn bare(value: &Value) -> String {
    match value.as_str() {
        Some(text) if !text.contains(char::is_whitespace) => text.to_owned(),
        _ => value.to_string(),
    }
}

/// Milliseconds since 1970, the unit of CloudWatch Logs.
fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Formats milliseconds since 1970 as the time of day in UTC.
fn clock(time: i64) -> String {
    Timestamp::from_millisecond(time).unwrap_or_default().strftime("%H:%M:%S.%3f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_becomes_its_message_and_fields() {
        let line = r#"{"timestamp":"2026-01-31T12:00:00Z","level":"INFO","message":"answered","status":201,
                       "span":{"name":"request","path":"/orders","note":"two words"}}"#;
        assert_eq!(readable(line).as_deref(), Some(r#"INFO  answered status=201 note="two words" path=/orders"#));
    }

    #[test]
    fn a_metric_is_shown_as_its_value() {
        assert_eq!(
            readable(r#"{"_aws":{"Timestamp":1},"FunctionName":"worker","OrdersOverdue":3}"#).as_deref(),
            Some("count  OrdersOverdue=3")
        );
    }

    #[test]
    fn only_the_lines_that_lambda_adds_are_left_out() {
        assert_eq!(readable("START RequestId: 1 Version: $LATEST"), None);
        assert_eq!(readable("thread 'main' panicked\n").as_deref(), Some("thread 'main' panicked"));
    }

    #[test]
    fn a_line_begins_with_the_time_of_day() {
        assert_eq!(clock(1_795_423_222_614), "08:40:22.614");
    }
}
