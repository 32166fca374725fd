//! What the page reads and asks for.

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Console, problem::Problem};
use crate::{
    books::{Books, Records},
    emulator::Message,
    order_view::summary,
    people::Person,
    shop::{Answer, Line},
    stored_order::is_order,
    weather::kinds::Kind,
};

/// The test cards of the sandbox provider: the token, the name, and what the card does.
const CARDS: [(&str, &str, &str); 6] = [
    ("tok_accepted", "Good card", "The payment is authorised and captured."),
    ("tok_declined", "Declined card", "The provider declines the payment. The order is cancelled, the stock released."),
    ("tok_insufficient_funds", "Empty account", "The provider declines the payment: there is too little money."),
    ("tok_slow", "Slow card", "The provider's first answer takes three seconds."),
    (
        "tok_flaky",
        "Flaky card",
        "The provider fails at the first request, and nobody knows whether it has acted. The second one succeeds.",
    ),
    (
        "tok_capture_refused",
        "Card that is never captured",
        "The payment is authorised, but every capture is refused. The confirmed order is undone.",
    ),
];
/// How many orders a list shows.
pub const LISTED: usize = 100;

type Reply = Result<Json<Value>, Problem>;

pub async fn stack(State(console): State<Console>) -> Reply {
    let health = Answer::receive(console.shop.request(reqwest::Method::GET, "/health/orders")).await?.json();
    let through_proxy = console.control.look_at_endpoint().await?;
    let people = Person::ALL.map(|person| json!({ "id": person.id(), "name": person.name(), "role": person.role() }));
    let cards = CARDS.map(|(token, name, does)| json!({ "token": token, "name": name, "what_it_does": does }));
    Ok(Json(json!({
        "endpoint": console.shop.emulator.stack.emulator_url,
        "api_url": console.shop.emulator.stack.api_url,
        "version": health["version"],
        "commit": health["commit"],
        "people": people,
        "through_proxy": through_proxy,
        "test_cards": cards,
    })))
}

pub async fn products(State(console): State<Console>) -> Reply {
    Ok(Json(json!({ "products": console.shop.products().await? })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    lines: Vec<Line>,
    card: String,
    idempotency_key: String,
}

/// Places an order as Ada. Passes the status and the body of the public API on.
pub async fn place(
    State(console): State<Console>,
    order: Result<Json<NewOrder>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(NewOrder { lines, card, idempotency_key }) = order?;
    let is_key = !idempotency_key.is_empty() && idempotency_key.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_key {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "The idempotency key is not valid.",
            "Send letters, digits and signs of ASCII.",
        ));
    }
    let token = console.shop.people.token(Person::Ada).await?;
    let answer = console.shop.place(&token, &lines, &card, &idempotency_key).await?;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let kind = answer.content_type.unwrap_or_else(|| "application/json".to_owned());
    Ok((status, [(header::CONTENT_TYPE, kind)], answer.body).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderFilter {
    state: Option<String>,
    open: Option<bool>,
    email: Option<String>,
}

/// The latest orders first; open orders by age, the oldest first.
pub async fn orders(State(console): State<Console>, filter: Result<Query<OrderFilter>, QueryRejection>) -> Reply {
    let Query(OrderFilter { state, open, email }) = filter?;
    let items = console.shop.emulator.scan("orders").await?;
    let email = email.map(|email| email.trim().to_lowercase()).filter(|email| !email.is_empty());
    let state = state.filter(|state| !state.is_empty());
    let mut orders: Vec<Value> = items.iter().filter(|item| is_order(item)).filter_map(summary).collect();
    orders.retain(|order| {
        let address = order["email"].as_str().map(str::to_lowercase);
        state.as_ref().is_none_or(|state| order["state"] == **state)
            && open.is_none_or(|open| order["open"] == open)
            && email.as_ref().is_none_or(|email| address.as_ref() == Some(email))
    });
    orders.sort_by(|a, b| b["id"].as_str().cmp(&a["id"].as_str()));
    if open == Some(true) {
        orders.reverse();
    }
    let total = orders.len();
    orders.truncate(LISTED);
    Ok(Json(json!({ "orders": orders, "total": total })))
}

pub async fn order(State(console): State<Console>, Path(id): Path<String>) -> Reply {
    let document = console.orders.document(&id).await?;
    document.map(Json).ok_or_else(|| Problem::not_found("order"))
}

/// The HTML of an e-mail. The browser shows it in a sandbox, without scripts.
pub async fn mail(State(console): State<Console>, Path(id): Path<String>) -> Result<Response, Problem> {
    let messages = console.shop.emulator.messages().await?;
    let html = messages.into_iter().find_map(|message| match message {
        Message::Email { id: own, html, .. } if own == id => Some(html),
        _ => None,
    });
    let html = html.ok_or_else(|| Problem::not_found("e-mail"))?;
    Ok(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response())
}

pub async fn books(State(console): State<Console>) -> Reply {
    let books = Books::of(&Records::read(&console.shop.emulator).await?);
    Ok(Json(json!(books)))
}

pub async fn weather(State(console): State<Console>) -> Reply {
    let through_proxy = console.control.look_at_endpoint().await?;
    Ok(Json(forecast(&console, through_proxy)))
}

/// All kinds of weather, and what is active.
pub fn forecast(console: &Console, through_proxy: bool) -> Value {
    let without_proxy = console.control.without_proxy();
    let kinds: Vec<_> = Kind::all().map(|kind| kind.document(without_proxy)).collect();
    let now = console.control.weather.now();
    json!({
        "through_proxy": through_proxy,
        "reason": without_proxy,
        "kinds": kinds,
        "active": now.active,
        "last": now.last,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewWeather {
    kind: Kind,
    target: String,
    seconds: Option<u64>,
}

pub async fn begin_weather(
    State(console): State<Console>,
    weather: Result<Json<NewWeather>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(NewWeather { kind, target, seconds }) = weather?;
    let active = console.control.begin(kind, &target, seconds).await?;
    Ok((StatusCode::CREATED, Json(json!(active))).into_response())
}

pub async fn clear_weather(State(console): State<Console>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    match console.control.clear(|active| active.id == id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found("active weather")),
    }
}

pub async fn clear_all_weather(State(console): State<Console>) -> Result<StatusCode, Problem> {
    console.control.clear_all().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn start_storm(State(console): State<Console>) -> Result<Response, Problem> {
    // The storm draws kinds that need the proxy only if there is one.
    console.control.look_at_endpoint().await?;
    match console.storm.start() {
        Ok(state) => Ok((StatusCode::ACCEPTED, Json(json!(state))).into_response()),
        Err(_) => {
            Err(Problem::new(StatusCode::CONFLICT, "A storm is raging already.", "Wait until it is over, or stop it."))
        }
    }
}

pub async fn stop_storm(State(console): State<Console>) -> Result<StatusCode, Problem> {
    if console.storm.stop() { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found("storm")) }
}

pub async fn openapi(State(console): State<Console>) -> Result<Response, Problem> {
    let document = tokio::fs::read(console.openapi.as_path()).await;
    let document = document.map_err(|error| anyhow::Error::from(error).context("docs/openapi.yaml cannot be read"))?;
    Ok(([(header::CONTENT_TYPE, "application/yaml")], document).into_response())
}
