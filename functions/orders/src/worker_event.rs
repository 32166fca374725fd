//! The events that start the order worker: changes of the orders table, the schedule, and messages of the users
//! service.

use chassis::{
    context_span,
    deadline::Deadline,
    events::{BatchResponse, Event, ItemFailure},
    function::invocation_span,
    id::UserId,
    invocation::Invocation,
    telemetry,
    time_limits::WORKER_FUNCTION,
};
use lambda_runtime::{Error, LambdaEvent};
use serde::Deserialize;
use tracing::{Instrument, field};

use crate::{
    domain::OrderId,
    worker::{WorkSummary, Worker},
};

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum WorkerEvent {
    /// Events of the users service, from their queue.
    Queue {
        #[serde(rename = "Records")]
        records: Vec<Message>,
    },
    /// Changes of the orders table that the stream's filter selected.
    Stream {
        #[serde(rename = "Records")]
        records: Vec<Change>,
    },
    /// The event that the schedule sends each minute.
    Sweep {
        /// Always `true`. This member distinguishes the schedule's event from the events of the queue and the stream.
        sweep: bool,
    },
}

/// A message of the queue of the users service.
#[derive(Debug, Deserialize)]
pub struct Message {
    #[serde(rename = "messageId")]
    id: String,
    body: String,
}

/// The data of the event `UserErased`.
#[derive(Debug, Deserialize)]
struct UserErased {
    user_id: UserId,
}

/// A change of an item of the orders table. Only the item's key is used: the worker reads the order from the table,
/// because the order may have changed again since this event.
#[derive(Debug, Deserialize)]
pub struct Change {
    dynamodb: ChangedKeys,
}

#[derive(Debug, Deserialize)]
struct ChangedKeys {
    #[serde(rename = "Keys")]
    keys: ItemKeys,
}

#[derive(Debug, Deserialize)]
struct ItemKeys {
    pk: StringAttribute,
}

#[derive(Debug, Deserialize)]
struct StringAttribute {
    #[serde(rename = "S")]
    text: String,
}

impl Change {
    fn order_id(&self) -> Option<OrderId> {
        self.dynamodb.keys.pk.text.strip_prefix("ORDER#")?.parse().ok()
    }
}

/// Handles one event.
///
/// A batch of the stream is always acknowledged, because a sweep works again on each order that failed. So a failing
/// order never blocks its shard of the stream. A slow order delays only its own batch, because the stream delivers
/// several batches of a shard side by side.
///
/// # Errors
///
/// If a sweep cannot read the due orders.
pub async fn handle(worker: &Worker, event: LambdaEvent<WorkerEvent>) -> Result<BatchResponse, Error> {
    let LambdaEvent { payload, context } = event;
    let deadline = Deadline::of_invocation(context.deadline, WORKER_FUNCTION);
    let invocation = Invocation::new(context.request_id.as_str(), deadline);
    let source = match &payload {
        WorkerEvent::Queue { .. } => "queue",
        WorkerEvent::Stream { .. } => "stream",
        WorkerEvent::Sweep { .. } => "sweep",
    };
    let span = invocation_span(source, &context);
    let response = Box::pin(respond(worker, payload, &invocation)).instrument(span.clone()).await;
    telemetry::record_outcome(&span, &response);
    response
}

async fn respond(worker: &Worker, event: WorkerEvent, invocation: &Invocation) -> Result<BatchResponse, Error> {
    match event {
        WorkerEvent::Queue { records } => return Ok(erase_customers(worker, records, invocation).await),
        WorkerEvent::Stream { records } => {
            let mut ids: Vec<_> = records.iter().filter_map(Change::order_id).collect();
            ids.sort_unstable();
            ids.dedup();
            log_summary("stream", worker.work(ids, invocation).await);
        }
        WorkerEvent::Sweep { .. } => {
            let summary = worker.sweep(invocation).await?;
            log_summary("sweep", summary);
        }
    }
    Ok(BatchResponse::default())
}

/// Handles messages of the queue of the users service, one after another. The queue delivers a message again if its
/// customer is not erased yet.
async fn erase_customers(worker: &Worker, messages: Vec<Message>, invocation: &Invocation) -> BatchResponse {
    let mut response = BatchResponse::default();
    for Message { id, body } in messages {
        let event: Result<Event<UserErased>, _> = serde_json::from_str(&body);
        let link = event.as_ref().ok().map(|event| field::display(&event.traceparent));
        let span = context_span!("message", link, message_id = id, outcome = field::Empty);
        let erased =
            Box::pin(async { erase_customer(worker, event?, invocation).await }).instrument(span.clone()).await;
        telemetry::record_outcome(&span, &erased);
        if let Err(error) = erased {
            let cause = telemetry::chain(error.as_ref());
            span.in_scope(|| tracing::warn!(message_id = id, cause, "customer not erased yet"));
            response.batch_item_failures.push(ItemFailure { item_identifier: id });
        }
    }
    response
}

async fn erase_customer(worker: &Worker, event: Event<UserErased>, invocation: &Invocation) -> Result<(), Error> {
    if event.kind != "UserErased" {
        return Err("the event is not UserErased".into());
    }
    worker.erase_customer(event.data.user_id, &event.traceparent, invocation).await?;
    tracing::info!(user = %event.data.user_id, "customer erased in orders and payments");
    Ok(())
}

/// Logs what became of the orders. That an order is finished is in a line of its own.
fn log_summary(source: &str, summary: WorkSummary) {
    let WorkSummary { finished, postponed, skipped, overdue } = summary;
    if postponed + skipped + overdue > 0 {
        tracing::info!(source, finished, postponed, skipped, overdue, "worked");
    } else {
        tracing::debug!(source, finished, "worked");
    }
}
