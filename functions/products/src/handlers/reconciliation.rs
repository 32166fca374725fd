//! The routes from which the orders service learns, for reconciliation, what is reserved and what is in stock.

use axum::{Json, extract::State};
use chassis::{
    caller::Internal,
    input::{Body, Message, Object, ReadBody, list, text},
    page::{Cursor, Limit, Page},
    problem::Problem,
};
use serde::Serialize;

use crate::{
    domain::{OrderId, ReservationAccount, StockAccount},
    service::Products,
};

/// The maximum number of orders of one request: DynamoDB reads at most 100 items in one request.
const MAX_ORDERS: usize = 100;
/// The maximum number of products in one response.
const PRODUCTS: u32 = 50;

#[derive(Debug)]
pub(super) struct ReservationsRequest {
    order_ids: Vec<OrderId>,
}

impl ReadBody for ReservationsRequest {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        let order_ids = body.required("order_ids", |place| list(place, 1..=MAX_ORDERS, text))?;
        Some(Self { order_ids: order_ids.into_iter().collect::<Option<_>>()? })
    }
}

#[derive(Debug)]
pub(super) struct StockRequest {
    cursor: Option<Cursor>,
}

impl ReadBody for StockRequest {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        Some(Self { cursor: body.optional("cursor", text) })
    }
}

#[derive(Debug, Serialize)]
pub(super) struct ReservationsDocument {
    reservations: Vec<ReservationAccount>,
}

pub(super) async fn reservations(
    State(products): State<Products>,
    _: Internal,
    Message(Body(request)): Message<Body<ReservationsRequest>>,
) -> Result<Json<ReservationsDocument>, Problem> {
    let reservations = products.reservation_accounts(&request.order_ids).await?;
    Ok(Json(ReservationsDocument { reservations }))
}

pub(super) async fn stock(
    State(products): State<Products>,
    _: Internal,
    Message(Body(request)): Message<Body<StockRequest>>,
) -> Result<Json<Page<StockAccount>>, Problem> {
    Ok(Json(products.stock_accounts(Limit::at_most(PRODUCTS), request.cursor.as_ref()).await?))
}
