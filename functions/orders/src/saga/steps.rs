//! The step table.

use futures::future::BoxFuture;

use super::{Participants, StepContext, StepError};
use crate::domain::{CancellationReason, Order, StepOutput};

/// The function of a step or of a compensation.
pub type Action =
    for<'a> fn(&'a dyn Participants, &'a Order, StepContext<'a>) -> BoxFuture<'a, Result<StepOutput, StepError>>;

#[derive(Clone, Copy)]
pub struct Step {
    pub name: &'static str,
    /// Runs when the saga moves forward.
    pub action: Action,
    /// Undoes the step.
    pub compensation: Option<Compensation>,
}

/// The action that undoes one step or several steps.
///
/// The compensations run for every order that is cancelled, even if the step is not known to have happened: a tombstone
/// must be there before a late request arrives.
#[derive(Clone, Copy)]
pub struct Compensation {
    /// Identifies the compensation: the engine runs a compensation once, even if several steps have it.
    pub name: &'static str,
    pub action: Action,
}

/// Steps that run side by side.
pub type Stage = &'static [Step];

pub struct Saga {
    /// Changes with the table. An order keeps the version that it began with until it is in a final state.
    pub version: u32,
    /// The stages until the decision. Their steps may be refused.
    pub before_the_pivot: &'static [Stage],
    /// The stages after the decision. Their steps are repeated until they succeed.
    pub after_the_pivot: &'static [Stage],
    /// The stages after all compensations.
    pub after_compensation: &'static [Stage],
}

const RELEASE_STOCK: Compensation = Compensation { name: "release stock", action: release_stock };
const CANCEL_PAYMENT: Compensation = Compensation { name: "cancel payment", action: cancel_payment };

/// The saga of an order. The client waits for four sequential network phases, however many lines the order has: the order
/// is recorded, the two stages before the pivot run, the decision is recorded.
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
    // ── The pivot: PENDING becomes CONFIRMED, and the customer gets an answer. ──
    after_the_pivot: &[
        &[  step("capture payment",          capture_payment,         Some(CANCEL_PAYMENT)) ],
        &[  step("publish OrderCreated",     publish_order_created,   None) ],
    ],
    // ── If the order is cancelled instead, all compensations above run side by side, and then: ──
    after_compensation: &[
        &[
            step("find recipient",           find_recipient,          None),
            // A confirmed order is announced before its cancellation is announced.
            step("publish OrderCreated",     publish_if_not_yet,      None),
        ],
        &[  step("publish OrderCancelled",   publish_order_cancelled, None) ],
    ],
};

/// The versions that open orders may have. New orders begin with the last version. An earlier version stays as long as an
/// order that began with it is open, and until the cancellation window of the last such order has passed.
pub static SAGAS: &[&Saga] = &[&PLACE_ORDER];

const fn step(name: &'static str, action: Action, compensation: Option<Compensation>) -> Step {
    Step { name, action, compensation }
}

impl Saga {
    /// All compensations of the saga, each once.
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
action!(publish_if_not_yet, with, order, context => match order.awaits_announcement() {
    true => publish_order_created(with, order, context).await,
    false => Ok(StepOutput::Nothing),
});
// An order may be cancelled before the users service has answered. Its customer may have been answered that the order is
// not decided yet, and must be notified of the cancellation.
action!(find_recipient, with, order, context => match (&order.recipient, &order.cancellation_reason) {
    (Some(_), _) | (None, Some(CancellationReason::UserNotFound | CancellationReason::UserInactive)) => Ok(StepOutput::Nothing),
    _ if order.is_erased => Ok(StepOutput::Nothing),
    (None, _) => match with.validate_user(order, context).await {
        Ok(recipient) => Ok(StepOutput::Recipient(recipient)),
        // The customer has no active profile, so there is nobody to notify.
        Err(StepError::Refused(_)) => Ok(StepOutput::Nothing),
        Err(error) => Err(error),
    },
});

#[cfg(test)]
mod tests {
    use super::PLACE_ORDER;

    #[test]
    fn a_compensation_of_two_steps_runs_once() {
        let names: Vec<_> = PLACE_ORDER.compensations().map(|compensation| compensation.name).collect();
        assert_eq!(names, ["release stock", "cancel payment"]);
    }
}
