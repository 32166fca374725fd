//! Events: CloudEvents 1.0 in JSON, sent to a queue.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>

use std::{error::Error, fmt, str::FromStr, time::Duration};

use aws_sdk_sqs::Client;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::Instrument;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use crate::{
    audit::ResendId,
    config::{BaseUrl, InvalidUrl},
    deadline::Deadline,
    detail_span, telemetry,
    trace::TraceContext,
};

/// An event. `id` stays the same if the event is sent again, so that a consumer
/// recognises a repeat.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event<D> {
    /// Always `1.0`.
    pub specversion: String,
    /// The id. It is made from `subject` and `kind`, and not from the time at
    /// which the event is sent.
    pub id: String,
    /// The service that sends the event.
    pub source: String,
    /// The type of the event: it says what has happened.
    #[serde(rename = "type")]
    pub kind: String,
    /// The id of the order, payment or user that the event is about.
    pub subject: String,
    /// The time at which the event happened; it may be sent later.
    pub time: Timestamp,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// The trace context (CloudEvents' distributed tracing extension). The
    /// event itself has a trace context, because not every queue passes trace
    /// headers on.
    pub traceparent: TraceContext,
    /// The id of the event whose message is to be sent again. Only an event of
    /// the type [`RESEND_REQUESTED`] has this extension attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub resendof: Option<String>,
    /// The data of this type of event.
    pub data: D,
}

/// The type of the event with which an administrator has a message sent again.
///
/// The message belongs to an earlier event, such as `OrderCreated`. That event
/// says what has happened, and it happens once, so it is not published again. A
/// consumer that acts on `OrderCreated` never sees a second one.
pub const RESEND_REQUESTED: &str = "ResendRequested";

/// Returns the id of the event of the type `kind` about `subject`.
fn event_id(subject: &str, kind: &str) -> String {
    format!("{subject}:{kind}")
}

impl<D> Event<D> {
    /// Returns an event of the type `kind` about `subject`. The event's id is
    /// `subject:kind`, because an event of one type happens only once to a
    /// subject.
    pub fn new(
        source: &str,
        kind: &str,
        subject: impl ToString,
        time: Timestamp,
        trace: TraceContext,
        data: D,
    ) -> Self {
        let subject = subject.to_string();
        Self {
            specversion: "1.0".into(),
            id: event_id(&subject, kind),
            source: source.into(),
            kind: kind.into(),
            subject,
            time,
            datacontenttype: "application/json".into(),
            traceparent: trace,
            resendof: None,
            data,
        }
    }

    /// Returns an event with which the message of the event of the type
    /// `original_type` about `subject` is sent again. A repeat with the same
    /// `resend_id` has the same event id, so that the message is sent again only
    /// once.
    pub fn resend(
        source: &str,
        (subject, original_type): (impl ToString, &str),
        resend_id: &ResendId,
        time: Timestamp,
        trace: TraceContext,
        data: D,
    ) -> Self {
        let subject = subject.to_string();
        let original = event_id(&subject, original_type);
        let id = format!("{original}:resend:{resend_id}");
        Self { id, resendof: Some(original), ..Self::new(source, RESEND_REQUESTED, subject, time, trace, data) }
    }
}

impl<D> Event<D> {
    /// Returns the same event with the current span as its trace context.
    fn at_current_span(&self) -> Event<&D> {
        Event {
            specversion: self.specversion.clone(),
            id: self.id.clone(),
            source: self.source.clone(),
            kind: self.kind.clone(),
            subject: self.subject.clone(),
            time: self.time,
            datacontenttype: self.datacontenttype.clone(),
            traceparent: self.traceparent.at_current_span(),
            resendof: self.resendof.clone(),
            data: &self.data,
        }
    }
}

/// A type of event as its publisher describes it. `docs/asyncapi.yaml` is made of
/// these descriptions. The schemas come from the types that are serialised.
#[derive(Clone)]
pub struct EventType {
    /// The value of the event's member `source`.
    pub source: &'static str,
    /// The value of the event's member `type`.
    pub kind: &'static str,
    /// The fact that the event reports, in one sentence.
    pub summary: &'static str,
    /// The name of the schema of the whole event.
    pub schema: String,
    /// The schema of the whole event, and all schemas to which it refers.
    pub schemas: Vec<(String, RefOr<Schema>)>,
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventType").field("kind", &self.kind).field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl EventType {
    /// Describes the events of the type `kind`, whose data is a `D`.
    pub fn of<D: ToSchema>(source: &'static str, kind: &'static str, summary: &'static str) -> Self {
        let schema = format!("{}Envelope", D::name());
        let mut schemas = vec![(schema.clone(), Event::<D>::schema()), (D::name().into(), D::schema())];
        Event::<D>::schemas(&mut schemas);
        D::schemas(&mut schemas);
        Self { source, kind, summary, schema, schemas }
    }
}

/// The error for an event that the queue refused, or that may not have reached
/// the queue.
#[derive(Debug, thiserror::Error)]
#[error("event {id} could not be published")]
pub struct PublishError {
    id: String,
    source: Box<dyn Error + Send + Sync>,
}

/// The response of a function that consumes a queue. It names the messages that
/// the queue must deliver again.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    /// The messages that the queue delivers again. All other messages of the
    /// batch are deleted from the queue.
    pub batch_item_failures: Vec<ItemFailure>,
}

/// A message that could not be handled, so that the queue delivers it again.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemFailure {
    /// The message's id.
    pub item_identifier: String,
}

/// The address of a queue.
#[derive(Clone, Debug)]
pub struct QueueUrl(BaseUrl);

impl FromStr for QueueUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        text.parse().map(Self)
    }
}

impl QueueUrl {
    /// The environment variable that holds the address of the queue that the
    /// notifications service consumes.
    pub const OF_ORDER_EVENTS: &str = "ORDER_EVENTS_QUEUE_URL";
    /// The environment variable that holds the address of the queue that the
    /// orders service consumes.
    pub const OF_USER_EVENTS: &str = "USER_EVENTS_QUEUE_URL";
    /// The expected value of a variable that holds a queue's address, in words.
    pub const EXPECTED: &str = "the address of an SQS queue";
}

/// Serialises the event as a message's body. Escapes two characters that JSON
/// allows and SQS doesn't; serde escapes all other characters that SQS refuses.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
fn message<D: Serialize>(event: &Event<D>) -> serde_json::Result<String> {
    let json = serde_json::to_string(event)?;
    // In JSON, the two characters can occur only in strings. There, an escape
    // means the same as the character.
    Ok(json.replace('\u{FFFE}', r"\ufffe").replace('\u{FFFF}', r"\uffff"))
}

/// Sends events to one queue.
#[derive(Clone, Debug)]
pub struct EventPublisher {
    client: Client,
    queue_url: String,
}

impl EventPublisher {
    /// Returns a publisher for the queue at `queue_url`.
    pub fn new(client: Client, queue_url: impl Into<String>) -> Self {
        Self { client, queue_url: queue_url.into() }
    }

    /// Returns a publisher for `queue` with a client of its own.
    pub fn open(config: &aws_config::SdkConfig, queue: QueueUrl) -> Self {
        Self::new(Client::new(config), queue.0.as_str())
    }

    /// Sends `event`. Returns when the queue has accepted the event. If the SDK
    /// has to send the event again, the queue may hold the event twice.
    ///
    /// The event carries the current span, if that belongs to the event's trace. The
    /// consumer's span has a link to it.
    pub async fn publish<D: Serialize>(&self, event: &Event<D>, deadline: Deadline) -> Result<(), PublishError> {
        let span = detail_span!("publish", kind = event.kind);
        let published = async {
            let body = message(&event.at_current_span())?;
            let send = self.client.send_message().queue_url(&self.queue_url).message_body(body).send();
            deadline.run(send).await??;
            Ok(())
        };
        let published = Box::pin(published).instrument(span.clone()).await;
        let published = published.map_err(|source| PublishError { id: event.id.clone(), source });
        telemetry::record_outcome(&span, &published);
        published?;
        tracing::debug!(event_id = event.id, "published");
        Ok(())
    }

    /// Sends the body of a message that was received from this queue once more, unchanged,
    /// so that the queue delivers it after `delay`, at most 15 minutes. A consumer that
    /// cannot act on a message yet does this, and then lets the queue delete the received
    /// message: a delivery that fails would count towards the dead-letter queue.
    ///
    /// If the consumer ends in between, the queue has the message twice.
    pub async fn send_later(
        &self,
        id: &str,
        body: &str,
        delay: Duration,
        deadline: Deadline,
    ) -> Result<(), PublishError> {
        let sent = async {
            let seconds = i32::try_from(delay.as_secs())?;
            let send = self.client.send_message().queue_url(&self.queue_url).message_body(body).delay_seconds(seconds);
            deadline.run(send.send()).await??;
            Ok(())
        };
        Box::pin(sent).await.map_err(|source| PublishError { id: id.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Event, message};
    use crate::trace::TraceContext;

    #[test]
    fn a_message_has_only_characters_that_sqs_accepts_and_keeps_its_meaning() {
        let text = "a\u{0}b\u{1F}c\u{FFFE}d\u{FFFF}e\u{FFFD}\u{1FFFF}";
        let event = Event::new("shop", "Told", "x", Timestamp::UNIX_EPOCH, TraceContext::start(), text.to_owned());
        let message = message(&event).unwrap();
        let is_accepted = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}');
        assert!(message.chars().all(is_accepted), "{message:?}");
        assert_eq!(serde_json::from_str::<Event<String>>(&message).unwrap().data, text);
    }
}
