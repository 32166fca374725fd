//! Reading events from the queue's messages: strictly, and without a word in
//! any error that could be somebody's data.

use chassis::{
    events::Event,
    id::UserId,
    money::{Amount, Currency, Money, MoneyError},
    trace::TraceContext,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::domain::{
    EventId, Line, Notice, Notification, OrderCancelled, OrderCreated, OrderId, ProductName, Reason, Recipient, Refund,
    Task,
};

/// The only version of CloudEvents there is.
const SPECVERSION: &str = "1.0";

/// A message that is no event of ours. Delivering it again won't help; the
/// dead-letter queue keeps it for people to look at.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidEvent {
    /// The event's id, as far as one can be made out.
    pub event_id: Option<EventId>,
    /// What is wrong.
    pub reason: InvalidReason,
}

/// What is wrong with a message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReason {
    /// Not even an event. Says where it stops making sense.
    #[error("the message is not an event: {0}")]
    Envelope(String),
    /// No id, or one that can't be a key.
    #[error("the event's id cannot be used")]
    Id,
    /// Another CloudEvents version.
    #[error("the event's specversion is not {SPECVERSION}")]
    Specversion,
    /// An event type that nobody told this service of.
    #[error("the event's type is unknown")]
    Kind,
    /// The `data` of a known event type is not what it should be.
    #[error("the event's data cannot be used: {0}")]
    Data(String),
}

/// An event that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The same however often the event is delivered.
    pub event_id: EventId,
    /// The event's type.
    pub kind: String,
    /// The trace that the event belongs to.
    pub trace: TraceContext,
    /// What to do about it.
    pub task: Task,
}

/// Reads a message's body.
///
/// # Errors
///
/// If it is not an event that this service knows.
pub fn parse(body: &str) -> Result<Incoming, InvalidEvent> {
    let event: Event<Box<RawValue>> = read(body)
        .map_err(|problem| InvalidEvent { event_id: id_alone(body), reason: InvalidReason::Envelope(problem) })?;
    let event_id: EventId = event.id.parse().map_err(|_| InvalidEvent { event_id: None, reason: InvalidReason::Id })?;
    let invalid = |reason| InvalidEvent { event_id: Some(event_id.clone()), reason };
    if event.specversion != SPECVERSION {
        return Err(invalid(InvalidReason::Specversion));
    }
    let told = told(&event.kind, event.data.get()).map_err(invalid)?;
    let task = match told {
        Told::Notice(Concerning { user_id, recipient: Some(recipient) }, notice) => {
            Task::Tell(Notification { event_id: event_id.clone(), user_id, recipient, notice })
        }
        Told::Erasure(user_id) => Task::Forget(user_id),
        // The customer's data is erased, or the customer knows it already.
        Told::Notice(Concerning { recipient: None, .. }, _) | Told::Nothing => Task::Nothing,
    };
    // A trace context that cannot be read is dropped, not the event with it
    // (W3C Trace Context, 4.3).
    let trace = TraceContext::parse(&event.traceparent.to_string()).unwrap_or_else(TraceContext::start);
    Ok(Incoming { event_id, kind: event.kind, trace, task })
}

/// What the data of an event says.
enum Told {
    Notice(Concerning, Notice),
    Erasure(UserId),
    Nothing,
}

/// Whom an event is about.
#[derive(Deserialize)]
struct Concerning {
    user_id: UserId,
    #[serde(default)]
    recipient: Option<Recipient>,
}

fn told(kind: &str, data: &str) -> Result<Told, InvalidReason> {
    match kind {
        "OrderCreated" => {
            let data: OrderCreatedData = read(data).map_err(InvalidReason::Data)?;
            let order = data.order().map_err(|error| InvalidReason::Data(error.to_string()))?;
            if order.lines.is_empty() {
                return Err(InvalidReason::Data("lines: none".into()));
            }
            Ok(Told::Notice(
                Concerning { user_id: data.user_id, recipient: data.recipient },
                Notice::OrderCreated(order),
            ))
        }
        "OrderCancelled" => {
            let data: OrderCancelledData = read(data).map_err(InvalidReason::Data)?;
            let order = data.order()?;
            // The answer to the request that placed the order said it.
            if data.customer_told && !order.confirmed {
                return Ok(Told::Nothing);
            }
            let concerning = Concerning { user_id: data.user_id, recipient: data.recipient };
            Ok(Told::Notice(concerning, Notice::OrderCancelled(order)))
        }
        // OrderCreated says it, too: one message is enough.
        "PaymentCaptured" => {
            let _: Concerning = read(data).map_err(InvalidReason::Data)?;
            Ok(Told::Nothing)
        }
        "PaymentRefunded" => {
            let data: PaymentData = read(data).map_err(InvalidReason::Data)?;
            let amount = data.amount.of(data.currency).map_err(|error| InvalidReason::Data(error.to_string()))?;
            let concerning = Concerning { user_id: data.user_id, recipient: data.recipient };
            Ok(Told::Notice(concerning, Notice::PaymentRefunded(Refund { order_id: data.order_id, amount })))
        }
        "UserErased" => {
            let data: Concerning = read(data).map_err(InvalidReason::Data)?;
            Ok(Told::Erasure(data.user_id))
        }
        _ => Err(InvalidReason::Kind),
    }
}

// What this service needs of an event's data. Members that it doesn't know
// are left alone: adding one must not stop the customers' mail.

#[derive(Deserialize)]
struct LineData {
    name: ProductName,
    quantity: std::num::NonZeroU32,
    unit_price: Amount,
    line_total: Amount,
}

#[derive(Deserialize)]
struct OrderCreatedData {
    order_id: OrderId,
    user_id: UserId,
    #[serde(default)]
    recipient: Option<Recipient>,
    lines: Vec<LineData>,
    total: Amount,
    currency: Currency,
    #[serde(default)]
    paid: bool,
}

impl OrderCreatedData {
    fn order(&self) -> Result<OrderCreated, MoneyError> {
        let lines = self.lines.iter().map(|line| {
            Ok(Line {
                name: line.name.clone(),
                quantity: line.quantity,
                unit_price: line.unit_price.of(self.currency)?,
                total: line.line_total.of(self.currency)?,
            })
        });
        let lines = lines.collect::<Result<_, MoneyError>>()?;
        Ok(OrderCreated { order_id: self.order_id, lines, total: self.total.of(self.currency)?, paid: self.paid })
    }
}

#[derive(Deserialize)]
struct OrderCancelledData {
    order_id: OrderId,
    user_id: UserId,
    #[serde(default)]
    recipient: Option<Recipient>,
    reason: Reason,
    confirmed: bool,
    #[serde(default)]
    customer_told: bool,
    #[serde(default)]
    total: Option<Amount>,
    #[serde(default)]
    currency: Option<Currency>,
}

impl OrderCancelledData {
    fn order(&self) -> Result<OrderCancelled, InvalidReason> {
        let total = match (self.total, self.currency) {
            (Some(total), Some(currency)) => Some(total.of(currency)),
            (None, _) => None,
            (Some(_), None) => return Err(InvalidReason::Data("missing field `currency`".into())),
        };
        let total: Option<Money> = total.transpose().map_err(|error| InvalidReason::Data(error.to_string()))?;
        Ok(OrderCancelled { order_id: self.order_id, reason: self.reason, confirmed: self.confirmed, total })
    }
}

#[derive(Deserialize)]
struct PaymentData {
    order_id: OrderId,
    user_id: UserId,
    #[serde(default)]
    recipient: Option<Recipient>,
    amount: Amount,
    currency: Currency,
}

/// Reads JSON; says which member was wrong, but never what it was: that may
/// be somebody's address.
fn read<T: DeserializeOwned>(json: &str) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        let message = error.to_string();
        match error.is_data() {
            // The one message that is worth its words: it names a member of
            // ours, and quotes nothing.
            true if message.starts_with("missing field `") => {
                format!("{path}: {}", message.split(" at line ").next().unwrap_or_default())
            }
            true => format!("{path}: not as expected, at line {} column {}", error.line(), error.column()),
            false => not_json(&error),
        }
    })?;
    deserializer.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> String {
    format!("not JSON, at line {} column {}", error.line(), error.column())
}

/// The id of something that is otherwise no event, for the log.
fn id_alone(body: &str) -> Option<EventId> {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    serde_json::from_str::<Id>(body).ok()?.id.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{InvalidReason, parse};
    use crate::domain::{Notice, Reason, Task};

    fn event(kind: &str, data: Value) -> Value {
        json!({
            "specversion": "1.0", "id": format!("ord_1:{kind}"), "source": "/orders", "type": kind, "subject": "ord_1",
            "time": "2026-11-23T08:00:00Z", "datacontenttype": "application/json",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "data": data,
        })
    }

    fn created() -> Value {
        json!({
            "order_id": "ord_0195a8e0-0000-7000-8000-000000000001",
            "user_id": "user_0195a8e0-0000-7000-8000-000000000002",
            "recipient": { "name": "Ada", "email": "ada@example.com", "phone": "+15555550100" },
            "lines": [{ "product_id": "prod_1", "name": "Rope", "quantity": 3, "unit_price": 19.99, "line_total": 59.97 }],
            "total": 59.97, "currency": "USD",
        })
    }

    fn reason(event: &Value) -> InvalidReason {
        parse(&event.to_string()).unwrap_err().reason
    }

    fn task(event: &Value) -> Task {
        parse(&event.to_string()).unwrap().task
    }

    fn notice(event: &Value) -> Notice {
        match task(event) {
            Task::Tell(notification) => notification.notice,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_order_is_read_with_its_lines_and_exact_money() {
        let incoming = parse(&event("OrderCreated", created()).to_string()).unwrap();
        assert_eq!(
            (incoming.event_id.to_string().as_str(), incoming.kind.as_str()),
            ("ord_1:OrderCreated", "OrderCreated")
        );
        let Notice::OrderCreated(order) = notice(&event("OrderCreated", created())) else { panic!("{incoming:?}") };
        assert_eq!(order.total.to_string(), "59.97 USD");
        assert_eq!((order.lines[0].quantity.get(), order.lines[0].total.minor()), (3, 5997));
    }

    #[test]
    fn a_cancellation_is_read_with_and_without_a_total_and_with_reasons_yet_unknown() {
        for (name, expected) in [("out_of_stock", Reason::OutOfStock), ("moon_phase", Reason::Other)] {
            let mut data = created();
            data["reason"] = name.into();
            data["confirmed"] = false.into();
            let Notice::OrderCancelled(order) = notice(&event("OrderCancelled", data.clone())) else {
                panic!("{name}")
            };
            assert_eq!((order.reason, order.total.map(|total| total.minor())), (expected, Some(5997)));
            data.as_object_mut().unwrap().remove("total");
            let notice = notice(&event("OrderCancelled", data));
            assert!(matches!(notice, Notice::OrderCancelled(order) if order.total.is_none()));
        }
    }

    #[test]
    fn a_refusal_that_the_customer_was_told_needs_no_message_unless_the_order_was_confirmed() {
        for (told, confirmed, needs_message) in
            [(true, false, false), (false, false, true), (true, true, true), (false, true, true)]
        {
            let mut data = created();
            data["reason"] = "payment_declined".into();
            data["customer_told"] = told.into();
            data["confirmed"] = confirmed.into();
            let is_told = matches!(task(&event("OrderCancelled", data)), Task::Tell(_));
            assert_eq!(is_told, needs_message, "told: {told}, confirmed: {confirmed}");
        }
    }

    #[test]
    fn an_event_without_a_recipient_and_a_captured_payment_need_no_message() {
        let mut data = created();
        data["amount"] = 59.97.into();
        assert_eq!(task(&event("PaymentCaptured", data.clone())), Task::Nothing);
        data.as_object_mut().unwrap().remove("recipient");
        for kind in ["OrderCreated", "PaymentRefunded"] {
            assert_eq!(task(&event(kind, data.clone())), Task::Nothing, "{kind}");
        }
    }

    #[test]
    fn an_erased_user_is_to_be_forgotten() {
        let id = "user_0195a8e0-0000-7000-8000-000000000002";
        let task = task(&event("UserErased", json!({ "user_id": id })));
        assert_eq!(task, Task::Forget(id.parse().unwrap()));
        assert!(matches!(reason(&event("UserErased", json!({}))), InvalidReason::Data(_)));
    }

    #[test]
    fn members_that_are_new_to_us_are_left_alone() {
        let mut data = created();
        data["gift"] = true.into();
        let mut event = event("OrderCreated", data);
        event["newattribute"] = "x".into();
        assert!(parse(&event.to_string()).is_ok());
    }

    #[test]
    fn a_trace_context_that_cannot_be_read_is_no_reason_to_stay_silent() {
        let mut event = event("OrderCreated", created());
        event["traceparent"] = "nonsense\n".into();
        assert_ne!(parse(&event.to_string()).unwrap().trace.to_string(), "nonsense\n");
    }

    #[test]
    fn what_is_no_event_of_ours_is_refused_by_what_is_wrong() {
        let good = event("OrderCreated", created());
        let but = |member: &str, value: Value| {
            let mut event = good.clone();
            event[member] = value;
            reason(&event)
        };
        assert_eq!(but("specversion", "0.3".into()), InvalidReason::Specversion);
        assert_eq!(but("type", "OrderEaten".into()), InvalidReason::Kind);
        assert_eq!(but("id", "".into()), InvalidReason::Id);
        assert_eq!(but("id", "x".repeat(257).into()), InvalidReason::Id);
        assert!(matches!(but("time", "yesterday".into()), InvalidReason::Envelope(_)));
        for body in ["", "{", "null", "[]", "{} {}", "\"text\""] {
            assert!(matches!(parse(body).unwrap_err().reason, InvalidReason::Envelope(_)), "{body}");
        }
    }

    #[test]
    fn each_part_of_the_data_is_checked_and_named() {
        let but = |path: &str, value: Value| {
            let mut data = created();
            *data.pointer_mut(path).unwrap() = value;
            match reason(&event("OrderCreated", data)) {
                InvalidReason::Data(problem) => problem,
                other => panic!("{path}: {other}"),
            }
        };
        for (path, value, named) in [
            ("/order_id", json!("order_7"), "order_id: "),
            ("/recipient/email", json!("secret@"), "recipient.email: "),
            ("/recipient/phone", json!("555"), "recipient.phone: "),
            ("/recipient/name", json!("\n"), "recipient.name: "),
            ("/lines/0/name", json!("x".repeat(501)), "lines[0].name: "),
            ("/lines/0/quantity", json!(0), "lines[0].quantity: "),
            ("/lines/0/unit_price", json!("19.99"), "lines[0].unit_price: "),
            ("/lines/0/line_total", json!(59.975), "lines[0].line_total: "),
            ("/lines", json!([]), "lines: none"),
            ("/currency", json!("XXX"), "currency: "),
        ] {
            let problem = but(path, value);
            assert!(problem.starts_with(named), "{path}: {problem}");
        }
        assert_eq!(but("/currency", json!("JPY")), "must have at most 0 decimals");
    }

    #[test]
    fn no_error_quotes_the_event() {
        for secret in ["ada@example.com@", "+15555550100x"] {
            for path in ["/recipient", "/recipient/email", "/recipient/phone", "/lines/0/quantity", "/total"] {
                let mut data = created();
                *data.pointer_mut(path).unwrap() = secret.into();
                let error = parse(&event("OrderCreated", data).to_string()).unwrap_err();
                assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
            }
        }
    }

    #[test]
    fn a_missing_member_is_named_and_the_event_too() {
        let mut data = created();
        data["recipient"].as_object_mut().unwrap().remove("name");
        let error = parse(&event("OrderCreated", data).to_string()).unwrap_err();
        assert_eq!(error.event_id.map(|id| id.to_string()).as_deref(), Some("ord_1:OrderCreated"));
        assert_eq!(error.reason, InvalidReason::Data("recipient: missing field `name`".into()));

        let mut event = event("OrderCreated", created());
        event.as_object_mut().unwrap().remove("specversion");
        let error = parse(&event.to_string()).unwrap_err();
        assert_eq!(error.event_id.map(|id| id.to_string()).as_deref(), Some("ord_1:OrderCreated"));
    }

    #[test]
    fn debug_output_shows_nobody() {
        let shown = format!("{:?}", parse(&event("OrderCreated", created()).to_string()).unwrap());
        assert!(!shown.contains("Ada") && !shown.contains("ada@") && !shown.contains("5555550100"), "{shown}");
    }
}
