//! Events: CloudEvents 1.0 in JSON, sent to a queue.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>

use aws_sdk_sqs::Client;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    config::{BaseUrl, Configuration, Env},
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

/// The address of the queue of order events.
#[derive(Clone, Debug)]
pub struct QueueUrl(BaseUrl);

impl Configuration for QueueUrl {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        env.required("ORDER_EVENTS_QUEUE_URL", "the address of an SQS queue").map(Self)
    }
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
        let body = serde_json::to_string(event).map_err(|error| failed(error.to_string()))?;
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
