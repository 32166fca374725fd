//! The HTTP routes of the payments service.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chassis::{
    caller::{Authenticator, Caller, Internal},
    dynamo::Table,
    health,
    http::edge,
    id::UserId,
    input::{Body, Id, Input, Message, Object, ReadBody, flag, object, text, whole},
    invocation::Invocation,
    money::{Amount, Currency, Money},
    openapi::ProblemResponses,
    problem::Problem,
    trace::TraceContext,
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema, openapi};

use crate::{
    domain::{OrderId, Payment, PaymentId, PaymentRecord, PaymentRequest, PaymentStatus, Recipient},
    openapi::Reading,
    provider::ProviderError,
    reconciliation,
    service::{PaymentError, Payments},
};

/// Returns the router with all routes, public and internal.
pub fn router(payments: Payments, table: Table, authenticator: Authenticator) -> Router {
    let routes = Router::new()
        .route("/payments", post(authorise))
        .route("/payments/{id}", get(read))
        .route("/payments/{id}/capture", post(capture))
        .route("/payments/{id}/cancel", post(cancel))
        .route("/payments/{id}/erase-recipient", post(erase_recipient))
        .route("/payments/accounts", post(reconciliation::accounts))
        .route("/payments/charges", post(reconciliation::charges))
        .with_state(payments)
        .merge(health::routes("payments", table));
    edge(routes, authenticator)
}

#[derive(OpenApi)]
#[openapi(paths(read))]
struct Api;

/// Returns the OpenAPI document of the public routes.
pub fn api() -> openapi::OpenApi {
    Api::openapi().merge_from(health::api("payments"))
}

/// The payment of an order. The payment's id has the same UUID as the order's id.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Payment)]
struct PaymentDocument {
    id: PaymentId,
    order_id: OrderId,
    user_id: UserId,
    amount: Amount,
    currency: Currency,
    status: PaymentStatus,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// The response body for a payment that was cancelled before it was authorised.
#[derive(Debug, Serialize)]
struct TombstoneDocument {
    id: PaymentId,
    status: PaymentStatus,
}

/// The response body for a payment whose personal data was erased.
#[derive(Debug, Serialize)]
struct ErasedDocument {
    id: PaymentId,
}

impl From<Payment> for PaymentDocument {
    fn from(payment: Payment) -> Self {
        Self {
            id: payment.id,
            order_id: payment.id.order(),
            user_id: payment.user_id,
            amount: payment.amount.amount(),
            currency: payment.amount.currency(),
            status: payment.status(),
            created_at: payment.created_at,
            updated_at: payment.updated_at,
        }
    }
}

fn document(record: PaymentRecord) -> Response {
    match record {
        PaymentRecord::Payment(payment) => Json(PaymentDocument::from(*payment)).into_response(),
        PaymentRecord::Tombstone { id, .. } => {
            Json(TombstoneDocument { id, status: PaymentStatus::Cancelled }).into_response()
        }
    }
}

impl ReadBody for PaymentRequest {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        let (order_id, user_id) = (body.required("order_id", text), body.required("user_id", text));
        let amount = body.required("amount", |place| object(place, amount));
        let method = body.optional("payment_method", text);
        let recipient = body.required("recipient", |place| object(place, recipient));
        let capture_immediately = body.optional_or("capture", false, flag);
        Some(Self {
            order_id: order_id?,
            user_id: user_id?,
            amount: amount?,
            method,
            recipient: recipient?,
            capture_immediately: capture_immediately?,
        })
    }
}

fn amount(amount: &mut Object<'_, '_>) -> Option<Money> {
    let (minor, currency) = (amount.required::<i64>("minor", whole), amount.required("currency", text));
    let minor = minor.and_then(|minor| {
        let positive = u64::try_from(minor).ok().filter(|minor| *minor > 0);
        amount.check("minor", positive.ok_or("must be more than 0"))
    });
    amount.check("minor", Money::from_minor(minor?, currency?))
}

fn recipient(recipient: &mut Object<'_, '_>) -> Option<Recipient> {
    let name = recipient.required("name", text);
    let (email, phone) = (recipient.optional("email", text), recipient.optional("phone", text));
    Some(Recipient { name: name?, email, phone })
}

/// A repeat of a request gets the status 201, too. A caller that did not receive the first
/// response therefore handles the response to its repeat in the same way.
async fn authorise(
    State(payments): State<Payments>,
    _: Internal,
    trace: TraceContext,
    invocation: Invocation,
    Message(Body(request)): Message<Body<PaymentRequest>>,
) -> Result<Response, Problem> {
    let payment = payments.authorise(request, trace, invocation.deadline).await?;
    let location = [(header::LOCATION, format!("payments/{}", payment.id))];
    Ok((StatusCode::CREATED, location, Json(PaymentDocument::from(payment))).into_response())
}

async fn capture(
    State(payments): State<Payments>,
    _: Internal,
    invocation: Invocation,
    Message(Id(id)): Message<Id<PaymentId>>,
) -> Result<Json<PaymentDocument>, Problem> {
    Ok(Json(payments.capture(id, invocation.deadline).await?.into()))
}

async fn cancel(
    State(payments): State<Payments>,
    _: Internal,
    invocation: Invocation,
    Message(Id(id)): Message<Id<PaymentId>>,
) -> Result<Response, Problem> {
    Ok(document(payments.cancel(id, invocation.deadline).await?))
}

async fn erase_recipient(
    State(payments): State<Payments>,
    _: Internal,
    Message(Id(id)): Message<Id<PaymentId>>,
) -> Result<Json<ErasedDocument>, Problem> {
    payments.erase_recipient(id).await?;
    Ok(Json(ErasedDocument { id }))
}

/// Read a payment
///
/// For the customer who pays and for administrators. Everybody else gets 404.
#[utoipa::path(
    get,
    path = "/payments/{id}",
    operation_id = "getPayment",
    tag = "Payments",
    params(("id" = PaymentId, Path)),
    responses(
        (status = 200, description = "The payment.", body = PaymentDocument),
        ProblemResponses<(Reading, Caller, Input<Id<PaymentId>>)>,
    ),
)]
async fn read(
    State(payments): State<Payments>,
    caller: Caller,
    Input(Id(id)): Input<Id<PaymentId>>,
) -> Result<Response, Problem> {
    Ok(document(payments.get(&caller, id).await?))
}

impl From<PaymentError> for Problem {
    fn from(error: PaymentError) -> Self {
        let conflict = |code, detail: &str| Problem::new(StatusCode::CONFLICT, code, detail);
        let payment_required = |code, detail: &str, reason: String| {
            Problem::new(StatusCode::PAYMENT_REQUIRED, code, detail).with("reason", reason)
        };
        match error {
            PaymentError::NotFound => Problem::not_found("payment"),
            PaymentError::Declined { reason } => {
                payment_required("payment_declined", "The payment was declined.", reason)
            }
            PaymentError::CaptureRefused { reason } => payment_required(
                "capture_refused",
                "The payment was authorised, but the payment provider refused to capture it.",
                reason,
            ),
            PaymentError::Cancelled => conflict("payment_cancelled", "The payment was cancelled."),
            PaymentError::Mismatch => conflict(
                "payment_mismatch",
                "The order already has a payment with another customer, amount, method or capture mode.",
            ),
            PaymentError::NotAuthorised => {
                conflict("payment_not_authorised", "The payment is not authorised, so nothing can be captured.")
            }
            PaymentError::Contended | PaymentError::Provider(ProviderError::Contended(_)) => Problem::contended(error),
            PaymentError::Publish(_) | PaymentError::Provider(ProviderError::Unavailable(_)) => {
                Problem::unavailable(error)
            }
            PaymentError::Transition(_) | PaymentError::Provider(ProviderError::KeyConflict) => {
                Problem::internal(error)
            }
            PaymentError::Store(error) => error.into(),
        }
    }
}
