//! The sums that must always be right: stock, money, events and dead letters.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::Result;
use chassis::money::Currency;
use serde::Serialize;
use serde_json::Value;

use crate::{
    emulator::Emulator,
    stored_order::{is_open, is_order, was},
};

const DEAD_LETTER_QUEUES: [&str; 2] = ["dead_letter", "user_events_dead_letter"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Books {
    pub products: Vec<Product>,
    pub money: Vec<Money>,
    pub events: Events,
    pub dead_letters: Vec<DeadLetters>,
    pub open_orders: usize,
    /// Orders are open, or an event waits: the sums still move.
    pub working: bool,
    /// Every sum is right, nothing is open, and there is no dead letter.
    pub green: bool,
}

/// Initial stock + adjustments = available + reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Product {
    pub id: String,
    pub name: String,
    pub initial: i64,
    pub adjustments: i64,
    pub available: i64,
    pub reserved: i64,
    pub balanced: bool,
}

/// What the provider has captured and not returned = the totals of the orders that are done.
/// What it has captured for open orders is in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Money {
    pub currency: String,
    pub captured_and_kept: i64,
    pub in_flight: i64,
    pub done_orders: i64,
    /// The number of decimals of the currency's amounts, which are in minor units.
    pub decimals: u32,
    pub balanced: bool,
}

/// Each order that was confirmed has published its event, and the notifier knows the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Events {
    pub confirmed: usize,
    pub out: usize,
    pub balanced: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetters {
    pub queue: String,
    pub count: usize,
}

/// Everything that the books are computed from.
pub struct Records {
    pub orders: Vec<Value>,
    /// The keys of the orders that have changed while the other tables were read. What was read
    /// about them does not belong together.
    pub changed: HashSet<String>,
    pub products: Vec<Value>,
    pub ledger: Vec<Value>,
    pub messages: Vec<Value>,
    pub dead_letters: Vec<DeadLetters>,
    /// How many events wait in the queue.
    pub waiting: usize,
}

impl Records {
    pub async fn read(emulator: &Emulator) -> Result<Self> {
        let before = emulator.scan("orders").await?;
        // Before the notifications: an event that has left the queue is known there.
        let queued = emulator.queued("order_events").await?;
        let (products, ledger, messages) = futures::try_join!(
            emulator.scan("products"),
            emulator.scan("sandbox_ledger"),
            emulator.scan("notifications")
        )?;
        let mut dead_letters = Vec::new();
        for queue in DEAD_LETTER_QUEUES {
            dead_letters.push(DeadLetters { queue: queue.to_owned(), count: emulator.queued(queue).await?.len() });
        }
        let orders = emulator.scan("orders").await?;
        let changed = changed(&before, &orders);
        Ok(Self { orders, changed, products, ledger, messages, dead_letters, waiting: queued.len() })
    }
}

impl Books {
    pub fn of(records: &Records) -> Self {
        let orders: Vec<_> = records.orders.iter().filter(|item| is_order(item)).collect();
        let open_orders = orders.iter().filter(|order| is_open(order)).count();
        let is_moving = |order: &Value| is_open(order) || records.changed.contains(&text(&order["pk"]));
        let (moving, settled): (Vec<_>, Vec<_>) = orders.iter().copied().partition(|order| is_moving(order));
        let products = products(&records.products);
        let money = money(&moving, &settled, &records.ledger);
        let events = events(&orders, &records.messages);
        let working = !moving.is_empty() || records.waiting > 0;
        let is_balanced = products.iter().all(|product| product.balanced)
            && money.iter().all(|row| row.balanced)
            && events.balanced
            && records.dead_letters.iter().all(|queue| queue.count == 0);
        Self {
            products,
            money,
            events,
            dead_letters: records.dead_letters.clone(),
            open_orders,
            working,
            green: is_balanced && !working,
        }
    }
}

/// The keys of the orders that are not the same in both lists.
fn changed(before: &[Value], after: &[Value]) -> HashSet<String> {
    let orders = |items| <[Value]>::iter(items).filter(|item| is_order(item));
    let before: HashMap<_, _> = orders(before).map(|order| (text(&order["pk"]), order)).collect();
    let is_changed = |order: &&Value| before.get(&text(&order["pk"])) != Some(order);
    orders(after).filter(is_changed).map(|order| text(&order["pk"])).collect()
}

fn products(items: &[Value]) -> Vec<Product> {
    let mut products: BTreeMap<String, Product> = items
        .iter()
        .filter(|item| item["sk"] == "PRODUCT")
        .map(|item| {
            let id = after(&item["pk"], "PRODUCT#");
            let (name, initial) = (text(&item["name"]), number(&item["initial_stock"]));
            let product =
                Product { id: id.clone(), name, initial, adjustments: 0, available: 0, reserved: 0, balanced: true };
            (id, product)
        })
        .collect();
    for item in items {
        let sort_key = text(&item["sk"]);
        if sort_key == "STOCK" {
            if let Some(product) = products.get_mut(&text(&item["product_id"])) {
                let (available, reserved) = (number(&item["available"]), number(&item["reserved"]));
                product.available += available;
                product.reserved += reserved;
                product.balanced &= available >= 0 && reserved >= 0;
            }
        } else if sort_key.starts_with("ADJUSTMENT#")
            && let Some(product) = products.get_mut(&after(&item["pk"], "PRODUCT#"))
        {
            product.adjustments += number(&item["delta"]);
        }
    }
    let mut products: Vec<_> = products.into_values().collect();
    for product in &mut products {
        product.balanced &= product.initial + product.adjustments == product.available + product.reserved;
    }
    products
}

fn money(moving: &[&Value], settled: &[&Value], ledger: &[Value]) -> Vec<Money> {
    let moving: HashSet<String> = moving.iter().map(|order| after(&order["pk"], "ORDER#ord_")).collect();
    let mut rows: BTreeMap<String, (i64, i64, i64)> = BTreeMap::new();
    for charge in ledger {
        let kept = number(&charge["captured_minor"]) - number(&charge["refunded_minor"]);
        let row = rows.entry(text(&charge["currency"])).or_default();
        row.0 += kept;
        // A charge has the UUID of its order.
        if moving.contains(&after(&charge["pk"], "CHARGE#pay_")) {
            row.1 += kept;
        }
    }
    for order in settled.iter().filter(|order| order["state"] == "DONE") {
        rows.entry(text(&order["quote"]["currency"])).or_default().2 += number(&order["quote"]["total"]);
    }
    rows.into_iter()
        .map(|(currency, (captured_and_kept, in_flight, done_orders))| Money {
            decimals: decimals(&currency),
            balanced: captured_and_kept - in_flight == done_orders,
            currency,
            captured_and_kept,
            in_flight,
            done_orders,
        })
        .collect()
}

fn events(orders: &[&Value], messages: &[Value]) -> Events {
    let announced: BTreeSet<String> = messages
        .iter()
        .filter(|claim| claim["kind"] == "OrderCreated")
        .map(|claim| after(&claim["pk"], "ORDER#"))
        .collect();
    let confirmed: Vec<_> = orders.iter().filter(|order| was(order, "CONFIRMED")).collect();
    let out = confirmed.iter().filter(|order| announced.contains(&after(&order["pk"], "ORDER#"))).count();
    // The notifier works after the order is done. So the sum can be wrong only once nothing
    // waits any more, which `working` says.
    Events { confirmed: confirmed.len(), out, balanced: out == confirmed.len() }
}

fn decimals(currency: &str) -> u32 {
    currency.parse::<Currency>().map(Currency::decimals).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn after(value: &Value, prefix: &str) -> String {
    value.as_str().and_then(|text| text.strip_prefix(prefix)).unwrap_or_default().to_owned()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn records() -> Records {
        let quote = json!({ "currency": "USD", "total": 500, "lines": [] });
        let order = |id: &str, states: &[&str]| {
            let history: Vec<_> = states.iter().map(|state| json!({ "status": state })).collect();
            json!({
                "pk": format!("ORDER#ord_{id}"), "sk": "ORDER", "quote": quote,
                "state": states[states.len() - 1], "history": history,
            })
        };
        let charge = |id: &str, captured: i64, refunded: i64| {
            json!({
                "pk": format!("CHARGE#pay_{id}"), "currency": "USD",
                "captured_minor": captured, "refunded_minor": refunded,
            })
        };
        Records {
            orders: vec![
                order("1", &["PENDING", "CONFIRMED", "DONE"]),
                order("2", &["PENDING", "CONFIRMED", "CANCELLING", "CANCELLED"]),
                json!({ "pk": "KEY#user#1", "sk": "KEY" }),
            ],
            changed: HashSet::new(),
            products: vec![
                json!({ "pk": "PRODUCT#p", "sk": "PRODUCT", "name": "Mug", "initial_stock": 10 }),
                json!({ "pk": "PRODUCT#p", "sk": "ADJUSTMENT#a", "delta": 5 }),
                json!({ "pk": "STOCK#p#0", "sk": "STOCK", "product_id": "p", "available": 12, "reserved": 1 }),
                json!({ "pk": "STOCK#p#1", "sk": "STOCK", "product_id": "p", "available": 2, "reserved": 0 }),
            ],
            ledger: vec![charge("1", 500, 0), charge("2", 500, 500)],
            messages: vec![
                json!({ "pk": "ORDER#ord_1", "kind": "OrderCreated" }),
                json!({ "pk": "ORDER#ord_1", "kind": "OrderCreated" }),
                json!({ "pk": "ORDER#ord_2", "kind": "OrderCreated" }),
            ],
            dead_letters: vec![DeadLetters { queue: "dead_letter".into(), count: 0 }],
            waiting: 0,
        }
    }

    #[test]
    fn the_books_of_a_shop_that_kept_every_promise_are_green() {
        let books = Books::of(&records());
        assert!(books.green, "{books:?}");
        assert_eq!(books.products[0].available, 14);
        assert_eq!((books.money[0].captured_and_kept, books.money[0].done_orders), (500, 500));
        assert_eq!((books.events.confirmed, books.events.out), (2, 2));
    }

    #[test]
    fn each_broken_promise_makes_the_books_red() {
        let mut lost = records();
        lost.products[2]["available"] = json!(11);
        let mut twice = records();
        twice.ledger[0]["captured_minor"] = json!(1000);
        let mut kept = records();
        kept.ledger[1]["refunded_minor"] = json!(0);
        let mut silent = records();
        silent.messages.truncate(2);
        let mut dead = records();
        dead.dead_letters[0].count = 1;
        let mut negative = records();
        negative.products[2] = json!({ "sk": "STOCK", "product_id": "p", "available": 14, "reserved": -1 });
        for broken in [lost, twice, kept, silent, dead, negative] {
            assert!(!Books::of(&broken).green);
        }
    }

    #[test]
    fn an_order_that_changes_while_the_books_are_read_breaks_no_sum() {
        let mut records = records();
        let mut before = records.orders.clone();
        before[0]["state"] = json!("CONFIRMED");
        records.changed = changed(&before, &records.orders);
        assert_eq!(records.changed, HashSet::from(["ORDER#ord_1".to_owned()]));
        // The ledger was read before the capture, and after it.
        for captured in [0, 500] {
            records.ledger[0]["captured_minor"] = json!(captured);
            let books = Books::of(&records);
            assert!(books.money[0].balanced && books.working && !books.green, "{books:?}");
        }
    }

    #[test]
    fn money_of_an_open_order_is_in_flight_and_breaks_no_sum() {
        let mut records = records();
        records.orders[0]["state"] = json!("CONFIRMED");
        let books = Books::of(&records);
        assert!(books.money[0].balanced && books.money[0].in_flight == 500, "{books:?}");
        assert!(books.working && !books.green);
    }
}
