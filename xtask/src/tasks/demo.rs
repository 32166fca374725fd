//! `make demo`: places an order, and shows each step until the e-mail has arrived.

use std::{
    collections::HashSet,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use jsonxf::pretty_print;
use serde_json::{Value, json};

use crate::{
    catalogue::products,
    demo_users::{Passwords, Person},
    inbox::{Inbox, Mail, plain},
    prelude::*,
    service_health::silent_services,
};

const DONE_WITHIN: Duration = Duration::from_secs(90);
/// The number of e-mails that a customer gets about a successful order.
const MAILS: usize = 1;
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Shows a line for each step.
    Brief,
    /// Shows the complete request, response and e-mail.
    Full,
}

pub fn run(project: &Project) -> Result<()> {
    let stack = Stack::running(project)?;
    place_order(&stack, &Passwords::in_folder(&project.local()), Detail::Full)
}

/// Places an order as the customer, and waits until it is done and its e-mail has
/// arrived.
pub fn place_order(stack: &Stack, passwords: &Passwords, detail: Detail) -> Result<()> {
    let authorization = format!("Bearer {}", passwords.sign_in(stack, Person::CUSTOMER)?);
    let inbox = Inbox::of(stack)?;
    let mails = || inbox.as_ref().map_or_else(|| Ok(Vec::new()), Inbox::mails);
    let earlier: HashSet<String> = mails()?.into_iter().map(|mail| mail.id).collect();

    let step = Step::begin(format!("Order: {} buys", Person::CUSTOMER.name));
    let request = json!({ "items": items(&products(stack)?)?, "payment_method": "tok_accepted" });
    let key = format!("demo-{}", Timestamp::now().as_nanosecond());
    if detail == Detail::Full {
        step.note(format!("POST {}/orders\nIdempotency-Key: {key}\n{request:#}\n", stack.api_url));
    }
    let headers = [("authorization", authorization.as_str()), ("idempotency-key", &key)];
    let began = Instant::now();
    let response = stack.send("POST", "/orders", &headers, Some(&request))?;
    ensure!(
        !response.has_code("user_inactive"),
        "{} was deactivated; `make up` gives her a new account",
        Person::CUSTOMER.name
    );
    let (status, took, text) = (response.status, seconds(response.took), response.text.clone());
    let order = response.success()?;
    let id = order["id"].as_str().context("the order has no id")?.to_owned();
    if detail == Detail::Full {
        step.note(format!("{status} after {took}\n{}\n", pretty_print(&text).unwrap_or(text)));
    } else {
        // A response with status 202 reports an order that is still being processed and
        // may have no price yet.
        let price = order["total"].as_f64().map(|total| format!(", {total:.2} {}", plain(&order["currency"])));
        step.note(format!("{id}{}: {status} after {took}", price.unwrap_or_default()));
    }
    follow(stack, &step, order, &id, &headers[..1], began)?;
    step.done("done");

    let step = Step::begin("E-mail: the order is confirmed and paid");
    if inbox.is_none() {
        step.note(format!("NOT CHECKED: the inbox of {} is unknown here", stack.emulator_url));
        return Ok(());
    }
    let mails = loop {
        let mut new = mails()?;
        new.retain(|mail| mail.is_to(Person::CUSTOMER.email) && !earlier.contains(&mail.id));
        if new.len() >= MAILS {
            break new;
        }
        ensure!(began.elapsed() < DONE_WITHIN, "{} of {MAILS} arrived; `make logs` may show why", new.len());
        thread::sleep(PAUSE);
    };
    for Mail { from, to, subject, text, .. } in mails {
        let to = to.join(", ");
        match detail {
            Detail::Full => step.note(format!("From: {from}\nTo: {to}\nSubject: {subject}\n\n{}\n\n", text.trim())),
            Detail::Brief => step.note(format!("to {to}: {subject}")),
        }
    }
    step.done(format!("arrived {} after the order", seconds(began.elapsed())));
    Ok(())
}

/// Chooses what to buy: three mugs, which the demo knows by their price of 19.99, and one
/// of another product with a price in the same currency.
fn items(products: &[Value]) -> Result<Vec<Value>> {
    let in_stock: Vec<&Value> = products.iter().filter(|product| product["stock"].as_u64() >= Some(3)).collect();
    ensure!(!in_stock.is_empty(), "everything is sold out: `make down`, then `make up`");
    let mug = in_stock.iter().copied().find(|product| product["price"].as_f64() == Some(19.99)).unwrap_or(in_stock[0]);
    let goes_with_mug = |product: &&Value| product["id"] != mug["id"] && product["currency"] == mug["currency"];
    let other = in_stock.iter().copied().find(goes_with_mug);
    let item = |product: &Value, quantity: u32| json!({ "product_id": product["id"], "quantity": quantity });
    Ok([Some(item(mug, 3)), other.map(|other| item(other, 1))].into_iter().flatten().collect())
}

/// Polls the order until it is done, and shows each new entry of its history.
fn follow(
    stack: &Stack,
    step: &Step,
    mut order: Value,
    id: &str,
    headers: &[(&str, &str)],
    began: Instant,
) -> Result<()> {
    let mut shown = 0;
    loop {
        let history = order["history"].as_array().context("the order has no history")?;
        for entry in history.iter().skip(shown) {
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
            let silent = silent_services(&stack.api_url);
            if silent.is_empty() {
                bail!("the order is still {status}; each service answers, so `make logs` may show why");
            }
            bail!("the order is still {status}; `make logs` may show why\n  {}", silent.join("\n  "));
        }
        thread::sleep(PAUSE);
        order = stack.send("GET", &format!("/orders/{id}"), headers, None)?.success()?;
    }
}

/// Returns the time between two entries of an order's history.
fn since(first: &Value, entry: &Value) -> Option<Duration> {
    let at = |entry: &Value| entry["at"].as_str()?.parse::<Timestamp>().ok();
    at(entry)?.duration_since(at(first)?).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_buys_products_with_prices_in_one_currency() {
        let product = |id: &str, price: f64, currency: &str| json!({ "id": id, "price": price, "currency": currency, "stock": 9 });
        let products = [product("tea", 5.0, "EUR"), product("mug", 19.99, "USD"), product("pot", 12.5, "USD")];
        let bought = items(&products).expect("items");
        let ids: Vec<_> = bought.iter().map(|item| item["product_id"].as_str().expect("an id")).collect();
        assert_eq!(ids, ["mug", "pot"]);
    }

    #[test]
    fn the_time_between_two_entries_may_cross_midnight() {
        let (first, later) = (json!({ "at": "2026-01-31T23:59:59.75Z" }), json!({ "at": "2026-02-01T00:00:01Z" }));
        assert_eq!(since(&first, &later), Some(Duration::from_millis(1250)));
    }

    #[test]
    fn indenting_json_keeps_the_order_of_members_the_digits_and_the_strings() {
        let text = r#"{"total":64.50,"id":"a, {b}: \"c\\","none":[],"lines":[1,{"x":{}}]}"#;
        let lines = [
            "{",
            "  \"total\": 64.50,",
            r#"  "id": "a, {b}: \"c\\","#,
            "  \"none\": [],",
            "  \"lines\": [",
            "    1,",
            "    {",
            "      \"x\": {}",
            "    }",
            "  ]",
            "}",
        ];
        assert_eq!(pretty_print(text).as_deref(), Ok(lines.join("\n").as_str()));
    }
}
