//! The comparisons: from what each service says, the mismatches. They use neither a clock nor a store.

use std::{collections::BTreeMap, time::Duration};

use chassis::money::Money;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    accounts::{Charge, ChargeStatus, PaymentAccount, PaymentStatus, ReservationAccount, StockAccount},
    mismatch::{Mismatch, MismatchKind, Subject},
};
use crate::domain::{Order, OrderState, ProductId};

/// What the products service and the payments service say of one order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accounts<'a> {
    pub reservation: Option<&'a ReservationAccount>,
    pub payment: Option<&'a PaymentAccount>,
}

/// Compares an order with what the other services say of it.
///
/// The accounts of an open order are not compared, because the saga is changing them. An open order is a mismatch only
/// if it has been open for longer than `overdue_after`.
pub fn compare_order(order: &Order, of: Accounts<'_>, now: Timestamp, overdue_after: Duration) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    let mut report = |kind, found| mismatches.push(Mismatch::new(kind, Subject::Order(order.id), found));
    match order.state {
        OrderState::Done => {
            compare_money(order, of.payment, &mut report);
            match of.reservation {
                Some(reservation) if reservation.is_held() => compare_lines(order, reservation, &mut report),
                Some(_) => report(MismatchKind::DoneWithoutReservation, "the reservation is released".into()),
                None => report(MismatchKind::DoneWithoutReservation, "there is no reservation".into()),
            }
        }
        OrderState::Cancelled => {
            compare_money(order, of.payment, &mut report);
            if of.reservation.is_some_and(ReservationAccount::is_held) {
                report(MismatchKind::HeldForCancelledOrder, "the reservation is held".into());
            }
        }
        OrderState::Pending | OrderState::Confirmed | OrderState::Cancelling => {
            if now > order.open_since() + overdue_after {
                report(MismatchKind::OpenTooLong, format!("{} since {}", order.state, order.open_since()));
            }
        }
    }
    mismatches
}

fn compare_money(order: &Order, payment: Option<&PaymentAccount>, report: &mut impl FnMut(MismatchKind, String)) {
    let charge = payment.and_then(|payment| payment.charge);
    let kept = charge.map_or(0, |charge| charge.kept());
    let shown = charge.map_or("no charge".to_owned(), |charge| format!("the charge is {}", charge.status));
    let is_done = order.state == OrderState::Done;
    if is_done && kept == 0 {
        return report(MismatchKind::DoneWithoutCharge, shown);
    }
    if !is_done && kept > 0 {
        return report(MismatchKind::CancelledButCharged, format!("{shown}, and {kept} minor units are kept"));
    }
    if !is_done && charge.is_some_and(|charge| charge.status == ChargeStatus::Authorised) {
        return report(MismatchKind::HoldNeverEnded, shown);
    }
    if let Some(found) = differing_amounts(order, payment, charge, kept) {
        return report(MismatchKind::AmountsDiffer, found);
    }
    let (status, of_charge) = (payment.and_then(|payment| payment.status), charge.map(|charge| charge.status));
    if !agree(status, of_charge) {
        let status = status.map_or("no payment".to_owned(), |status| format!("the payment is {status}"));
        report(MismatchKind::PaymentAndProviderDisagree, format!("{status}, {shown}"));
    }
}

/// Describes the amounts that should be equal, unless they are.
fn differing_amounts(
    order: &Order,
    payment: Option<&PaymentAccount>,
    charge: Option<Charge>,
    kept: u64,
) -> Option<String> {
    // A tombstone has no amount, and an order that was refused early has no total.
    let total = order.quote.as_ref().map(|quote| quote.total);
    let paid = payment.and_then(|payment| payment.amount);
    let charged = charge.map(|charge| charge.amount);
    let mut amounts = [total.filter(|_| paid.is_some() || charged.is_some()), paid, charged].into_iter().flatten();
    let first = amounts.next()?;
    let is_kept_whole = order.state != OrderState::Done || kept == first.minor();
    if amounts.all(|amount| amount == first) && is_kept_whole {
        return None;
    }
    let show = |amount: Option<Money>| amount.map_or("nothing".to_owned(), |amount| amount.to_string());
    let (total, paid, charged) = (show(total), show(paid), show(charged));
    Some(format!("order {total}, payment {paid}, charge {charged}, {kept} minor units kept"))
}

/// Returns whether a payment of this status may have a charge of that status, once the order is in a final state.
fn agree(payment: Option<PaymentStatus>, charge: Option<ChargeStatus>) -> bool {
    match payment {
        // A payment that was cancelled before its authorisation arrived has no charge.
        None | Some(PaymentStatus::Cancelled) => charge.is_none(),
        Some(PaymentStatus::Declined) => charge == Some(ChargeStatus::Declined),
        Some(PaymentStatus::Captured) => charge == Some(ChargeStatus::Captured),
        Some(PaymentStatus::Voided) => charge == Some(ChargeStatus::Voided),
        Some(PaymentStatus::Refunded) => charge == Some(ChargeStatus::Refunded),
        // No order ends before the outcome of its payment is known and the hold is captured or voided.
        Some(PaymentStatus::Intent | PaymentStatus::Authorised) => false,
    }
}

fn compare_lines(order: &Order, held: &ReservationAccount, report: &mut impl FnMut(MismatchKind, String)) {
    let ordered: BTreeMap<_, u64> =
        order.lines.as_slice().iter().map(|line| (line.product_id, u32::from(line.quantity).into())).collect();
    let quantities = held.lines.iter().map(|line| (line.product_id, u32::from(line.quantity).into())).collect();
    let units: BTreeMap<_, u64> = held.lines.iter().map(|line| (line.product_id, line.units)).collect();
    if ordered != quantities || ordered != units {
        report(
            MismatchKind::ReservationLinesDiffer,
            format!("ordered {ordered:?}, reserved {quantities:?}, taken from the stock {units:?}"),
        );
    }
}

/// The units by which a product has more than it should have: zero, unless something is wrong.
///
/// The equation of stock: what came in (initial stock + adjustments) is what is there (available + reserved).
pub fn surplus(stock: &StockAccount) -> i128 {
    let came_in = i128::from(stock.initial_stock) + i128::from(stock.adjustments);
    let is_there = i128::from(stock.available) + i128::from(stock.reserved);
    is_there - came_in
}

/// The reserved stock of a product when the walk began, and what the reservations of the orders say about that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub reserved: u64,
    /// The units that were certainly held.
    pub least: u64,
    /// The units that may have been held.
    pub most: u64,
}

impl Held {
    pub fn of(reserved: u64) -> Self {
        Self { reserved, least: 0, most: 0 }
    }

    /// Returns by how many units the reserved stock is more (or, if negative, less) than the reservations can explain.
    pub fn unexplained(&self) -> i128 {
        let reserved = i128::from(self.reserved);
        reserved - reserved.clamp(self.least.into(), self.most.into())
    }
}

/// The time during which the reserved stock of all products was read. The clocks of two functions differ, so the time
/// is longer than it was by [`CLOCKS_DIFFER_BY`] on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadTime {
    pub from: Timestamp,
    pub to: Timestamp,
}

pub const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(2);

/// Adds the units of one reservation, which is read after the reserved stock was read.
///
/// A reservation goes from nothing to held to released, and never back. So it was certainly held at the read time if it
/// was made before and is still held; and it may have been held if it was made before the end of the read time and not
/// released before its beginning.
pub fn add_reservation(held: &mut BTreeMap<ProductId, Held>, reservation: &ReservationAccount, read: ReadTime) {
    let Some(reserved_at) = reservation.reserved_at else { return };
    let (from, to) = (read.from - CLOCKS_DIFFER_BY, read.to + CLOCKS_DIFFER_BY);
    let was_released_before = reservation.released_at.is_some_and(|released_at| released_at < from);
    if reserved_at > to || was_released_before {
        return;
    }
    let is_certain = reserved_at < from && reservation.is_held();
    for line in &reservation.lines {
        if let Some(product) = held.get_mut(&line.product_id) {
            product.most += line.units;
            product.least += if is_certain { line.units } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{OrderId, Quantity},
        reconciliation::accounts::ReservedLine,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn held_after(reserved_at: i64, released_at: Option<i64>) -> Held {
        let product_id = ProductId::generate();
        let reservation = ReservationAccount {
            order_id: OrderId::generate(),
            reserved_at: Some(at(reserved_at)),
            released_at: released_at.map(at),
            lines: vec![ReservedLine { product_id, quantity: Quantity::ONE, units: 1 }],
        };
        let mut held = BTreeMap::from([(product_id, Held::of(1))]);
        add_reservation(&mut held, &reservation, ReadTime { from: at(1000), to: at(1010) });
        held[&product_id]
    }

    #[test]
    fn a_reservation_that_changed_while_the_stock_was_read_may_or_may_not_be_in_the_reserved_stock() {
        for (reserved_at, released_at, least, most) in [
            (900, None, 1, 1),
            (999, None, 0, 1),
            (1005, None, 0, 1),
            (1020, None, 0, 0),
            (900, Some(950), 0, 0),
            (900, Some(1005), 0, 1),
            (900, Some(1020), 0, 1),
        ] {
            let held = held_after(reserved_at, released_at);
            assert_eq!((held.least, held.most), (least, most), "{reserved_at} {released_at:?}");
        }
    }

    #[test]
    fn reserved_stock_is_unexplained_by_what_lies_outside_the_certain_and_the_possible_units() {
        let unexplained = |reserved| Held { reserved, least: 2, most: 4 }.unexplained();
        assert_eq!([1, 2, 3, 4, 7].map(unexplained), [-1, 0, 0, 0, 3]);
    }

    #[test]
    fn stock_adds_up_if_what_came_in_is_what_is_there() {
        let stock = |adjustments, available, reserved| {
            let product_id = ProductId::generate();
            surplus(&StockAccount { product_id, initial_stock: 10, adjustments, available, reserved })
        };
        assert_eq!(stock(-3, 5, 2), 0);
        assert_eq!(stock(-3, 5, 3), 1);
        assert_eq!(stock(5, 5, 3), -7);
    }
}
