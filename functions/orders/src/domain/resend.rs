//! The messages about an order that an administrator has sent again.

use chassis::{
    audit::{Reason, ResendId},
    id::UserId,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ids::OrderId, order::Order, state::OrderState};

/// A message about an order: the type of the event that it belongs to.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(parse_err_ty = InvalidMessage, parse_err_fn = InvalidMessage::of)]
pub enum Message {
    OrderCreated,
    OrderCancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be OrderCreated or OrderCancelled")]
pub struct InvalidMessage;

impl InvalidMessage {
    fn of(_: &str) -> Self {
        Self
    }
}

/// The record of a resend: who had the message sent again, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resend {
    /// The id that the administrator has chosen.
    pub resend_id: ResendId,
    pub message: Message,
    pub reason: Reason,
    /// The administrator.
    pub requested_by: UserId,
    pub requested_at: Timestamp,
}

impl Resend {
    /// Returns whether the two requests are equal, apart from the administrator and the time.
    pub fn is_repeat_of(&self, other: &Self) -> bool {
        let Self { resend_id, message, reason, requested_by: _, requested_at: _ } = self;
        (resend_id, message, reason) == (&other.resend_id, &other.message, &other.reason)
    }

    /// Returns the id of the event whose message is sent again.
    pub fn original_event(&self, order: OrderId) -> String {
        format!("{order}:{}", self.message)
    }
}

impl Order {
    /// Returns the message about the order's present state, which can be sent again. An open order has none: its state
    /// is about to change, and the message about its final state is still to be sent.
    pub fn current_message(&self) -> Option<Message> {
        match self.state {
            OrderState::Done => Some(Message::OrderCreated),
            OrderState::Cancelled => Some(Message::OrderCancelled),
            OrderState::Pending | OrderState::Confirmed | OrderState::Cancelling => None,
        }
    }
}
