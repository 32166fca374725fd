//! `make logs`: follows the logs of all functions until the user interrupts it, or shows
//! the lines of one order. The code is home-made, because `aws logs tail` can follow only
//! one log group.

use std::{collections::HashSet, thread, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    inbox::plain,
    log_reader::{Line, LogSource, OrderId},
    order_heading::heading,
    prelude::*,
};

const PAUSE: Duration = Duration::from_millis(500);
/// The pause between two queries of AWS, which allows few queries per second.
const PAUSE_ON_AWS: Duration = Duration::from_secs(5);
/// How many milliseconds of the past each query covers. Lines may arrive late and out of
/// order, so two successive queries overlap.
const OVERLAP: i64 = 10_000;
/// `OVERLAP` on AWS, where lines arrive later.
const OVERLAP_ON_AWS: i64 = 60_000;
/// How many milliseconds of the past the first query covers.
const PAST: i64 = 300_000;

pub fn run(project: &Project) -> Result<()> {
    let order = make_variable("ORDER").map(|text| OrderId::parse(&text)).transpose()?;
    let source = LogSource::wanted(project)?;
    match order {
        Some(order) => show_order(&source, &order),
        None => follow(&source),
    }
}

fn show_order(source: &LogSource, order: &OrderId) -> Result<()> {
    let lines = source.lines_of(order)?;
    ensure!(!lines.is_empty(), "no function has written a line about {}", order.as_str());
    say!("{}", heading(order, &lines));
    for text in lines.iter().filter_map(shown) {
        say!("{text}");
    }
    Ok(())
}

fn follow(source: &LogSource) -> Result<()> {
    let (pause, overlap) = match source {
        LogSource::Emulator(_) => (PAUSE, OVERLAP),
        LogSource::Aws { .. } => (PAUSE_ON_AWS, OVERLAP_ON_AWS),
    };
    let mut seen = HashSet::new();
    let mut from = now() - PAST;
    complain!("The logs of the last five minutes, and new lines as they arrive. Ctrl-C ends it.");
    loop {
        for line in source.lines(from, None)? {
            let text = shown(&line);
            if seen.insert((line.time, line.function, line.text))
                && let Some(text) = text
            {
                say!("{text}");
            }
        }
        from = now() - overlap;
        seen.retain(|(time, ..)| *time >= from);
        thread::sleep(pause);
    }
}

fn shown(line: &Line) -> Option<String> {
    readable(&line.text).map(|text| format!("{} {:<13} {text}", clock(line.written_at()), line.function))
}

/// Formats a log line, which is JSON if the function wrote it. Returns `None` for the
/// lines that Lambda adds at the start and the end of each invocation, and for the lines
/// about spans, which `make trace` draws.
fn readable(message: &str) -> Option<String> {
    let message = message.trim_end();
    if ["START RequestId", "END RequestId", "REPORT RequestId"].iter().any(|start| message.starts_with(start)) {
        return None;
    }
    let Ok(Value::Object(mut fields)) = serde_json::from_str(message) else { return Some(message.to_owned()) };
    let mut take = |name: &str| fields.remove(name).as_ref().map(plain).unwrap_or_default();
    if !take("span").is_empty() {
        return None;
    }
    // `shown` prints the time of the line and the function's name.
    for known in ["timestamp", "service", "version", "trace_id", "span_id"] {
        take(known);
    }
    let is_metric = !take("_aws").is_empty();
    if is_metric {
        take("FunctionName");
    }
    let (level, text) = if is_metric { ("count".to_owned(), String::new()) } else { (take("level"), take("message")) };
    let rest: String = fields.iter().map(|(name, value)| format!(" {name}={}", bare(value))).collect();
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

/// Formats microseconds since 1970 as the time of day in UTC.
fn clock(time: i64) -> String {
    Timestamp::from_microsecond(time).unwrap_or_default().strftime("%H:%M:%S.%3f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_becomes_its_message_and_fields() {
        let line = r#"{"timestamp":"2026-01-31T12:00:00.000Z","level":"INFO","message":"answered","service":"orders",
                       "version":"0.1.0","trace_id":"t","span_id":"s","note":"two words","status":201}"#;
        assert_eq!(readable(line).as_deref(), Some(r#"INFO  answered note="two words" status=201"#));
    }

    #[test]
    fn a_line_about_a_span_is_left_out() {
        assert_eq!(readable(r#"{"span":"begin","name":"request","at":1}"#), None);
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
        assert_eq!(clock(1_795_423_222_614_000), "08:40:22.614");
    }
}
