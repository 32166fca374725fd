//! Events: CloudEvents 1.0 in JSON, sent to a queue.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>

use aws_sdk_sqs::Client;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    config::{BaseUrl, Env},
    deadline::Deadline,
    telemetry,
    trace::TraceContext,
};

/// An event on its way. `id` is the same however often the event is sent;
/// that is how a consumer knows a repeat.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event<D> {
    /// Always `1.0`.
    pub specversion: String,
    /// Derived from what happened, never from when it was sent.
    pub id: String,
    /// Which service it comes from.
    pub source: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: String,
    /// The id of what it happened to.
    pub subject: String,
    /// When it happened.
    pub time: Timestamp,
    /// Always JSON.
    pub datacontenttype: String,
    /// Trace context (CloudEvents' distributed tracing extension). In the
    /// envelope, since not every queue hands on the trace header.
    pub traceparent: TraceContext,
    /// The rest.
    pub data: D,
}

impl<D> Event<D> {
    /// An event `kind` about `subject`. Its id is `subject:kind`: each kind
    /// happens to a subject once.
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
            id: format!("{subject}:{kind}"),
            source: source.into(),
            kind: kind.into(),
            subject,
            time,
            datacontenttype: "application/json".into(),
            traceparent: trace,
            data,
        }
    }
}

/// The queue doesn't have the event, or it isn't known whether it has.
#[derive(Debug, thiserror::Error)]
#[error("event {id} could not be published: {reason}")]
pub struct PublishError {
    id: String,
    reason: String,
}

/// What a queue's consumer answers: which messages are to be delivered again.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    /// Where there are none, the queue may delete the whole batch.
    pub batch_item_failures: Vec<ItemFailure>,
}

/// A message that is to be delivered again.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemFailure {
    /// The message's id.
    pub item_identifier: String,
}

/// The address of a queue.
#[derive(Clone, Debug)]
pub struct QueueUrl(BaseUrl);

impl QueueUrl {
    /// Reads the address of the queue whose events the notifications service
    /// consumes.
    pub fn of_order_events(env: &mut Env<'_>) -> Option<Self> {
        env.required("ORDER_EVENTS_QUEUE_URL", "the address of an SQS queue").map(Self)
    }

    /// Reads the address of the queue whose events the orders service consumes.
    pub fn of_user_events(env: &mut Env<'_>) -> Option<Self> {
        env.required("USER_EVENTS_QUEUE_URL", "the address of an SQS queue").map(Self)
    }
}

/// The event as a message's body. Two characters that JSON may hold and SQS may
/// not are escaped; all others that it doesn't take, serde escapes already.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
fn message<D: Serialize>(event: &Event<D>) -> serde_json::Result<String> {
    let json = serde_json::to_string(event)?;
    // Only ever within a string, where an escape means the same.
    Ok(json.replace('\u{FFFE}', r"\ufffe").replace('\u{FFFF}', r"\uffff"))
}

/// Sends events to one queue.
#[derive(Clone, Debug)]
pub struct EventPublisher {
    client: Client,
    queue_url: String,
}

impl EventPublisher {
    /// A publisher to the queue at `queue_url`.
    pub fn new(client: Client, queue_url: impl Into<String>) -> Self {
        Self { client, queue_url: queue_url.into() }
    }

    /// As [`EventPublisher::new`], with a client of its own.
    pub fn open(config: &aws_config::SdkConfig, queue: QueueUrl) -> Self {
        Self::new(Client::new(config), queue.0.as_str())
    }

    /// Sends `event`. Returns once the queue has it, which may then have it
    /// more than once.
    pub async fn publish<D: Serialize>(&self, event: &Event<D>, deadline: Deadline) -> Result<(), PublishError> {
        let failed = |reason: String| PublishError { id: event.id.clone(), reason };
        let body = message(event).map_err(|error| failed(error.to_string()))?;
        let send = self.client.send_message().queue_url(&self.queue_url).message_body(body).send();
        match tokio::time::timeout_at(deadline.instant(), send).await {
            Ok(Ok(_)) => {
                tracing::info!(event = event.id, "published");
                Ok(())
            }
            Ok(Err(error)) => Err(failed(telemetry::chain(&error))),
            Err(_) => Err(failed("no time left".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Event, message};
    use crate::trace::TraceContext;

    #[test]
    fn an_event_has_only_characters_that_a_queue_takes_and_means_the_same() {
        let text = "a\u{0}b\u{1F}c\u{FFFE}d\u{FFFF}e\u{FFFD}\u{1FFFF}";
        let event = Event::new("shop", "Told", "x", Timestamp::UNIX_EPOCH, TraceContext::start(), text.to_owned());
        let message = message(&event).unwrap();
        let is_taken = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}');
        assert!(message.chars().all(is_taken), "{message:?}");
        assert_eq!(serde_json::from_str::<Event<String>>(&message).unwrap().data, text);
    }
}
