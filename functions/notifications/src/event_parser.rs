//! Parses events from the bodies of the queue's messages, and decides what this
//! service does about each event. The parser is strict, and no error text quotes
//! a value from the event, since the value could be personal data.

use chassis::{
    events::{Event, RESEND_REQUESTED},
    id::UserId,
    money::{Amount, Currency, MoneyError},
    trace::TraceContext,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::domain::{
    CancellationReason, EventAction, EventId, Line, Notification, NotificationContent, OrderCancelled, OrderCreated,
    OrderId, PaymentRefunded, ProductName, Recipient, WhyIgnored,
};

/// The `specversion` of CloudEvents 1.0, the only version that this system uses.
const SPECVERSION: &str = "1.0";

/// The error for a message that is not an event of this system. Another delivery would
/// fail, too. After the last delivery, SQS moves the message into the dead-letter queue,
/// where an operator can examine it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidEvent {
    /// The event's id, if the message has a valid id.
    pub event_id: Option<EventId>,
    pub reason: InvalidReason,
}

/// The reason why a message is not accepted as an event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReason {
    /// The message is not a CloudEvent. The text states where parsing failed.
    #[error("the message is not an event: {0}")]
    Envelope(String),
    /// The event has no id, or an id that cannot become part of a key.
    #[error("the event's id cannot be used")]
    Id,
    #[error("the event's specversion is not {SPECVERSION}")]
    Specversion,
    #[error("the event's type is unknown")]
    Kind,
    /// The event requests that a message is sent again, but does not say of which event.
    #[error("the event's attribute resendof is missing or cannot be used")]
    Resendof,
    /// The event's type is known, but its `data` is malformed.
    #[error("the event's data cannot be used: {0}")]
    Data(String),
}

/// A valid event, and the action that follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedEvent {
    /// The event's id, which is the same at each delivery of the event.
    pub event_id: EventId,
    /// The order that the event is about, unless it is about a person.
    pub order_id: Option<OrderId>,
    /// The event's type.
    pub kind: String,
    /// The trace that the event belongs to.
    pub trace: TraceContext,
    pub action: EventAction,
}

/// Parses the body of a message.
///
/// # Errors
///
/// If the body is not an event that this service knows.
pub fn parse(body: &str) -> Result<ParsedEvent, InvalidEvent> {
    let event: Event<Box<RawValue>> = read(body)
        .map_err(|problem| InvalidEvent { event_id: id_alone(body), reason: InvalidReason::Envelope(problem) })?;
    let event_id: EventId = event.id.parse().map_err(|_| InvalidEvent { event_id: None, reason: InvalidReason::Id })?;
    let invalid = |reason| InvalidEvent { event_id: Some(event_id.clone()), reason };
    if event.specversion != SPECVERSION {
        return Err(invalid(InvalidReason::Specversion));
    }
    let action = match event.kind.as_str() {
        RESEND_REQUESTED => resend(&event_id, event.resendof.as_deref(), event.data.get()),
        kind => action(&event_id, kind, event.data.get()),
    };
    let action = action.map_err(invalid)?;
    let order_id = order_id_of(event.data.get());
    Ok(ParsedEvent { event_id, order_id, kind: event.kind, trace: event.traceparent, action })
}

/// The person whom an event is about. `recipient` is absent if the person's data
/// was erased before the event was published.
#[derive(Deserialize)]
struct Addressee {
    user_id: UserId,
    #[serde(default)]
    recipient: Option<Recipient>,
}

/// Returns the action for an event that requests that a message is sent again. Only the
/// message of another event can be sent again.
fn resend(event_id: &EventId, of: Option<&str>, data: &str) -> Result<EventAction, InvalidReason> {
    let of: EventId = of.and_then(|of| of.parse().ok()).ok_or(InvalidReason::Resendof)?;
    let original: ResendRequestedData = read(data).map_err(InvalidReason::Data)?;
    match action(event_id, &original.original_type, original.original_data.get())? {
        EventAction::Notify(notification) => {
            Ok(EventAction::Notify(Notification { resend_of: Some(of), ..notification }))
        }
        EventAction::Ignore(why) => Ok(EventAction::Ignore(why)),
        EventAction::EraseUser(_) | EventAction::RecordFeedback(_) => Err(InvalidReason::Kind),
    }
}

fn action(event_id: &EventId, kind: &str, data: &str) -> Result<EventAction, InvalidReason> {
    let notify = |addressee: Addressee, content| match addressee.recipient {
        Some(recipient) => EventAction::Notify(Notification {
            event_id: event_id.clone(),
            resend_of: None,
            user_id: addressee.user_id,
            recipient,
            content,
        }),
        None => EventAction::Ignore(WhyIgnored::NoRecipient),
    };
    match kind {
        "OrderCreated" => {
            let data: OrderCreatedData = read(data).map_err(InvalidReason::Data)?;
            let order = data.order().map_err(invalid_money)?;
            if order.lines.is_empty() {
                return Err(InvalidReason::Data("lines: none".into()));
            }
            let addressee = Addressee { user_id: data.user_id, recipient: data.recipient };
            Ok(notify(addressee, NotificationContent::OrderCreated(order)))
        }
        "OrderCancelled" => {
            let data: OrderCancelledData = read(data).map_err(InvalidReason::Data)?;
            let order = data.order()?;
            if data.customer_told && !order.confirmed {
                return Ok(EventAction::Ignore(WhyIgnored::CustomerToldByResponse));
            }
            let addressee = Addressee { user_id: data.user_id, recipient: data.recipient };
            Ok(notify(addressee, NotificationContent::OrderCancelled(order)))
        }
        // No message is sent about a captured payment: the message about `OrderCreated`
        // already says that the payment was received.
        "PaymentCaptured" => {
            let _: Addressee = read(data).map_err(InvalidReason::Data)?;
            Ok(EventAction::Ignore(WhyIgnored::PartOfAnotherMessage))
        }
        "PaymentRefunded" => {
            let data: PaymentData = read(data).map_err(InvalidReason::Data)?;
            let amount = data.amount.of(data.currency).map_err(invalid_money)?;
            let addressee = Addressee { user_id: data.user_id, recipient: data.recipient };
            let refund = PaymentRefunded { order_id: data.order_id, amount };
            Ok(notify(addressee, NotificationContent::PaymentRefunded(refund)))
        }
        "UserErased" => {
            let data: Addressee = read(data).map_err(InvalidReason::Data)?;
            Ok(EventAction::EraseUser(data.user_id))
        }
        _ => Err(InvalidReason::Kind),
    }
}

fn invalid_money(error: MoneyError) -> InvalidReason {
    InvalidReason::Data(error.to_string())
}

// The following structs contain only the members of each event's data that this service
// needs. Unknown members are ignored, so that notifications are still sent when another
// service adds a member to its events.

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
    reason: CancellationReason,
    confirmed: bool,
    /// `true` if the response to the request that placed the order already said that the
    /// order is cancelled.
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
            (Some(total), Some(currency)) => Some(total.of(currency).map_err(invalid_money)?),
            (None, _) => None,
            (Some(_), None) => return Err(InvalidReason::Data("missing field `currency`".into())),
        };
        Ok(OrderCancelled { order_id: self.order_id, reason: self.reason, confirmed: self.confirmed, total })
    }
}

#[derive(Deserialize)]
struct ResendRequestedData {
    original_type: String,
    original_data: Box<RawValue>,
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

/// Reads JSON. The error names the member that is wrong, but does not quote the member's
/// value, since the value could be personal data.
pub(crate) fn read<T: DeserializeOwned>(json: &str) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        let message = error.to_string();
        match error.is_data() {
            // Of serde's error messages, only this message is passed on: it contains the
            // name of a member of our own structs, and no value from the event.
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

/// Reads the order's id from an event's data.
fn order_id_of(data: &str) -> Option<OrderId> {
    #[derive(Deserialize)]
    struct Data {
        order_id: OrderId,
    }
    serde_json::from_str::<Data>(data).ok().map(|data| data.order_id)
}

/// Reads the id of a message that is not a valid event, so that the log can state the id.
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
    use crate::domain::{CancellationReason, EventAction, NotificationContent, WhyIgnored};

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

    fn action(event: &Value) -> EventAction {
        parse(&event.to_string()).unwrap().action
    }

    fn content(event: &Value) -> NotificationContent {
        match action(event) {
            EventAction::Notify(notification) => notification.content,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_order_is_parsed_with_its_lines_and_exact_money() {
        let parsed = parse(&event("OrderCreated", created()).to_string()).unwrap();
        assert_eq!(
            (parsed.event_id.to_string().as_str(), parsed.kind.as_str()),
            ("ord_1:OrderCreated", "OrderCreated")
        );
        let NotificationContent::OrderCreated(order) = content(&event("OrderCreated", created())) else {
            panic!("{parsed:?}")
        };
        assert_eq!(order.total.to_string(), "59.97 USD");
        assert_eq!((order.lines[0].quantity.get(), order.lines[0].total.minor()), (3, 5997));
    }

    #[test]
    fn a_cancellation_is_parsed_without_a_total_and_with_an_unknown_reason() {
        for (name, expected) in
            [("out_of_stock", CancellationReason::OutOfStock), ("moon_phase", CancellationReason::Other)]
        {
            let mut data = created();
            data["reason"] = name.into();
            data["confirmed"] = false.into();
            let NotificationContent::OrderCancelled(order) = content(&event("OrderCancelled", data.clone())) else {
                panic!("{name}")
            };
            assert_eq!((order.reason, order.total.map(|total| total.minor())), (expected, Some(5997)));
            data.as_object_mut().unwrap().remove("total");
            let content = content(&event("OrderCancelled", data));
            assert!(matches!(content, NotificationContent::OrderCancelled(order) if order.total.is_none()));
        }
    }

    #[test]
    fn a_refusal_that_the_customer_knows_of_is_ignored_unless_the_order_was_confirmed() {
        for (customer_told, confirmed, expected) in
            [(true, false, false), (false, false, true), (true, true, true), (false, true, true)]
        {
            let mut data = created();
            data["reason"] = "payment_declined".into();
            data["customer_told"] = customer_told.into();
            data["confirmed"] = confirmed.into();
            let action = action(&event("OrderCancelled", data));
            let notifies = action != EventAction::Ignore(WhyIgnored::CustomerToldByResponse);
            assert_eq!(notifies, expected, "customer_told: {customer_told}, confirmed: {confirmed}");
            assert_eq!(matches!(action, EventAction::Notify(_)), expected, "{action:?}");
        }
    }

    #[test]
    fn an_event_without_a_recipient_and_an_event_about_a_captured_payment_are_ignored() {
        let mut data = created();
        data["amount"] = 59.97.into();
        let captured = action(&event("PaymentCaptured", data.clone()));
        assert_eq!(captured, EventAction::Ignore(WhyIgnored::PartOfAnotherMessage));
        data.as_object_mut().unwrap().remove("recipient");
        for kind in ["OrderCreated", "PaymentRefunded"] {
            let ignored = EventAction::Ignore(WhyIgnored::NoRecipient);
            assert_eq!(action(&event(kind, data.clone())), ignored, "{kind}");
        }
    }

    #[test]
    fn a_user_erased_event_erases_the_user_in_this_service() {
        let id = "user_0195a8e0-0000-7000-8000-000000000002";
        let action = action(&event("UserErased", json!({ "user_id": id })));
        assert_eq!(action, EventAction::EraseUser(id.parse().unwrap()));
        assert!(matches!(reason(&event("UserErased", json!({}))), InvalidReason::Data(_)));
    }

    #[test]
    fn unknown_members_are_ignored() {
        let mut data = created();
        data["gift"] = true.into();
        let mut event = event("OrderCreated", data);
        event["newattribute"] = "x".into();
        assert!(parse(&event.to_string()).is_ok());
    }

    #[test]
    fn an_event_with_a_malformed_trace_context_is_accepted() {
        let mut event = event("OrderCreated", created());
        event["traceparent"] = "nonsense\n".into();
        assert_ne!(parse(&event.to_string()).unwrap().trace.to_string(), "nonsense\n");
    }

    #[test]
    fn a_message_that_is_not_an_event_is_refused_with_the_reason() {
        let good = event("OrderCreated", created());
        let with = |member: &str, value: Value| {
            let mut event = good.clone();
            event[member] = value;
            reason(&event)
        };
        assert_eq!(with("specversion", "0.3".into()), InvalidReason::Specversion);
        assert_eq!(with("type", "OrderEaten".into()), InvalidReason::Kind);
        assert_eq!(with("id", "".into()), InvalidReason::Id);
        assert_eq!(with("id", "x".repeat(257).into()), InvalidReason::Id);
        assert!(matches!(with("time", "yesterday".into()), InvalidReason::Envelope(_)));
        for body in ["", "{", "null", "[]", "{} {}", "\"text\""] {
            assert!(matches!(parse(body).unwrap_err().reason, InvalidReason::Envelope(_)), "{body}");
        }
    }

    #[test]
    fn each_invalid_member_of_the_data_is_named() {
        let problem_with = |path: &str, value: Value| {
            let mut data = created();
            *data.pointer_mut(path).unwrap() = value;
            match reason(&event("OrderCreated", data)) {
                InvalidReason::Data(problem) => problem,
                other => panic!("{path}: {other}"),
            }
        };
        for (path, value, expected) in [
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
            let problem = problem_with(path, value);
            assert!(problem.starts_with(expected), "{path}: {problem}");
        }
        assert_eq!(problem_with("/currency", json!("JPY")), "must have at most 0 decimals");
    }

    #[test]
    fn no_error_quotes_a_value_from_the_event() {
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
    fn an_error_names_the_missing_member_and_the_event() {
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
    fn debug_output_shows_no_personal_data() {
        let shown = format!("{:?}", parse(&event("OrderCreated", created()).to_string()).unwrap());
        assert!(!shown.contains("Ada") && !shown.contains("ada@") && !shown.contains("5555550100"), "{shown}");
    }
}
