//! The table of the saga's steps.

use futures::future::BoxFuture;

use super::{Participants, StepContext, StepError};
use crate::domain::{CancellationReason, Order, StepOutput};

/// The function that carries out a step or a compensation.
pub type Action =
    for<'a> fn(&'a dyn Participants, &'a Order, StepContext<'a>) -> BoxFuture<'a, Result<StepOutput, StepError>>;

#[derive(Clone, Copy)]
pub struct Step {
    pub name: &'static str,
    pub action: Action,
    /// The compensation that undoes the step.
    pub compensation: Option<Compensation>,
    /// Decides whether an order needs the step. `None` if every order needs the step.
    condition: Option<fn(&Order) -> bool>,
}

/// The action that undoes one step or several steps.
///
/// All compensations run for every cancelled order, even if a step perhaps never happened. The request of such a step
/// may still arrive later: then the service refuses the request, because the compensation has left a tombstone.
#[derive(Clone, Copy)]
pub struct Compensation {
    /// Identifies the compensation. If several steps have a compensation with the same name, the engine runs it once.
    pub name: &'static str,
    pub action: Action,
}

/// The steps of a stage run side by side. The next stage begins when all steps of the stage have succeeded.
pub type Stage = &'static [Step];

pub struct Saga {
    /// Every change of the saga's steps needs a new version. An order keeps the version with which it was placed.
    pub version: u32,
    /// The stages that decide the order. If a step of these stages is refused, the order is cancelled.
    pub before_the_pivot: &'static [Stage],
    /// The stages of a confirmed order. The worker repeats their steps until they succeed or are refused.
    pub after_the_pivot: &'static [Stage],
    /// The stages of a cancelled order. They run when all compensations have succeeded.
    pub after_compensation: &'static [Stage],
}

const RELEASE_STOCK: Compensation = Compensation { name: "release stock", action: release_stock };
const CANCEL_PAYMENT: Compensation = Compensation { name: "cancel payment", action: cancel_payment };

/// The saga that places an order. However many lines the order has, the client waits for four things, one after
/// another: the write of the new order, the two stages before the pivot, and the write of the decision.
#[rustfmt::skip]
pub static PLACE_ORDER: Saga = Saga {
    version: 1,
    before_the_pivot: &[
        //         step                      action                   compensation
        &[
            step("validate user",            validate_user,           None),
            step("reserve stock",            reserve_stock,           Some(RELEASE_STOCK)),
        ],
        &[  step("authorise payment",        authorise_payment,       Some(CANCEL_PAYMENT)) ],
    ],
    // ── The pivot: PENDING becomes CONFIRMED, and the customer gets the response. ──
    after_the_pivot: &[
        &[  step("capture payment",          capture_payment,         Some(CANCEL_PAYMENT)) ],
        &[  step("publish OrderCreated",     publish_order_created,   None) ],
    ],
    // ── If the order is cancelled, all compensations above run side by side, and then these stages. ──
    after_compensation: &[
        &[
            step("find recipient",           find_recipient,          None).only_if(lacks_recipient),
            // For an order that was confirmed, `OrderCreated` must be published before `OrderCancelled`.
            step("publish OrderCreated",     publish_order_created,   None).only_if(Order::awaits_announcement),
        ],
        &[  step("publish OrderCancelled",   publish_order_cancelled, None) ],
    ],
};

/// All versions of the saga that this code can continue. New orders get the last version. Remove an earlier version
/// only when no order of that version is open or can still be cancelled.
pub static SAGAS: &[&Saga] = &[&PLACE_ORDER];

/// Describes a step that every order needs.
pub const fn step(name: &'static str, action: Action, compensation: Option<Compensation>) -> Step {
    Step { name, action, compensation, condition: None }
}

impl Step {
    /// The engine skips the step for an order that does not fulfil the condition, and continues as if the step had
    /// succeeded.
    const fn only_if(mut self, condition: fn(&Order) -> bool) -> Self {
        self.condition = Some(condition);
        self
    }

    /// Returns whether there are orders that do not need the step.
    pub fn is_conditional(&self) -> bool {
        self.condition.is_some()
    }

    pub fn is_needed_for(&self, order: &Order) -> bool {
        self.condition.is_none_or(|condition| condition(order))
    }
}

impl Saga {
    /// Returns each compensation of the saga once.
    pub fn compensations(&self) -> impl Iterator<Item = Compensation> {
        let steps = self.before_the_pivot.iter().chain(self.after_the_pivot).copied().flatten();
        let mut compensations: Vec<Compensation> = Vec::new();
        for compensation in steps.filter_map(|step| step.compensation) {
            if compensations.iter().all(|other| other.name != compensation.name) {
                compensations.push(compensation);
            }
        }
        compensations.into_iter()
    }
}

macro_rules! action {
    ($name:ident, $participants:ident, $order:ident, $context:ident => $body:expr) => {
        fn $name<'a>(
            $participants: &'a dyn Participants,
            $order: &'a Order,
            $context: StepContext<'a>,
        ) -> BoxFuture<'a, Result<StepOutput, StepError>> {
            Box::pin(async move { $body })
        }
    };
    ($name:ident) => {
        action!($name, with, order, context => with.$name(order, context).await.map(|()| StepOutput::Nothing));
    };
}

action!(validate_user, with, order, context => with.validate_user(order, context).await.map(StepOutput::Recipient));
action!(reserve_stock, with, order, context => {
    let quote = with.reserve_stock(order, context).await?;
    order.accept(quote).map(StepOutput::Quote).map_err(StepError::Refused)
});
action!(release_stock);
action!(authorise_payment);
action!(capture_payment);
action!(cancel_payment);
action!(publish_order_created);
action!(publish_order_cancelled);
action!(find_recipient, with, order, context => match with.validate_user(order, context).await {
    Ok(recipient) => Ok(StepOutput::Recipient(recipient)),
    // The customer has no active profile, so there is nobody to notify.
    Err(StepError::Refused(_)) => Ok(StepOutput::Nothing),
    Err(error) => Err(error),
});

/// Returns whether the recipient of the messages must still be found. If an order is cancelled before the step
/// "validate user" has succeeded, its recipient is unknown. The customer must be notified of the cancellation, because
/// the response to the customer's request may have been "not decided yet".
fn lacks_recipient(order: &Order) -> bool {
    let has_no_profile =
        matches!(order.cancellation_reason, Some(CancellationReason::UserNotFound | CancellationReason::UserInactive));
    order.recipient.is_none() && !has_no_profile && !order.is_erased
}

#[cfg(test)]
mod tests {
    use super::PLACE_ORDER;

    #[test]
    fn a_compensation_of_two_steps_runs_once() {
        let names: Vec<_> = PLACE_ORDER.compensations().map(|compensation| compensation.name).collect();
        assert_eq!(names, ["release stock", "cancel payment"]);
    }
}
