//! An order, from the request to the e-mail, shown as it goes.

use std::{
    collections::HashSet,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    inbox::{Inbox, Mail, plain},
    people::{Passwords, Person},
    progress::{Step, seconds},
    project::Project,
    shop::{indented, silent_services},
    stack::Stack,
};

const CATALOGUE: &str = include_str!("../data/catalogue.json");
const DONE_WITHIN: Duration = Duration::from_secs(90);
/// How many e-mails tell a customer of an order that goes well.
const MAILS: usize = 1;

/// How much of it is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// A line for each thing that happens.
    Brief,
    /// Requests, answers and the e-mail, in full.
    Full,
}

/// `make demo`: one more order.
pub fn demo(project: &Project) -> Result<()> {
    let stack = Stack::running(project)?;
    order(&stack, &Passwords::in_folder(&project.local()), Detail::Full)
}

/// The order at the end of `make up`.
pub fn first_order(stack: &Stack, passwords: &Passwords) -> Result<()> {
    order(stack, passwords, Detail::Brief)
}

/// Puts the catalogue's products up for sale, if there are none.
pub fn stock_the_shop(stack: &Stack, passwords: &Passwords) -> Result<()> {
    let step = Step::begin("Catalogue: xtask/data/catalogue.json");
    if !products(stack)?.is_empty() {
        step.done("there already");
        return Ok(());
    }
    let catalogue: Vec<Value> = serde_json::from_str(CATALOGUE).context("the catalogue is no list of products")?;
    let authorization = format!("Bearer {}", passwords.sign_in(stack, Person::ADMIN)?);
    for product in &catalogue {
        let answer = stack.ask("POST", "/products", &[("authorization", &authorization)], Some(product))?;
        answer.granted().with_context(|| format!("{} was not taken up", product["name"]))?;
    }
    step.done(format!("{} products", catalogue.len()));
    Ok(())
}

/// What is for sale.
pub fn products(stack: &Stack) -> Result<Vec<Value>> {
    let list = stack.ask("GET", "/products", &[], None)?.granted()?;
    Ok(list["items"].as_array().context("GET /products has no items")?.clone())
}

fn order(stack: &Stack, passwords: &Passwords, detail: Detail) -> Result<()> {
    let authorization = format!("Bearer {}", passwords.sign_in(stack, Person::CUSTOMER)?);
    let inbox = Inbox::of(stack)?;
    let mails = || inbox.as_ref().map_or_else(|| Ok(Vec::new()), Inbox::mails);
    let read_before: HashSet<String> = mails()?.into_iter().map(|mail| mail.id).collect();

    let step = Step::begin(format!("Order: {} buys", Person::CUSTOMER.name));
    let request = json!({ "items": basket(&products(stack)?)?, "payment_method": "tok_accepted" });
    let key = format!("demo-{}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos());
    if detail == Detail::Full {
        step.note(format!("POST {}/orders\nIdempotency-Key: {key}\n{request:#}\n", stack.api_url));
    }
    let headers = [("authorization", authorization.as_str()), ("idempotency-key", &key)];
    let began = Instant::now();
    let answer = stack.ask("POST", "/orders", &headers, Some(&request))?;
    let (status, took, text) = (answer.status, answer.took, indented(&answer.text));
    let order = answer.granted()?;
    let id = order["id"].as_str().context("the order has no id")?.to_owned();
    if detail == Detail::Full {
        step.note(format!("{status} after {}\n{text}\n", seconds(took)));
    } else {
        // An order that is answered with 202 may not be priced yet.
        let price = order["total"].as_f64().map(|total| format!(", {total:.2} {}", plain(&order["currency"])));
        step.note(format!("{id}{}: {status} after {}", price.unwrap_or_default(), seconds(took)));
    }
    follow(stack, &step, &order, &id, &headers[..1], began)?;
    step.done("done");

    let step = Step::begin("E-mail: the order is confirmed and paid");
    if inbox.is_none() {
        step.note(format!("NOT CHECKED: {} has no inbox that is known here", stack.emulator_url));
        return Ok(());
    }
    let mails = loop {
        let mut new = mails()?;
        new.retain(|mail| mail.is_to(Person::CUSTOMER.email) && !read_before.contains(&mail.id));
        if new.len() >= MAILS {
            break new;
        }
        ensure!(began.elapsed() < DONE_WITHIN, "{} of {MAILS} arrived; `make logs` may tell why", new.len());
        thread::sleep(Duration::from_millis(100));
    };
    for mail in mails {
        let Mail { from, subject, text, .. } = &mail;
        let to = mail.to.join(", ");
        match detail {
            Detail::Full => step.note(format!("From: {from}\nTo: {to}\nSubject: {subject}\n\n{}\n\n", text.trim())),
            Detail::Brief => step.note(format!("to {to}: {subject}")),
        }
    }
    step.done(format!("arrived {} after the order", seconds(began.elapsed())));
    Ok(())
}

/// Three of the second product and one of the first: 3 × 19.99 is a price that
/// inexact arithmetic gets wrong.
fn basket(products: &[Value]) -> Result<Vec<Value>> {
    let in_stock: Vec<&Value> = products.iter().filter(|product| product["stock"].as_u64() >= Some(3)).collect();
    ensure!(!in_stock.is_empty(), "everything is sold out: `make down`, then `make up`");
    // The mug, wherever in the list it is, and something beside it.
    let mug = in_stock.iter().copied().find(|product| product["price"].as_f64() == Some(19.99)).unwrap_or(in_stock[0]);
    let other = in_stock.iter().copied().find(|product| product["id"] != mug["id"]);
    let line = |product: &Value, quantity: u32| json!({ "product_id": product["id"], "quantity": quantity });
    Ok([Some(line(mug, 3)), other.map(|other| line(other, 1))].into_iter().flatten().collect())
}

/// Shows each state of the order, as its history tells, until there is no more
/// to come.
fn follow(stack: &Stack, step: &Step, order: &Value, id: &str, headers: &[(&str, &str)], began: Instant) -> Result<()> {
    let mut order = order.clone();
    let mut shown = 0;
    loop {
        let history = order["history"].as_array().context("the order has no history")?;
        for entry in &history[shown.min(history.len())..] {
            let since = since(&history[0], entry).map(|time| format!(", {} after the first", seconds(time)));
            step.note(format!("{:<11} {}{}", plain(&entry["status"]), plain(&entry["at"]), since.unwrap_or_default()));
        }
        shown = history.len();
        let status = plain(&order["status"]);
        ensure!(status != "CANCELLED", "the order was cancelled: {order:#}");
        if status == "DONE" {
            return Ok(());
        }
        if began.elapsed() >= DONE_WITHIN {
            bail!("the order is still {status}; {}", why(&silent_services(&stack.api_url)));
        }
        thread::sleep(Duration::from_millis(100));
        order = stack.ask("GET", &format!("/orders/{id}"), headers, None)?.granted()?;
    }
}

/// What may have kept an order.
fn why(silent: &[String]) -> String {
    match silent {
        [] => "each service answers, so `make logs` may tell why".to_owned(),
        _ => format!("`make logs` may tell why\n  {}", silent.join("\n  ")),
    }
}

/// The time between two entries of a history.
fn since(first: &Value, entry: &Value) -> Option<Duration> {
    const DAY: f64 = 86_400.0;
    let (first, entry) = (seconds_of_day(first["at"].as_str()?)?, seconds_of_day(entry["at"].as_str()?)?);
    Duration::try_from_secs_f64((entry - first).rem_euclid(DAY)).ok()
}

/// From an RFC 3339 time in UTC, such as `2026-01-31T12:00:01.5Z`.
fn seconds_of_day(time: &str) -> Option<f64> {
    let (_, clock) = time.strip_suffix('Z')?.split_once('T')?;
    let parts: Vec<f64> = clock.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [hours, minutes, seconds] = parts[..] else { return None };
    Some((hours * 60.0 + minutes) * 60.0 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_timed_across_midnight() {
        let (first, later) = (json!({ "at": "2026-01-31T23:59:59.75Z" }), json!({ "at": "2026-02-01T00:00:01Z" }));
        assert_eq!(since(&first, &later), Some(Duration::from_millis(1250)));
    }

    #[test]
    fn the_catalogue_is_a_list_of_products_with_exact_prices() {
        let catalogue: Vec<Value> = serde_json::from_str(CATALOGUE).expect("a list");
        assert!(catalogue.iter().all(|product| product["name"].is_string() && product["price"].is_number()));
        assert!(catalogue.iter().any(|product| product["price"] == json!(19.99)));
    }
}
