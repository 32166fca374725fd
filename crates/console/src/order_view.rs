//! An order as the page shows it: the stored records, the picture of its saga, its messages
//! and its trace.

use std::collections::HashMap;

use anyhow::{Context, Result};
use chassis::money::{Currency, Money};
use jiff::{Timestamp, Unit};
use orders::saga::steps::{PLACE_ORDER, SAGAS};
use serde_json::{Value, json};

use crate::{
    emulator::{Emulator, Message},
    live_calls::LiveCalls,
    saga::{Attempt, Progress, picture},
    stored_order::{is_open, was},
    trace::{Span, Traces, waterfall},
};

/// The cancellation reasons in words, by their codes.
const REASONS: &str = include_str!("../../../functions/orders/cancellation-reasons.json");
/// Members that are secrets, or of no use to a reader.
const HIDDEN: [&str; 9] =
    ["pk", "sk", "payment_method", "method", "contact", "fingerprint", "check_shard", "wake", "expires_at"];

#[derive(Clone)]
pub struct OrderReader {
    pub emulator: Emulator,
    pub traces: Traces,
    pub live: LiveCalls,
}

impl OrderReader {
    /// The document of an order. `None` if there is no such order.
    pub async fn document(&self, id: &str) -> Result<Option<Value>> {
        let uuid = id.strip_prefix("ord_").unwrap_or_default();
        let payment = format!("pay_{uuid}");
        let (payment_key, charge_key) = (format!("PAYMENT#{payment}"), format!("CHARGE#{payment}"));
        let (order_key, reservation_key) = (format!("ORDER#{id}"), format!("RESERVATION#{id}"));
        let (order, reservation, payment, charge, messages) = futures::try_join!(
            self.emulator.item("orders", &order_key, "ORDER"),
            self.emulator.item("products", &reservation_key, "RESERVATION"),
            self.emulator.item("payments", &payment_key, "PAYMENT"),
            self.emulator.item("sandbox_ledger", &charge_key, "CHARGE"),
            self.emulator.messages()
        )?;
        let Some(order) = order else { return Ok(None) };
        let trace = trace_id(&order);
        let spans = self.traces.spans(&trace, id).await?;
        let attempts = attempts(&spans, self.live.of(&trace));
        let version = order["saga_version"].as_u64().unwrap_or_default();
        let saga = SAGAS.iter().find(|saga| u64::from(saga.version) == version).copied().unwrap_or(&PLACE_ORDER);
        let picture = picture(saga, &Progress::of(&order), &attempts);
        let messages: Vec<_> = messages.iter().filter(|message| message.is_about(id)).map(document_of).collect();
        let mut summary = summary(&order).context("an order has no id")?;
        summary["lines"] = lines(&order);
        summary["reason_in_words"] = summary["reason"].as_str().and_then(in_words).into();
        summary["failures"] = order["failures"].as_u64().unwrap_or_default().into();
        summary["trace_id"] = trace.into();
        summary["told_by_response"] = is_told_by_response(&order).into();
        let raw = [
            ("order", &Some(order.clone())),
            ("reservation", &reservation),
            ("payment", &payment),
            ("charge", &charge),
        ];
        let raw: serde_json::Map<_, _> =
            raw.into_iter().filter_map(|(name, item)| Some((name.to_owned(), without_hidden(item.clone()?)))).collect();
        Ok(Some(json!({
            "order": summary,
            "steps": picture.steps,
            "pivot": picture.pivot,
            "compensation": picture.compensation,
            "history": order["history"],
            "reservation": reservation.map(without_hidden),
            "payment": payment.map(|payment| payment_document(&payment, charge.as_ref())),
            "messages": messages,
            "trace": waterfall(&spans),
            "raw": raw,
        })))
    }
}

/// An order as a list shows it. `None` if the item is no order.
pub fn summary(item: &Value) -> Option<Value> {
    let id = item["pk"].as_str()?.strip_prefix("ORDER#")?;
    let placed_at = item["history"][0]["at"].as_str()?;
    let age = placed_at.parse::<Timestamp>().ok()?.until(Timestamp::now()).ok()?.total(Unit::Second).ok()?;
    let currency = item["quote"]["currency"].as_str();
    let total = item["quote"]["total"].as_u64();
    Some(json!({
        "id": id,
        "state": item["state"],
        "placed_at": placed_at,
        "total": total.zip(currency).and_then(|(minor, currency)| amount(minor, currency)),
        "currency": currency,
        "customer": item["recipient"]["name"],
        "email": item["recipient"]["email"],
        "open": is_open(item),
        "reason": item["cancellation_reason"]["code"],
        "age_seconds": age.floor(),
    }))
}

/// A cancellation reason in words. `None` if this console does not know the reason.
fn in_words(code: &str) -> Option<String> {
    let reasons: HashMap<String, String> = serde_json::from_str(REASONS).ok()?;
    reasons.get(code).cloned()
}

/// Whether the response to the request told the customer that the order was refused. Then the
/// customer gets no message about it.
fn is_told_by_response(order: &Value) -> bool {
    order["state"] == "CANCELLED" && order["is_refusal_answered"] == true && !was(order, "CONFIRMED")
}

/// An amount of money as a decimal number in a text, such as `64.50`. A number of JSON would
/// lose its last zero.
fn amount(minor: u64, currency: &str) -> Option<String> {
    let currency: Currency = currency.parse().ok()?;
    serde_json::to_string(&Money::from_minor(minor, currency).ok()?.amount()).ok()
}

fn lines(order: &Value) -> Value {
    let Some(quoted) = order["quote"]["lines"].as_array() else {
        // Without a quote, only the products and quantities are known.
        let lines = order["lines"].as_object().into_iter().flatten();
        return lines.map(|(product, quantity)| json!({ "product_id": product, "quantity": quantity })).collect();
    };
    let currency = order["quote"]["currency"].as_str().unwrap_or_default();
    let priced = |line: &Value| {
        let amount = |name: &str| line[name].as_u64().and_then(|minor| amount(minor, currency));
        json!({
            "product_id": line["product_id"],
            "name": line["name"],
            "quantity": line["quantity"],
            "unit_price": amount("unit_price"),
            "line_total": amount("line_total"),
        })
    };
    quoted.iter().map(priced).collect()
}

fn payment_document(payment: &Value, charge: Option<&Value>) -> Value {
    let requested = &payment["payment_request"]["amount"];
    let currency = requested["currency"].as_str().unwrap_or_default();
    let amount = |minor: &Value| minor.as_u64().and_then(|minor| amount(minor, currency));
    json!({
        "id": payment["id"],
        "status": payment["status"],
        "amount": amount(&requested["minor"]),
        "currency": currency,
        "decline_reason": payment["decline_reason"],
        "capture_refused": payment["capture_refused"],
        "provider": charge.map(|charge| json!({
            "status": charge["status"],
            "captured": amount(&charge["captured_minor"]),
            "refunded": amount(&charge["refunded_minor"]),
            "history": charge["history"],
        })),
    })
}

fn document_of(message: &Message) -> Value {
    match message {
        Message::Email { id, to, subject, text, html } => json!({
            "channel": "email",
            "to": to.join(", "),
            "subject": subject,
            "text": text,
            "html": html,
            "html_url": format!("/mail/{id}"),
        }),
        Message::Text { to, text } => json!({ "channel": "sms", "to": to, "text": text }),
    }
}

fn trace_id(order: &Value) -> String {
    order["trace"].as_str().and_then(|trace| trace.split('-').nth(1)).unwrap_or_default().to_owned()
}

/// The attempts of steps: those of the functions' own lines, and those that the proxy has seen
/// and no line tells of yet.
fn attempts(spans: &[Span], live: Vec<Attempt>) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for span in spans.iter().filter(|span| span.name == "step") {
        let step = span.field("step");
        let is_call = |id: &str| spans.iter().any(|call| call.id == id && call.parent.as_ref() == Some(&span.id));
        let tries = spans.iter().filter(|it| it.name == "attempt" && it.parent.as_deref().is_some_and(is_call));
        let tries: Vec<_> = tries.collect();
        // A step repeats its call if it gets no answer. The outcome of the step is that of its
        // last try.
        let (last, earlier) = tries.split_last().map_or((span, &[][..]), |(last, earlier)| (*last, earlier));
        attempts.extend(earlier.iter().map(|it| Attempt {
            step: step.clone(),
            begin: it.begin,
            end: it.end.or(Some(last.begin)),
            error: it.error().or_else(|| Some("no usable answer".to_owned())),
        }));
        let begin = if earlier.is_empty() { span.begin } else { last.begin };
        attempts.push(Attempt { step, begin, end: span.end, error: span.error() });
    }
    let is_told = |call: &Attempt| {
        attempts.iter().any(|attempt| {
            let has_ended_before = attempt.end.is_some_and(|end| end < call.begin);
            attempt.step == call.step && attempt.begin <= call.begin && !has_ended_before
        })
    };
    let untold: Vec<_> = live.into_iter().filter(|call| !is_told(call)).collect();
    attempts.extend(untold);
    attempts
}

fn without_hidden(mut item: Value) -> Value {
    if let Some(item) = item.as_object_mut() {
        item.retain(|name, _| !HIDDEN.contains(&name.as_str()));
    }
    item
}

#[cfg(test)]
mod tests {
    use orders::domain::CancellationReason;
    use strum::VariantNames;

    use super::*;

    #[test]
    fn a_summary_has_the_total_as_a_decimal_number_with_the_decimals_of_its_currency() {
        let item = json!({
            "pk": "ORDER#ord_1", "state": "DONE", "recipient": { "name": "Ada" },
            "history": [{ "status": "PENDING", "at": "2026-01-01T00:00:00Z" }],
            "quote": { "currency": "USD", "total": 6450 },
        });
        let summary = summary(&item).expect("a summary");
        assert_eq!((summary["id"].as_str(), summary["total"].as_str()), (Some("ord_1"), Some("64.50")));
        assert_eq!((&summary["customer"], &summary["open"]), (&json!("Ada"), &json!(false)));
        assert!(super::summary(&json!({ "pk": "KEY#1" })).is_none());
    }

    #[test]
    fn each_cancellation_reason_has_words() {
        let reasons: HashMap<String, String> = serde_json::from_str(REASONS).expect("JSON");
        let mut known: Vec<_> = reasons.keys().map(String::as_str).collect();
        let mut codes = CancellationReason::VARIANTS.to_vec();
        known.sort_unstable();
        codes.sort_unstable();
        assert_eq!(known, codes);
    }

    #[test]
    fn a_call_that_a_line_tells_of_is_not_counted_twice() {
        let call = |begin| Attempt { step: "reserve stock".into(), begin, end: None, error: None };
        let fields = json!({ "step": "reserve stock", "outcome": "ok" });
        let Value::Object(fields) = fields else { panic!("{fields}") };
        let span = Span {
            id: "s".into(),
            parent: None,
            links: Vec::new(),
            service: "orders".into(),
            name: "step".into(),
            begin: 10,
            end: Some(20),
            fields,
        };
        assert_eq!(attempts(&[span], vec![call(12), call(30)]).len(), 2);
    }

    #[test]
    fn the_raw_records_have_no_payment_token() {
        let raw =
            without_hidden(json!({ "payment_method": "tok_accepted", "method": "tok_accepted", "state": "DONE" }));
        assert_eq!(raw, json!({ "state": "DONE" }));
    }
}
