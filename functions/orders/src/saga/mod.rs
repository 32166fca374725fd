//! The saga that takes an order to a final state.
//!
//! [`steps`] is the table of the steps and their compensations. [`engine`] runs the table: in the request up to the
//! pivot, and in the worker after the pivot. A new step is a line in the table and a method of [`Participants`].

pub mod engine;
pub mod steps;

use std::error::Error;

use async_trait::async_trait;
use chassis::{deadline::Deadline, trace::TraceContext};

use crate::domain::{CancellationReason, Order, Quote, Recipient};

/// The reason for which a step has no output.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The participant refused the step. It would refuse a repeat, too.
    #[error("refused: {}", .0.code())]
    Refused(CancellationReason),
    /// The step met a tombstone, because the order was cancelled meanwhile. The engine reads the order again and
    /// continues from the state that it finds.
    #[error("the order was cancelled meanwhile")]
    Overtaken,
    /// The participant reports contention. That is neither a failure nor a refusal, and the step is safe to repeat.
    #[error("contention")]
    Contended(#[source] Box<dyn Error + Send + Sync>),
    /// The participant gave no answer, or an answer that this version does not understand. It is unknown whether the step
    /// happened. That is never a refusal, and the step is safe to repeat.
    #[error("no usable answer")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
}

#[derive(Clone, Copy, Debug)]
pub struct StepContext<'a> {
    /// The step ends before the deadline, so that its outcome can be recorded.
    pub deadline: Deadline,
    /// The trace of the order.
    pub trace: &'a TraceContext,
}

/// The other services, and the queue of events.
///
/// All calls carry the order's id as their identity and are safe to repeat: a repeat with the same payload gets the same
/// answer.
#[async_trait]
pub trait Participants: Send + Sync {
    /// Users: receives the addresses in the customer's token, and answers whether the customer may order, and which
    /// addresses messages go to.
    async fn validate_user(&self, order: &Order, context: StepContext<'_>) -> Result<Recipient, StepError>;

    /// Products: reserves all lines or none, and quotes their prices.
    async fn reserve_stock(&self, order: &Order, context: StepContext<'_>) -> Result<Quote, StepError>;

    /// Products: releases the reservation, and refuses a reserve that arrives later.
    async fn release_stock(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError>;

    /// Payments: authorises the order's total.
    async fn authorise_payment(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError>;

    /// Payments: captures the authorised payment.
    async fn capture_payment(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError>;

    /// Payments: voids or refunds the payment, and refuses an authorisation that arrives later.
    async fn cancel_payment(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError>;

    /// Payments: erases the customer's data in the order's payment.
    async fn erase_recipient(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError>;

    /// Queue: announces the order.
    async fn publish_order_created(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError>;

    /// Queue: announces the cancellation of the order.
    async fn publish_order_cancelled(&self, order: &Order, context: StepContext<'_>) -> Result<(), StepError>;
}
