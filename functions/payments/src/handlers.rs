//! The HTTP routes of payments.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chassis::{
    caller::{Authenticator, Caller, Internal, Principal, UserId},
    dynamo::Table,
    fields::{FieldError, Fields},
    health,
    http::{Id, Invocation, Json as Body, Object, edge},
    money::{Amount, Currency, Money},
    openapi::ProblemResponses,
    problem::Problem,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema, openapi};

use crate::{
    domain::{OrderId, Payment, PaymentId, PaymentRequest, PaymentStatus, Recipient, Standing},
    openapi::Reading,
    provider::ProviderError,
    service::{PaymentError, Payments},
};

/// All routes, public and internal, behind the HTTP edge.
pub fn router(payments: Payments, table: Table, authenticator: Authenticator) -> Router {
    let routes = Router::new()
        .route("/payments", post(authorise))
        .route("/payments/{id}", get(read))
        .route("/payments/{id}/capture", post(capture))
        .route("/payments/{id}/cancel", post(cancel))
        .with_state(payments)
        .merge(health::routes("payments", table));
    edge(routes, authenticator)
}

#[derive(OpenApi)]
#[openapi(paths(read))]
struct Api;

/// What the API's document says of the public routes.
pub fn api() -> openapi::OpenApi {
    Api::openapi().merge_from(health::api("payments"))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPayment {
    order_id: String,
    user_id: String,
    amount: Amount,
    #[serde(default)]
    currency: Option<String>,
    #[serde(default)]
    payment_method: Option<String>,
    recipient: Object<NewRecipient>,
    /// Take the money in the same request.
    #[serde(default)]
    capture: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRecipient {
    name: String,
    email: String,
    #[serde(default)]
    phone: Option<String>,
}

/// An order has one payment, under the order's own UUID.
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

/// What there is to say of a payment that was cancelled before it came.
#[derive(Debug, Serialize)]
struct TombstoneDocument {
    id: PaymentId,
    status: PaymentStatus,
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

fn document(standing: Standing) -> Response {
    match standing {
        Standing::Payment(payment) => Json(PaymentDocument::from(*payment)).into_response(),
        Standing::Tombstone { id, .. } => {
            Json(TombstoneDocument { id, status: PaymentStatus::Cancelled }).into_response()
        }
    }
}

impl NewPayment {
    fn checked(self) -> Result<PaymentRequest, Vec<FieldError>> {
        let mut fields = Fields::default();
        let order_id = fields.take("order_id", self.order_id.parse::<OrderId>());
        let user_id = fields.take("user_id", self.user_id.parse::<UserId>());
        let currency = fields.take("currency", self.currency.map_or(Ok(Currency::default()), |code| code.parse()));
        let amount = currency.and_then(|currency| fields.take("amount", self.amount.of(currency)));
        if amount.is_some_and(|amount: Money| amount.minor() == 0) {
            fields.refuse("amount", "must be more than 0");
        }
        let method = self.payment_method.and_then(|token| fields.take("payment_method", token.parse()));
        let Object(recipient) = self.recipient;
        let name = fields.take("recipient.name", recipient.name.parse());
        let email = fields.take("recipient.email", recipient.email.parse());
        let phone = recipient.phone.and_then(|phone| fields.take("recipient.phone", phone.parse()));
        let recipient = name.zip(email).map(|(name, email)| Recipient { name, email, phone });
        let request = order_id.zip(user_id).zip(amount.zip(recipient));
        let request = request.map(|((order_id, user_id), (amount, recipient))| PaymentRequest {
            order_id,
            user_id,
            amount,
            method,
            recipient,
            at_once: self.capture,
        });
        fields.finish(request)
    }
}

/// 201 for a repeat, too: its answer is the first one's.
async fn authorise(
    State(payments): State<Payments>,
    _: Internal,
    invocation: Invocation,
    Body(body): Body<NewPayment>,
) -> Result<Response, Problem> {
    let request = body.checked().map_err(Problem::invalid)?;
    let payment = payments.authorise(request, &invocation).await?;
    let location = [(header::LOCATION, format!("payments/{}", payment.id))];
    Ok((StatusCode::CREATED, location, Json(PaymentDocument::from(payment))).into_response())
}

async fn capture(
    State(payments): State<Payments>,
    _: Internal,
    invocation: Invocation,
    Id(id): Id<PaymentId>,
) -> Result<Json<PaymentDocument>, Problem> {
    Ok(Json(payments.capture(id, invocation.deadline).await?.into()))
}

async fn cancel(
    State(payments): State<Payments>,
    _: Internal,
    invocation: Invocation,
    Id(id): Id<PaymentId>,
) -> Result<Response, Problem> {
    Ok(document(payments.cancel(id, invocation.deadline).await?))
}

/// Read a payment
///
/// For whoever pays, and for administrators. Somebody else's is 404.
#[utoipa::path(
    get,
    path = "/payments/{id}",
    operation_id = "getPayment",
    tag = "Payments",
    params(("id" = PaymentId, Path)),
    responses(
        (status = 200, description = "The payment.", body = PaymentDocument),
        ProblemResponses<(Reading, Caller, Id<PaymentId>)>,
    ),
)]
async fn read(
    State(payments): State<Payments>,
    principal: Principal,
    Id(id): Id<PaymentId>,
) -> Result<Response, Problem> {
    Ok(document(payments.get(&principal, id).await?))
}

impl From<PaymentError> for Problem {
    fn from(error: PaymentError) -> Self {
        let conflict = |code, detail: &str| Problem::new(StatusCode::CONFLICT, code, detail);
        let refused = |code, detail: &str, reason: String| {
            Problem::new(StatusCode::PAYMENT_REQUIRED, code, detail).with("reason", reason)
        };
        match error {
            PaymentError::NotFound => Problem::not_found("payment"),
            PaymentError::Declined { reason } => refused("payment_declined", "The payment was declined.", reason),
            PaymentError::CaptureRefused { reason } => {
                refused("capture_refused", "The payment was authorised, but will not be captured.", reason)
            }
            PaymentError::Cancelled => conflict("payment_cancelled", "The payment was cancelled."),
            PaymentError::Mismatch => {
                conflict("payment_mismatch", "The order has a payment with another payer, amount or method.")
            }
            PaymentError::NotAuthorised => {
                conflict("payment_not_authorised", "The payment is not authorised, so nothing can be captured.")
            }
            PaymentError::Contended
            | PaymentError::Publish(_)
            | PaymentError::Provider(ProviderError::Unavailable(_)) => Problem::unavailable(error),
            PaymentError::Step(_) | PaymentError::Provider(ProviderError::KeyConflict) => Problem::internal(error),
            PaymentError::Store(error) => error.into(),
        }
    }
}
