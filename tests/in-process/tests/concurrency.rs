//! Tests of concurrent requests. No stock is sold twice, and no money is kept
//! for a cancelled order, in whatever order the calls of the requests arrive.
//!
//! Most tests run once for each seed, on one thread with a paused clock. The
//! seed determines the latency of every call, and so the order in which
//! concurrent calls arrive. Two runs with the same seed are identical.

use std::{cell::Cell, future::Future, time::Duration};

use chassis::{clock::Clock, time_limits::ORDER_LEASE};
use http::{Method, StatusCode};
use in_process_tests::{
    Answer, Caller, World,
    fault::FaultPlan,
    shop::{number, order_id, order_request},
    world,
};
use jiff::Timestamp;
use orders::{
    domain::Lease,
    repository::{DueOrder, FoundBy, Postponed, Repository, dynamo::DynamoRepository},
};
use serde_json::{Value, json};

/// The number of seeds with which a test runs.
const SEEDS: u64 = 30;

fn for_each_seed<F: Future<Output = ()>>(test: impl Fn(World) -> F) {
    for seed in 0..SEEDS {
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        println!("seed {seed}");
        runtime.block_on(async {
            let clock = Clock::tokio(Timestamp::from_second(1_800_000_000).unwrap());
            let world = World::start_at(clock).await;
            world.cloud.randomise_latency(seed);
            test(world).await;
        });
    }
}

async fn place(world: &World, caller: &Caller, product: &str, quantity: u32, key: &str) -> Answer {
    world.place(caller, order_request(&[(product, quantity)], "tok_accepted"), key).await
}

/// Places an order for two units of a product with a stock of five. Returns the
/// customer and the confirmed order.
async fn confirmed_order(world: &World) -> (Caller, Value) {
    let teapot = world.product("19.99", 5).await;
    let ada = world.customer("Ada").await;
    let order = world.confirmed_order(&ada, &[(&teapot, 2)], "k").await;
    (ada, order)
}

/// Asserts that `answer`, the response to the request to cancel the only order,
/// reports success, and that after recovery no stock is reserved and no money
/// is kept.
async fn expect_cancelled(world: &World, answer: &Answer) {
    assert!(answer.status.is_success(), "{}", answer.text);
    recover(world).await;
    assert_eq!(world.orders_in_state("CANCELLED"), 1);
    assert_eq!((world.stock_sums(), world.kept_money()), ((5, 0), 0));
}

/// Lets time pass until no order is open and no message is queued.
async fn recover(world: &World) {
    for _ in 0..40 {
        world.deliver_stream().await;
        world.deliver_messages().await;
        let open = world.stored_orders().iter().any(|order| order["check_shard"].is_object());
        if !open && world.cloud.queued_messages() == 0 {
            return;
        }
        tokio::time::advance(Duration::from_secs(65)).await;
        world.sweep().await;
    }
    panic!("an order stays open, or a message stays queued");
}

/// Returns whether an order was ever in `state`.
fn was_ever(world: &World, state: &str) -> bool {
    let of = |order: &Value| order["history"]["L"].as_array().cloned().unwrap_or_default();
    world.stored_orders().iter().flat_map(of).any(|entry| entry["M"]["status"]["S"] == state)
}

/// A race has two possible outcomes. This type counts the seeds with which one
/// of the two outcomes occurred.
#[derive(Default)]
struct RaceCount(Cell<u64>);

impl RaceCount {
    fn note(&self, happened: bool) {
        self.0.set(self.0.get() + u64::from(happened));
    }

    /// Asserts that each of the two outcomes occurred with at least one seed.
    #[track_caller]
    fn expect_some_but_not_all(&self) {
        assert!((1..SEEDS).contains(&self.0.get()), "the outcome occurred with {} of {SEEDS} seeds", self.0.get());
    }
}

#[test]
fn concurrent_orders_for_scarce_stock_sell_each_unit_once() {
    for_each_seed(|world| async move {
        let teapot = world.product("19.99", 5).await;
        let mut customers = Vec::new();
        for n in 0..12 {
            customers.push(world.customer(&format!("Customer {n}")).await);
        }
        let orders = customers.iter().map(|person| place(&world, person, &teapot, 1, "k"));
        let answers = futures::future::join_all(orders).await;
        for answer in &answers {
            assert!([201, 202, 409].contains(&answer.status.as_u16()), "{} {}", answer.status, answer.text);
        }
        recover(&world).await;
        let done = world.orders_in_state("DONE");
        assert_eq!(world.stock_sums(), (5 - done, done));
        assert_eq!(world.kept_money(), done * 1999);
        // Every confirmed order is finished, and no order was refused while stock
        // was left.
        assert!(done >= answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count() as i64);
        assert_eq!(done, 5);
    });
}

#[test]
fn a_product_that_gets_shards_while_it_sells_out_sells_each_unit_once() {
    for_each_seed(|world| async move {
        let (teapot, other) = (world.product("19.99", 5).await, world.product("19.99", 5).await);
        let mut customers = Vec::new();
        for n in 0..12 {
            customers.push(world.customer(&format!("Customer {n}")).await);
        }
        let orders = customers.iter().map(|person| place(&world, person, &teapot, 1, "k"));
        let growth = async {
            for shards in [2, 5] {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..60))).await;
                world.give_shards(&teapot, shards).await.expect(StatusCode::OK);
            }
        };
        let (answers, ()) = tokio::join!(futures::future::join_all(orders), growth);
        for answer in &answers {
            assert!([201, 202, 409].contains(&answer.status.as_u16()), "{} {}", answer.status, answer.text);
        }
        recover(&world).await;
        // Every unit is sold, and no order was refused while stock was left.
        assert_eq!(world.orders_in_state("DONE"), 5);
        assert_eq!(world.kept_money(), 5 * 1999);
        let shards = world.shards(&teapot);
        assert_eq!(shards.len(), 5);
        assert_eq!((shards.iter().map(|s| s.0).sum::<i64>(), shards.iter().map(|s| s.1).sum::<i64>()), (0, 5));
        assert_eq!(world.shards(&other), [(5, 0)]);
    });
}

/// A reservation that is written after the response to a change of the price has the new price.
#[test]
fn no_unit_of_any_shard_is_reserved_at_the_old_price_after_a_price_change_was_acknowledged() {
    let raced = RaceCount::default();
    for_each_seed(|world| async {
        let world = world;
        let teapot = world.product("19.99", 12).await;
        world.give_shards(&teapot, 3).await.expect(StatusCode::OK);
        let mut customers = Vec::new();
        for n in 0..10 {
            customers.push(world.customer(&format!("Customer {n}")).await);
        }
        let orders = customers.iter().map(|person| async {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..120))).await;
            place(&world, person, &teapot, 1, "k").await
        });
        let reservations = || {
            let items = world.cloud.scan("ProductsTable").into_iter().filter(|item| item["status"]["S"] == "HELD");
            let price = |item: &Value| number(&item["quote"]["M"]["total"]["M"]["minor"]);
            items.map(|item| (item["order_id"]["S"].to_string(), price(&item))).collect::<Vec<_>>()
        };
        let change = async {
            tokio::time::sleep(Duration::from_millis(60)).await;
            let path = format!("/products/{teapot}");
            let body = Some(json!({ "price": 25 }));
            let header = [("if-match", "*")];
            world.send_with(&Caller::admin(), Method::PATCH, &path, body, &header).await.expect(StatusCode::OK);
            reservations()
        };
        let (_, before) = tokio::join!(futures::future::join_all(orders), change);
        recover(&world).await;
        let after: Vec<_> = reservations().into_iter().filter(|one| !before.contains(one)).collect();
        assert!(after.iter().all(|(_, price)| *price == 2500), "{after:?}");
        raced.note(before.iter().any(|(_, price)| *price == 1999) && !after.is_empty());
        let (available, reserved) = world.stock_sums();
        assert_eq!((available, reserved), (2, 10));
        assert_eq!(world.kept_money(), reservations().iter().map(|(_, price)| price).sum::<i64>());
    });
    assert!(raced.0.get() > 0, "the price never changed between two orders");
}

#[test]
fn concurrent_requests_with_one_idempotency_key_are_one_order() {
    for_each_seed(|world| async move {
        let teapot = world.product("19.99", 5).await;
        let ada = world.customer("Ada").await;
        let tries = (0..6).map(|_| place(&world, &ada, &teapot, 1, "the-key"));
        let answers = futures::future::join_all(tries).await;
        recover(&world).await;
        assert_eq!(world.stored_orders().len(), 1);
        assert_eq!((world.stock_sums(), world.kept_money()), ((4, 1), 1999));
        let last = place(&world, &ada, &teapot, 1, "the-key").await;
        for answer in answers {
            match answer.status.as_u16() {
                201 => assert_eq!(answer.text, last.text),
                202 => {}
                _ => drop(answer.expect_problem(409, "idempotency_in_flight")),
            }
        }
    });
}

#[test]
fn an_order_that_is_cancelled_while_it_is_being_confirmed_keeps_no_stock_and_no_money() {
    let confirmed = RaceCount::default();
    for_each_seed(|world| async {
        let world = world;
        let teapot = world.product("19.99", 5).await;
        let ada = world.customer("Ada").await;
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..250))).await;
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let placed = world.stored_orders();
                if let Some(order) = placed.first() {
                    break world.cancel(&ada, &json!({ "id": order_id(order) })).await;
                }
            }
        };
        let (_, cancelled) = tokio::join!(place(&world, &ada, &teapot, 2, "k"), cancel);
        expect_cancelled(&world, &cancelled).await;
        confirmed.note(was_ever(&world, "CONFIRMED"));
    });
    confirmed.expect_some_but_not_all();
}

#[test]
fn an_order_that_is_cancelled_while_it_is_being_captured_keeps_no_stock_and_no_money() {
    let captured = RaceCount::default();
    for_each_seed(|world| async {
        let world = world;
        let (ada, order) = confirmed_order(&world).await;
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..60))).await;
            world.cancel(&ada, &order).await
        };
        let (_, cancelled) = tokio::join!(world.deliver_stream(), cancel);
        expect_cancelled(&world, &cancelled).await;
        let charges = world.cloud.scan("SandboxLedgerTable");
        captured.note(charges.iter().any(|charge| number(&charge["captured_minor"]) > 0));
    });
    captured.expect_some_but_not_all();
}

/// Expires all leases after a random time below `within` milliseconds, and runs
/// a sweep, which takes over every open order.
async fn another_worker(world: &World, within: u64) {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..within))).await;
    world.cloud.expire_leases();
    world.sweep().await;
}

/// A lease only prevents double work. If a lease ends too early and two workers
/// process one order, every effect must still happen once.
#[test]
fn an_order_that_two_workers_finish_at_once_is_captured_and_announced_once() {
    let raced = RaceCount::default();
    for_each_seed(|world| async {
        let world = world;
        confirmed_order(&world).await;
        world.cloud.begin_trial(FaultPlan::none());
        tokio::join!(world.deliver_stream(), another_worker(&world, 120));
        let points = world.cloud.end_trial();
        let captures = points.iter().filter(|point| point.label == "order-worker → POST payments capture").count();
        raced.note(captures > 1);
        recover(&world).await;
        assert_eq!(world.orders_in_state("DONE"), 1);
        assert_eq!((world.stock_sums(), world.kept_money()), ((3, 2), 2 * 1999));
        assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (1, 1));
    });
    raced.expect_some_but_not_all();
}

#[test]
fn an_order_that_two_workers_compensate_at_once_is_refunded_and_announced_once() {
    let raced = RaceCount::default();
    for_each_seed(|world| async {
        let world = world;
        let (ada, order) = confirmed_order(&world).await;
        world.deliver_stream().await;
        world.deliver_messages().await;
        world.cloud.begin_trial(FaultPlan::none());
        let (cancelled, ()) = tokio::join!(world.cancel(&ada, &order), another_worker(&world, 160));
        let points = world.cloud.end_trial();
        raced.note(points.iter().any(|point| point.label == "order-worker → POST payments cancel"));
        expect_cancelled(&world, &cancelled).await;
        // By each channel, the customer is notified once of the confirmation,
        // once of the refund, and once of the cancellation.
        assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (3, 3));
    });
    raced.expect_some_but_not_all();
}

#[test]
fn concurrent_stock_adjustments_and_orders_keep_the_sum_of_the_stock() {
    for_each_seed(|world| async move {
        let teapot = world.product("19.99", 6).await;
        let ada = world.customer("Ada").await;
        let admin = Caller::admin();
        let path = format!("/products/{teapot}/stock-adjustments");
        let adjustments = (0..6i64).map(|n| {
            let delta = if n % 2 == 0 { 2 } else { -1 };
            let body = json!({ "adjustment_id": format!("a{n}"), "delta": delta, "reason": "Count" });
            let (world, admin, path) = (&world, &admin, &path);
            async move { (delta, world.post(admin, path, body).await.status) }
        });
        let keys: Vec<_> = (0..6).map(|n| format!("k{n}")).collect();
        let placed = keys.iter().map(|key| place(&world, &ada, &teapot, 1, key));
        let (adjusted, _) = tokio::join!(futures::future::join_all(adjustments), futures::future::join_all(placed));
        recover(&world).await;
        let applied: i64 = adjusted.iter().filter(|(_, status)| status.is_success()).map(|(delta, _)| delta).sum();
        let (available, reserved) = world.stock_sums();
        assert_eq!(available + reserved, 6 + applied);
        assert_eq!(reserved, world.orders_in_state("DONE"));
    });
}

/// The queue may deliver one message twice, even at the same time.
#[test]
fn an_event_that_is_delivered_twice_at_once_is_notified_once() {
    for_each_seed(|world| async move {
        confirmed_order(&world).await;
        world.deliver_stream().await;
        let messages = world.cloud.take_messages();
        for message in messages.iter().chain(&messages) {
            world.cloud.put_message(message);
        }
        recover(&world).await;
        // There are two events, OrderCreated and PaymentCaptured. The customer
        // is notified only of OrderCreated.
        assert_eq!((messages.len(), world.cloud.mails().len(), world.cloud.texts().len()), (2, 1, 1));
        assert!(world.cloud.dead_letters().is_empty());
    });
}

/// Another order has reserved the same product. Its reservation must be kept.
#[test]
fn a_reservation_that_is_released_three_times_at_once_returns_its_stock_once() {
    for_each_seed(|world| async move {
        let teapot = world.product("19.99", 9).await;
        let [kept, released] = [(); 2].map(|()| format!("ord_{}", uuid::Uuid::now_v7()));
        for order in [&kept, &released] {
            let body = json!({ "order_id": order, "product_id": teapot, "quantity": 3 });
            world.post(&Caller::service(), "/products/reserve", body).await.expect(StatusCode::OK);
        }
        let path = format!("/reservations/{released}/release");
        let service = Caller::service();
        let release = || world.post(&service, &path, json!({}));
        let (one, other, third) = tokio::join!(release(), release(), release());
        for answer in [one, other, third] {
            answer.expect(StatusCode::OK);
        }
        assert_eq!(world.stock_sums(), (6, 3));
    });
}

/// A worker that postpones an order releases only its own lease, not the lease
/// of a worker that has taken over the order.
#[tokio::test]
async fn a_worker_whose_lease_was_taken_over_does_not_release_the_new_lease() {
    let world = World::start().await;
    let teapot = world.product("19.99", 5).await;
    let ada = world.customer("Ada").await;
    world.confirmed_order(&ada, &[(&teapot, 1)], "k").await;
    let id = order_id(&world.stored_order()).parse().unwrap();
    let table = world::table(world.cloud.clone(), "OrdersTable").await;
    let repository = DynamoRepository::new(table);
    // The lease of the worker that the confirmation wakes has ended.
    let now = Timestamp::now() + ORDER_LEASE;
    let later = now + ORDER_LEASE;
    let due = DueOrder { id, since: now, found: FoundBy::Sweep };
    let slow = repository.acquire(due, Lease::start(now), now).await.unwrap().expect("the order is not leased");
    let next = repository.acquire(due, Lease::start(later), later).await.unwrap().expect("the lease has expired");
    let held = world.stored_orders();
    for until in [
        Postponed::AtOnce { now: later },
        Postponed::Contended { next_check: later },
        Postponed::Failed { next_check: later },
    ] {
        repository.postpone(&slow, until).await.unwrap();
        assert_eq!(world.stored_orders(), held, "{until:?}");
    }
    repository.postpone(&next, Postponed::Failed { next_check: later }).await.unwrap();
    assert!(world.stored_orders()[0]["lease"].is_null());
}
