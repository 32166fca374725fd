//! Implements the saga's participants: calls the other services over HTTP, and publishes events to the queue.

use std::sync::Arc;

use async_trait::async_trait;
use chassis::{
    aws::Aws,
    clock::Clock,
    config::BaseUrl,
    configuration,
    contact::VerifiedContact,
    events::{Event, EventPublisher},
    health::Check,
    id::UserId,
    money::Money,
    service_client::{CallError, ServiceClient},
    time_limits::{PAYMENT_CALL_TIMEOUT, SERVICE_CALL_TIMEOUT},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    domain::{
        CancellationReason, Message, Order, OrderId, OrderLine, OrderState, PaymentMethod, Quote, Recipient, Resend,
    },
    events::{OrderCancelled, OrderCreated, OriginalData, ResendRequested, SOURCE},
    reconciliation::calls::ServiceAccounts,
    responses::OrderLineDocument,
    saga::{Participants, StepContext, StepError},
};

configuration! {
    /// The base addresses of the services that the orders service calls.
    #[derive(Clone, Debug)]
    pub struct Addresses {
        pub users: BaseUrl = required("USERS_URL", "the base address of the users service"),
        pub products: BaseUrl = required("PRODUCTS_URL", "the base address of the products service"),
        pub payments: BaseUrl = required("PAYMENTS_URL", "the base address of the payments service"),
    }
}

#[derive(Debug)]
pub struct Services {
    users: Arc<ServiceClient>,
    products: Arc<ServiceClient>,
    payments: Arc<ServiceClient>,
    events: EventPublisher,
}

impl Services {
    pub fn new(addresses: Addresses, events: EventPublisher, aws: &Aws, clock: Clock) -> Self {
        let client = |name, address, timeout| Arc::new(ServiceClient::new(name, address, timeout, aws, clock.clone()));
        Self {
            users: client("users", addresses.users, SERVICE_CALL_TIMEOUT),
            products: client("products", addresses.products, SERVICE_CALL_TIMEOUT),
            payments: client("payments", addresses.payments, PAYMENT_CALL_TIMEOUT),
            events,
        }
    }

    /// The checks of the services that the saga calls. Each sends a request that the service refuses as invalid.
    pub fn checks(&self) -> [Check; 3] {
        [
            Check::of_service(self.users.clone(), "/users/user_none/validate"),
            Check::of_service(self.products.clone(), "/products/reserve"),
            Check::of_service(self.payments.clone(), "/payments"),
        ]
    }

    /// The clients of the services that reconciliation asks.
    pub fn accounts(&self) -> ServiceAccounts {
        ServiceAccounts { products: self.products.clone(), payments: self.payments.clone() }
    }

    async fn publish<D: Serialize + Send + Sync>(
        &self,
        order: &Order,
        kind: &str,
        at: Timestamp,
        data: D,
        context: StepContext<'_>,
    ) -> Result<(), StepError> {
        let event = Event::new(SOURCE, kind, order.id, at, order.trace.clone(), data);
        let published = self.events.publish(&event, context.deadline).await;
        published.map_err(|error| StepError::Unavailable(error.into()))
    }
}

async fn post<A: DeserializeOwned>(
    client: &ServiceClient,
    path: &str,
    body: &(impl Serialize + Sync),
    context: StepContext<'_>,
) -> Result<A, StepError> {
    client.post(path, body, context.trace, context.deadline).await.map_err(step_error)
}

/// Posts an empty JSON object to `path`. Only the status of the response matters.
async fn command(client: &ServiceClient, path: String, context: StepContext<'_>) -> Result<(), StepError> {
    let Acknowledged {} = post(client, &path, &json!({}), context).await?;
    Ok(())
}

/// Translates an error of a call to another service. A refusal with an unknown code counts as a missing answer, so it
/// does not cancel the order.
fn step_error(error: CallError) -> StepError {
    let problem = match &error {
        CallError::Refused { problem, .. } => problem,
        CallError::Contended { .. } => return StepError::Contended(error.into()),
        CallError::Unavailable { .. } => return StepError::Unavailable(error.into()),
    };
    let members = &problem.members;
    StepError::Refused(match problem.code.as_str() {
        "out_of_stock" => CancellationReason::OutOfStock { lines: member(members, "lines") },
        "unknown_product" => CancellationReason::UnknownProduct { products: member(members, "products") },
        "mixed_currencies" => CancellationReason::MixedCurrencies,
        "payment_declined" => CancellationReason::PaymentDeclined { reason: member(members, "reason") },
        "capture_refused" => CancellationReason::CaptureRefused,
        "reservation_released" | "payment_cancelled" => return StepError::Overtaken,
        code => {
            tracing::error!(code, "a service refused a step with a code that is not known here");
            return StepError::Unavailable(error.into());
        }
    })
}

/// Reads a member of a refusal's problem document. If the member is missing or cannot be read, returns the empty value:
/// the refusal is certain even without its details.
fn member<T: DeserializeOwned + Default>(members: &serde_json::Map<String, Value>, name: &str) -> T {
    members.get(name).and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default()
}

#[derive(Deserialize)]
struct Validation {
    valid: bool,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    recipient: Option<Recipient>,
}

#[derive(Serialize)]
struct Reserve<'a> {
    order_id: OrderId,
    lines: &'a [OrderLine],
}

#[derive(Serialize)]
struct Authorise<'a> {
    order_id: OrderId,
    user_id: UserId,
    amount: Money,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_method: &'a Option<PaymentMethod>,
    recipient: &'a Recipient,
}

/// A response of which only the status matters.
#[derive(Deserialize)]
struct Acknowledged {}

/// Returns the output that an earlier step has stored in the order, or an error if the order has no such output.
fn output<'a, T>(output: &'a Option<T>, name: &str) -> Result<&'a T, StepError> {
    output.as_ref().ok_or_else(|| StepError::Unavailable(format!("the order has no {name}").into()))
}

/// Returns the recipient for an event, or `None` if the customer's data is erased.
fn recipient(order: &Order) -> Result<Option<&Recipient>, StepError> {
    if order.is_erased { Ok(None) } else { output(&order.recipient, "recipient").map(Some) }
}

#[async_trait]
impl Participants for Services {
    async fn validate_user(&self, order: &Order, context: StepContext<'_>) -> Result<Recipient, StepError> {
        let path = format!("/users/{}/validate", order.user_id);
        let contact = order.contact.as_ref().unwrap_or(&VerifiedContact::UNKNOWN);
        let answer: Validation = post(&self.users, &path, contact, context).await?;
        match (answer.valid, answer.recipient, answer.reason.as_deref()) {
            (true, Some(recipient), _) => Ok(recipient),
            (false, _, Some("user_not_found")) => Err(StepError::Refused(CancellationReason::UserNotFound)),
            (false, _, Some("user_inactive")) => Err(StepError::Refused(CancellationReason::UserInactive)),
            _ => Err(StepError::Unavailable("the answer of the users service is not understood".into())),
        }
    }

    async fn reserve_stock(&self, order: &Order, context: StepContext<'_>) -> Result<Quote, StepError> {
        let body = Reserve { order_id: order.id, lines: order.lines.as_slice() };
        post(&self.products, "/products/reserve", &body, context).await
    }

    async fn release_stock(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError> {
        command(&self.products, format!("/reservations/{}/release", order.id), context).await
    }

    async fn authorise_payment(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError> {
        let body = Authorise {
            order_id: order.id,
            user_id: order.user_id,
            amount: output(&order.quote, "quote")?.total,
            payment_method: &order.payment_method,
            recipient: output(&order.recipient, "recipient")?,
        };
        let Acknowledged {} = post(&self.payments, "/payments", &body, context).await?;
        Ok(())
    }

    async fn capture_payment(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError> {
        command(&self.payments, format!("/payments/{}/capture", order.id.payment()), context).await
    }

    async fn cancel_payment(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError> {
        command(&self.payments, format!("/payments/{}/cancel", order.id.payment()), context).await
    }

    async fn erase_recipient(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError> {
        command(&self.payments, format!("/payments/{}/erase-recipient", order.id.payment()), context).await
    }

    async fn publish_order_created(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError> {
        let data = order_created(order, recipient(order)?)?;
        let at = order.confirmed_at().unwrap_or(order.updated_at());
        self.publish(order, "OrderCreated", at, data, context).await
    }

    async fn publish_order_cancelled(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError> {
        if order.recipient.is_none() && !order.is_erased {
            // The customer has no active profile, so there is nobody to notify.
            tracing::info!("no event for the cancellation: the order has no recipient");
            return Ok(());
        }
        let data = order_cancelled(order, order.recipient.as_ref())?;
        self.publish(order, "OrderCancelled", order.updated_at(), data, context).await
    }

    async fn publish_resend(
        &self,
        order: &Order,
        resend: &Resend,
        recipient: &Recipient,
        context: StepContext<'_>,
    ) -> Result<(), StepError> {
        let original_data = match resend.message {
            // The order is `DONE`, so the payment is captured.
            Message::OrderCreated => {
                OriginalData::Created(OrderCreated { paid: true, ..order_created(order, Some(recipient))? })
            }
            // The customer may know of the refusal from a response. The message is sent nevertheless, because an
            // administrator has asked for it.
            Message::OrderCancelled => OriginalData::Cancelled(OrderCancelled {
                customer_told: false,
                ..order_cancelled(order, Some(recipient))?
            }),
        };
        let data = ResendRequested { original_type: resend.message, original_data };
        let original = (order.id, resend.message.into());
        let trace = order.trace.clone();
        let event = Event::resend(SOURCE, original, &resend.resend_id, resend.requested_at, trace, data);
        let published = self.events.publish(&event, context.deadline).await;
        published.map_err(|error| StepError::Unavailable(error.into()))
    }
}

fn order_created<'a>(order: &Order, recipient: Option<&'a Recipient>) -> Result<OrderCreated<'a>, StepError> {
    let quote = output(&order.quote, "quote")?;
    Ok(OrderCreated {
        order_id: order.id,
        user_id: order.user_id,
        recipient,
        lines: quote.lines.iter().map(OrderLineDocument::from).collect(),
        total: quote.total.amount(),
        currency: quote.total.currency(),
        paid: order.state == OrderState::Confirmed,
    })
}

fn order_cancelled<'a>(order: &Order, recipient: Option<&'a Recipient>) -> Result<OrderCancelled<'a>, StepError> {
    let total = order.quote.as_ref().map(|quote| quote.total);
    Ok(OrderCancelled {
        order_id: order.id,
        user_id: order.user_id,
        recipient,
        reason: output(&order.cancellation_reason, "cancellation reason")?.code(),
        confirmed: order.confirmed_at().is_some(),
        customer_told: order.is_refusal_answered,
        total: total.map(|total| total.amount()),
        currency: total.map(|total| total.currency()),
    })
}
