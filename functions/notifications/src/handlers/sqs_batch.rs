//! Handles a batch of messages from SQS. Each message is handled by itself: if one
//! message fails, even with a panic, the other messages are still handled.

use std::panic::AssertUnwindSafe;

use chassis::{
    context_span,
    deadline::Deadline,
    events::{BatchResponse, ItemFailure},
    telemetry,
    time_limits::NOTIFY_RECORD_RESERVE,
};
use futures::{FutureExt, StreamExt, stream};
use serde::Deserialize;
use serde_json::Value;
use tracing::{Instrument, Span, field};

use crate::{
    domain::{EventAction, WhyIgnored},
    email_feedback_parser,
    event_parser::{self, InvalidEvent, ParsedEvent},
    message_holder::MessageHolder,
    service::{Notifications, NotifyError},
};

/// The number of records that are handled concurrently. The number is small because
/// SES and SNS limit the messages per second. The number is larger than one so that a
/// slow record does not delay all other records.
const CONCURRENCY: usize = 4;

/// A record without a message id failed. A partial batch response lists failed records by
/// their message ids, so it cannot list this record.
///
/// The whole batch fails in this case, and SQS delivers all its records again. A response
/// that omits the failed record would make SQS delete the record, and the event would be
/// lost. The messages about the other records are not sent twice, because they are marked
/// as sent. SQS always sets a message id, but an emulator may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record without a message id failed, so the whole batch is to be delivered again")]
pub struct UnnamedFailure;

/// Returns the records of a payload, or `None` if the payload is not a batch from
/// SQS. The records are not parsed yet, so that a malformed record fails alone.
pub(super) fn records(payload: &str) -> Option<Vec<Value>> {
    #[derive(Deserialize)]
    struct Batch {
        #[serde(rename = "Records")]
        records: Vec<Value>,
    }
    let Batch { records } = serde_json::from_str(payload).ok()?;
    records.iter().any(|record| record["eventSource"] == "aws:sqs").then_some(records)
}

/// Handles all `records`. The response lists the records that SQS must deliver again.
pub(super) async fn handle(
    notifications: &Notifications,
    holder: &MessageHolder,
    records: &[Value],
    deadline: Deadline,
) -> Result<BatchResponse, UnnamedFailure> {
    // Erasure events are handled first, so that a user who is erased in this batch gets
    // no message from this batch.
    let (erasures, others): (Vec<_>, Vec<_>) = records.iter().partition(|record| is_erasure(record));
    let mut outcomes = Vec::with_capacity(records.len());
    for part in [erasures, others] {
        let mut work = Vec::with_capacity(part.len());
        for record in part {
            let handled = async move {
                let message_id = record["messageId"].as_str().filter(|id| !id.is_empty());
                (message_id, handle_record(notifications, holder, record, message_id, deadline).await)
            };
            work.push(handled);
        }
        outcomes.extend(stream::iter(work).buffer_unordered(CONCURRENCY).collect::<Vec<_>>().await);
    }
    let mut response = BatchResponse::default();
    let mut unnamed = false;
    for (message_id, is_done) in outcomes {
        match message_id {
            _ if is_done => {}
            Some(id) => response.batch_item_failures.push(ItemFailure { item_identifier: id.to_owned() }),
            None => unnamed = true,
        }
    }
    if unnamed { Err(UnnamedFailure) } else { Ok(response) }
}

fn is_erasure(record: &Value) -> bool {
    parse(record["body"].as_str().unwrap_or_default())
        .is_ok_and(|event| matches!(event.action, EventAction::EraseUser(_)))
}

/// Parses the body of a record: an event of a service of the shop, or what SES reports.
fn parse(body: &str) -> Result<ParsedEvent, InvalidEvent> {
    email_feedback_parser::parse(body).unwrap_or_else(|| event_parser::parse(body))
}

/// Returns `true` if SQS need not deliver the record again.
async fn handle_record(
    notifications: &Notifications,
    holder: &MessageHolder,
    record: &Value,
    message_id: Option<&str>,
    deadline: Deadline,
) -> bool {
    let body = record["body"].as_str().unwrap_or_default();
    let event = parse(body);
    let valid = event.as_ref().ok();
    let event_id = match &event {
        Ok(event) => Some(&event.event_id),
        Err(error) => error.event_id.as_ref(),
    };
    // The service that sent the event does not wait for this one. So this span has a link to
    // the sender's span, which is not its parent.
    let span = context_span!(
        "message",
        link = valid.map(|event| field::display(&event.trace)),
        message_id,
        event_id = event_id.map(field::display),
        order_id = valid.and_then(|event| event.order_id).map(field::display),
        kind = valid.map(|event| &*event.kind),
        outcome = field::Empty,
    );
    async {
        if deadline.earlier_by(NOTIFY_RECORD_RESERVE).remaining().is_zero() {
            tracing::warn!("no time is left for this record");
            return false;
        }
        let done =
            AssertUnwindSafe(act_on(notifications, holder, (message_id, body), event, deadline)).catch_unwind().await;
        // The panic's message is not logged, since the message may quote personal data.
        done.unwrap_or_else(|_| {
            tracing::error!("the handling of the record panicked; SQS will deliver the record again");
            false
        })
    }
    .instrument(span)
    .await
}

async fn act_on(
    notifications: &Notifications,
    holder: &MessageHolder,
    (message_id, body): (Option<&str>, &str),
    event: Result<ParsedEvent, InvalidEvent>,
    deadline: Deadline,
) -> bool {
    let event = match event {
        Ok(event) => event,
        Err(error) => {
            Span::current().record("outcome", "not a valid event");
            tracing::error!(message_id, cause = telemetry::chain(&error), "the message is not a valid event");
            return false;
        }
    };
    let done = match event.action {
        // Every order that is paid has an event that is a part of another message, so its line is
        // written only if debugging is switched on.
        EventAction::Ignore(why @ WhyIgnored::PartOfAnotherMessage) => {
            tracing::debug!(reason = %why, "no message is sent");
            Ok(())
        }
        EventAction::Ignore(why) => {
            tracing::info!(reason = %why, "no message is sent");
            Ok(())
        }
        EventAction::Notify(notification) => match holder.hold(&event.event_id, body, deadline).await {
            Ok(true) => Ok(()),
            Ok(false) => notifications.notify(&notification, deadline).await,
            Err(error) => Err(error.into()),
        },
        EventAction::EraseUser(user_id) => notifications.erase_user(user_id).await.map_err(NotifyError::from),
        EventAction::RecordFeedback(feedback) => {
            notifications.record_feedback(&feedback).await.map_err(NotifyError::from)
        }
    };
    telemetry::record_outcome(&Span::current(), &done);
    done.inspect_err(|error| {
        tracing::warn!(cause = telemetry::chain(error), "the record failed; SQS will deliver it again")
    })
    .is_ok()
}
