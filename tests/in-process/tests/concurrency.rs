//! Many at once: no interleaving sells a piece twice or takes money for
//! nothing.
//!
//! Each test plays many seeds, each on one thread with a paused clock. A seed
//! shuffles how long every call takes, and with it the order in which calls
//! meet; the same seed is the same run.

use std::{cell::Cell, future::Future, time::Duration};

use chassis::clock::Clock;
use http::{Method, StatusCode};
use in_process_tests::{Answer, Caller, World, fault::FaultPlan, world};
use jiff::Timestamp;
use orders::{
    domain::{LEASE, Lease},
    repository::{DynamoRepository, Postponed, Repository},
};
use serde_json::{Value, json};

/// How many seeds each test plays.
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

async fn product(world: &World, stock: u32) -> String {
    let body = json!({ "name": "Teapot", "description": "Short and stout.", "price": 19.99, "stock": stock });
    let product = world.post(&Caller::admin(), "/products", body).await.expect(StatusCode::CREATED);
    product["id"].as_str().unwrap().to_owned()
}

async fn place(world: &World, person: &Caller, product: &str, quantity: u32, key: &str) -> Answer {
    let body = json!({ "items": [{ "product_id": product, "quantity": quantity }], "payment_method": "tok_accepted" });
    world.send_with(person, Method::POST, "/orders", Some(body), &[("idempotency-key", key)]).await
}

/// Lets everything come to an end, however long it takes.
async fn recover(world: &World) {
    for _ in 0..40 {
        world.deliver_stream().await;
        world.deliver_messages().await;
        let open = orders(world).iter().any(|order| order["check_shard"].is_object());
        if !open && world.cloud.queued_messages() == 0 {
            return;
        }
        tokio::time::advance(Duration::from_secs(65)).await;
        world.sweep().await;
    }
    panic!("something stays open");
}

fn orders(world: &World) -> Vec<Value> {
    world.cloud.scan("OrdersTable").into_iter().filter(|item| item["sk"]["S"] == "ORDER").collect()
}

fn count(world: &World, state: &str) -> u64 {
    orders(world).iter().filter(|order| order["state"]["S"] == state).count() as u64
}

/// Whether an order ever came to a state.
fn came_to(world: &World, state: &str) -> bool {
    let of = |order: &Value| order["history"]["L"].as_array().cloned().unwrap_or_default();
    orders(world).iter().flat_map(of).any(|entry| entry["M"]["status"]["S"] == state)
}

/// In how many seeds something happened.
#[derive(Default)]
struct Seeds(Cell<u64>);

impl Seeds {
    fn note(&self, happened: bool) {
        self.0.set(self.0.get() + u64::from(happened));
    }

    /// A race that always ends the same way is none.
    #[track_caller]
    fn expect_some_but_not_all(&self) {
        assert!((1..SEEDS).contains(&self.0.get()), "in {} of {SEEDS} seeds", self.0.get());
    }
}

fn number(attribute: &Value) -> i64 {
    attribute["N"].as_str().unwrap().parse().unwrap()
}

/// Money captured and kept at the provider, in minor units.
fn kept(world: &World) -> i64 {
    let charges = world.cloud.scan("SandboxLedgerTable");
    assert!(charges.iter().all(|charge| charge["status"]["S"] != "AUTHORISED"), "something stays authorised");
    charges.iter().map(|charge| number(&charge["captured_minor"]) - number(&charge["refunded_minor"])).sum()
}

/// Available and reserved, over all products.
fn stock(world: &World) -> (i64, i64) {
    let products = world.cloud.scan("ProductsTable").into_iter().filter(|item| item["sk"]["S"] == "PRODUCT");
    products.fold((0, 0), |(available, reserved), item| {
        assert!(number(&item["available"]) >= 0 && number(&item["reserved"]) >= 0, "{item}");
        (available + number(&item["available"]), reserved + number(&item["reserved"]))
    })
}

#[test]
fn many_customers_on_few_pieces_get_each_piece_once() {
    for_each_seed(|world| async move {
        let teapot = product(&world, 5).await;
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
        let done = count(&world, "DONE");
        assert_eq!(stock(&world), (5 - done as i64, done as i64));
        assert_eq!(kept(&world), done as i64 * 1999);
        // Whoever was told yes has it, and nobody went away while pieces lay there.
        assert!(done >= answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count() as u64);
        assert_eq!(done, 5);
    });
}

#[test]
fn one_key_from_many_clients_at_once_is_one_order() {
    for_each_seed(|world| async move {
        let teapot = product(&world, 5).await;
        let ada = world.customer("Ada").await;
        let tries = (0..6).map(|_| place(&world, &ada, &teapot, 1, "the-key"));
        let answers = futures::future::join_all(tries).await;
        recover(&world).await;
        assert_eq!(orders(&world).len(), 1);
        assert_eq!((stock(&world), kept(&world)), ((4, 1), 1999));
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
fn cancelling_against_confirming_leaves_all_or_nothing() {
    let confirmed = Seeds::default();
    for_each_seed(|world| async {
        let world = world;
        let teapot = product(&world, 5).await;
        let ada = world.customer("Ada").await;
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..250))).await;
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let placed = orders(&world);
                if let Some(order) = placed.first() {
                    let path = format!("/orders/{}/cancel", order["id"]["S"].as_str().unwrap());
                    break world.send(&ada, Method::POST, &path, None).await;
                }
            }
        };
        let (_, cancelled) = tokio::join!(place(&world, &ada, &teapot, 2, "k"), cancel);
        assert!(cancelled.status.is_success(), "{}", cancelled.text);
        recover(&world).await;
        assert_eq!(count(&world, "CANCELLED"), 1);
        assert_eq!((stock(&world), kept(&world)), ((5, 0), 0));
        confirmed.note(came_to(&world, "CONFIRMED"));
    });
    confirmed.expect_some_but_not_all();
}

#[test]
fn cancelling_against_capturing_leaves_all_or_nothing() {
    let captured = Seeds::default();
    for_each_seed(|world| async {
        let world = world;
        let teapot = product(&world, 5).await;
        let ada = world.customer("Ada").await;
        place(&world, &ada, &teapot, 2, "k").await;
        let placed = orders(&world);
        let path = format!("/orders/{}/cancel", placed[0]["id"]["S"].as_str().unwrap());
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..60))).await;
            world.send(&ada, Method::POST, &path, None).await
        };
        let (_, cancelled) = tokio::join!(world.deliver_stream(), cancel);
        assert!(cancelled.status.is_success(), "{}", cancelled.text);
        recover(&world).await;
        assert_eq!(count(&world, "CANCELLED"), 1);
        assert_eq!((stock(&world), kept(&world)), ((5, 0), 0));
        let charges = world.cloud.scan("SandboxLedgerTable");
        captured.note(charges.iter().any(|charge| number(&charge["captured_minor"]) > 0));
    });
    captured.expect_some_but_not_all();
}

/// Takes every open order over within so many milliseconds, as if whoever has
/// it had taken too long.
async fn another_worker(world: &World, within: u64) {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..within))).await;
    world.cloud.expire_leases();
    world.sweep().await;
}

/// A lease keeps workers from doing the same work, and nothing more: when it
/// has ended too early, what they do must still come out once.
#[test]
fn two_workers_on_one_order_finish_it_once() {
    let together = Seeds::default();
    for_each_seed(|world| async {
        let world = world;
        let teapot = product(&world, 5).await;
        let ada = world.customer("Ada").await;
        place(&world, &ada, &teapot, 2, "k").await.expect(StatusCode::CREATED);
        world.cloud.begin_trial(FaultPlan::none());
        tokio::join!(world.deliver_stream(), another_worker(&world, 120));
        let points = world.cloud.end_trial();
        let captures = points.iter().filter(|point| point.label == "order-worker → POST payments capture").count();
        together.note(captures > 1);
        recover(&world).await;
        assert_eq!(count(&world, "DONE"), 1);
        assert_eq!((stock(&world), kept(&world)), ((3, 2), 2 * 1999));
        assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (1, 1));
    });
    together.expect_some_but_not_all();
}

#[test]
fn two_workers_on_one_order_undo_it_once() {
    let together = Seeds::default();
    for_each_seed(|world| async {
        let world = world;
        let teapot = product(&world, 5).await;
        let ada = world.customer("Ada").await;
        place(&world, &ada, &teapot, 2, "k").await.expect(StatusCode::CREATED);
        world.deliver_stream().await;
        world.deliver_messages().await;
        let path = format!("/orders/{}/cancel", orders(&world)[0]["id"]["S"].as_str().unwrap());
        world.cloud.begin_trial(FaultPlan::none());
        let (cancelled, ()) = tokio::join!(world.send(&ada, Method::POST, &path, None), another_worker(&world, 160));
        assert!(cancelled.status.is_success(), "{}", cancelled.text);
        let points = world.cloud.end_trial();
        together.note(points.iter().any(|point| point.label == "order-worker → POST payments cancel"));
        recover(&world).await;
        assert_eq!(count(&world, "CANCELLED"), 1);
        assert_eq!((stock(&world), kept(&world)), ((5, 0), 0));
        // Confirmed, refunded, cancelled: each is told once by each channel.
        assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (3, 3));
    });
    together.expect_some_but_not_all();
}

#[test]
fn stock_adjustments_against_orders_keep_the_sum() {
    for_each_seed(|world| async move {
        let teapot = product(&world, 6).await;
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
        let (available, reserved) = stock(&world);
        assert_eq!(available + reserved, 6 + applied);
        assert_eq!(reserved, count(&world, "DONE") as i64);
    });
}

/// The queue may deliver a message more than once, also at the same time.
#[test]
fn an_event_that_is_delivered_twice_at_once_is_told_once() {
    for_each_seed(|world| async move {
        let teapot = product(&world, 5).await;
        let ada = world.customer("Ada").await;
        place(&world, &ada, &teapot, 2, "k").await.expect(StatusCode::CREATED);
        world.deliver_stream().await;
        let messages = world.cloud.take_messages();
        for message in messages.iter().chain(&messages) {
            world.cloud.put_message(message);
        }
        recover(&world).await;
        // Of the two events, PaymentCaptured needs no message.
        assert_eq!((messages.len(), world.cloud.mails().len(), world.cloud.texts().len()), (2, 1, 1));
        assert!(world.cloud.dead_letters().is_empty());
    });
}

/// Another order of the same product keeps what it has.
#[test]
fn a_reservation_that_is_released_twice_at_once_comes_back_once() {
    for_each_seed(|world| async move {
        let teapot = product(&world, 9).await;
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
        assert_eq!(stock(&world), (6, 3));
    });
}

/// Whoever took an order over has it: who had it before, and only now learns
/// that it could take it no further, gives nothing up.
#[tokio::test]
async fn a_worker_that_was_overtaken_does_not_give_up_the_lease_of_the_next() {
    let world = World::start().await;
    let teapot = product(&world, 5).await;
    let ada = world.customer("Ada").await;
    place(&world, &ada, &teapot, 1, "k").await.expect(StatusCode::CREATED);
    let id = orders(&world)[0]["id"]["S"].as_str().unwrap().parse().unwrap();
    let table = world::table(world.cloud.clone(), "OrdersTable").await;
    let repository = DynamoRepository::new(table);
    let now = Timestamp::now();
    let later = now + LEASE;
    let slow = repository.acquire(id, Lease::start(now), now).await.unwrap().expect("nobody has it");
    let next = repository.acquire(id, Lease::start(later), later).await.unwrap().expect("the lease has ended");
    let held = orders(&world);
    for until in [
        Postponed::AtOnce { now: later },
        Postponed::Busy { next_check: later },
        Postponed::Failed { next_check: later },
    ] {
        repository.postpone(&slow, until).await.unwrap();
        assert_eq!(orders(&world), held, "{until:?}");
    }
    repository.postpone(&next, Postponed::Failed { next_check: later }).await.unwrap();
    assert!(orders(&world)[0]["lease"].is_null());
}
