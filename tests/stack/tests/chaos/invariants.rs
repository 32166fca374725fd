//! Checks the promises that must hold after recovery: about stock, money, responses,
//! idempotency keys, messages and dead letters.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use stack_tests::{Answer, Person};

use crate::{AnsweredRequest, CLIENTS, Chaos, OrderRequest, is_decision};

/// The allowed transitions of an order.
const TRANSITIONS: [(&str, &str); 7] = [
    ("PENDING", "CONFIRMED"),
    ("PENDING", "CANCELLING"),
    ("CONFIRMED", "DONE"),
    ("CONFIRMED", "CANCELLING"),
    ("DONE", "CANCELLING"),
    ("CANCELLING", "CANCELLED"),
    // The creation of the order.
    ("", "PENDING"),
];
/// The time after which the worker cancels an order that is still undecided.
const DECISION_LIMIT: SignedDuration = SignedDuration::from_mins(2);
/// The number of events that a notifier handles at the same time. If a notifier is
/// killed, at most this number of messages are sent twice.
const NOTIFIER_CONCURRENCY: usize = 4;

/// The results of all checks.
pub struct Report {
    /// The number of orders in each state.
    pub final_states: BTreeMap<String, usize>,
    /// For each channel, a sentence with the number of messages that customers got.
    pub messages: Vec<String>,
    /// A sentence for each promise that was broken.
    pub violations: Vec<String>,
}

pub async fn check(chaos: &Chaos, requests: &[AnsweredRequest]) -> Report {
    let orders = chaos.orders().await;
    let mut checker = Checker {
        chaos,
        charges: chaos.stack.scan("sandbox_ledger").await,
        payments: chaos.stack.scan("payments").await,
        messages: Vec::new(),
        violations: Vec::new(),
    };
    checker.stock(&orders).await;
    let repeats = stream::iter(requests).map(|answered| repeat_twice(chaos, &answered.request)).buffered(CLIENTS);
    let repeats: Vec<_> = repeats.collect().await;
    for (answered, repeats) in requests.iter().zip(&repeats) {
        if let Some(id) = checker.answers(answered, repeats) {
            match orders.iter().find(|order| order_id(order) == id) {
                Some(order) => checker.order(order, &answered.request),
                None => checker.violate(format!("{id} is in an answer, but is not stored")),
            }
        }
    }
    checker.keys(&orders).await;
    checker.messages(&orders).await;
    checker.dead_letters().await;
    let mut final_states = BTreeMap::new();
    for order in &orders {
        *final_states.entry(text(&order["state"]).to_owned()).or_default() += 1;
    }
    Report { final_states, messages: checker.messages, violations: checker.violations }
}

struct Checker<'a> {
    chaos: &'a Chaos,
    charges: Vec<Value>,
    payments: Vec<Value>,
    messages: Vec<String>,
    violations: Vec<String>,
}

impl Checker<'_> {
    fn violate(&mut self, violation: impl Into<String>) {
        self.violations.push(violation.into());
    }

    /// Checks for each product that the available and the reserved stock of its shards are
    /// not negative, that their sum is the initial stock, and that the reserved stock is the
    /// sum of the quantities in orders that are `DONE`.
    async fn stock(&mut self, orders: &[Value]) {
        let items = self.chaos.stack.scan("products").await;
        let done = || orders.iter().filter(|order| order["state"] == "DONE");
        for product in &self.chaos.products {
            let shards = items.iter().filter(|item| item["sk"] == "STOCK" && item["product_id"] == product.id);
            let shards: Vec<_> =
                shards.map(|shard| (number(&shard["available"]), number(&shard["reserved"]))).collect();
            let negative = shards.iter().any(|(available, reserved)| *available < 0 || *reserved < 0);
            let available: i64 = shards.iter().map(|(available, _)| available).sum();
            let reserved: i64 = shards.iter().map(|(_, reserved)| reserved).sum();
            if available + reserved != product.stock || negative {
                self.violate(format!("stock: {available} available, {reserved} reserved of {}", product.stock));
            }
            let lines = done().flat_map(|order| list(&order["quote"]["lines"]));
            let sold = lines.filter(|line| line["product_id"] == product.id).map(|line| number(&line["quantity"]));
            let sold: i64 = sold.sum();
            if reserved != sold {
                self.violate(format!("stock: {reserved} reserved, {sold} in finished orders"));
            }
        }
    }

    /// Checks that both repeats of a request get the same final response, and that the
    /// client got no other final response before. Returns the order's id.
    fn answers(&mut self, answered: &AnsweredRequest, [first, second]: &[Answer; 2]) -> Option<String> {
        let key = &answered.request.key;
        if !is_decision(first) {
            self.violate(format!("{key}: no final answer: {} {}", first.status, first.text));
        }
        for other in answered.decisions.iter().chain([second]) {
            if (other.status, &other.text) != (first.status, &first.text) {
                self.violate(format!("{key}: two answers: {} and {}", other.text, first.text));
            }
        }
        let body = first.json();
        body["id"].as_str().or(body["order_id"].as_str()).map(str::to_owned)
    }

    /// Checks that the order made only allowed transitions, that its payment method is no
    /// longer stored, and that the customer paid if and only if the order is `DONE`.
    fn order(&mut self, order: &Value, request: &OrderRequest) {
        let id = order_id(order);
        let state = text(&order["state"]);
        let states = history(order);
        let transitions: Vec<_> = [""].iter().chain(&states).copied().zip(states.iter().copied()).collect();
        let are_allowed = transitions.iter().all(|transition| TRANSITIONS.contains(transition));
        if !are_allowed || states.last() != Some(&state) {
            self.violate(format!("{id}: {state} after {states:?}"));
        }
        if !order["payment_method"].is_null() {
            self.violate(format!("{id}: the payment method is still stored"));
        }

        let uuid = id.trim_start_matches("ord_");
        let total = number(&order["quote"]["total"]);
        let charges: Vec<_> = about(&self.charges, uuid).collect();
        let kept: i64 =
            charges.iter().map(|charge| number(&charge["captured_minor"]) - number(&charge["refunded_minor"])).sum();
        let captures = charges.iter().flat_map(|charge| list(&charge["history"])).filter(|e| e["status"] == "CAPTURED");
        let captures = captures.count();
        let is_held = charges.iter().any(|charge| charge["status"] == "AUTHORISED");
        let status = about(&self.payments, uuid).next().map_or("none", |payment| text(&payment["status"]));
        let is_right = charges.len() <= 1
            && match state {
                "DONE" => kept == total && total > 0 && captures == 1 && status == "CAPTURED",
                "CANCELLED" => {
                    let is_undone = ["CANCELLED", "VOIDED", "REFUNDED", "DECLINED"].contains(&status);
                    kept == 0 && !is_held && captures <= 1 && is_undone
                }
                _ => false,
            };
        if !is_right {
            self.violate(format!("{id}: {state}, {kept} of {total} kept, payment {status}, charges {charges:?}"));
        }
        self.outcome(order, request);
    }

    /// Checks that the request and the customer's cancellations explain the order's final
    /// state and its cancellation reason. Killed functions may only delay the final state.
    fn outcome(&mut self, order: &Value, request: &OrderRequest) {
        let payment_method = request.payment_method;
        let (id, state, reason) =
            (order_id(order), text(&order["state"]), order["cancellation_reason"]["code"].as_str());
        let cancellations = self.chaos.cancellations.borrow();
        let is_plausible = match (state, reason) {
            _ if cancellations.granted.contains(id) => state == "CANCELLED",
            ("DONE", None) => !["tok_declined", "tok_capture_refused"].contains(&payment_method),
            ("CANCELLED", Some("customer_request")) => cancellations.tried.contains(id),
            ("CANCELLED", Some("payment_declined")) => payment_method == "tok_declined",
            ("CANCELLED", Some("capture_refused")) => payment_method == "tok_capture_refused",
            ("CANCELLED", Some("out_of_stock")) => true,
            ("CANCELLED", Some("timed_out")) => undecided_for(order) >= Some(DECISION_LIMIT),
            _ => false,
        };
        drop(cancellations);
        if !is_plausible {
            let waited = undecided_for(order);
            self.violate(format!("{id}: {state} ({reason:?}) after {waited:?} with {payment_method}"));
        }
    }

    /// Checks that each idempotency key names one order, and that a key names each order.
    async fn keys(&mut self, orders: &[Value]) {
        let mut items = self.chaos.stack.scan("orders").await;
        items.retain(|item| {
            let is_own = |customer: &Person| text(&item["pk"]).starts_with(&format!("KEY#{}#", customer.id));
            item["sk"] == "KEY" && self.chaos.customers.iter().any(is_own)
        });
        let named: BTreeSet<_> = items.iter().map(|item| text(&item["order_id"])).collect();
        let stored: BTreeSet<_> = orders.iter().map(order_id).collect();
        if named != stored || items.len() != stored.len() || items.len() != self.chaos.plan.orders {
            self.violate(format!(
                "{} keys name {} orders, but {} orders are stored",
                items.len(),
                named.len(),
                stored.len()
            ));
        }
    }

    /// Checks that the customer got a message on each channel for each event. A message
    /// may be sent twice only if a notifier was killed after it had sent the message and
    /// before it had recorded this.
    async fn messages(&mut self, orders: &[Value]) {
        let (mut mails, mut texts) = (Vec::new(), Vec::new());
        for customer in &self.chaos.customers {
            mails.extend(self.chaos.stack.mails(&customer.email).await.iter().map(|m| text(&m["Subject"]).to_owned()));
            texts.extend(self.chaos.stack.text_messages(&customer.phone).await);
        }
        let mut due_mails = BTreeSet::new();
        let mut due_texts = BTreeSet::new();
        for order in orders {
            let id = order_id(order);
            let is_confirmed = history(order).contains(&"CONFIRMED");
            let charge = about(&self.charges, id.trim_start_matches("ord_")).next();
            let is_refunded = charge.is_some_and(|charge| number(&charge["refunded_minor"]) > 0);
            if is_confirmed {
                due_mails.insert(format!("Your order is confirmed ({id})"));
                due_texts.insert(("is confirmed", id));
            }
            // If the response to the request already contained the refusal, the customer
            // gets no message about the refusal.
            let is_known = order["is_refusal_answered"] == true && !is_confirmed;
            if order["state"] == "CANCELLED" && !is_known {
                let is_recalled = is_confirmed || order["cancellation_reason"]["code"] == "customer_request";
                let what = if is_recalled { "is cancelled" } else { "could not be placed" };
                due_mails.insert(format!("Your order {what} ({id})"));
                due_texts.insert((what, id));
            }
            if is_refunded {
                due_mails.insert(format!("Your money is on its way back ({id})"));
                due_texts.insert(("we have returned", id));
            }
        }
        let is_text = |text: &str, (what, id): &(&str, &str)| text.contains(what) && text.contains(id);
        let missing_mails = due_mails.iter().filter(|due| !mails.contains(due)).count();
        let missing_texts = due_texts.iter().filter(|due| !texts.iter().any(|text| is_text(text, due))).count();
        let unexpected_mails = mails.iter().filter(|mail| !due_mails.contains(*mail)).count();
        let unexpected_texts = texts.iter().filter(|text| !due_texts.iter().any(|due| is_text(text, due))).count();
        let most_repeated =
            self.chaos.kills.borrow().get("notifications").map_or(0, |kills| kills * NOTIFIER_CONCURRENCY);
        for (channel, missing, unexpected, sent, due) in [
            ("e-mail", missing_mails, unexpected_mails, mails.len(), due_mails.len()),
            ("text message", missing_texts, unexpected_texts, texts.len(), due_texts.len()),
        ] {
            self.messages.push(format!("{due} by {channel}, {} repeated", sent.saturating_sub(due)));
            if missing > 0 || unexpected > 0 || sent > due + most_repeated {
                self.violate(format!(
                    "{channel}: {due} due, {sent} sent; {missing} missing, {unexpected} without an event, \
                     {most_repeated} may be repeated"
                ));
            }
        }
    }

    /// Checks that the malformed message is the only dead letter.
    async fn dead_letters(&mut self) {
        let dead = self.chaos.own_messages(&self.chaos.dead_letters).await;
        if dead != [self.chaos.malformed_message.as_str()] {
            self.violate(format!("dead letters: {dead:?}"));
        }
    }
}

/// Sends a request twice more. Returns the responses.
async fn repeat_twice(chaos: &Chaos, request: &OrderRequest) -> [Answer; 2] {
    let (customer, lines) = (&chaos.customers[request.customer], request.lines());
    let place = async || customer.place_with_key(&lines, request.payment_method, &request.key).await;
    [place().await, place().await]
}

/// The time from an order's creation to its decision.
fn undecided_for(order: &Value) -> Option<SignedDuration> {
    let at = |entry: &Value| text(&entry["at"]).parse::<Timestamp>().ok();
    let history = &order["history"];
    Some(at(&history[1])?.duration_since(at(&history[0])?))
}

fn history(order: &Value) -> Vec<&str> {
    list(&order["history"]).map(|entry| text(&entry["status"])).collect()
}

/// The items whose partition key contains an order's UUID.
fn about<'a>(items: &'a [Value], uuid: &'a str) -> impl Iterator<Item = &'a Value> {
    items.iter().filter(move |item| text(&item["pk"]).contains(uuid))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The order's id, which an order's item contains only in its key.
fn order_id(item: &Value) -> &str {
    text(&item["pk"]).trim_start_matches("ORDER#")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}
