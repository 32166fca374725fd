//! Reads the bodies, queries and headers of HTTP requests.

use std::collections::BTreeMap;

use axum::{extract::FromRequestParts, http::request::Parts};
use chassis::{
    audit::{Reason, ResendId},
    caller::Caller,
    id::UserId,
    idempotency::IdempotencyKey,
    input::{self, Object, Parameters, ReadBody, ReadQuery, list, object, text, verbatim, whole},
    money::{Amount, Currency},
    page::{Cursor, Limit},
    problem::Problem,
};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        Ref,
        schema::{Array, ArrayBuilder},
    },
};

use crate::{
    domain::{
        MAX_LINES, MAX_QUANTITY, Message, OrderLine, OrderLines, OrderState, PaymentMethod, ProductId, Purchase,
        Quantity, ShownPrices,
    },
    service::ResendMessage,
};

#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the body is read into a `Purchase`; this type is the schema of the body")]
pub(crate) struct NewOrder {
    /// The id of the caller. The order always belongs to the caller, so the id may be left out.
    user_id: Option<UserId>,
    #[schema(schema_with = items)]
    items: Vec<NewOrderItem>,
    /// The price of the whole order that the customer was shown. If the price differs now, the order is refused with
    /// `price_changed`.
    total: Option<Amount>,
    /// The currency of `total` and of each `unit_price`; `USD` if left out. If you send only the currency, the order is
    /// refused with `price_changed` unless its prices are in this currency.
    currency: Option<Currency>,
    /// If left out, the customer's default payment method at the provider is charged.
    payment_method: Option<PaymentMethod>,
}

/// A line of a new order.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the lines are read into `OrderLines`; this type is the schema of a line")]
pub(crate) struct NewOrderItem {
    product_id: ProductId,
    quantity: Quantity,
    /// The unit price that the customer was shown. If the price differs now, the order is refused with `price_changed`.
    unit_price: Option<Amount>,
}

fn items() -> Array {
    let items = ArrayBuilder::new()
        .items(Ref::from_schema_name(NewOrderItem::name()))
        .min_items(Some(1))
        .max_items(Some(MAX_LINES));
    let description =
        format!("The quantities of lines with the same product are added up; the sum is at most {MAX_QUANTITY}.");
    items.description(Some(description)).build()
}

/// The id of the person who sends the request.
pub struct Sender(UserId);

impl FromRequestParts<()> for Sender {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &()) -> Result<Self, Problem> {
        <Caller as FromRequestParts<()>>::from_request_parts(parts, state).await.map(|caller| Self(caller.user_id))
    }
}

impl ReadBody for Purchase {
    type Context = Sender;

    fn read(body: &mut Object<'_, '_>, Sender(caller): &Sender) -> Option<Self> {
        let user_id = body.optional("user_id", text::<UserId>);
        if user_id.is_some_and(|id| id != *caller) {
            body.reject("user_id", "must be your own id, or left out");
        }
        let items = body.required("items", |place| list(place, 1..=MAX_LINES, |place| object(place, read_line)));
        let shown_prices = read_shown_prices(body, items.as_deref().unwrap_or_default());
        let lines = items.and_then(|items| {
            let lines = OrderLines::merge(items.into_iter().map(|line| line.map(|(line, _)| line)));
            lines.map_err(|errors| errors.iter().for_each(|error| body.reject(&error.field, &error.detail))).ok()
        });
        let payment_method = body.optional("payment_method", text);
        Some(Self { lines: lines?, shown_prices, payment_method })
    }
}

/// Reads a line and the unit price that the customer was shown.
fn read_line(line: &mut Object<'_, '_>) -> Option<(OrderLine, Option<Amount>)> {
    let (product_id, quantity) = (line.required("product_id", text), line.required("quantity", whole));
    let unit_price = line.optional("unit_price", verbatim);
    Some((OrderLine { product_id: product_id?, quantity: quantity? }, unit_price))
}

/// Reads the prices that the customer was shown. Returns `None` if the client sends no valid price and no currency, or
/// an invalid currency.
fn read_shown_prices(body: &mut Object<'_, '_>, lines: &[Option<(OrderLine, Option<Amount>)>]) -> Option<ShownPrices> {
    let total = body.optional("total", verbatim::<Amount>);
    let has_currency = body.is_given("currency");
    let currency = body.optional_or("currency", Currency::default(), text)?;
    let total = total.and_then(|amount| body.check("total", amount.of(currency)));
    let mut unit_prices = BTreeMap::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((OrderLine { product_id, .. }, Some(amount))) = line else { continue };
        let field = format!("items[{index}].unit_price");
        let Some(price) = body.check(&field, amount.of(currency)) else { continue };
        if unit_prices.insert(*product_id, price).is_some_and(|other| other != price) {
            body.reject(&field, "must be the same in all lines of one product");
        }
    }
    let has_prices = has_currency || total.is_some() || !unit_prices.is_empty();
    has_prices.then_some(ShownPrices { currency, unit_prices, total })
}

/// Reads the body of `POST /orders` exactly as the route does. Only tests with arbitrary bodies call this function.
///
/// # Errors
///
/// The problem with which the route responds to an invalid body.
pub fn read_order(body: &[u8], caller: UserId) -> Result<Purchase, Problem> {
    input::parse(body, &Sender(caller))
}

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParameters {
    /// The customer whose orders are listed. If left out, your own orders are listed. Only administrators may list
    /// another customer's orders.
    #[param(value_type = UserId, required = false)]
    pub(crate) user_id: Option<UserId>,
    /// Lists only orders with this status.
    #[param(value_type = OrderState, required = false)]
    pub(crate) status: Option<OrderState>,
    /// The maximum number of orders on the page.
    #[param(inline, required = false)]
    pub(crate) limit: Limit,
    /// The `next_cursor` of the previous page, with the same `user_id` and `status`.
    #[param(value_type = Cursor, required = false)]
    pub(crate) cursor: Option<Cursor>,
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

#[derive(Debug, ToSchema)]
#[schema(as = Cancellation)]
pub(crate) struct CancelRequest {
    /// Why the shop cancels the order of another person. The customer does not see it.
    pub(crate) reason: Option<Reason>,
}

impl ReadBody for CancelRequest {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        Some(Self { reason: body.optional("reason", text) })
    }
}

#[derive(Debug, ToSchema)]
#[schema(as = NewResend)]
pub(crate) struct ResendRequest {
    resend_id: ResendId,
    message: Message,
    reason: Reason,
}

impl ReadBody for ResendRequest {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        let (resend_id, message) = (body.required("resend_id", text), body.required("message", text));
        let reason = body.required("reason", text);
        Some(Self { resend_id: resend_id?, message: message?, reason: reason? })
    }
}

impl From<ResendRequest> for ResendMessage {
    fn from(request: ResendRequest) -> Self {
        let ResendRequest { resend_id, message, reason } = request;
        Self { resend_id, message, reason }
    }
}

/// The headers of `POST /orders`.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the handler reads the key as a part of the request; this type describes the header")]
pub(crate) struct PlaceHeaders {
    /// A key that you choose for this request, with or without double quotes. For seven days, a repeated request with
    /// the same key gets the same response, byte for byte. **Without a key, a repeated request may place a second
    /// order.**
    #[param(rename = "Idempotency-Key", inline, value_type = IdempotencyKey, required = false)]
    idempotency_key: Option<IdempotencyKey>,
}
