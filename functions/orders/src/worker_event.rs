//! The events that start the order worker: changes of the orders table, the schedule, and messages of the users
//! service.

use chassis::{
    deadline::Deadline,
    events::{BatchResponse, Event, ItemFailure},
    id::UserId,
    invocation::Invocation,
    telemetry,
    time_limits::WORKER_FUNCTION,
};
use lambda_runtime::{Error, LambdaEvent};
use serde::Deserialize;

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
    let deadline = Deadline::of_invocation(event.context.deadline, WORKER_FUNCTION);
    let invocation = Invocation::new(event.context.request_id.as_str(), deadline);
    match event.payload {
        WorkerEvent::Queue { records } => return Ok(erase_customers(worker, records, &invocation).await),
        WorkerEvent::Stream { records } => {
            let mut ids: Vec<_> = records.iter().filter_map(Change::order_id).collect();
            ids.sort_unstable();
            ids.dedup();
            log_summary("stream", worker.work(ids, &invocation).await);
        }
        WorkerEvent::Sweep { .. } => {
            let summary = worker.sweep(&invocation).await?;
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
        if let Err(error) = erase_customer(worker, &body, invocation).await {
            tracing::warn!(message_id = id, cause = telemetry::chain(error.as_ref()), "customer not erased yet");
            response.batch_item_failures.push(ItemFailure { item_identifier: id });
        }
    }
    response
}

async fn erase_customer(worker: &Worker, body: &str, invocation: &Invocation) -> Result<(), Error> {
    let event: Event<UserErased> = serde_json::from_str(body)?;
    if event.kind != "UserErased" {
        return Err("the event is not UserErased".into());
    }
    worker.erase_customer(event.data.user_id, &event.traceparent, invocation).await?;
    tracing::info!(user = %event.data.user_id, "customer erased in orders and payments");
    Ok(())
}

fn log_summary(source: &str, summary: WorkSummary) {
    let WorkSummary { finished, postponed, skipped, overdue } = summary;
    tracing::info!(source, finished, postponed, skipped, overdue, "worked");
}
