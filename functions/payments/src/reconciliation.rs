//! The routes from which the orders service learns, for reconciliation, what is stored
//! of payments, and what the provider says of their charges.

use axum::{Json, extract::State};
use chassis::{
    caller::Internal,
    input::{Body, Message, Object, ReadBody, list, text},
    invocation::Invocation,
    problem::Problem,
};
use serde::Serialize;

use crate::{
    domain::PaymentId,
    service::{ChargeList, PaymentAccount, Payments},
};

/// The maximum number of payments of one request. For each, the provider is asked.
const MAX_PAYMENTS: usize = 50;
/// The maximum number of charges in one response.
const PAGE: usize = 50;

#[derive(Debug)]
pub(crate) struct AccountsRequest {
    payment_ids: Vec<PaymentId>,
}

impl ReadBody for AccountsRequest {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        let payment_ids = body.required("payment_ids", |place| list(place, 1..=MAX_PAYMENTS, text))?;
        Some(Self { payment_ids: payment_ids.into_iter().collect::<Option<_>>()? })
    }
}

/// The charges from one key to another, both included.
#[derive(Debug)]
pub(crate) struct ChargesRequest {
    from: PaymentId,
    to: PaymentId,
}

impl ReadBody for ChargesRequest {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        let (from, to) = (body.required("from", text), body.required("to", text));
        Some(Self { from: from?, to: to? })
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct AccountsDocument {
    payments: Vec<PaymentAccount>,
}

pub(crate) async fn accounts(
    State(payments): State<Payments>,
    _: Internal,
    invocation: Invocation,
    Message(Body(request)): Message<Body<AccountsRequest>>,
) -> Result<Json<AccountsDocument>, Problem> {
    let payments = payments.accounts(&request.payment_ids, invocation.deadline).await?;
    Ok(Json(AccountsDocument { payments }))
}

pub(crate) async fn charges(
    State(payments): State<Payments>,
    _: Internal,
    invocation: Invocation,
    Message(Body(request)): Message<Body<ChargesRequest>>,
) -> Result<Json<ChargeList>, Problem> {
    Ok(Json(payments.charges(request.from, request.to, PAGE, invocation.deadline).await?))
}
