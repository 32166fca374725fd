//! What must hold once all is quiet, whatever went on before.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use stack_tests::{Answer, Person};

use crate::{CLIENTS, Chaos, Intention, Story, is_decision};

/// How an order may move.
const MOVES: [(&str, &str); 7] = [
    ("PENDING", "CONFIRMED"),
    ("PENDING", "CANCELLING"),
    ("CONFIRMED", "DONE"),
    ("CONFIRMED", "CANCELLING"),
    ("DONE", "CANCELLING"),
    ("CANCELLING", "CANCELLED"),
    // Where it begins.
    ("", "PENDING"),
];
/// How long an undecided order waits before it is given up.
const PATIENCE: SignedDuration = SignedDuration::from_mins(2);
/// How many events a notifier tells at once: so many may be told once more
/// when it is killed.
const TOLD_AT_ONCE: usize = 4;

/// What was found.
pub struct Found {
    /// How many orders are in which state.
    pub ends: BTreeMap<String, usize>,
    /// What customers were told, in numbers.
    pub messages: Vec<String>,
    /// Promises that were broken.
    pub violations: Vec<String>,
}

pub async fn check(chaos: &Chaos, stories: &[Story]) -> Found {
    let orders = chaos.orders().await;
    let mut check = Check {
        chaos,
        charges: chaos.stack.scan("sandbox_ledger").await,
        payments: chaos.stack.scan("payments").await,
        messages: Vec::new(),
        violations: Vec::new(),
    };
    check.stock(&orders).await;
    let replays = stream::iter(stories).map(|story| replay(chaos, &story.intention)).buffered(CLIENTS);
    let replays: Vec<_> = replays.collect().await;
    for (story, replay) in stories.iter().zip(&replays) {
        if let Some(id) = check.answers(story, replay) {
            match orders.iter().find(|order| order["id"] == id) {
                Some(order) => check.order(order, &story.intention),
                None => check.violate(format!("{id} was answered, and is not there")),
            }
        }
    }
    check.keys(&orders).await;
    check.messages(&orders).await;
    check.dead_letters().await;
    let mut ends = BTreeMap::new();
    for order in &orders {
        *ends.entry(text(&order["state"]).to_owned()).or_default() += 1;
    }
    Found { ends, messages: check.messages, violations: check.violations }
}

struct Check<'a> {
    chaos: &'a Chaos,
    charges: Vec<Value>,
    payments: Vec<Value>,
    messages: Vec<String>,
    violations: Vec<String>,
}

impl Check<'_> {
    fn violate(&mut self, violation: impl Into<String>) {
        self.violations.push(violation.into());
    }

    /// Initial stock = available + reserved, none negative; and what is
    /// reserved is what finished orders have.
    async fn stock(&mut self, orders: &[Value]) {
        let items = self.chaos.stack.scan("products").await;
        let done = || orders.iter().filter(|order| order["state"] == "DONE");
        for product in &self.chaos.products {
            let item = items.iter().find(|item| item["sk"] == "PRODUCT" && text(&item["pk"]).ends_with(&product.id));
            let Some(item) = item else {
                self.violate(format!("{} is not there", product.id));
                continue;
            };
            let (available, reserved) = (number(&item["available"]), number(&item["reserved"]));
            if available + reserved != product.stock || available < 0 || reserved < 0 {
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

    /// The same request has the same answer for good, and it is one that the
    /// client may have got before. Returns the order's id.
    fn answers(&mut self, story: &Story, [once, again]: &[Answer; 2]) -> Option<String> {
        let key = &story.intention.key;
        if !is_decision(once) {
            self.violate(format!("{key}: no final answer: {} {}", once.status, once.text));
        }
        for other in story.told.iter().chain([again]) {
            if (other.status, &other.text) != (once.status, &once.text) {
                self.violate(format!("{key}: two answers: {} and {}", other.text, once.text));
            }
        }
        let body: Value = serde_json::from_str(&once.text).unwrap_or_default();
        body["id"].as_str().or(body["order_id"].as_str()).map(str::to_owned)
    }

    fn order(&mut self, order: &Value, intention: &Intention) {
        let id = text(&order["id"]);
        let end = text(&order["state"]);
        let states = history(order);
        let moves: Vec<_> = [""].iter().chain(&states).copied().zip(states.iter().copied()).collect();
        if !moves.iter().all(|step| MOVES.contains(step)) || states.last() != Some(&end) {
            self.violate(format!("{id}: {end} after {states:?}"));
        }
        if !order["payment_method"].is_null() {
            self.violate(format!("{id}: the payment token was kept"));
        }

        let uuid = id.trim_start_matches("ord_");
        let total = number(&order["quote"]["total"]["minor"]);
        let charges: Vec<_> = about(&self.charges, uuid).collect();
        let kept: i64 =
            charges.iter().map(|charge| number(&charge["captured_minor"]) - number(&charge["refunded_minor"])).sum();
        let captures = charges.iter().flat_map(|charge| list(&charge["history"])).filter(|e| e["status"] == "CAPTURED");
        let captures = captures.count();
        let is_held = charges.iter().any(|charge| charge["status"] == "AUTHORISED");
        let status = about(&self.payments, uuid).next().map_or("none", |payment| text(&payment["status"]));
        let is_right = charges.len() <= 1
            && match end {
                "DONE" => kept == total && total > 0 && captures == 1 && status == "CAPTURED",
                "CANCELLED" => {
                    let is_undone = ["CANCELLED", "VOIDED", "REFUNDED", "DECLINED"].contains(&status);
                    kept == 0 && !is_held && captures <= 1 && is_undone
                }
                _ => false,
            };
        if !is_right {
            self.violate(format!("{id}: {end}, {kept} of {total} kept, payment {status}, charges {charges:?}"));
        }
        self.end(order, intention);
    }

    /// Kills delay; they don't decide. What is cancelled has a reason.
    fn end(&mut self, order: &Value, intention: &Intention) {
        let (id, end, reason) =
            (text(&order["id"]), text(&order["state"]), order["cancellation_reason"]["code"].as_str());
        let cancellations = self.chaos.cancellations.borrow();
        let is_plausible = match (end, reason) {
            _ if cancellations.granted.contains(id) => end == "CANCELLED",
            ("DONE", None) => !["tok_declined", "tok_capture_refused"].contains(&intention.token),
            ("CANCELLED", Some("customer_request")) => cancellations.tried.contains(id),
            ("CANCELLED", Some("payment_declined")) => intention.token == "tok_declined",
            ("CANCELLED", Some("capture_refused")) => intention.token == "tok_capture_refused",
            ("CANCELLED", Some("out_of_stock")) => true,
            ("CANCELLED", Some("timed_out")) => undecided_for(order) >= Some(PATIENCE),
            _ => false,
        };
        drop(cancellations);
        if !is_plausible {
            let waited = undecided_for(order);
            self.violate(format!("{id}: {end} ({reason:?}) after {waited:?} with {}", intention.token));
        }
    }

    /// Each key has one order, and no order is without one.
    async fn keys(&mut self, orders: &[Value]) {
        let mut items = self.chaos.stack.scan("orders").await;
        items.retain(|item| {
            let is_own = |customer: &Person| text(&item["pk"]).starts_with(&format!("KEY#{}#", customer.id));
            item["sk"] == "KEY" && self.chaos.customers.iter().any(is_own)
        });
        let named: BTreeSet<_> = items.iter().map(|item| text(&item["order_id"])).collect();
        let there: BTreeSet<_> = orders.iter().map(|order| text(&order["id"])).collect();
        if named != there || items.len() != there.len() || items.len() != self.chaos.plan.orders {
            self.violate(format!("{} keys name {} orders; there are {}", items.len(), named.len(), there.len()));
        }
    }

    /// Each event is told at least once on each of its channels, and more than
    /// once only where a notifier died between sending and noting it.
    async fn messages(&mut self, orders: &[Value]) {
        let (mut mails, mut texts) = (Vec::new(), Vec::new());
        for customer in &self.chaos.customers {
            mails.extend(self.chaos.stack.mails(&customer.email).await.iter().map(|m| text(&m["Subject"]).to_owned()));
            texts.extend(self.chaos.stack.texts(&customer.phone).await);
        }
        let mut owed_mails = BTreeSet::new();
        let mut owed_texts = BTreeSet::new();
        for order in orders {
            let id = text(&order["id"]);
            let is_confirmed = history(order).contains(&"CONFIRMED");
            let charge = about(&self.charges, id.trim_start_matches("ord_")).next();
            let moved = |sum: &str| charge.is_some_and(|charge| number(&charge[sum]) > 0);
            if is_confirmed {
                owed_mails.insert(format!("Your order is confirmed ({id})"));
                owed_texts.insert(("is confirmed", id));
            }
            // Whoever had the refusal as an answer needs no message about it.
            let is_known = order["is_refusal_answered"] == true && !is_confirmed;
            if order["state"] == "CANCELLED" && !is_known {
                let is_recalled = is_confirmed || order["cancellation_reason"]["code"] == "customer_request";
                let what = if is_recalled { "is cancelled" } else { "could not be placed" };
                owed_mails.insert(format!("Your order {what} ({id})"));
                owed_texts.insert((what, id));
            }
            if moved("refunded_minor") {
                owed_mails.insert(format!("Your money is on its way back ({id})"));
                owed_texts.insert(("we have returned", id));
            }
        }
        let is_text = |text: &str, (what, id): &(&str, &str)| text.contains(what) && text.contains(id);
        let untold_mails = owed_mails.iter().filter(|owed| !mails.contains(owed)).count();
        let untold_texts = owed_texts.iter().filter(|owed| !texts.iter().any(|text| is_text(text, owed))).count();
        let unowed_mails = mails.iter().filter(|mail| !owed_mails.contains(*mail)).count();
        let unowed_texts = texts.iter().filter(|text| !owed_texts.iter().any(|owed| is_text(text, owed))).count();
        let most_repeated = self.chaos.kills.borrow().get("notifications").map_or(0, |kills| kills * TOLD_AT_ONCE);
        for (channel, untold, unowed, sent, owed) in [
            ("e-mail", untold_mails, unowed_mails, mails.len(), owed_mails.len()),
            ("text message", untold_texts, unowed_texts, texts.len(), owed_texts.len()),
        ] {
            self.messages.push(format!("{owed} by {channel}, {} repeated", sent.saturating_sub(owed)));
            if untold > 0 || unowed > 0 || sent > owed + most_repeated {
                self.violate(format!(
                    "{channel}: {owed} owed, {sent} sent; {untold} never told, {unowed} about nothing, \
                     {most_repeated} may be repeated"
                ));
            }
        }
    }

    async fn dead_letters(&mut self) {
        let dead = self.chaos.own(&self.chaos.dead_letters).await;
        if dead != [self.chaos.poison.as_str()] {
            self.violate(format!("dead letters: {dead:?}"));
        }
    }
}

/// The answers to the same request, twice more.
async fn replay(chaos: &Chaos, intention: &Intention) -> [Answer; 2] {
    let Intention { customer, key, token, .. } = intention;
    let (customer, lines) = (&chaos.customers[*customer], intention.lines());
    [customer.order(&lines, token, key).await, customer.order(&lines, token, key).await]
}

/// How long an order waited for its decision.
fn undecided_for(order: &Value) -> Option<SignedDuration> {
    let at = |entry: &Value| text(&entry["at"]).parse::<Timestamp>().ok();
    let history = &order["history"];
    Some(at(&history[1])?.duration_since(at(&history[0])?))
}

fn history(order: &Value) -> Vec<&str> {
    list(&order["history"]).map(|entry| text(&entry["status"])).collect()
}

/// The items whose key has the order's UUID in it.
fn about<'a>(items: &'a [Value], uuid: &'a str) -> impl Iterator<Item = &'a Value> {
    items.iter().filter(move |item| text(&item["pk"]).contains(uuid))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}
