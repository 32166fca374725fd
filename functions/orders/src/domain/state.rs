//! The states of an order, and the transitions between them.

use serde::{Deserialize, Serialize};
use strum::VariantArray;

#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", parse_err_ty = InvalidState, parse_err_fn = InvalidState::of)]
pub enum OrderState {
    /// The order is not decided yet.
    Pending,
    /// The stock is reserved and the payment is authorised. The payment is not captured yet, or `OrderCreated` is not
    /// published yet.
    Confirmed,
    /// The payment is captured and `OrderCreated` is published.
    Done,
    /// The compensations run: they release the stock, and void or refund the payment.
    Cancelling,
    /// All compensations have succeeded.
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of {}", OrderState::VARIANTS.iter().map(|state| state.name()).collect::<Vec<_>>().join(", "))]
pub struct InvalidState;

impl InvalidState {
    fn of(_: &str) -> Self {
        Self
    }
}

/// A transition that [`OrderState::may_become`] does not allow. This error always shows a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an order can't go from {from} to {to}")]
pub struct IllegalTransition {
    pub(super) from: OrderState,
    pub(super) to: OrderState,
}

impl OrderState {
    /// Returns the state's name in JSON and in the table.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Returns whether an order may go from this state to `next`. An order never returns to an earlier state. Therefore
    /// a write on the condition that the stored order is still in the earlier state can succeed only once.
    pub fn may_become(self, next: Self) -> bool {
        use OrderState::{Cancelled, Cancelling, Confirmed, Done, Pending};
        matches!(
            (self, next),
            (Pending, Confirmed | Cancelling)
                | (Confirmed, Done | Cancelling)
                | (Done, Cancelling)
                | (Cancelling, Cancelled)
        )
    }

    /// Returns whether the saga still has work to do in this state.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Done | Self::Cancelled)
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::OrderState;

    #[test]
    fn no_sequence_of_transitions_returns_to_an_earlier_state() {
        fn reachable(from: OrderState, seen: &mut Vec<OrderState>) {
            for next in OrderState::VARIANTS.iter().copied().filter(|next| from.may_become(*next)) {
                seen.push(next);
                reachable(next, seen);
            }
        }
        for state in OrderState::VARIANTS.iter().copied() {
            let mut seen = Vec::new();
            reachable(state, &mut seen);
            assert!(!seen.contains(&state), "{state}");
        }
    }

    #[test]
    fn every_open_state_has_a_transition_and_a_done_order_can_only_be_cancelled() {
        for state in OrderState::VARIANTS.iter().copied() {
            let next: Vec<_> = OrderState::VARIANTS.iter().copied().filter(|next| state.may_become(*next)).collect();
            match state {
                OrderState::Cancelled => assert!(next.is_empty()),
                OrderState::Done => assert_eq!(next, [OrderState::Cancelling]),
                _ => assert!(!next.is_empty()),
            }
        }
    }

    #[test]
    fn json_and_display_use_the_name_of_the_state() {
        for state in OrderState::VARIANTS.iter().copied() {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
            assert_eq!(state.to_string(), state.name());
        }
    }
}
