//! The saga's participants, reached over HTTP and through the queue.

use std::time::Duration;

use async_trait::async_trait;
use chassis::{
    aws::Aws,
    clock::Clock,
    config::{BaseUrl, Configuration, Env},
    contact::VerifiedContact,
    events::{Event, EventPublisher},
    id::UserId,
    money::{Amount, Currency, Money},
    service_client::{CallError, ServiceClient},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    documents::OrderLineDocument,
    domain::{Item, Order, OrderId, OrderState, PaymentMethod, Quote, Recipient, Refusal},
    saga::{Participants, Run, StepError},
};

/// How long one call may take. A card network needs longer than a table.
const TIMEOUT: Duration = Duration::from_secs(2);
const PAYMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Where these events come from.
const SOURCE: &str = "/orders";

/// Where the other services are. Nothing else in this service knows how they
/// are reached.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The users service.
    pub users: BaseUrl,
    /// The products service.
    pub products: BaseUrl,
    /// The payments service.
    pub payments: BaseUrl,
}

impl Configuration for Addresses {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let users = env.required("USERS_URL", "the base address of the users service");
        let products = env.required("PRODUCTS_URL", "the base address of the products service");
        let payments = env.required("PAYMENTS_URL", "the base address of the payments service");
        Some(Self { users: users?, products: products?, payments: payments? })
    }
}

/// The participants.
#[derive(Debug)]
pub struct Services {
    users: ServiceClient,
    products: ServiceClient,
    payments: ServiceClient,
    events: EventPublisher,
}

impl Services {
    /// The services at `addresses`, and the queue behind `events`.
    pub fn new(addresses: Addresses, events: EventPublisher, aws: &Aws, clock: Clock) -> Self {
        let client = |name, address, timeout| ServiceClient::new(name, address, timeout, aws, clock.clone());
        Self {
            users: client("users", addresses.users, TIMEOUT),
            products: client("products", addresses.products, TIMEOUT),
            payments: client("payments", addresses.payments, PAYMENT_TIMEOUT),
            events,
        }
    }

    async fn publish<D: Serialize + Send + Sync>(
        &self,
        order: &Order,
        kind: &str,
        at: Timestamp,
        data: D,
        run: Run<'_>,
    ) -> Result<(), StepError> {
        let event = Event::new(SOURCE, kind, order.id, at, order.trace.clone(), data);
        let published = self.events.publish(&event, run.deadline).await;
        published.map_err(|error| StepError::Unavailable(error.to_string()))
    }
}

/// Reads a refusal's extension member; what can't be read is left empty, since
/// the refusal itself is certain.
fn member<T: DeserializeOwned + Default>(members: &serde_json::Map<String, Value>, name: &str) -> T {
    members.get(name).and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default()
}

/// Translates what a service refused with. A code that isn't known here is no
/// decision about the order.
fn refusal(error: CallError) -> StepError {
    let problem = match &error {
        CallError::Refused { problem, .. } => problem,
        CallError::Contended { .. } => return StepError::Busy(error.to_string()),
        CallError::Unavailable { .. } => return StepError::Unavailable(error.to_string()),
    };
    let members = &problem.members;
    match problem.code.as_str() {
        "out_of_stock" => StepError::Refused(Refusal::OutOfStock { lines: member(members, "lines") }),
        "unknown_product" => StepError::Refused(Refusal::UnknownProduct { products: member(members, "products") }),
        "mixed_currencies" => StepError::Refused(Refusal::MixedCurrencies),
        "payment_declined" => StepError::Refused(Refusal::PaymentDeclined { reason: member(members, "reason") }),
        "capture_refused" => StepError::Refused(Refusal::CaptureRefused),
        "reservation_released" | "payment_cancelled" => StepError::Overtaken,
        _ => {
            tracing::error!(%error, "a refusal that means nothing for an order");
            StepError::Unavailable(error.to_string())
        }
    }
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
    lines: &'a [Item],
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

/// An answer of which only the status counts.
#[derive(Deserialize)]
struct Acknowledged {}

#[derive(Serialize)]
struct OrderCreated<'a> {
    order_id: OrderId,
    user_id: UserId,
    /// Absent once the customer's data is erased: there is nobody to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<&'a Recipient>,
    lines: Vec<OrderLineDocument>,
    total: Amount,
    currency: Currency,
    /// Whether the payment is captured. It isn't where the order is announced
    /// only to be recalled.
    paid: bool,
}

#[derive(Serialize)]
struct OrderCancelled<'a> {
    order_id: OrderId,
    user_id: UserId,
    /// Absent once the customer's data is erased: there is nobody to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<&'a Recipient>,
    reason: &'static str,
    /// Whether it was ever announced with OrderCreated.
    confirmed: bool,
    /// Whether the request that placed the order has told the customer.
    customer_told: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<Currency>,
}

/// What a later step needs and an earlier one found out.
fn known<'a, T>(fact: &'a Option<T>, what: &str) -> Result<&'a T, StepError> {
    fact.as_ref().ok_or_else(|| StepError::Unavailable(format!("the order's {what} is not known")))
}

/// Whom to tell about an order; nobody, once the customer's data is erased.
fn recipient(order: &Order) -> Result<Option<&Recipient>, StepError> {
    if order.is_erased { Ok(None) } else { known(&order.recipient, "recipient").map(Some) }
}

#[async_trait]
impl Participants for Services {
    async fn validate_user(&self, order: &Order, run: Run<'_>) -> Result<Recipient, StepError> {
        let path = format!("/users/{}/validate", order.user_id);
        let heard = order.contact.as_ref().unwrap_or(&VerifiedContact::UNKNOWN);
        let answer: Validation = self.users.post(&path, heard, run.trace, run.deadline).await.map_err(refusal)?;
        match (answer.valid, answer.recipient, answer.reason.as_deref()) {
            (true, Some(recipient), _) => Ok(recipient),
            (false, _, Some("user_not_found")) => Err(StepError::Refused(Refusal::UserNotFound)),
            (false, _, Some("user_inactive")) => Err(StepError::Refused(Refusal::UserInactive)),
            _ => Err(StepError::Unavailable("users gave an answer that means nothing".into())),
        }
    }

    async fn reserve_stock(&self, order: &Order, run: Run<'_>) -> Result<Quote, StepError> {
        let body = Reserve { order_id: order.id, lines: order.basket.items() };
        self.products.post("/products/reserve", &body, run.trace, run.deadline).await.map_err(refusal)
    }

    async fn release_stock(&self, order: &Order, run: Run<'_>) -> Result<(), StepError> {
        let path = format!("/reservations/{}/release", order.id);
        let Acknowledged {} = self.products.post(&path, &json!({}), run.trace, run.deadline).await.map_err(refusal)?;
        Ok(())
    }

    async fn authorise_payment(&self, order: &Order, run: Run<'_>) -> Result<(), StepError> {
        let body = Authorise {
            order_id: order.id,
            user_id: order.user_id,
            amount: known(&order.quote, "price")?.total,
            payment_method: &order.payment_method,
            recipient: known(&order.recipient, "recipient")?,
        };
        let Acknowledged {} = self.payments.post("/payments", &body, run.trace, run.deadline).await.map_err(refusal)?;
        Ok(())
    }

    async fn capture_payment(&self, order: &Order, run: Run<'_>) -> Result<(), StepError> {
        let path = format!("/payments/{}/capture", order.id.payment());
        let Acknowledged {} = self.payments.post(&path, &json!({}), run.trace, run.deadline).await.map_err(refusal)?;
        Ok(())
    }

    async fn cancel_payment(&self, order: &Order, run: Run<'_>) -> Result<(), StepError> {
        let path = format!("/payments/{}/cancel", order.id.payment());
        let Acknowledged {} = self.payments.post(&path, &json!({}), run.trace, run.deadline).await.map_err(refusal)?;
        Ok(())
    }

    async fn erase_recipient(&self, order: &Order, run: Run<'_>) -> Result<(), StepError> {
        let path = format!("/payments/{}/erase-recipient", order.id.payment());
        let Acknowledged {} = self.payments.post(&path, &json!({}), run.trace, run.deadline).await.map_err(refusal)?;
        Ok(())
    }

    async fn publish_order_created(&self, order: &Order, run: Run<'_>) -> Result<(), StepError> {
        let quote = known(&order.quote, "price")?;
        let data = OrderCreated {
            order_id: order.id,
            user_id: order.user_id,
            recipient: recipient(order)?,
            lines: quote.lines.iter().map(OrderLineDocument::from).collect(),
            total: quote.total.amount(),
            currency: quote.total.currency(),
            paid: order.state == OrderState::Confirmed,
        };
        let at = order.confirmed_at.unwrap_or(order.updated_at);
        self.publish(order, "OrderCreated", at, data, run).await
    }

    async fn publish_order_cancelled(&self, order: &Order, run: Run<'_>) -> Result<(), StepError> {
        if order.recipient.is_none() && !order.is_erased {
            // Without a profile there is nobody to tell.
            tracing::info!(order = %order.id, "cancelled without an event: its customer is not known");
            return Ok(());
        }
        let total = order.quote.as_ref().map(|quote| quote.total);
        let data = OrderCancelled {
            order_id: order.id,
            user_id: order.user_id,
            recipient: order.recipient.as_ref(),
            reason: known(&order.refusal, "reason to be cancelled")?.code(),
            confirmed: order.confirmed_at.is_some(),
            customer_told: order.is_customer_told,
            total: total.map(|total| total.amount()),
            currency: total.map(|total| total.currency()),
        };
        self.publish(order, "OrderCancelled", order.updated_at, data, run).await
    }
}
