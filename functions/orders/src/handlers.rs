//! The HTTP routes of orders.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::{FromRequestParts, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chassis::{
    caller::{Authenticator, Caller},
    dynamo::Table,
    health,
    http::edge,
    id::UserId,
    idempotency::{self, IdempotencyKey, Key},
    input::{
        self, Body, Id, Input, Object, Parameters, Query, ReadBody, ReadQuery, list, object, text, verbatim, whole,
    },
    invocation::Invocation,
    money::{Amount, Currency},
    openapi::{Location, OnlyKnownMembers, ProblemResponses},
    page::{Cursor, Limit, Page},
    problem::{self, Problem},
    trace::TraceContext,
};
use utoipa::{IntoParams, OpenApi, ToSchema, openapi};

use crate::{
    documents::OrderDocument,
    domain::{Answer, Basket, Item, MAX_LINES, OrderId, OrderState, PaymentMethod, ProductId, Quantity, ShownPrices},
    openapi::{Cancelling, Listing, Placing, Reading, items},
    repository::OrderList,
    service::{OrderError, Orders, PlaceOrder, Placed, Viewer},
};

/// All routes, behind the HTTP edge.
pub fn router(orders: Orders, table: Table, authenticator: Authenticator) -> Router {
    let routes = Router::new()
        .route("/orders", post(place).get(index))
        .route("/orders/{id}", get(read))
        .route("/orders/{id}/cancel", post(cancel))
        .with_state(orders)
        .merge(health::routes("orders", table));
    edge(routes, authenticator)
}

#[derive(OpenApi)]
#[openapi(paths(place, index, read, cancel), components(schemas(NewOrderItem)), modifiers(&OnlyKnownMembers))]
struct Api;

/// What the API's document says of the routes.
pub fn api() -> openapi::OpenApi {
    Api::openapi().merge_from(health::api("orders"))
}

/// What `POST /orders` asks for.
#[derive(Debug, ToSchema)]
struct NewOrder {
    /// The caller's own, if given: whose order it is comes from the token.
    // It only has to be right.
    #[schema(value_type = Option<UserId>)]
    user_id: (),
    #[schema(schema_with = items)]
    items: Basket,
    /// What the customer was shown as the price of the whole order. If it is another now, the order is refused with
    /// `price_changed`.
    #[schema(value_type = Option<Amount>)]
    total: (),
    /// The currency of `total` and of each `unit_price`: `USD` if left out beside them. Without them, the currency that the
    /// prices must have.
    #[schema(value_type = Option<Currency>)]
    currency: (),
    #[schema(ignore)]
    shown: Option<ShownPrices>,
    /// If left out, the provider's default for this customer.
    payment_method: Option<PaymentMethod>,
}

/// A line of a new order.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the lines are read into a basket; this is what the document says of them")]
pub(crate) struct NewOrderItem {
    product_id: ProductId,
    quantity: Quantity,
    /// What the customer was shown as the price of one piece. If it is another now, the order is refused with
    /// `price_changed`.
    unit_price: Option<Amount>,
}

/// A line as it was read.
struct NewLine {
    item: Item,
    unit_price: Option<Amount>,
}

/// Who sends an order.
struct Sender(UserId);

impl FromRequestParts<()> for Sender {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &()) -> Result<Self, Problem> {
        <Caller as FromRequestParts<()>>::from_request_parts(parts, state).await.map(|caller| Self(caller.user_id))
    }
}

impl ReadBody for NewOrder {
    type Context = Sender;

    fn read(body: &mut Object<'_, '_>, Sender(caller): &Sender) -> Option<Self> {
        let user_id = body.optional("user_id", text::<UserId>);
        if user_id.is_some_and(|id| id != *caller) {
            body.refuse("user_id", "must be your own id, or left out");
        }
        let items = body.required("items", |place| list(place, 1..=MAX_LINES, |place| object(place, line)));
        let shown = shown_prices(body, items.as_deref().unwrap_or_default());
        let basket = items.and_then(|lines| {
            let basket = Basket::of(lines.into_iter().map(|line| line.map(|line| line.item)));
            basket.map_err(|errors| errors.iter().for_each(|error| body.refuse(&error.field, &error.detail))).ok()
        });
        let payment_method = body.optional("payment_method", text);
        Some(Self { user_id: (), items: basket?, total: (), currency: (), shown, payment_method })
    }
}

fn line(line: &mut Object<'_, '_>) -> Option<NewLine> {
    let (product_id, quantity) = (line.required("product_id", text), line.required("quantity", whole));
    let unit_price = line.optional("unit_price", verbatim);
    Some(NewLine { item: Item { product_id: product_id?, quantity: quantity? }, unit_price })
}

/// Which prices the client says that the customer was shown; `None` if it says
/// nothing of prices, or nothing that can be used.
fn shown_prices(body: &mut Object<'_, '_>, lines: &[Option<NewLine>]) -> Option<ShownPrices> {
    let total = body.optional("total", verbatim::<Amount>);
    let says_currency = body.is_given("currency");
    let currency = body.optional_or("currency", Currency::default(), text)?;
    let total = total.and_then(|amount| body.check("total", amount.of(currency)));
    let mut unit_prices = BTreeMap::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(NewLine { item: Item { product_id, .. }, unit_price: Some(amount) }) = line else { continue };
        let field = format!("items[{index}].unit_price");
        let Some(price) = body.check(&field, amount.of(currency)) else { continue };
        if unit_prices.insert(*product_id, price).is_some_and(|other| other != price) {
            body.refuse(&field, "must be the same in all lines of one product");
        }
    }
    let says_anything = says_currency || total.is_some() || !unit_prices.is_empty();
    says_anything.then_some(ShownPrices { currency, unit_prices, total })
}

/// Reads the body of `POST /orders` as `caller` sent it; the route does the
/// same. For tests that try what could be sent.
///
/// # Errors
///
/// What the route answers to a bad body.
pub fn read_order(body: &[u8], caller: UserId) -> Result<(Basket, Option<PaymentMethod>), Problem> {
    let order: NewOrder = input::parse(body, &Sender(caller))?;
    Ok((order.items, order.payment_method))
}

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListParameters {
    /// Whose orders. The caller's own if left out; others' are for administrators.
    #[param(value_type = UserId, required = false)]
    user_id: Option<UserId>,
    /// Only orders that stand so at the moment.
    #[param(value_type = OrderState, required = false)]
    status: Option<OrderState>,
    /// How many orders to list at most.
    #[param(inline, required = false)]
    limit: Limit,
    /// The `next_cursor` of the page before, with the same `user_id` and `status`.
    #[param(value_type = Cursor, required = false)]
    cursor: Option<Cursor>,
}

impl ReadQuery for ListParameters {
    fn read(parameters: &mut Parameters<'_>) -> Option<Self> {
        Some(Self {
            user_id: parameters.optional("user_id"),
            status: parameters.optional("status"),
            limit: parameters.optional("limit").unwrap_or_default(),
            cursor: parameters.cursor(),
        })
    }
}

/// The headers that matter to whoever places an order.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the key is read as a part of the request; this is what the document says of it")]
struct PlaceHeaders {
    /// Your name for this order, in double quotes or without. A repeat under the same key gets the same answer, byte
    /// for byte, for seven days. **Without one, repeating a request may order twice.**
    #[param(rename = "Idempotency-Key", inline, value_type = IdempotencyKey, required = false)]
    idempotency_key: Option<IdempotencyKey>,
}

type OrderPage = Page<OrderDocument>;

fn viewer(caller: &Caller) -> Viewer {
    Viewer { id: caller.user_id, is_administrator: caller.admin }
}

/// Place an order
///
/// Reserves the stock, authorises the payment and confirms the order before it answers. Prices come from the catalogue.
/// A refused order is undone: nothing stays reserved, held or charged.
///
/// Send an `Idempotency-Key`, and repeat the request under it until there is an answer other than 409
/// `idempotency_in_flight`, 429, 500 or 503. An order that is still undecided (202) can be followed at its `Location`;
/// it is decided within minutes, and cancelled if it cannot be.
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
            description = "The order, confirmed.",
        ),
        (
            status = 202, body = OrderDocument, headers(("location" = inline(Location))),
            description = "The order, not decided yet: a part of the system did not answer in time.",
        ),
        ProblemResponses<(Placing, Caller, Input<(Key, Body<NewOrder>)>)>,
    ),
)]
async fn place(
    State(orders): State<Orders>,
    caller: Caller,
    trace: TraceContext,
    invocation: Invocation,
    Input((Key(key), Body(body))): Input<(Key, Body<NewOrder>)>,
) -> Result<Response, Problem> {
    let NewOrder { user_id: (), items: basket, total: (), currency: (), shown, payment_method } = body;
    let request =
        PlaceOrder { user_id: caller.user_id, contact: caller.contact, basket, shown, payment_method, key, trace };
    Ok(match orders.place(request, &invocation).await? {
        Placed::Decided { id, answer } => replay(id, answer)?,
        Placed::Undecided(order) => {
            let location = [(header::LOCATION, format!("orders/{}", order.id))];
            (StatusCode::ACCEPTED, location, Json(OrderDocument::from(order.as_ref()))).into_response()
        }
    })
}

/// The stored answer, byte for byte.
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
/// With its history. One's own; an administrator may read anybody's. Somebody else's is 404.
#[utoipa::path(
    get,
    path = "/orders/{id}",
    operation_id = "getOrder",
    tag = "Orders",
    params(("id" = OrderId, Path)),
    responses(
        (status = 200, description = "The order as it stands.", body = OrderDocument),
        ProblemResponses<(Reading, Caller, Input<Id<OrderId>>)>,
    ),
)]
async fn read(
    State(orders): State<Orders>,
    caller: Caller,
    Input(Id(id)): Input<Id<OrderId>>,
) -> Result<Json<OrderDocument>, Problem> {
    Ok(Json((&orders.get(id, viewer(&caller)).await?).into()))
}

/// List orders
///
/// Newest first, a page at a time.
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
    let owner = parameters.user_id.unwrap_or(caller.user_id);
    if !caller.may_act_for(owner) {
        return Err(Problem::not_found("user"));
    }
    let list =
        OrderList { user_id: owner, status: parameters.status, limit: parameters.limit, cursor: parameters.cursor };
    Ok(Json(orders.list(&list).await?.map(|order| (&order).into())))
}

/// Cancel an order
///
/// Gives the stock back, and voids or refunds the payment. Possible for a while after ordering (24 hours, unless the
/// shop was deployed with another window). Cancelling again changes nothing.
#[utoipa::path(
    post,
    path = "/orders/{id}/cancel",
    operation_id = "cancelOrder",
    tag = "Orders",
    params(("id" = OrderId, Path)),
    responses(
        (status = 200, description = "The order, cancelled.", body = OrderDocument),
        (status = 202, description = "The order, about to be cancelled: it is being undone.", body = OrderDocument),
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

impl From<OrderError> for Problem {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::NotFound => Problem::not_found("order"),
            OrderError::InFlight => Problem::new(
                StatusCode::CONFLICT,
                "idempotency_in_flight",
                "The same request is being worked on at this moment. Repeat it in a second.",
            )
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1")),
            OrderError::KeyMismatch => idempotency::mismatch(),
            OrderError::CancellationClosed => {
                Problem::new(StatusCode::CONFLICT, "cancellation_closed", "It is too late to cancel this order.")
            }
            OrderError::KeepsMoving => Problem::contended(error),
            OrderError::Illegal(_) | OrderError::Fingerprint(_) => Problem::internal(error),
            OrderError::List(error) => error.into(),
            OrderError::Store(error) => error.into(),
        }
    }
}
