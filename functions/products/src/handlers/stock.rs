//! The routes that adjust, reserve and release stock.

use axum::{Json, extract::State};
use chassis::{
    audit::Reason,
    caller::{Admin, Internal},
    id::UserId,
    input::{Body, Id, Input, Message, Object, Paging, Query, ReadBody, list, object, text, whole},
    openapi::ProblemResponses,
    page::Page,
    problem::Problem,
    telemetry,
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{Adjustment, AdjustmentId, Delta, Line, Lines, MAX_LINES, OrderId, ProductId, Quote},
    openapi::{Adjusting, ListingRecords},
    service::Products,
};

#[derive(Debug, ToSchema)]
#[schema(as = NewStockAdjustment)]
pub(super) struct AdjustmentRequest {
    adjustment_id: AdjustmentId,
    delta: Delta,
    reason: Reason,
}

impl ReadBody for AdjustmentRequest {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        let (adjustment_id, delta) = (body.required("adjustment_id", text), body.required("delta", whole));
        let reason = body.required("reason", text);
        Some(Self { adjustment_id: adjustment_id?, delta: delta?, reason: reason? })
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StockAdjustment)]
pub(super) struct AdjustmentDocument {
    adjustment_id: AdjustmentId,
    product_id: ProductId,
    delta: Delta,
    reason: Reason,
    /// The administrator who has adjusted the stock.
    adjusted_by: UserId,
    /// The time at which the adjustment was applied. A repeated request does not change this time.
    applied_at: Timestamp,
}

impl From<Adjustment> for AdjustmentDocument {
    fn from(adjustment: Adjustment) -> Self {
        let Adjustment { adjustment_id, product_id, delta, reason, adjusted_by, applied_at } = adjustment;
        Self { adjustment_id, product_id, delta, reason, adjusted_by, applied_at }
    }
}

/// The body of `POST /products/reserve`: either `lines`, or one `product_id` and its `quantity`.
#[derive(Debug)]
pub(super) struct ReserveRequest {
    order_id: OrderId,
    lines: Lines,
}

impl ReadBody for ReserveRequest {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        let order_id = body.required("order_id", text);
        let lines = body.optional("lines", |place| list(place, 1..=MAX_LINES, |place| object(place, line)));
        let (product_id, quantity) = (body.optional("product_id", text), body.optional("quantity", whole));
        let given = ["lines", "product_id", "quantity"].map(|name| body.is_given(name));
        let (all, lines) = match given {
            [true, false, false] => ("lines", lines.and_then(|lines| lines.into_iter().collect::<Option<Vec<_>>>())),
            [false, true, true] => {
                let line = product_id.zip(quantity);
                ("quantity", line.map(|(product_id, quantity)| vec![Line { product_id, quantity }]))
            }
            _ => {
                body.reject("lines", "must be present, unless both product_id and quantity are present");
                ("lines", None)
            }
        };
        let lines = lines.and_then(|lines| body.check(all, Lines::merge(&lines)));
        Some(Self { order_id: order_id?, lines: lines? })
    }
}

fn line(line: &mut Object<'_, '_>) -> Option<Line> {
    let (product_id, quantity) = (line.required("product_id", text), line.required("quantity", whole));
    Some(Line { product_id: product_id?, quantity: quantity? })
}

/// The response to a reserve request. Money is in minor units (cents for USD), because the orders service stores the
/// quote without converting it.
#[derive(Debug, Serialize)]
pub(super) struct ReservationDocument {
    order_id: OrderId,
    #[serde(flatten)]
    quote: Quote,
}

#[derive(Debug, Serialize)]
pub(super) struct ReleaseDocument {
    order_id: OrderId,
    status: &'static str,
}

/// Adjust the stock
///
/// For administrators: adds or removes units, for example after a delivery, a breakage or a stock count. An adjustment
/// is applied once for each `adjustment_id`, and a repeated request gets the first response. An adjustment cannot
/// remove units that orders have reserved.
#[utoipa::path(
    post,
    path = "/products/{id}/stock-adjustments",
    operation_id = "adjustStock",
    tag = "Products",
    params(("id" = ProductId, Path)),
    request_body = AdjustmentRequest,
    responses(
        (status = 200, description = "The applied adjustment.", body = AdjustmentDocument),
        ProblemResponses<(Adjusting, Admin, Input<(Id<ProductId>, Body<AdjustmentRequest>)>)>,
    ),
)]
pub(super) async fn adjust(
    State(products): State<Products>,
    Admin(caller): Admin,
    Input((Id(id), Body(request))): Input<(Id<ProductId>, Body<AdjustmentRequest>)>,
) -> Result<Json<AdjustmentDocument>, Problem> {
    let AdjustmentRequest { adjustment_id, delta, reason } = request;
    Ok(Json(products.adjust(id, adjustment_id, delta, reason, caller.user_id).await?.into()))
}

type AdjustmentPage = Page<AdjustmentDocument>;

/// List the adjustments of a product's stock
///
/// For administrators. Returns one page, sorted by `adjustment_id`. A product that does not exist has no adjustments.
#[utoipa::path(
    get,
    path = "/products/{id}/stock-adjustments",
    operation_id = "listStockAdjustments",
    tag = "Products",
    params(("id" = ProductId, Path), Paging),
    responses(
        (status = 200, description = "A page of adjustments.", body = AdjustmentPage),
        ProblemResponses<(ListingRecords, Admin, Input<(Id<ProductId>, Query<Paging>)>)>,
    ),
)]
pub(super) async fn adjustments(
    State(products): State<Products>,
    _: Admin,
    Input((Id(id), Query(Paging { limit, cursor }))): Input<(Id<ProductId>, Query<Paging>)>,
) -> Result<Json<AdjustmentPage>, Problem> {
    let page = products.adjustments(id, limit, cursor.as_ref()).await?;
    Ok(Json(page.map(AdjustmentDocument::from)))
}

pub(super) async fn reserve(
    State(products): State<Products>,
    _: Internal,
    Message(Body(request)): Message<Body<ReserveRequest>>,
) -> Result<Json<ReservationDocument>, Problem> {
    let ReserveRequest { order_id, lines } = request;
    telemetry::concerns_order(order_id);
    let quote = products.reserve(order_id, &lines).await?;
    Ok(Json(ReservationDocument { order_id, quote }))
}

pub(super) async fn release(
    State(products): State<Products>,
    _: Internal,
    Message(Id(order_id)): Message<Id<OrderId>>,
) -> Result<Json<ReleaseDocument>, Problem> {
    telemetry::concerns_order(order_id);
    products.release(order_id).await?;
    Ok(Json(ReleaseDocument { order_id, status: "RELEASED" }))
}
