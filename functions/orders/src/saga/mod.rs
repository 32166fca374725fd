//! The saga that takes an order to an end.
//!
//! [`steps`] is the table: which steps there are, in which order, and what
//! undoes each. [`engine`] runs it, in the request up to the pivot and in the
//! worker from there. A new step is a line in the table and a method of
//! [`Participants`].

pub mod engine;
pub mod steps;

use async_trait::async_trait;
use chassis::{deadline::Deadline, trace::TraceContext};

use crate::domain::{Order, Quote, Recipient, Refusal};

/// Why a step has no result to go on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The answer is no, and would be no again.
    #[error("refused: {}", .0.code())]
    Refused(Refusal),
    /// The order was cancelled meanwhile: its tombstone was met. Read it
    /// again and go on from there.
    #[error("the order was cancelled meanwhile")]
    Overtaken,
    /// Whoever was asked is busy with others: no failure, and never a refusal.
    /// It is safe to repeat.
    #[error("{0}")]
    Busy(String),
    /// No answer, or none that means anything. Whether the step happened is
    /// unknown; it is safe to repeat. Never a refusal.
    #[error("{0}")]
    Unavailable(String),
}

/// How long a step may take, and the trace it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// When the step must be over, so that its outcome can be recorded.
    pub deadline: Deadline,
    /// The order's trace.
    pub trace: &'a TraceContext,
}

/// Those who take part: the other services, and the queue.
///
/// All calls carry the order's id as their identity, and all are safe to
/// repeat: a repeat with the same payload gets the same answer.
#[async_trait]
pub trait Participants: Send + Sync {
    /// Users: hears how the customer's token says that they can be reached, and
    /// answers whether they may order, and how they are reached.
    async fn validate_user(&self, order: &Order, run: Run<'_>) -> Result<Recipient, StepError>;

    /// Products: reserves all lines or none, and quotes their prices.
    async fn reserve_stock(&self, order: &Order, run: Run<'_>) -> Result<Quote, StepError>;

    /// Products: gives back what is reserved, and refuses what comes later.
    async fn release_stock(&self, order: &Order, run: Run<'_>) -> Result<(), StepError>;

    /// Payments: authorises the order's total.
    async fn authorise_payment(&self, order: &Order, run: Run<'_>) -> Result<(), StepError>;

    /// Payments: takes the authorised money.
    async fn capture_payment(&self, order: &Order, run: Run<'_>) -> Result<(), StepError>;

    /// Payments: voids or refunds, and refuses what comes later.
    async fn cancel_payment(&self, order: &Order, run: Run<'_>) -> Result<(), StepError>;

    /// Payments: erases the customer's data in the order's payment.
    async fn erase_recipient(&self, order: &Order, run: Run<'_>) -> Result<(), StepError>;

    /// Notifications, through the queue: the order is placed.
    async fn publish_order_created(&self, order: &Order, run: Run<'_>) -> Result<(), StepError>;

    /// Notifications, through the queue: the order is undone.
    async fn publish_order_cancelled(&self, order: &Order, run: Run<'_>) -> Result<(), StepError>;
}
