//! The events that start the order worker: changes of the orders table, the schedules, messages of the users service, and
//! the request of a person to reconcile.

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
use serde::{Deserialize, Serialize};
use tracing::{Instrument, field};

use crate::{
    domain::OrderId,
    reconciliation::{Reconciler, ReconciliationReport, ReconciliationRequest},
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
    /// The event that the schedule sends each hour, or with which `make reconcile` invokes the function.
    Reconcile { reconcile: ReconciliationRequest },
}

/// The response to an event.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum WorkerResponse {
    /// Which messages of the queue are not handled yet. Lambda ignores it after the other events.
    Batch(BatchResponse),
    Reconciliation(Box<ReconciliationReport>),
}

/// The order worker's function.
#[derive(Clone)]
pub struct WorkerFunction {
    pub worker: Worker,
    pub reconciler: Reconciler,
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

impl WorkerFunction {
    /// Handles one event.
    ///
    /// A batch of the stream is always acknowledged, because a sweep works again on each order that failed. So a failing
    /// order never blocks its shard of the stream. A slow order delays only its own batch, because the stream delivers
    /// several batches of a shard side by side.
    ///
    /// # Errors
    ///
    /// If a sweep cannot read the due orders, or if a reconciliation cannot continue.
    pub async fn handle(&self, event: LambdaEvent<WorkerEvent>) -> Result<WorkerResponse, Error> {
        let LambdaEvent { payload, context } = event;
        let deadline = Deadline::of_invocation(context.deadline, WORKER_FUNCTION);
        let invocation = Invocation::new(context.request_id.as_str(), deadline);
        let source = match &payload {
            WorkerEvent::Queue { .. } => "queue",
            WorkerEvent::Stream { .. } => "stream",
            WorkerEvent::Sweep { .. } => "sweep",
            WorkerEvent::Reconcile { .. } => "reconciliation",
        };
        let span = invocation_span(source, &context);
        let response = Box::pin(self.respond(payload, &invocation)).instrument(span.clone()).await;
        telemetry::record_outcome(&span, &response);
        response
    }

    async fn respond(&self, event: WorkerEvent, invocation: &Invocation) -> Result<WorkerResponse, Error> {
        let Self { worker, reconciler } = self;
        let mut batch = BatchResponse::default();
        match event {
            WorkerEvent::Queue { records } => batch = erase_customers(worker, records, invocation).await,
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
            WorkerEvent::Reconcile { reconcile } => {
                let report = reconciler.reconcile(reconcile, invocation.deadline).await?;
                return Ok(WorkerResponse::Reconciliation(Box::new(report)));
            }
        }
        Ok(WorkerResponse::Batch(batch))
    }
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
