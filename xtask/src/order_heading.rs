//! What `make trace` and `make logs` say first about an order: its state, and why.

use std::fmt::Write;

use crate::{
    inbox::plain,
    log_reader::{Line, OrderId},
};

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
    match code {
        "user_not_found" => "the customer has no profile",
        "user_inactive" => "the customer's profile is deactivated",
        "unknown_product" => "a product does not exist",
        "mixed_currencies" => "the products have prices in different currencies",
        "out_of_stock" => "there were not enough units of a product",
        "price_changed" => "a price differs from the price that the customer was shown",
        "payment_declined" => "the payment provider declined the payment",
        "capture_refused" => "the payment provider refused to capture the payment that it had authorised",
        "timed_out" => "it was not decided within two minutes, because a service did not answer",
        "customer_request" => "the customer cancelled it",
        "cancelled_by_shop" => "an administrator cancelled it",
        other => return other.replace('_', " "),
    }
    .to_owned()
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
