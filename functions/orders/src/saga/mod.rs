//! The saga that takes an order to a final state.
//!
//! [`steps`] is the table of the steps and their compensations. [`engine`] runs the table. The request that places an
//! order runs the steps before the pivot. The worker runs the steps after the pivot, and the earlier steps for which
//! the request had no time. To add a step, add a row to the table and a method to [`Participants`].

pub mod engine;
pub mod steps;

use std::error::Error;

use async_trait::async_trait;
use chassis::{deadline::Deadline, trace::TraceContext};

use crate::domain::{CancellationReason, Order, Quote, Recipient, Resend};

/// The reason why a step did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The participant refused the step, and would refuse every repeat of the step.
    #[error("refused: {}", .0.code())]
    Refused(CancellationReason),
    /// The participant refused the step because it found a tombstone: the order was cancelled meanwhile. The engine
    /// reads the order again and continues from the order's current state.
    #[error("the order was cancelled meanwhile")]
    Overtaken,
    /// The participant reports contention. Contention is neither a failure nor a refusal, and the step is safe to
    /// repeat.
    #[error("contention")]
    Contended(#[source] Box<dyn Error + Send + Sync>),
    /// The participant gave no answer, or an answer that this code does not understand. It is unknown whether the step
    /// happened. A missing answer is never treated as a refusal, and the step is safe to repeat.
    #[error("no usable answer")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
}

#[derive(Clone, Copy, Debug)]
pub struct StepContext<'a> {
    /// The step must end by this time. The time after the deadline is reserved for recording the step's outcome.
    pub deadline: Deadline,
    /// The trace to which the step's requests belong.
    pub trace: &'a TraceContext,
}

/// The services and the queue of order events, which carry out the saga's steps.
///
/// Every call is safe to repeat. The products and payments services recognise a repeat by the order's id, and give the
/// same answer again.
#[async_trait]
pub trait Participants: Send + Sync {
    /// Sends the contact details in the customer's token to the users service. Returns the name and contact details for
    /// messages about the order. Refused if the customer may not order.
    async fn validate_user(&self, order: &Order, context: StepContext<'_>) -> Result<Recipient, StepError>;

    /// Reserves all lines of the order or none at the products service. Returns the prices of the lines.
    async fn reserve_stock(&self, order: &Order, context: StepContext<'_>) -> Result<Quote, StepError>;

    /// Releases the order's reservation at the products service. From then on, the products service refuses every
    /// request to reserve stock for the order.
    async fn release_stock(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError>;

    /// Authorises the order's total at the payments service.
    async fn authorise_payment(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError>;

    /// Captures the order's authorised payment at the payments service.
    async fn capture_payment(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError>;

    /// Voids or refunds the order's payment at the payments service. From then on, the payments service refuses every
    /// authorisation for the order.
    async fn cancel_payment(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError>;

    /// Erases the customer's personal data in the order's payment at the payments service.
    async fn erase_recipient(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError>;

    /// Publishes the event `OrderCreated`.
    async fn publish_order_created(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError>;

    /// Publishes the event `OrderCancelled`.
    async fn publish_order_cancelled(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError>;

    /// Publishes an event with which a message about the order is sent again to `recipient`. This is no step of the
    /// saga. A repeat with the same resend has no second effect.
    async fn publish_resend(
        &self,
        order: &Order,
        resend: &Resend,
        recipient: &Recipient,
        context: StepContext<'_>,
    ) -> Result<(), StepError>;
}
