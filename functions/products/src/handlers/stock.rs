//! How much of it is there: adjusting, reserving and releasing stock.

use axum::{Json, extract::State};
use chassis::{
    caller::{Admin, Internal},
    fields::Fields,
    http::{Id, Json as Body, Object, whole},
    money::{Amount, Currency},
    openapi::ProblemResponses,
    problem::Problem,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    domain::{
        Adjustment, AdjustmentId, Delta, Line, Lines, Name, OrderId, PricedLine, ProductId, Quantity, Quote, Reason,
    },
    openapi::Adjusting,
    service::{NewAdjustment, Products},
};

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewStockAdjustment)]
#[serde(deny_unknown_fields)]
pub(super) struct AdjustmentRequest {
    #[schema(value_type = AdjustmentId)]
    adjustment_id: String,
    #[serde(deserialize_with = "whole")]
    #[schema(value_type = Delta)]
    delta: i64,
    #[schema(value_type = Reason)]
    reason: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StockAdjustment)]
pub(super) struct AdjustmentDocument {
    adjustment_id: AdjustmentId,
    product_id: ProductId,
    delta: Delta,
    reason: Reason,
    /// When it was applied, the first and only time.
    applied_at: Timestamp,
}

impl From<Adjustment> for AdjustmentDocument {
    fn from(adjustment: Adjustment) -> Self {
        let Adjustment { adjustment_id, product_id, delta, reason, applied_at } = adjustment;
        Self { adjustment_id, product_id, delta, reason, applied_at }
    }
}

/// Either `items`, or one product and its quantity.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReserveRequest {
    order_id: OrderId,
    #[serde(default)]
    items: Option<Vec<Object<Item>>>,
    #[serde(default)]
    product_id: Option<ProductId>,
    #[serde(default)]
    quantity: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    product_id: ProductId,
    quantity: u32,
}

impl ReserveRequest {
    fn lines(self) -> Result<Lines, Problem> {
        let mut fields = Fields::default();
        let mut line = |field: &str, product_id, quantity| {
            let quantity = fields.take(field, Quantity::try_from(quantity))?;
            Some(Line { product_id, quantity })
        };
        let (all, lines): (_, Option<Vec<_>>) = match (self.items, self.product_id, self.quantity) {
            (Some(items), None, None) => {
                // Each is looked at, for the sake of its own message.
                let lines = items.iter().enumerate().map(|(index, Object(item))| {
                    line(&format!("items[{index}].quantity"), item.product_id, item.quantity)
                });
                ("items", lines.collect::<Vec<_>>().into_iter().collect())
            }
            (None, Some(product_id), Some(quantity)) => {
                ("quantity", line("quantity", product_id, quantity).map(|line| vec![line]))
            }
            _ => {
                fields.refuse("items", "must be there, or else both product_id and quantity");
                ("items", None)
            }
        };
        let lines = lines.and_then(|lines| fields.take(all, Lines::merge(&lines)));
        fields.finish(lines).map_err(Problem::invalid)
    }
}

#[derive(Debug, Serialize)]
pub(super) struct LineDocument {
    product_id: ProductId,
    name: Name,
    quantity: Quantity,
    unit_price: Amount,
    line_total: Amount,
}

impl From<PricedLine> for LineDocument {
    fn from(line: PricedLine) -> Self {
        let PricedLine { product_id, name, quantity, unit_price, line_total, version: _ } = line;
        Self { product_id, name, quantity, unit_price: unit_price.amount(), line_total: line_total.amount() }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct ReservationDocument {
    order_id: OrderId,
    lines: Vec<LineDocument>,
    total: Amount,
    currency: Currency,
}

#[derive(Debug, Serialize)]
pub(super) struct ReleaseDocument {
    order_id: OrderId,
    status: &'static str,
}

/// Let pieces come or go
///
/// For administrators: a delivery, a breakage, a count. Applied once for each `adjustment_id`, however often it is
/// sent; a repeat gets the first one's answer. What belongs to orders cannot go.
#[utoipa::path(
    post,
    path = "/products/{id}/stock-adjustments",
    operation_id = "adjustStock",
    tag = "Products",
    params(("id" = ProductId, Path)),
    request_body = AdjustmentRequest,
    responses(
        (status = 200, description = "The adjustment, applied.", body = AdjustmentDocument),
        ProblemResponses<(Adjusting, Admin, Id<ProductId>, Body<AdjustmentRequest>)>,
    ),
)]
pub(super) async fn adjust(
    State(products): State<Products>,
    _: Admin,
    Id(id): Id<ProductId>,
    Body(body): Body<AdjustmentRequest>,
) -> Result<Json<AdjustmentDocument>, Problem> {
    let mut fields = Fields::default();
    let adjustment_id = fields.take("adjustment_id", body.adjustment_id.parse::<AdjustmentId>());
    let delta = fields.take("delta", Delta::try_from(body.delta));
    let reason = fields.take("reason", body.reason.parse::<Reason>());
    let input = adjustment_id.zip(delta).zip(reason);
    let ((adjustment_id, delta), reason) = fields.finish(input).map_err(Problem::invalid)?;
    Ok(Json(products.adjust(id, NewAdjustment { id: adjustment_id, delta, reason }).await?.into()))
}

pub(super) async fn reserve(
    State(products): State<Products>,
    _: Internal,
    Body(body): Body<ReserveRequest>,
) -> Result<Json<ReservationDocument>, Problem> {
    let order_id = body.order_id;
    let lines = body.lines()?;
    let Quote { lines, total } = products.reserve(order_id, &lines).await?;
    Ok(Json(ReservationDocument {
        order_id,
        lines: lines.into_iter().map(LineDocument::from).collect(),
        total: total.amount(),
        currency: total.currency(),
    }))
}

pub(super) async fn release(
    State(products): State<Products>,
    _: Internal,
    Id(order_id): Id<OrderId>,
) -> Result<Json<ReleaseDocument>, Problem> {
    products.release(order_id).await?;
    Ok(Json(ReleaseDocument { order_id, status: "RELEASED" }))
}
