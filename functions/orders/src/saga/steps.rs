//! The step table.

use futures::future::BoxFuture;

use super::{Participants, Run, StepError};
use crate::domain::{Fact, Order, Refusal};

/// What a step does, or what undoes it.
pub type Action = for<'a> fn(&'a dyn Participants, &'a Order, Run<'a>) -> BoxFuture<'a, Result<Fact, StepError>>;

/// One step.
#[derive(Clone, Copy)]
pub struct Step {
    /// For logs.
    pub name: &'static str,
    /// What it does.
    pub forward: Action,
    /// What undoes it. Run for every order that is undone, whether or not the
    /// step is known to have happened: a tombstone must be there before a late
    /// request is.
    pub compensation: Option<Action>,
}

/// Steps that run side by side.
pub type Stage = &'static [Step];

/// A saga.
pub struct Saga {
    /// Changes with the table. An order carries the version it began with, and
    /// is taken to its end by that one.
    pub version: u32,
    /// Until the decision. May be refused.
    pub before_the_pivot: &'static [Stage],
    /// After it. Repeated until they succeed.
    pub after_the_pivot: &'static [Stage],
    /// What remains to do once everything is undone.
    pub after_compensation: &'static [Stage],
}

/// What happens to an order. Four sequential network phases until the answer,
/// however many lines: the order is recorded, the two stages before the pivot
/// run, the decision is recorded.
#[rustfmt::skip]
pub static PLACE_ORDER: Saga = Saga {
    version: 1,
    before_the_pivot: &[
        //         step                     forward                compensation
        &[
            step("validate user",           validate_user,         None),
            step("reserve stock",           reserve_stock,         Some(release_stock)),
        ],
        &[  step("authorise payment",       authorise_payment,     Some(cancel_payment)) ],
    ],
    // ── the pivot: PENDING becomes CONFIRMED, and the customer has an answer ──
    after_the_pivot: &[
        &[  step("capture payment",         capture_payment,       Some(cancel_payment)) ],
        &[  step("publish OrderCreated",    publish_order_created, None) ],
    ],
    // ── or it is undone: all compensations above, side by side, and then ──
    after_compensation: &[
        &[
            step("find whom to tell",       find_customer,         None),
            // An order that was confirmed is announced before it is recalled.
            step("publish OrderCreated",    publish_if_not_yet,    None),
        ],
        &[  step("publish OrderCancelled",  publish_order_cancelled, None) ],
    ],
};

/// The versions that orders may still carry. New orders begin with the last; an
/// earlier one stays while any order that began with it is open, and until the
/// cancellation window of the last of them has passed.
pub static SAGAS: &[&Saga] = &[&PLACE_ORDER];

const fn step(name: &'static str, forward: Action, compensation: Option<Action>) -> Step {
    Step { name, forward, compensation }
}

impl Saga {
    /// Every compensation, once.
    pub fn compensations(&self) -> impl Iterator<Item = (&'static str, Action)> {
        let stages = self.before_the_pivot.iter().chain(self.after_the_pivot);
        let mut seen: Vec<Action> = Vec::new();
        stages.flat_map(|stage| stage.iter()).filter_map(move |step| {
            let compensation = step.compensation?;
            // Two steps may be undone by one action, as both halves of a
            // payment are.
            if seen.iter().any(|other| std::ptr::fn_addr_eq(*other, compensation)) {
                return None;
            }
            seen.push(compensation);
            Some((step.name, compensation))
        })
    }
}

macro_rules! action {
    ($name:ident, $participants:ident, $order:ident, $run:ident => $body:expr) => {
        fn $name<'a>(
            $participants: &'a dyn Participants,
            $order: &'a Order,
            $run: Run<'a>,
        ) -> BoxFuture<'a, Result<Fact, StepError>> {
            Box::pin(async move { $body })
        }
    };
}

action!(validate_user, with, order, run => with.validate_user(order, run).await.map(Fact::Recipient));
action!(reserve_stock, with, order, run => {
    let quote = with.reserve_stock(order, run).await?;
    order.accept(quote).map(Fact::Quote).map_err(StepError::Refused)
});
action!(release_stock, with, order, run => with.release_stock(order, run).await.map(|()| Fact::Nothing));
action!(authorise_payment, with, order, run => with.authorise_payment(order, run).await.map(|()| Fact::Nothing));
action!(capture_payment, with, order, run => with.capture_payment(order, run).await.map(|()| Fact::Nothing));
action!(cancel_payment, with, order, run => with.cancel_payment(order, run).await.map(|()| Fact::Nothing));
action!(publish_order_created, with, order, run => with.publish_order_created(order, run).await.map(|()| Fact::Nothing));
action!(publish_order_cancelled, with, order, run => with.publish_order_cancelled(order, run).await.map(|()| Fact::Nothing));
action!(publish_if_not_yet, with, order, run => match order.awaits_announcement() {
    true => with.publish_order_created(order, run).await.map(|()| Fact::Nothing),
    false => Ok(Fact::Nothing),
});
// An order may be undone before the users service has answered. Its customer was
// perhaps told that the order is being worked on, and must hear how it ended.
action!(find_customer, with, order, run => match (&order.recipient, &order.refusal) {
    (Some(_), _) | (None, Some(Refusal::UserNotFound | Refusal::UserInactive)) => Ok(Fact::Nothing),
    _ if order.is_erased => Ok(Fact::Nothing),
    (None, _) => match with.validate_user(order, run).await {
        Ok(recipient) => Ok(Fact::Recipient(recipient)),
        // Nobody to tell.
        Err(StepError::Refused(_)) => Ok(Fact::Nothing),
        Err(error) => Err(error),
    },
});

#[cfg(test)]
mod tests {
    use super::PLACE_ORDER;

    #[test]
    fn what_both_halves_of_a_payment_need_undone_is_undone_once() {
        let names: Vec<_> = PLACE_ORDER.compensations().map(|(name, _)| name).collect();
        assert_eq!(names, ["reserve stock", "authorise payment"]);
    }
}
