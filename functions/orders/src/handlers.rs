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
    input::{Body, Id, Input, OptionalBody, Paging, Query},
    invocation::Invocation,
    openapi::{Location, OnlyKnownMembers, ProblemResponses},
    page::Page,
    pause::{self, PauseSwitch},
    problem::{self, Problem},
    trace::TraceContext,
};
use utoipa::{
    Modify, OpenApi,
    openapi::{self, RefOr, Required},
};

use crate::{
    domain::{Answer, Order, OrderId, Purchase},
    problems::{Cancelling, Listing, ListingForSupport, Placing, Reading, Resending},
    repository::OrderList,
    requests::{CancelRequest, ListParameters, NewOrder, NewOrderItem, PlaceHeaders, ResendRequest},
    responses::{OrderDocument, ResendDocument, read_answer},
    service::{Orders, PlaceOrder, PlaceOutcome, Viewer},
};

/// Builds all routes of the orders API and wraps them in the HTTP edge.
pub fn router(orders: Orders, checks: Vec<Check>, pause: PauseSwitch, authenticator: Authenticator) -> Router {
    let routes = Router::new()
        .route("/orders", post(place).get(index))
        .route("/orders/{id}", get(read))
        .route("/orders/{id}/cancel", post(cancel))
        .route("/orders/{id}/resends", get(resends).post(resend))
        .route("/open-orders", get(open))
        .with_state(orders)
        .merge(pause::routes(pause.clone()))
        .merge(health::routes_with("orders", checks, Some(pause)));
    edge(routes, authenticator)
}

#[derive(OpenApi)]
#[openapi(paths(place, index, read, cancel, open, resend, resends), components(schemas(NewOrderItem)), modifiers(&OnlyKnownMembers, &OptionalBodies))]
struct Api;

/// The OpenAPI document of the routes.
pub fn api() -> openapi::OpenApi {
    let effect = "While orders are paused, a new order gets 503 `orders_paused` and is not stored. Everything else goes on: a \
                  repeated request gets the response of its order, and orders that are open are finished or undone.";
    Api::openapi().merge_from(pause::api(PAUSED_PART, effect)).merge_from(health::api("orders"))
}

/// Marks the bodies of [`OptionalBody`] as optional. utoipa would also allow `null`.
struct OptionalBodies;

impl Modify for OptionalBodies {
    fn modify(&self, api: &mut openapi::OpenApi) {
        let cancel = api.paths.paths.get_mut("/orders/{id}/cancel").and_then(|path| path.post.as_mut());
        if let Some(RefOr::T(body)) = cancel.and_then(|operation| operation.request_body.as_mut()) {
            body.required = Some(Required::False);
        }
    }
}

/// What the switch of this service pauses.
pub(crate) const PAUSED_PART: &str = "orders";

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
        ProblemResponses<(ListingForSupport, Admin, Input<Query<Paging>>)>,
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

/// Send a message again
///
/// For administrators. Sends the message about the order's present state again, on each channel on which the customer
/// can be reached now. A resend is carried out once for each `resend_id`, and a repeated request gets the first
/// response. The list of messages shows the outcome.
#[utoipa::path(
    post,
    path = "/orders/{id}/resends",
    operation_id = "resendMessage",
    tag = "Orders",
    params(("id" = OrderId, Path)),
    request_body = ResendRequest,
    responses(
        (status = 202, description = "The message is being sent again.", body = ResendDocument),
        ProblemResponses<(Resending, Admin, Input<(Id<OrderId>, Body<ResendRequest>)>)>,
    ),
)]
async fn resend(
    State(orders): State<Orders>,
    Admin(caller): Admin,
    trace: TraceContext,
    invocation: Invocation,
    Input((Id(id), Body(request))): Input<(Id<OrderId>, Body<ResendRequest>)>,
) -> Result<Response, Problem> {
    let resend = orders.resend(id, request.into(), caller.user_id, &trace, &invocation).await?;
    Ok((StatusCode::ACCEPTED, Json(ResendDocument::of(id, resend))).into_response())
}

type ResendPage = Page<ResendDocument>;

/// List the resends of an order
///
/// For administrators. Returns one page of the messages that administrators have sent again: who, when and why, sorted
/// by `resend_id`.
#[utoipa::path(
    get,
    path = "/orders/{id}/resends",
    operation_id = "listResends",
    tag = "Orders",
    params(("id" = OrderId, Path), Paging),
    responses(
        (status = 200, description = "A page of resends.", body = ResendPage),
        ProblemResponses<(ListingForSupport, Admin, Input<(Id<OrderId>, Query<Paging>)>)>,
    ),
)]
async fn resends(
    State(orders): State<Orders>,
    _: Admin,
    Input((Id(id), Query(Paging { limit, cursor }))): Input<(Id<OrderId>, Query<Paging>)>,
) -> Result<Json<ResendPage>, Problem> {
    let page = orders.resends(id, limit, cursor.as_ref()).await?;
    Ok(Json(page.map(|resend| ResendDocument::of(id, resend))))
}

/// Cancel an order
///
/// Releases the stock, and voids or refunds the payment. An order can be cancelled for 24 hours after it was placed,
/// unless the shop was deployed with another period. Cancelling an order again changes nothing.
///
/// An administrator who cancels another person's order must send the reason. Everybody else sends no body.
#[utoipa::path(
    post,
    path = "/orders/{id}/cancel",
    operation_id = "cancelOrder",
    tag = "Orders",
    params(("id" = OrderId, Path)),
    request_body = CancelRequest,
    responses(
        (status = 200, description = "The order is cancelled.", body = OrderDocument),
        (status = 202, description = "The cancellation is in progress.", body = OrderDocument),
        ProblemResponses<(Cancelling, Caller, Input<(Id<OrderId>, OptionalBody<CancelRequest>)>)>,
    ),
)]
async fn cancel(
    State(orders): State<Orders>,
    caller: Caller,
    invocation: Invocation,
    Input((Id(id), OptionalBody(request))): Input<(Id<OrderId>, OptionalBody<CancelRequest>)>,
) -> Result<Response, Problem> {
    let explanation = request.and_then(|request| request.reason);
    let order = orders.cancel(id, viewer(&caller), explanation, &invocation).await?;
    let status = if order.state.is_open() { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(OrderDocument::from(&order))).into_response())
}
