//! The functions' logs, as they come.

use std::{
    collections::HashSet,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::{complain, deploy::STACK, project::Project, say, shop::Http, stack::Stack};

const PAUSE: Duration = Duration::from_millis(500);
/// How far back to look each time: lines may come late, and out of order.
const OVERLAP: i64 = 10_000;
/// How much of the past to begin with.
const PAST: i64 = 300_000;

/// `make logs`: until interrupted.
pub fn follow(project: &Project) -> Result<()> {
    let stack = Stack::running(project)?;
    let prefix = format!("/aws/lambda/{STACK}/");
    let mut seen = HashSet::new();
    let mut from = now() - PAST;
    complain!("The last five minutes, and what follows; Ctrl-C ends it.");
    loop {
        let mut lines = Vec::new();
        let groups = ask(&stack, "DescribeLogGroups", &json!({ "logGroupNamePrefix": prefix }))?;
        for group in groups["logGroups"].as_array().into_iter().flatten() {
            let group = group["logGroupName"].as_str().context("a log group without a name")?;
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
        let mut page = ask(stack, "FilterLogEvents", &request)?;
        if let Some(found) = page["events"].as_array_mut() {
            events.append(found);
        }
        match page["nextToken"].take() {
            Value::Null => return Ok(events),
            token => request["nextToken"] = token,
        }
    }
}

/// Asks CloudWatch Logs directly: AWS CLI would start Python six times a
/// second. The emulator takes its root user's name without a signature.
fn ask(stack: &Stack, action: &str, request: &Value) -> Result<Value> {
    let credential = format!("Credential=test/20200101/{}/logs/aws4_request", stack.region);
    let headers = [
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", &format!("Logs_20140328.{action}")),
        ("authorization", &format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=0")),
    ];
    Http::new().send("POST", &stack.emulator_url, &headers, Some(request))?.granted()
}

/// A line of a function, made readable; nothing for those that Lambda adds at
/// each start and end.
fn readable(message: &str) -> Option<String> {
    let message = message.trim_end();
    if ["START RequestId", "END RequestId", "REPORT RequestId"].iter().any(|start| message.starts_with(start)) {
        return None;
    }
    let Ok(Value::Object(mut fields)) = serde_json::from_str(message) else { return Some(message.to_owned()) };
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
        None => String::new(),
    };
    // The event has a time of its own, and of a metric the line says already
    // what its declaration and its dimension do.
    take("timestamp");
    let is_metric = !take("_aws").is_empty();
    if is_metric {
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

/// A value without quotes, unless it needs them.
fn bare(value: &Value) -> String {
    match value.as_str() {
        Some(text) if !text.contains(char::is_whitespace) => text.to_owned(),
        _ => value.to_string(),
    }
}

/// Milliseconds since 1970, as CloudWatch counts.
fn now() -> i64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The time of day, in UTC.
fn clock(time: i64) -> String {
    let (seconds, thousandths) = (time.div_euclid(1000).rem_euclid(86_400), time.rem_euclid(1000));
    format!("{:02}:{:02}:{:02}.{thousandths:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_becomes_a_sentence_with_its_fields() {
        let line = r#"{"timestamp":"2026-01-31T12:00:00Z","level":"INFO","message":"answered","status":201,
                       "span":{"name":"request","path":"/orders","note":"two words"}}"#;
        assert_eq!(readable(line).as_deref(), Some(r#"INFO  answered status=201 note="two words" path=/orders"#));
    }

    #[test]
    fn a_metric_is_its_value() {
        assert_eq!(
            readable(r#"{"_aws":{"Timestamp":1},"FunctionName":"worker","OrdersOverdue":3}"#).as_deref(),
            Some("count  OrdersOverdue=3")
        );
    }

    #[test]
    fn lambdas_own_lines_are_left_out_and_others_kept() {
        assert_eq!(readable("START RequestId: 1 Version: $LATEST"), None);
        assert_eq!(readable("thread 'main' panicked\n").as_deref(), Some("thread 'main' panicked"));
    }

    #[test]
    fn the_clock_is_of_the_day() {
        assert_eq!(clock(1_795_423_222_614), "08:40:22.614");
    }
}
