//! The HTTP routes of orders.

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chassis::{
    caller::{Admin, Authenticator, Caller},
    health::{self, Check},
    http::edge,
    idempotency::Key,
    input::{Body, Id, Input, Query},
    invocation::Invocation,
    openapi::{Location, OnlyKnownMembers, ProblemResponses},
    page::Page,
    problem::{self, Problem},
    trace::TraceContext,
};
use utoipa::{OpenApi, openapi};

use crate::{
    domain::{Answer, Order, OrderId, Purchase},
    problems::{Cancelling, Listing, ListingOpen, Placing, Reading},
    repository::OrderList,
    requests::{ListParameters, NewOrder, NewOrderItem, PlaceHeaders, Paging},
    responses::{OrderDocument, read_answer},
    service::{Orders, PlaceOrder, PlaceOutcome, Viewer},
};

/// Builds all routes of the orders API and wraps them in the HTTP edge.
pub fn router(orders: Orders, checks: Vec<Check>, authenticator: Authenticator) -> Router {
    let routes = Router::new()
        .route("/orders", post(place).get(index))
        .route("/orders/{id}", get(read))
        .route("/orders/{id}/cancel", post(cancel))
        .route("/open-orders", get(open))
        .with_state(orders)
        .merge(health::routes_with("orders", checks));
    edge(routes, authenticator)
}

#[derive(OpenApi)]
#[openapi(paths(place, index, read, cancel, open), components(schemas(NewOrderItem)), modifiers(&OnlyKnownMembers))]
struct Api;

/// The OpenAPI document of the routes.
pub fn api() -> openapi::OpenApi {
    Api::openapi().merge_from(health::api("orders"))
}

type OrderPage = Page<OrderDocument>;

fn viewer(caller: &Caller) -> Viewer {
    Viewer { id: caller.user_id, is_administrator: caller.admin }
}

/// Place an order
///
/// Reserves the stock, authorises the payment and confirms the order before the response is sent. The prices come from
/// the catalogue. A refused order is cancelled: nothing stays reserved, authorised or charged.
///
/// Send an `Idempotency-Key`, and repeat the request with the same key until the response is not 409
/// `idempotency_in_flight`, 429, 500 or 503. If the response is 202, the order is not decided yet: read the order at
/// its `Location`. Within minutes, the order is decided or cancelled.
#[utoipa::path(
    post,
    path = "/orders",
    operation_id = "placeOrder",
    tag = "Orders",
    params(PlaceHeaders),
    request_body(content = NewOrder, example = json!({
        "items": [{ "product_id": "prod_0195a8e0-52c4-7d1a-b3f6-8c2d4e6f7a90", "quantity": 2 }],
        "payment_method": "tok_accepted",
    })),
    responses(
        (
            status = 201, body = OrderDocument, headers(("location" = inline(Location))),
            description = "The order is confirmed.",
        ),
        (
            status = 202, body = OrderDocument, headers(("location" = inline(Location))),
            description = "The order is not decided yet, because a service did not answer in time.",
        ),
        ProblemResponses<(Placing, Caller, Input<(Key, Body<Purchase>)>)>,
    ),
)]
async fn place(
    State(orders): State<Orders>,
    caller: Caller,
    trace: TraceContext,
    invocation: Invocation,
    Input((Key(key), Body(purchase))): Input<(Key, Body<Purchase>)>,
) -> Result<Response, Problem> {
    let request = PlaceOrder { user_id: caller.user_id, contact: caller.contact, purchase, key, trace };
    Ok(match orders.place(request, &invocation).await? {
        PlaceOutcome::Decided(order) => match read_answer(&order).map_err(Problem::unavailable)? {
            Some(answer) => replay(order.id, answer)?,
            None => undecided(&order),
        },
        PlaceOutcome::Undecided(order) => undecided(&order),
    })
}

fn undecided(order: &Order) -> Response {
    let location = [(header::LOCATION, format!("orders/{}", order.id))];
    (StatusCode::ACCEPTED, location, Json(OrderDocument::from(order))).into_response()
}

/// Returns the response to the request that placed the order, byte for byte.
fn replay(id: OrderId, answer: Answer) -> Result<Response, Problem> {
    let status = StatusCode::from_u16(answer.status).map_err(Problem::internal)?;
    let (kind, location) = if status.is_success() {
        ("application/json", Some(format!("orders/{id}")))
    } else {
        (problem::CONTENT_TYPE, None)
    };
    let mut response = (status, answer.body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, HeaderValue::try_from(location).map_err(Problem::internal)?);
    }
    Ok(response)
}

/// Read an order
///
/// Returns the order with its history. Administrators may read every order, and also get the member `support`;
/// everybody else gets 404 for another customer's order.
#[utoipa::path(
    get,
    path = "/orders/{id}",
    operation_id = "getOrder",
    tag = "Orders",
    params(("id" = OrderId, Path)),
    responses(
        (status = 200, description = "The order.", body = OrderDocument),
        ProblemResponses<(Reading, Caller, Input<Id<OrderId>>)>,
    ),
)]
async fn read(
    State(orders): State<Orders>,
    caller: Caller,
    Input(Id(id)): Input<Id<OrderId>>,
) -> Result<Json<OrderDocument>, Problem> {
    let order = orders.get(id, viewer(&caller)).await?;
    Ok(Json(if caller.admin { OrderDocument::for_support(&order) } else { OrderDocument::from(&order) }))
}

/// List orders
///
/// Returns one page of orders, the newest first.
#[utoipa::path(
    get,
    path = "/orders",
    operation_id = "listOrders",
    tag = "Orders",
    params(ListParameters),
    responses(
        (status = 200, description = "A page of orders.", body = OrderPage),
        ProblemResponses<(Listing, Caller, Input<Query<ListParameters>>)>,
    ),
)]
async fn index(
    State(orders): State<Orders>,
    caller: Caller,
    Input(Query(parameters)): Input<Query<ListParameters>>,
) -> Result<Json<OrderPage>, Problem> {
    let ListParameters { user_id, status, limit, cursor } = parameters;
    let user_id = user_id.unwrap_or(caller.user_id);
    if !caller.may_act_for(user_id) {
        return Err(Problem::not_found("user"));
    }
    let page = orders.list(&OrderList { user_id, status, limit, cursor }).await?;
    Ok(Json(page.map(|order| (&order).into())))
}

/// List the open orders
///
/// For administrators. Returns one page of the orders of all customers that are neither `DONE` nor `CANCELLED`, the
/// oldest first. A page may have fewer orders than `limit` although another page follows.
#[utoipa::path(
    get,
    path = "/open-orders",
    operation_id = "listOpenOrders",
    tag = "Orders",
    params(Paging),
    responses(
        (status = 200, description = "A page of orders.", body = OrderPage),
        ProblemResponses<(ListingOpen, Admin, Input<Query<Paging>>)>,
    ),
)]
async fn open(
    State(orders): State<Orders>,
    _: Admin,
    Input(Query(Paging { limit, cursor })): Input<Query<Paging>>,
) -> Result<Json<OrderPage>, Problem> {
    let page = orders.list_open(limit, cursor.as_ref()).await?;
    Ok(Json(page.map(|order| OrderDocument::for_support(&order))))
}

/// Cancel an order
///
/// Releases the stock, and voids or refunds the payment. An order can be cancelled for 24 hours after it was placed,
/// unless the shop was deployed with another period. Cancelling an order again changes nothing.
#[utoipa::path(
    post,
    path = "/orders/{id}/cancel",
    operation_id = "cancelOrder",
    tag = "Orders",
    params(("id" = OrderId, Path)),
    responses(
        (status = 200, description = "The order is cancelled.", body = OrderDocument),
        (status = 202, description = "The cancellation is in progress.", body = OrderDocument),
        ProblemResponses<(Cancelling, Caller, Input<Id<OrderId>>)>,
    ),
)]
async fn cancel(
    State(orders): State<Orders>,
    caller: Caller,
    invocation: Invocation,
    Input(Id(id)): Input<Id<OrderId>>,
) -> Result<Response, Problem> {
    let order = orders.cancel(id, viewer(&caller), &invocation).await?;
    let status = if order.state.is_open() { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(OrderDocument::from(&order))).into_response())
}
