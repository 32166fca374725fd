//! The flow with which orders are compared: the plain design in which the orders
//! function makes one call after another. It validates the user, gets each product,
//! reserves each product, pays, writes the order, and publishes an event.
//!
//! The flow keeps none of the promises in `docs/guarantees.md`: if it stops between two
//! calls, the order is half done. It sends its requests with the same clients, to the
//! same services, as the orders service. Nothing is added that would make it slower: it
//! makes no call twice, and it neither captures the payment nor reads an idempotency key.

use anyhow::{Context, Result, ensure};
use chassis::{
    aws::Aws,
    clock::Clock,
    contact::VerifiedContact,
    deadline::Deadline,
    dynamo::{Key, Table},
    events::{Event, EventPublisher},
    id::UserId,
    service_client::ServiceClient,
    time_limits::{ORDERS_FUNCTION, PAYMENT_CALL_TIMEOUT, SERVICE_CALL_TIMEOUT},
    trace::TraceContext,
};
use in_process_tests::{World, world};
use serde::Serialize;
use serde_json::{Value, json};

/// The name under which [`World`] counts the calls of code that runs outside of any
/// function. The flow is such code.
pub const CALLER: &str = "nobody";

pub struct OriginalFlow {
    users: ServiceClient,
    products: ServiceClient,
    payments: ServiceClient,
    orders: Table,
    events: EventPublisher,
    clock: Clock,
}

/// The order's item. It has the members of an order's response.
#[derive(Serialize)]
struct OrderItem {
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    order: Value,
}

impl OriginalFlow {
    pub async fn new(world: &World, clock: Clock) -> Result<Self> {
        let aws: Aws = world::aws(world.cloud.clone()).await;
        let client = |name: &'static str, timeout| -> Result<_> {
            let address = format!("http://{name}.internal").parse()?;
            Ok(ServiceClient::new(name, address, timeout, &aws, clock.clone()))
        };
        let queue = "https://sqs.us-east-1.amazonaws.com/000000000000/order-events".parse()?;
        Ok(Self {
            users: client("users", SERVICE_CALL_TIMEOUT)?,
            products: client("products", SERVICE_CALL_TIMEOUT)?,
            payments: client("payments", PAYMENT_CALL_TIMEOUT)?,
            orders: world::table(world.cloud.clone(), "OrdersTable").await,
            events: EventPublisher::open(&aws.config, queue),
            clock,
        })
    }

    /// Places an order for one unit of each product.
    pub async fn place(&self, user: UserId, products: &[String]) -> Result<()> {
        let order_id = format!("ord_{}", uuid::Uuid::now_v7());
        let validated =
            self.post(&self.users, &format!("/users/{user}/validate"), &json!(VerifiedContact::UNKNOWN)).await?;
        ensure!(validated["valid"] == true, "the user is not valid: {validated}");
        let (mut items, mut lines) = (Vec::new(), Vec::new());
        for id in products {
            let (path, trace) = (format!("/products/{id}"), TraceContext::start());
            let product: Value = self.products.get(&path, &trace, Deadline::after(ORDERS_FUNCTION)).await?;
            items.push(json!({
                "product_id": id, "name": product["name"], "quantity": 1, "unit_price": product["price"],
            }));
            lines.push(json!({
                "product_id": id, "name": product["name"], "quantity": 1, "unit_price": product["price"],
                "line_total": product["price"],
            }));
        }
        let mut total = 0;
        for id in products {
            // The products service accepts one reservation for each order, so each line
            // gets an id of its own.
            let line = format!("ord_{}", uuid::Uuid::now_v7());
            let body = json!({ "order_id": line, "product_id": id, "quantity": 1 });
            let quote = self.post(&self.products, "/products/reserve", &body).await?;
            total += quote["total"]["minor"].as_i64().with_context(|| format!("a quote without a total: {quote}"))?;
        }
        let payment = json!({
            "order_id": order_id,
            "user_id": user,
            "amount": { "minor": total, "currency": "USD" },
            "payment_method": "tok_accepted",
            "recipient": validated["recipient"],
        });
        self.post(&self.payments, "/payments", &payment).await?;
        let now = self.clock.now();
        let order = json!({
            "id": order_id, "user_id": user, "items": items, "total_minor": total, "currency": "USD",
            "status": "CONFIRMED", "created_at": now, "updated_at": now,
        });
        let item = OrderItem { key: Key::new(format!("ORDER#{order_id}"), "ORIGINAL"), order };
        let written = self.orders.send(self.orders.put(&item)?).await?;
        ensure!(written == chassis::dynamo::WriteOutcome::Written, "the order was not written");
        let announced = json!({
            "order_id": order_id, "user_id": user, "recipient": validated["recipient"], "lines": lines,
            "total": total as f64 / 100.0, "currency": "USD", "paid": true,
        });
        let event = Event::new("/orders", "OrderCreated", &order_id, now, TraceContext::start(), announced);
        self.events.publish(&event, Deadline::after(ORDERS_FUNCTION)).await?;
        Ok(())
    }

    async fn post(&self, to: &ServiceClient, path: &str, body: &Value) -> Result<Value> {
        let answer = to.post(path, body, &TraceContext::start(), Deadline::after(ORDERS_FUNCTION)).await;
        answer.with_context(|| format!("POST {path}"))
    }
}
