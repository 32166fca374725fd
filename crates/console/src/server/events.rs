//! Pushes what changes to the page, as Server-Sent Events. The page polls nothing.

use std::{
    collections::HashMap,
    convert::Infallible,
    time::{Duration, Instant},
};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::sse::{Event, KeepAlive, Sse},
};
use futures::{Stream, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::interval};

use super::{
    Console,
    api::{LISTED, forecast},
    problem::Problem,
};
use crate::order_view::summary;

/// How often the order that the page shows is read.
const PERIOD: Duration = Duration::from_millis(400);
/// The stack is asked again whether its requests pass the proxy.
const ENDPOINT_PERIOD: Duration = Duration::from_secs(5);
/// Events that wait for a slow reader.
const WAITING: usize = 16;

#[derive(Deserialize)]
pub struct Subscription {
    order: Option<String>,
}

pub async fn events(
    State(console): State<Console>,
    subscription: Result<Query<Subscription>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let Query(Subscription { order }) = subscription?;
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(push(console, order, sender));
    let events = stream::unfold(receiver, |mut receiver| async { Some((Ok(receiver.recv().await?), receiver)) });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// Sends events until the page has closed the connection: then returns `None`.
async fn push(console: Console, order: Option<String>, sender: mpsc::Sender<Event>) -> Option<Infallible> {
    let sender = &sender;
    let _looking = console.watch.look();
    let (mut orders, mut books) = (console.watch.orders(), console.watch.books());
    let (mut weather, mut storm) = (console.control.weather.changes(), console.storm.state());
    let (mut known, mut last_order, mut last_forecast) = (HashMap::new(), Value::Null, Value::Null);
    let mut endpoint: Option<(Instant, bool)> = None;
    let mut tick = interval(PERIOD);
    orders.mark_changed();
    books.mark_changed();
    weather.mark_changed();
    storm.mark_changed();
    loop {
        tokio::select! {
            () = sender.closed() => return None,
            Ok(()) = orders.changed() => {
                let items = orders.borrow_and_update().clone();
                let changed = changed(&mut known, &items);
                if !changed.is_empty() {
                    send(sender, "orders", &json!({ "orders": changed })).await?;
                }
            }
            Ok(()) = books.changed() => {
                let books = books.borrow_and_update().clone();
                if let Some(books) = books {
                    send(sender, "books", &json!(books)).await?;
                }
            }
            Ok(()) = storm.changed() => {
                let state = storm.borrow_and_update().clone();
                send(sender, "storm", &json!(state)).await?;
            }
            Ok(()) = weather.changed() => {
                weather.mark_unchanged();
                last_forecast = tell_weather(&console, sender, &mut endpoint, last_forecast).await?;
            }
            _ = tick.tick() => {
                if endpoint.is_none_or(|(at, _)| at.elapsed() > ENDPOINT_PERIOD) {
                    last_forecast = tell_weather(&console, sender, &mut endpoint, last_forecast).await?;
                }
                let Some(id) = &order else { continue };
                match console.orders.document(id).await {
                    Ok(Some(document)) if without_age(&document) != last_order => {
                        send(sender, "order", &document).await?;
                        last_order = without_age(&document);
                    }
                    Ok(_) => {}
                    // The next reading may succeed.
                    Err(error) => eprintln!("console: {error:#}"),
                }
            }
        }
    }
}

/// Sends the weather if it has changed.
async fn tell_weather(
    console: &Console,
    sender: &mpsc::Sender<Event>,
    endpoint: &mut Option<(Instant, bool)>,
    last: Value,
) -> Option<Value> {
    let is_through = match *endpoint {
        Some((at, is_through)) if at.elapsed() <= ENDPOINT_PERIOD => is_through,
        // An emulator that does not answer now is asked again.
        _ => console.control.look_at_endpoint().await.unwrap_or(false),
    };
    if endpoint.is_none_or(|(at, _)| at.elapsed() > ENDPOINT_PERIOD) {
        *endpoint = Some((Instant::now(), is_through));
    }
    let now = forecast(console, is_through);
    if now != last {
        send(sender, "weather", &now).await?;
    }
    Some(now)
}

async fn send(sender: &mpsc::Sender<Event>, name: &str, data: &Value) -> Option<()> {
    sender.send(Event::default().event(name).data(data.to_string())).await.ok()
}

/// The summaries of the orders that are new or have changed. The first time, these are the
/// latest orders.
fn changed(known: &mut HashMap<String, Value>, items: &[Value]) -> Vec<Value> {
    let is_first = known.is_empty();
    let mut changed = Vec::new();
    for (number, item) in items.iter().enumerate() {
        let (Some(summary), Some(id)) = (summary(item), item["pk"].as_str()) else { continue };
        let state = json!([item["state"], item["quote"]["total"], item["recipient"]["name"], item["failures"]]);
        let is_new = known.insert(id.to_owned(), state.clone()).is_none_or(|before| before != state);
        if is_new && (!is_first || number < LISTED) {
            changed.push(summary);
        }
    }
    changed
}

/// The document without what changes by itself.
fn without_age(document: &Value) -> Value {
    let mut document = document.clone();
    if let Some(order) = document["order"].as_object_mut() {
        order.remove("age_seconds");
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str, state: &str) -> Value {
        json!({
            "pk": format!("ORDER#{id}"), "state": state,
            "history": [{ "status": "PENDING", "at": "2026-01-01T00:00:00Z" }],
        })
    }

    #[test]
    fn only_orders_that_are_new_or_have_changed_are_pushed() {
        let mut known = HashMap::new();
        assert_eq!(changed(&mut known, &[item("ord_1", "PENDING")]).len(), 1);
        assert!(changed(&mut known, &[item("ord_1", "PENDING")]).is_empty());
        let next = changed(&mut known, &[item("ord_2", "PENDING"), item("ord_1", "DONE")]);
        assert_eq!(next.iter().map(|order| &order["id"]).collect::<Vec<_>>(), ["ord_2", "ord_1"]);
    }
}
