//! What starts the worker.

use std::time::Duration;

use chassis::{
    deadline::Deadline,
    events::{BatchResponse, Event, ItemFailure},
    id::UserId,
    invocation::Invocation,
    metric, telemetry,
};
use lambda_runtime::{Error, LambdaEvent};
use serde::Deserialize;

use crate::{
    domain::OrderId,
    worker::{Outcome, Worker},
};

/// How long an invocation may take where no Lambda says so.
const DEFAULT_TIME: Duration = Duration::from_secs(60);

/// The worker's events.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Trigger {
    /// Events of the users service, from their queue.
    Queue {
        /// The messages.
        #[serde(rename = "Records")]
        records: Vec<Message>,
    },
    /// Changes of the orders table that the stream's filter let through.
    Stream {
        /// The changes.
        #[serde(rename = "Records")]
        records: Vec<Change>,
    },
    /// The schedule.
    Sweep {
        /// Always true; what tells this event from others.
        sweep: bool,
    },
}

/// A message of the queue.
#[derive(Debug, Deserialize)]
pub struct Message {
    #[serde(rename = "messageId")]
    id: String,
    body: String,
}

/// What the event `UserErased` says.
#[derive(Debug, Deserialize)]
struct UserErased {
    user_id: UserId,
}

/// A change of an item, of which only the key counts: the order itself is read
/// from the table, where it may have moved on.
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
/// A stream's is always acknowledged: retrying is the sweep's, so that an order
/// that fails never blocks its shard. A slow one holds up its batch, beside
/// which others of the shard are worked on.
///
/// # Errors
///
/// If the open orders can't be listed.
pub async fn handle(worker: &Worker, event: LambdaEvent<Trigger>) -> Result<BatchResponse, Error> {
    let deadline = Deadline::of_invocation(event.context.deadline, DEFAULT_TIME);
    let invocation = Invocation::new(event.context.request_id.as_str(), deadline);
    match event.payload {
        Trigger::Queue { records } => return Ok(erase(worker, records, &invocation).await),
        Trigger::Stream { records } => {
            let mut ids: Vec<_> = records.iter().filter_map(Change::order_id).collect();
            ids.sort_unstable();
            ids.dedup();
            report("stream", worker.work(ids, &invocation).await);
        }
        Trigger::Sweep { .. } => {
            let outcome = worker.sweep(&invocation).await?;
            metric::count("OrdersOverdue", outcome.overdue);
            report("sweep", outcome);
        }
    }
    Ok(BatchResponse::default())
}

/// Erases the customers that the messages name, one after another.
async fn erase(worker: &Worker, messages: Vec<Message>, invocation: &Invocation) -> BatchResponse {
    let mut response = BatchResponse::default();
    for Message { id, body } in messages {
        if let Err(error) = erase_one(worker, &body, invocation).await {
            tracing::warn!(message_id = id, cause = telemetry::chain(error.as_ref()), "customer not erased yet");
            response.batch_item_failures.push(ItemFailure { item_identifier: id });
        }
    }
    response
}

async fn erase_one(worker: &Worker, body: &str, invocation: &Invocation) -> Result<(), Error> {
    let event: Event<UserErased> = serde_json::from_str(body)?;
    if event.kind != "UserErased" {
        return Err("the event is not UserErased".into());
    }
    worker.erase_customer(event.data.user_id, &event.traceparent, invocation).await?;
    tracing::info!(user = %event.data.user_id, "customer erased in orders and payments");
    Ok(())
}

fn report(trigger: &str, outcome: Outcome) {
    let Outcome { finished, postponed, skipped, overdue } = outcome;
    tracing::info!(trigger, finished, postponed, skipped, overdue, "worked");
}
