//! What starts the worker.

use std::time::Duration;

use chassis::{deadline::Deadline, metric};
use lambda_runtime::{Error, LambdaEvent};
use serde::Deserialize;

use crate::{
    domain::OrderId,
    saga::engine::Invocation,
    worker::{Outcome, Worker},
};

/// How long an invocation may take where no Lambda says so.
const DEFAULT_TIME: Duration = Duration::from_secs(60);

/// The worker's events.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Trigger {
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

/// Handles one event. A stream's is always acknowledged: retrying is the
/// sweep's, so that an order that fails never blocks its shard. A slow one holds
/// up its batch, beside which others of the shard are worked on.
pub async fn handle(worker: &Worker, event: LambdaEvent<Trigger>) -> Result<(), Error> {
    let deadline = Deadline::of_invocation(event.context.deadline, DEFAULT_TIME);
    let invocation = Invocation { deadline, request_id: &event.context.request_id };
    match event.payload {
        Trigger::Stream { records } => {
            let mut ids: Vec<_> = records.iter().filter_map(Change::order_id).collect();
            ids.sort_unstable();
            ids.dedup();
            report("stream", worker.work(ids, invocation).await);
        }
        Trigger::Sweep { .. } => {
            let outcome = worker.sweep(invocation).await?;
            metric::count("OrdersOverdue", outcome.overdue);
            report("sweep", outcome);
        }
    }
    Ok(())
}

fn report(trigger: &str, outcome: Outcome) {
    let Outcome { finished, postponed, skipped, overdue } = outcome;
    tracing::info!(trigger, finished, postponed, skipped, overdue, "worked");
}
