//! Reconciliation finds each kind of mismatch that a test plants behind the services' backs, and nothing else. That it
//! finds nothing after any fault is a check of the fault harness (`tests/faults.rs`).

use std::{collections::BTreeSet, time::Duration};

use http::StatusCode;
use in_process_tests::{
    Caller, World,
    shop::{number, order_request},
};
use orders::reconciliation::{ReconciliationRequest, mismatch::MismatchKind};
use serde_json::{Value, json};
use strum::VariantArray;

/// A shop with an order of two teapots.
struct Shop {
    world: World,
    ada: Caller,
    teapot: String,
    order: Value,
}

impl Shop {
    async fn with(world: World) -> Self {
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 100).await;
        let order = world.confirmed_order(&ada, &[(&teapot, 2)], "key-1").await;
        Self { world, ada, teapot, order }
    }

    async fn with_a_done_order() -> Self {
        let shop = Self::with(World::start().await).await;
        shop.world.settle().await;
        shop
    }

    /// The order was cancelled before or after its payment was captured.
    async fn with_a_cancelled_order(is_captured: bool) -> Self {
        let shop = Self::with(World::start().await).await;
        if is_captured {
            shop.world.settle().await;
        }
        shop.world.cancel(&shop.ada, &shop.order).await.expect(StatusCode::OK);
        shop.world.settle().await;
        shop
    }

    fn order_id(&self) -> &str {
        self.order["id"].as_str().unwrap()
    }

    fn uuid(&self) -> &str {
        &self.order_id()["ord_".len()..]
    }

    /// Changes an item of a table behind its service's back.
    fn change(&self, table: &str, pk: &str, change: impl FnOnce(&mut Value)) {
        let item = self.world.cloud.scan(table).into_iter().find(|item| item["pk"]["S"] == pk);
        let mut item = item.unwrap_or_else(|| panic!("{table} has no {pk}"));
        change(&mut item);
        self.world.cloud.put_item(table, item);
    }

    fn change_charge(&self, change: impl FnOnce(&mut Value)) {
        self.change("SandboxLedgerTable", &format!("CHARGE#pay_{}", self.uuid()), change);
    }

    fn change_reservation(&self, change: impl FnOnce(&mut Value)) {
        self.change("ProductsTable", &format!("RESERVATION#{}", self.order_id()), change);
    }

    /// Adds to the available and to the reserved stock.
    fn add_stock(&self, available: i64, reserved: i64) {
        self.change("ProductsTable", &format!("STOCK#{}#0", self.teapot), |shard| {
            for (name, units) in [("available", available), ("reserved", reserved)] {
                shard[name] = json!({ "N": (number(&shard[name]) + units).to_string() });
            }
        });
    }

    #[track_caller]
    fn expect(&self, found: &[(String, String)], kind: MismatchKind, subject: &str) {
        assert_eq!(found, [(kind.name().to_owned(), subject.to_owned())]);
    }
}

fn text(text: &str) -> Value {
    json!({ "S": text })
}

#[tokio::test]
async fn nothing_is_found_in_a_shop_that_works() {
    let shop = Shop::with_a_done_order().await;
    for payment in ["tok_declined", "tok_capture_refused", "tok_flaky", "tok_accepted"] {
        let order = shop.world.place(&shop.ada, order_request(&[(&shop.teapot, 1)], payment), payment).await;
        shop.world.settle().await;
        shop.world.cancel(&shop.ada, &order.json()).await;
        shop.world.settle().await;
    }
    let delivery = json!({ "adjustment_id": "delivery", "delta": 5, "reason": "Delivery" });
    let path = format!("/products/{}/stock-adjustments", shop.teapot);
    shop.world.post(&Caller::admin(), &path, delivery).await.expect(StatusCode::OK);
    shop.world.give_shards(&shop.teapot, 3).await.expect(StatusCode::OK);
    assert_eq!(shop.world.reconcile().await, []);
}

#[tokio::test]
async fn a_done_order_whose_charge_was_voided_is_found() {
    let shop = Shop::with_a_done_order().await;
    shop.change_charge(|charge| {
        charge["status"] = text("VOIDED");
        charge["captured_minor"] = json!({ "N": "0" });
    });
    shop.expect(&shop.world.reconcile().await, MismatchKind::DoneWithoutCharge, shop.order_id());
}

#[tokio::test]
async fn a_cancelled_order_whose_charge_was_not_refunded_is_found() {
    let shop = Shop::with_a_cancelled_order(true).await;
    shop.change_charge(|charge| {
        charge["status"] = text("CAPTURED");
        charge["refunded_minor"] = json!({ "N": "0" });
    });
    shop.expect(&shop.world.reconcile().await, MismatchKind::CancelledButCharged, shop.order_id());
}

#[tokio::test]
async fn a_cancelled_order_whose_hold_was_not_voided_is_found() {
    let shop = Shop::with_a_cancelled_order(false).await;
    shop.change_charge(|charge| charge["status"] = text("AUTHORISED"));
    shop.expect(&shop.world.reconcile().await, MismatchKind::HoldNeverEnded, shop.order_id());
}

#[tokio::test]
async fn a_charge_of_another_amount_or_currency_is_found() {
    let shop = Shop::with_a_done_order().await;
    shop.change_charge(|charge| {
        for name in ["amount_minor", "captured_minor"] {
            charge[name] = json!({ "N": "3999" });
        }
    });
    shop.expect(&shop.world.reconcile().await, MismatchKind::AmountsDiffer, shop.order_id());

    let shop = Shop::with_a_done_order().await;
    shop.change_charge(|charge| charge["currency"] = text("EUR"));
    shop.expect(&shop.world.reconcile().await, MismatchKind::AmountsDiffer, shop.order_id());
}

#[tokio::test]
async fn a_payment_in_another_state_than_its_charge_is_found() {
    let shop = Shop::with_a_done_order().await;
    let payment = format!("PAYMENT#pay_{}", shop.uuid());
    shop.change("PaymentsTable", &payment, |payment| payment["status"] = text("AUTHORISED"));
    shop.expect(&shop.world.reconcile().await, MismatchKind::PaymentAndProviderDisagree, shop.order_id());
}

#[tokio::test]
async fn a_charge_without_an_order_is_found() {
    let shop = Shop::with_a_done_order().await;
    let lost = uuid::Uuid::now_v7();
    shop.change_charge(|charge| charge["pk"] = text(&format!("CHARGE#pay_{lost}")));
    shop.expect(&shop.world.reconcile().await, MismatchKind::ChargeWithoutOrder, &format!("ord_{lost}"));
}

#[tokio::test]
async fn a_done_order_whose_reservation_was_released_is_found() {
    let shop = Shop::with_a_done_order().await;
    let release = format!("/reservations/{}/release", shop.order_id());
    shop.world.post(&Caller::function("orders"), &release, json!({})).await.expect(StatusCode::OK);
    shop.expect(&shop.world.reconcile().await, MismatchKind::DoneWithoutReservation, shop.order_id());
}

#[tokio::test]
async fn a_reservation_that_a_cancelled_order_still_holds_is_found() {
    let shop = Shop::with_a_cancelled_order(true).await;
    shop.change_reservation(|reservation| reservation["status"] = text("HELD"));
    shop.add_stock(-2, 2);
    shop.expect(&shop.world.reconcile().await, MismatchKind::HeldForCancelledOrder, shop.order_id());
}

#[tokio::test]
async fn a_reservation_of_another_quantity_than_the_order_is_found() {
    let shop = Shop::with_a_done_order().await;
    shop.change_reservation(|reservation| {
        reservation["quote"]["M"]["lines"]["L"][0]["M"]["quantity"] = json!({ "N": "3" })
    });
    shop.expect(&shop.world.reconcile().await, MismatchKind::ReservationLinesDiffer, shop.order_id());
}

#[tokio::test]
async fn stock_that_does_not_add_up_is_found() {
    let shop = Shop::with_a_done_order().await;
    shop.add_stock(1, 0);
    shop.expect(&shop.world.reconcile().await, MismatchKind::StockDoesNotAddUp, &shop.teapot);
}

#[tokio::test]
async fn reserved_stock_that_no_reservation_holds_is_found() {
    let shop = Shop::with_a_done_order().await;
    shop.add_stock(-1, 1);
    shop.expect(&shop.world.reconcile().await, MismatchKind::ReservedIsNotHeld, &shop.teapot);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_the_worker_should_have_finished_is_found() {
    let shop = Shop::with(World::start_in_test_time().await).await;
    assert_eq!(shop.world.reconcile().await, []);
    tokio::time::advance(Duration::from_secs(16 * 60)).await;
    shop.expect(&shop.world.reconcile().await, MismatchKind::OpenTooLong, shop.order_id());
}

#[tokio::test]
async fn orders_that_are_placed_and_cancelled_meanwhile_are_not_reported() {
    let shop = Shop::with_a_done_order().await;
    let work = async {
        for n in 0..30 {
            let key = format!("busy-{n}");
            let order = shop.world.confirmed_order(&shop.ada, &[(&shop.teapot, 1)], &key).await;
            shop.world.settle().await;
            if n % 2 == 0 {
                shop.world.cancel(&shop.ada, &order).await;
            }
        }
    };
    let reconcile = async {
        for _ in 0..10 {
            assert_eq!(shop.world.reconcile().await, []);
        }
    };
    tokio::join!(work, reconcile);
    shop.world.settle().await;
    assert_eq!(shop.world.reconcile().await, []);
}

/// The order's compensations are under way while reconciliation looks: it finds a released reservation and a voided charge
/// for an order that it has read as `DONE`.
#[tokio::test(start_paused = true)]
async fn an_order_that_is_cancelled_between_two_reads_is_not_reported() {
    let shop = Shop::with(World::start_in_test_time().await).await;
    shop.world.settle().await;
    shop.world.cloud.set_latency("products", Duration::from_millis(300));
    for delay in (0..3000).step_by(100) {
        let order = shop.world.confirmed_order(&shop.ada, &[(&shop.teapot, 1)], &format!("order-{delay}")).await;
        shop.world.settle().await;
        let (found, ()) = tokio::join!(shop.world.reconcile(), async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            shop.world.cancel(&shop.ada, &order).await;
        });
        assert_eq!(found, [], "{delay} ms");
    }
}

#[tokio::test]
async fn every_page_of_orders_products_and_charges_is_looked_at() {
    let shop = Shop::with_a_done_order().await;
    let mut teapots = vec![];
    for _ in 0..60 {
        teapots.push(shop.world.product("1.00", 5).await);
    }
    let last = teapots.last().unwrap();
    shop.change("ProductsTable", &format!("STOCK#{last}#0"), |shard| shard["available"] = json!({ "N": "4" }));
    // 120 orders in one shard of the index, without a charge and without a reservation; and 120 charges without an order.
    let mut expected = BTreeSet::from([("stock_does_not_add_up".to_owned(), last.clone())]);
    for _ in 0..120 {
        let (order, lost) = (format!("ord_{}", uuid::Uuid::now_v7()), uuid::Uuid::now_v7());
        shop.change("OrdersTable", &format!("ORDER#{}", shop.order_id()), |item| {
            item["pk"] = text(&format!("ORDER#{order}"));
        });
        shop.change_charge(|charge| charge["pk"] = text(&format!("CHARGE#pay_{lost}")));
        expected.insert(("done_without_charge".to_owned(), order.clone()));
        expected.insert(("done_without_reservation".to_owned(), order));
        expected.insert(("charge_without_order".to_owned(), format!("ord_{lost}")));
    }
    let found = shop.world.reconcile().await;
    assert_eq!(found.len(), expected.len());
    assert_eq!(BTreeSet::from_iter(found), expected);
}

#[tokio::test(start_paused = true)]
async fn a_walk_that_takes_several_invocations_finds_each_mismatch_once() {
    let shop = Shop::with(World::start_in_test_time().await).await;
    for n in 0..10 {
        shop.world.confirmed_order(&shop.ada, &[(&shop.teapot, 1)], &format!("more-{n}")).await;
    }
    shop.world.settle().await;
    shop.change_charge(|charge| charge["currency"] = text("EUR"));
    shop.add_stock(-1, 1);
    // Each page asks the products service, and an invocation has time for one page.
    shop.world.cloud.set_latency("products", Duration::from_millis(100));
    let (mut request, mut found, mut invocations) = (ReconciliationRequest::All, vec![], 0);
    loop {
        let report = shop.world.reconcile_within(request, Duration::from_millis(25_050)).await;
        found.extend(report.mismatches.into_iter().map(|mismatch| mismatch.kind));
        invocations += 1;
        let Some(next) = report.next else { break };
        // The tool sends back what it has received.
        let next = serde_json::to_string(&next).unwrap();
        request = ReconciliationRequest::Continue(serde_json::from_str(&next).unwrap());
    }
    assert_eq!(found, [MismatchKind::AmountsDiffer, MismatchKind::ReservedIsNotHeld]);
    assert!(invocations > 3, "{invocations}");
}

#[tokio::test(start_paused = true)]
async fn the_schedule_looks_at_an_order_when_it_should_have_ended_and_when_it_can_no_longer_be_cancelled() {
    let shop = Shop::with(World::start_in_test_time().await).await;
    shop.world.settle().await;
    shop.change_charge(|charge| charge["currency"] = text("EUR"));
    let after = async |minutes: u64| {
        tokio::time::advance(Duration::from_secs(minutes * 60)).await;
        let report = shop.world.reconcile_within(ReconciliationRequest::Recent, Duration::from_secs(60)).await;
        assert_eq!(report.next, None);
        report.mismatches.len()
    };
    assert_eq!(after(0).await, 0);
    assert_eq!(after(31).await, 1);
    assert_eq!(after(60).await, 0);
    assert_eq!(after(24 * 60).await, 1);
    assert_eq!(after(60).await, 0);
}

/// An hour's walk that was cut short continues in the next hour.
#[tokio::test(start_paused = true)]
async fn a_schedule_that_had_no_time_continues_with_the_same_orders() {
    let shop = Shop::with(World::start_in_test_time().await).await;
    shop.world.settle().await;
    shop.change_charge(|charge| charge["currency"] = text("EUR"));
    tokio::time::advance(Duration::from_secs(31 * 60)).await;
    shop.world.cloud.set_latency("products", Duration::from_millis(100));
    let mut found = vec![];
    for _ in 0..10 {
        let time = Duration::from_millis(25_050);
        found.extend(shop.world.reconcile_within(ReconciliationRequest::Recent, time).await.mismatches);
    }
    assert_eq!(found.len(), 1, "{found:?}");
}

#[tokio::test]
async fn only_orders_since_the_given_time_are_looked_at() {
    let shop = Shop::with_a_done_order().await;
    shop.change_charge(|charge| charge["currency"] = text("EUR"));
    let placed: jiff::Timestamp = shop.order["created_at"].as_str().unwrap().parse().unwrap();
    for (since, expected) in [(placed - Duration::from_secs(60), 1), (placed + Duration::from_secs(60), 0)] {
        let request = ReconciliationRequest::Since(since);
        let report = shop.world.reconcile_within(request, Duration::from_secs(60)).await;
        assert_eq!(report.mismatches.len(), expected, "{since}");
    }
}

#[test]
fn the_runbook_has_a_section_for_each_kind_of_mismatch() {
    let runbook = include_str!("../../../docs/runbook.md");
    for kind in MismatchKind::VARIANTS {
        assert!(runbook.contains(&format!("\n### {}\n", kind.name())), "{}", kind.name());
        assert!(kind.what_to_do().ends_with('.'));
    }
}
