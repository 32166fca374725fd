//! What `make trace` and `make logs` say first about an order: its state, and why.

use std::{collections::BTreeMap, fmt::Write};

use crate::{
    inbox::plain,
    log_reader::{Line, OrderId},
};

/// The cancellation reasons in words, by their codes.
const REASONS: &str = include_str!("../../functions/orders/cancellation-reasons.json");

/// The order's state, why it was cancelled, and the errors on its way, in words.
pub fn heading(order: &OrderId, lines: &[Line]) -> String {
    let json: Vec<_> = lines.iter().map(Line::json).collect();
    let transitions: Vec<_> = json.iter().filter(|line| line["message"] == "order transition").collect();
    let state = transitions.last().and_then(|line| line["to"].as_str());
    let reason = transitions.iter().find_map(|line| line["reason"].as_str());
    let mut text = format!("{}\n", order.as_str());
    match (state, reason) {
        (None, _) => text.push_str("not decided yet: no line says that the order has left PENDING\n"),
        (Some(state), None) => writeln!(text, "{state}").unwrap_or_default(),
        (Some(state), Some(reason)) => {
            writeln!(text, "{state}, because {} ({reason})", in_words(reason)).unwrap_or_default();
        }
    }
    let mut errors: Vec<(String, usize)> = Vec::new();
    for line in json.iter().filter(|line| line["level"] == "ERROR") {
        let (message, cause) = (plain(&line["message"]), line["cause"].as_str().unwrap_or_default());
        let error = format!("error in {}: {message} {cause}", plain(&line["service"]));
        match errors.iter_mut().find(|(known, _)| *known == error) {
            Some((_, times)) => *times += 1,
            None => errors.push((error, 1)),
        }
    }
    for (error, times) in errors {
        let times = if times > 1 { format!(" ({times} times)") } else { String::new() };
        writeln!(text, "{error}{times}").unwrap_or_default();
    }
    text
}

/// A cancellation reason in plain words.
fn in_words(code: &str) -> String {
    let reasons: BTreeMap<String, String> = serde_json::from_str(REASONS).unwrap_or_default();
    // The orders may have been cancelled by newer code, which knows more reasons.
    reasons.get(code).cloned().unwrap_or_else(|| code.replace('_', " "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ORDER: &str = "ord_0195a8e0-0000-7000-8000-000000000001";

    fn heading_of(lines: &[Value]) -> String {
        let lines: Vec<_> =
            lines.iter().map(|line| Line { time: 0, function: "orders".into(), text: line.to_string() }).collect();
        heading(&OrderId::parse(ORDER).unwrap(), &lines)
    }

    #[test]
    fn it_says_why_an_order_was_cancelled() {
        let line = json!({ "message": "order transition", "to": "CANCELLED", "reason": "out_of_stock" });
        let expected = format!("{ORDER}\nCANCELLED, because there were not enough units of a product (out_of_stock)\n");
        assert_eq!(heading_of(&[line]), expected);
    }

    #[test]
    fn it_shows_an_error_that_happened_several_times_once() {
        let error = json!({ "message": "failed", "level": "ERROR", "service": "payments", "cause": "no table" });
        let heading = heading_of(&[error.clone(), error.clone(), error]);
        assert!(heading.ends_with("error in payments: failed no table (3 times)\n"), "{heading}");
    }
}
