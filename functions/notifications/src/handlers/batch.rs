//! A batch of messages, each on its own: whatever is wrong with one, a panic
//! included, its neighbours are told.

use std::panic::AssertUnwindSafe;

use chassis::{
    deadline::Deadline,
    events::{BatchResponse, ItemFailure},
    telemetry,
};
use futures::{FutureExt, StreamExt, stream};
use serde::Deserialize;
use serde_json::Value;
use tracing::{Instrument, Span, field};

use crate::{
    domain::Task,
    event,
    service::{Notifications, RESERVE, Untold},
};

/// How many records are handled at once. Few, because SES and SNS limit how
/// much they take a second; enough that a slow one doesn't hold up the rest.
const AT_ONCE: usize = 4;

/// A record failed that has no message id, so that a partial answer can't
/// name it.
///
/// The whole batch fails then. A partial answer without it would tell the
/// queue that it was handled, and the event would be lost; a batch that is
/// delivered again costs its other records nothing, since what they had to
/// tell is marked as sent. SQS always gives an id: this guards against what
/// stands in for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record without a message id failed, so the whole batch is to be delivered again")]
pub struct UnnamedFailure;

/// The records of a payload, if it is a batch from SQS. Left as they are: one
/// that is not what a record should be fails by itself.
pub(super) fn records(payload: &str) -> Option<Vec<Value>> {
    #[derive(Deserialize)]
    struct Batch {
        #[serde(rename = "Records")]
        records: Vec<Value>,
    }
    let Batch { records } = serde_json::from_str(payload).ok()?;
    records.iter().any(|record| record["eventSource"] == "aws:sqs").then_some(records)
}

/// Tells what all `records` have to tell, before `deadline`.
pub(super) async fn handle(
    notifications: &Notifications,
    records: &[Value],
    deadline: Deadline,
) -> Result<BatchResponse, UnnamedFailure> {
    // Whoever is erased in this batch is not written to in it.
    let (erasures, others): (Vec<_>, Vec<_>) = records.iter().partition(|record| is_erasure(record));
    let mut outcomes = Vec::with_capacity(records.len());
    for part in [erasures, others] {
        let mut work = Vec::with_capacity(part.len());
        for record in part {
            let one = async move {
                let message_id = record["messageId"].as_str().filter(|id| !id.is_empty());
                (message_id, handle_one(notifications, record, message_id, deadline).await)
            };
            work.push(one);
        }
        outcomes.extend(stream::iter(work).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);
    }
    let mut response = BatchResponse::default();
    let mut unnamed = false;
    for (message_id, done) in outcomes {
        match message_id {
            _ if done => {}
            Some(id) => response.batch_item_failures.push(ItemFailure { item_identifier: id.to_owned() }),
            None => unnamed = true,
        }
    }
    if unnamed { Err(UnnamedFailure) } else { Ok(response) }
}

fn is_erasure(record: &Value) -> bool {
    let event = event::parse(record["body"].as_str().unwrap_or_default());
    event.is_ok_and(|event| matches!(event.task, Task::Forget(_)))
}

/// Whether the record needs no further delivery.
async fn handle_one(
    notifications: &Notifications,
    record: &Value,
    message_id: Option<&str>,
    deadline: Deadline,
) -> bool {
    let span = tracing::info_span!(
        "record",
        message_id,
        event_id = field::Empty,
        kind = field::Empty,
        traceparent = field::Empty,
    );
    async {
        if deadline.earlier_by(RESERVE).remaining().is_zero() {
            tracing::warn!("no time left for this record");
            return false;
        }
        let told = AssertUnwindSafe(tell(notifications, record, deadline)).catch_unwind().await;
        // A panic's message may quote what it stumbled over.
        told.unwrap_or_else(|_| {
            tracing::error!("panic; the record is to be delivered again");
            false
        })
    }
    .instrument(span)
    .await
}

async fn tell(notifications: &Notifications, record: &Value, deadline: Deadline) -> bool {
    let event = match event::parse(record["body"].as_str().unwrap_or_default()) {
        Ok(event) => event,
        Err(error) => {
            if let Some(event_id) = &error.event_id {
                Span::current().record("event_id", field::display(event_id));
            }
            tracing::error!(cause = telemetry::chain(&error), "not an event that can be told");
            return false;
        }
    };
    Span::current()
        .record("event_id", field::display(&event.event_id))
        .record("kind", &event.kind)
        .record("traceparent", field::display(&event.trace));
    let done = match event.task {
        Task::Nothing => Ok(()),
        Task::Tell(notification) => notifications.tell(&notification, deadline).await,
        Task::Forget(user) => notifications.forget(user).await.map_err(Untold::from),
    };
    done.inspect_err(|error| tracing::warn!(cause = telemetry::chain(error), "to be delivered again")).is_ok()
}
