//! A service that is dead, slow or flapping: callers wait a bounded time,
//! nothing is decided wrongly, and all comes right by itself when it is back.
//!
//! Time is Tokio's, and stands still while anybody works: a second here is
//! what a caller would wait on account of timeouts, on any machine.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::body::Body;
use chassis::clock::Clock;
use http::{Method, Request, StatusCode};
use in_process_tests::{
    Answer, Caller, World,
    cloud::HostFault,
    fault::{FaultKind, FaultPlan, FaultPoint},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

/// The services that an order needs, and how long one order may wait for each
/// when it doesn't answer: two attempts and the pause between.
const NEEDED: [(&str, Duration); 3] = [
    ("users", Duration::from_millis(4_250)),
    ("products", Duration::from_millis(4_250)),
    ("payments", Duration::from_millis(10_250)),
];
/// What an order costs.
const PRICE: i64 = 1999;
/// How many pieces there are.
const STOCK: i64 = 100;

struct Shop {
    world: World,
    ada: Caller,
    teapot: String,
    began: Instant,
}

/// An answer, and how long its caller waited.
struct Heard {
    answer: Answer,
    after: Duration,
}

impl Shop {
    async fn open() -> Self {
        fastrand::seed(7);
        let began = Instant::now();
        let world = World::start_at(Clock::tokio(Timestamp::from_second(1_800_000_000).unwrap())).await;
        let ada = world.customer("Ada").await;
        let body = json!({ "name": "Teapot", "description": "Short and stout.", "price": 19.99, "stock": STOCK });
        let teapot = world.post(&Caller::admin(), "/products", body).await.expect(StatusCode::CREATED);
        Self { world, ada, teapot: teapot["id"].as_str().unwrap().to_owned(), began }
    }

    fn body(&self) -> Value {
        json!({ "items": [{ "product_id": self.teapot, "quantity": 1 }], "payment_method": "tok_accepted" })
    }

    async fn place(&self, key: &str) -> Heard {
        let began = Instant::now();
        let headers = [("idempotency-key", key)];
        let answer = self.world.send_with(&self.ada, Method::POST, "/orders", Some(self.body()), &headers).await;
        Heard { answer, after: began.elapsed() }
    }

    /// Places orders one after another.
    async fn place_many(&self, count: usize) -> Vec<Heard> {
        let mut heard = Vec::new();
        for n in 0..count {
            heard.push(self.place(&format!("key-{n}")).await);
        }
        heard
    }

    fn orders(&self) -> Vec<Value> {
        self.world.cloud.scan("OrdersTable").into_iter().filter(|item| item["sk"]["S"] == "ORDER").collect()
    }

    fn states(&self) -> BTreeSet<String> {
        self.orders().iter().map(|order| order["state"]["S"].as_str().unwrap().to_owned()).collect()
    }

    fn in_state(&self, state: &str) -> i64 {
        self.orders().iter().filter(|order| order["state"]["S"] == state).count() as i64
    }

    /// What the stream does at once, and the schedule each minute, for so many
    /// minutes.
    async fn minutes(&self, count: usize) {
        self.world.deliver_stream().await;
        for _ in 0..count {
            tokio::time::advance(Duration::from_secs(60)).await;
            self.world.sweep().await;
            self.world.deliver_stream().await;
            self.world.deliver_messages().await;
        }
    }

    /// What is reserved and what was taken is what finished orders have.
    #[track_caller]
    fn expect_sums(&self) {
        let done = self.in_state("DONE");
        let product = self.world.cloud.scan("ProductsTable").into_iter().find(|item| item["sk"]["S"] == "PRODUCT");
        let product = product.unwrap();
        assert_eq!((number(&product["available"]), number(&product["reserved"])), (STOCK - done, done));
        let charges = self.world.cloud.scan("SandboxLedgerTable");
        assert!(charges.iter().all(|charge| charge["status"]["S"] != "AUTHORISED"), "{charges:?}");
        let kept = charges.iter().map(|charge| number(&charge["captured_minor"]) - number(&charge["refunded_minor"]));
        assert_eq!(kept.sum::<i64>(), done * PRICE);
    }
}

fn number(attribute: &Value) -> i64 {
    attribute["N"].as_str().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// How many calls reached `service`, or its door.
fn calls_to(service: &str, points: &[FaultPoint]) -> usize {
    points.iter().filter(|point| point.label.contains(&format!(" {service} "))).count()
}

mod a_dead_service {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn delays_the_first_callers_by_its_timeouts_and_the_rest_not_at_all() {
        for (service, patience) in NEEDED {
            let shop = Shop::open().await;
            shop.world.cloud.inject_fault(&format!("{service}.internal"), HostFault::Silent);
            shop.world.cloud.begin_trial(FaultPlan::none());
            let heard = shop.place_many(20).await;
            let reached = calls_to(service, &shop.world.cloud.end_trial());

            for (n, heard) in heard.iter().enumerate() {
                heard.answer.expect(StatusCode::ACCEPTED);
                assert!(heard.after <= patience, "{service}, order {n}: {:?}", heard.after);
            }
            // Five failures in a row, and it is left alone: whoever asks now
            // knows at once.
            assert_eq!(reached, 5, "{service}");
            let waited: Vec<_> = heard.iter().filter(|heard| heard.after > Duration::from_secs(1)).collect();
            assert_eq!(waited.len(), 3, "{service}");
        }
    }

    /// HTTP/2 has all calls in one connection, which may be what is dead.
    #[tokio::test(start_paused = true)]
    async fn is_asked_again_on_another_connection() {
        for (service, _) in NEEDED {
            let shop = Shop::open().await;
            shop.place("answered").await.answer.expect(StatusCode::CREATED);
            assert!(shop.world.cloud.abandoned_connections().is_empty());
            let host = format!("{service}.internal");
            shop.world.cloud.inject_fault(&host, HostFault::Silent);
            shop.place("unanswered").await.answer.expect(StatusCode::ACCEPTED);
            assert_eq!(shop.world.cloud.abandoned_connections(), [host.clone(), host]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn decides_nothing_and_its_orders_are_finished_when_it_is_back() {
        for (service, _) in NEEDED {
            let shop = Shop::open().await;
            shop.world.cloud.inject_fault(&format!("{service}.internal"), HostFault::Silent);
            shop.place_many(10).await;
            assert_eq!(shop.states(), BTreeSet::from(["PENDING".into()]), "{service}");
            assert!(shop.world.cloud.scan("SandboxLedgerTable").is_empty());

            shop.world.cloud.bring_back();
            shop.minutes(2).await;
            assert_eq!(shop.in_state("DONE"), 10, "{service}: {:?}", shop.states());
            shop.expect_sums();
            // Who asks again hears what would have been the answer.
            assert_eq!(shop.place("key-3").await.answer.expect(StatusCode::CREATED)["status"], "CONFIRMED");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn that_stays_dead_costs_an_order_its_two_minutes_and_leaves_nothing_behind() {
        for (service, _) in NEEDED {
            let shop = Shop::open().await;
            shop.world.cloud.inject_fault(&format!("{service}.internal"), HostFault::Silent);
            shop.place_many(3).await;
            shop.minutes(5).await;
            // Given up as orders; but what must be undone there waits for it,
            // and so does the word to a customer who isn't known yet.
            assert_eq!(shop.states(), BTreeSet::from(["CANCELLING".into()]), "{service}");
            shop.world.cloud.bring_back();
            shop.minutes(10).await;
            assert_eq!(shop.states(), BTreeSet::from(["CANCELLED".into()]), "{service}");
            shop.expect_sums();
            // All three were told "not decided yet", and are told how it ended.
            let mails = shop.world.cloud.mails();
            let told = mails.iter().filter(|mail| mail.to_string().contains("could not be placed"));
            assert_eq!(told.count(), 3, "{service}");
        }
    }
}

mod a_dead_queue {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn holds_up_no_customer_and_loses_no_event() {
        let shop = Shop::open().await;
        shop.world.cloud.inject_fault("sqs", HostFault::Silent);
        for heard in shop.place_many(4).await {
            heard.answer.expect(StatusCode::CREATED);
            assert!(heard.after < Duration::from_secs(1), "{:?}", heard.after);
        }
        shop.minutes(3).await;
        // The money may be taken; but an order isn't done before it is told.
        assert_eq!(shop.states(), BTreeSet::from(["CONFIRMED".into()]));
        assert!(shop.world.cloud.mails().is_empty());
        shop.world.cloud.bring_back();
        shop.minutes(10).await;
        assert_eq!(shop.in_state("DONE"), 4);
        shop.expect_sums();
        assert_eq!(shop.world.cloud.mails().len(), 4);
    }
}

mod a_dead_database {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_said_to_the_customer_whose_repeat_is_the_first_order() {
        let shop = Shop::open().await;
        for trouble in [HostFault::Down, HostFault::Silent] {
            shop.world.cloud.inject_fault("dynamodb", trouble);
            let heard = shop.place("the-key").await;
            heard.answer.expect_problem(503, "unavailable");
            assert_eq!(heard.answer.header("retry-after"), Some("2"));
            // Perhaps it is recorded: nobody is asked to order it again.
            let product = json!({ "name": "Cup", "description": "Small.", "price": 5, "stock": 1 });
            for (person, path, body) in [(&shop.ada, "/orders", shop.body()), (&Caller::admin(), "/products", product)]
            {
                let keyless = shop.world.post(person, path, body).await;
                keyless.expect_problem(503, "unavailable");
                assert_eq!(keyless.header("retry-after"), None, "{path}");
            }
            shop.world.cloud.bring_back();
            assert!(shop.orders().is_empty());
        }
        shop.place("the-key").await.answer.expect(StatusCode::CREATED);
        shop.minutes(1).await;
        assert_eq!(shop.in_state("DONE"), 1);
        shop.expect_sums();
    }
}

/// Every call that leaves the orders function takes a second here, and those
/// that the others make take none: so the seconds count what it waits for one
/// after another.
mod phases {
    use super::*;

    const CALL: Duration = Duration::from_secs(1);

    async fn placed(lines: usize, token: &str) -> Heard {
        let shop = Shop::open().await;
        let mut items = vec![json!({ "product_id": shop.teapot, "quantity": 1 })];
        for n in 1..lines {
            let body = json!({ "name": format!("Cup {n}"), "description": "For tea.", "price": 1, "stock": STOCK });
            let cup = shop.world.post(&Caller::admin(), "/products", body).await.expect(StatusCode::CREATED);
            items.push(json!({ "product_id": cup["id"], "quantity": 1 }));
        }
        shop.world.cloud.set_latency("orders", CALL);
        let body = json!({ "items": items, "payment_method": token });
        let began = Instant::now();
        let headers = [("idempotency-key", "the-key")];
        let answer = shop.world.send_with(&shop.ada, Method::POST, "/orders", Some(body), &headers).await;
        Heard { answer, after: began.elapsed() }
    }

    #[tokio::test(start_paused = true)]
    async fn are_four_until_an_order_is_confirmed_however_many_lines_it_has() {
        for lines in [1, 3, 50] {
            let heard = placed(lines, "tok_accepted").await;
            heard.answer.expect(StatusCode::CREATED);
            assert_eq!(heard.after.as_secs(), 4, "{lines} lines");
        }
    }

    /// Decided in four; then it is undone, told and closed, so that what it
    /// held is free when the customer reads the answer.
    #[tokio::test(start_paused = true)]
    async fn are_three_more_where_a_refused_order_is_undone_before_the_answer() {
        for lines in [1, 50] {
            let heard = placed(lines, "tok_declined").await;
            heard.answer.expect_problem(402, "payment_declined");
            assert_eq!(heard.after.as_secs(), 7, "{lines} lines");
        }
    }
}

mod a_slow_service {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn that_still_answers_in_time_only_takes_longer() {
        for (service, _) in NEEDED {
            let shop = Shop::open().await;
            shop.world
                .cloud
                .inject_fault(&format!("{service}.internal"), HostFault::Slow(Duration::from_millis(1_500)));
            for heard in shop.place_many(8).await {
                heard.answer.expect(StatusCode::CREATED);
                assert!(heard.after < Duration::from_millis(1_600), "{service}: {:?}", heard.after);
            }
            shop.minutes(1).await;
            assert_eq!(shop.in_state("DONE"), 8, "{service}");
            shop.expect_sums();
        }
    }

    /// What was asked for happens when its caller is gone, each time.
    #[tokio::test(start_paused = true)]
    async fn that_answers_too_late_decides_nothing_and_charges_once_all_the_same() {
        for (service, patience) in NEEDED {
            let shop = Shop::open().await;
            shop.world.cloud.inject_fault(&format!("{service}.internal"), HostFault::Slow(Duration::from_secs(6)));
            for heard in shop.place_many(8).await {
                heard.answer.expect(StatusCode::ACCEPTED);
                assert!(heard.after <= patience, "{service}: {:?}", heard.after);
            }
            shop.world.cloud.bring_back();
            shop.minutes(2).await;
            assert_eq!(shop.in_state("DONE"), 8, "{service}: {:?}", shop.states());
            shop.expect_sums();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn that_stays_too_slow_leaves_nothing_behind_either() {
        for (service, _) in NEEDED {
            let shop = Shop::open().await;
            shop.world.cloud.inject_fault(&format!("{service}.internal"), HostFault::Slow(Duration::from_secs(6)));
            shop.place_many(4).await;
            shop.minutes(5).await;
            shop.world.cloud.bring_back();
            shop.minutes(10).await;
            assert_eq!(shop.states(), BTreeSet::from(["CANCELLED".into()]), "{service}");
            shop.expect_sums();
        }
    }
}

mod a_flapping_service {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn loses_no_order_and_charges_none_twice() {
        for seed in 0..10 {
            for (service, patience) in NEEDED {
                let shop = Shop::open().await;
                let flapping = HostFault::Flapping(fastrand::Rng::with_seed(seed));
                shop.world.cloud.inject_fault(&format!("{service}.internal"), flapping);
                for heard in shop.place_many(12).await {
                    assert!([201, 202].contains(&heard.answer.status.as_u16()), "{}", heard.answer.text);
                    assert!(heard.after <= patience, "{service}: {:?}", heard.after);
                }
                // It goes on flapping, and all orders get through.
                shop.minutes(10).await;
                assert_eq!(shop.in_state("DONE"), 12, "seed {seed}, {service}: {:?}", shop.states());
                shop.expect_sums();
            }
        }
    }
}

/// Others are faster, each time: nothing has failed, so nothing is counted as a
/// failure, and nobody else has to wait.
mod a_busy_service {
    use super::*;

    /// Others use an item of a table for a while.
    type Rush = fn(&World, &str, Duration);
    /// They write it all the time, or use up what its partition takes.
    const RUSHES: [Rush; 2] =
        [|world, key, time| world.cloud.contend(key, time), |world, key, time| world.cloud.throttle(key, time)];

    /// For how long an order asks again, and what its last try may take.
    const PATIENCE: Duration = Duration::from_secs(12);

    fn key(product: &str) -> String {
        format!("PRODUCT#{product}")
    }

    async fn another_product(shop: &Shop) -> String {
        let body = json!({ "name": "Cup", "description": "For tea.", "price": 19.99, "stock": STOCK });
        let cup = shop.world.post(&Caller::admin(), "/products", body).await.expect(StatusCode::CREATED);
        cup["id"].as_str().unwrap().to_owned()
    }

    fn failures(shop: &Shop) -> Vec<i64> {
        shop.orders().iter().map(|order| number(&order["failures"])).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn is_asked_again_until_the_rush_is_over() {
        for rush in RUSHES {
            let shop = Shop::open().await;
            rush(&shop.world, &key(&shop.teapot), Duration::from_secs(5));
            let heard = shop.place("the-key").await;
            heard.answer.expect(StatusCode::CREATED);
            assert!((5..8).contains(&heard.after.as_secs()), "{:?}", heard.after);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn closes_no_other_product_to_anybody() {
        for rush in RUSHES {
            let shop = Shop::open().await;
            let cup = another_product(&shop).await;
            rush(&shop.world, &key(&shop.teapot), Duration::from_secs(600));
            let hot = async {
                let heard = futures::future::join_all(["a", "b", "c"].map(|key| shop.place(key))).await;
                for heard in heard {
                    heard.answer.expect(StatusCode::ACCEPTED);
                    assert!(heard.after < PATIENCE, "{:?}", heard.after);
                }
            };
            let others = async {
                for n in 0..10 {
                    tokio::time::sleep(Duration::from_millis(900)).await;
                    let body = json!({ "items": [{ "product_id": cup, "quantity": 1 }] });
                    let began = Instant::now();
                    shop.world.post(&shop.ada, "/orders", body).await.expect(StatusCode::CREATED);
                    assert!(began.elapsed() < Duration::from_millis(100), "{n}: {:?}", began.elapsed());
                }
            };
            tokio::join!(hot, others);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn leaves_the_order_to_the_worker_who_counts_no_failure_and_comes_back_soon() {
        for rush in RUSHES {
            let shop = Shop::open().await;
            rush(&shop.world, &key(&shop.teapot), Duration::from_secs(60));
            shop.place("the-key").await.answer.expect(StatusCode::ACCEPTED);
            for _ in 0..3 {
                shop.world.deliver_stream().await;
                shop.world.sweep_within(Duration::from_secs(12)).await;
                assert_eq!((shop.in_state("PENDING"), failures(&shop)), (1, vec![0]));
                let next = shop.orders()[0]["next_check"]["N"].as_str().unwrap().parse::<i64>().unwrap();
                let began = 1_800_000_000_000 + i64::try_from(shop.began.elapsed().as_millis()).unwrap();
                assert!(next - began <= 4_000, "{}", next - began);
                tokio::time::advance(Duration::from_secs(5)).await;
            }
            shop.minutes(1).await;
            assert_eq!(shop.in_state("DONE"), 1);
            shop.expect_sums();
            assert_eq!(shop.place("the-key").await.answer.expect(StatusCode::CREATED)["status"], "CONFIRMED");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn that_stays_busy_ends_the_order_when_its_time_is_over_and_leaves_nothing_behind() {
        let shop = Shop::open().await;
        shop.world.cloud.contend(&key(&shop.teapot), Duration::from_secs(200));
        shop.place("the-key").await.answer.expect(StatusCode::ACCEPTED);
        shop.minutes(6).await;
        let answer = shop.place("the-key").await.answer.expect(StatusCode::CONFLICT);
        assert_eq!(answer["code"], "order_timed_out");
        assert_eq!(shop.states(), BTreeSet::from(["CANCELLED".into()]));
        shop.expect_sums();
    }

    /// A gateway that turns everybody away has not asked the service.
    #[tokio::test(start_paused = true)]
    async fn is_none_that_failed_where_its_gateway_turns_callers_away() {
        for (service, _) in NEEDED {
            let shop = Shop::open().await;
            shop.world.cloud.inject_fault(&format!("{service}.internal"), HostFault::Throttled);
            let heard = shop.place("the-key").await;
            heard.answer.expect(StatusCode::ACCEPTED);
            assert!(heard.after < PATIENCE, "{service}: {:?}", heard.after);
            shop.world.cloud.bring_back();
            shop.place("another-key").await.answer.expect(StatusCode::CREATED);
            shop.minutes(1).await;
            assert_eq!(shop.in_state("DONE"), 2, "{service}");
            shop.expect_sums();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn says_so_to_a_client_as_a_conflict_that_may_be_repeated() {
        let shop = Shop::open().await;
        shop.place("the-key").await.answer.expect(StatusCode::CREATED);
        let order = shop.orders()[0]["id"]["S"].as_str().unwrap().to_owned();
        let minute = Duration::from_secs(60);
        shop.world.cloud.contend(&key(&shop.teapot), minute);
        shop.world.cloud.contend(&format!("ORDER#{order}"), minute);
        let (admin, product) = (Caller::admin(), format!("/products/{}", shop.teapot));
        let change = Some(json!({ "name": "Pot" }));
        let answer = shop.world.send_with(&admin, Method::PATCH, &product, change, &[("if-match", "*")]).await;
        answer.expect_problem(409, "contended");
        assert_eq!(answer.header("retry-after"), Some("1"));
        let delivery = json!({ "adjustment_id": "a-1", "delta": 1, "reason": "Delivery" });
        let answer = shop.world.post(&admin, &format!("{product}/stock-adjustments"), delivery).await;
        answer.expect_problem(409, "contended");
        let answer = shop.world.send(&shop.ada, Method::POST, &format!("/orders/{order}/cancel"), None).await;
        answer.expect_problem(409, "contended");
    }

    #[tokio::test(start_paused = true)]
    async fn says_so_to_a_client_as_a_lack_of_the_system_where_its_table_takes_no_more() {
        let shop = Shop::open().await;
        shop.world.cloud.throttle(&key(&shop.teapot), Duration::from_secs(60));
        let answer = shop.world.get(&Caller::anonymous(), &format!("/products/{}", shop.teapot)).await;
        answer.expect_problem(503, "throttled");
        assert_eq!(answer.header("retry-after"), Some("2"));
    }

    /// The same key in the hands of another request is that request's.
    #[tokio::test(start_paused = true)]
    async fn is_no_answer_to_a_repeat_that_meets_the_first_request() {
        let shop = Shop::open().await;
        let key = format!("KEY#{}#POST/orders#the-key", shop.ada.id());
        shop.world.cloud.contend(&key, Duration::from_secs(5));
        let answer = shop.place("the-key").await.answer;
        answer.expect_problem(409, "idempotency_in_flight");
        assert!(shop.orders().is_empty());
    }
}

mod an_invocation_that_ends_soon {
    use super::*;

    /// Places an order in an invocation that has only `left`.
    async fn place_with(shop: &Shop, key: &str, left: Duration) -> Answer {
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + left;
        let request = Request::post("/orders").header("content-type", "application/json");
        let request = request.header("idempotency-key", key);
        let mut request = request.body(Body::from(shop.body().to_string())).unwrap();
        let mut context = lambda_http::Context::default();
        context.deadline = u64::try_from(end.as_millis()).unwrap();
        request.extensions_mut().insert(context);
        shop.world.send_raw(&shop.ada, request).await
    }

    #[tokio::test(start_paused = true)]
    async fn starts_no_step_that_it_could_not_record() {
        let shop = Shop::open().await;
        shop.world.cloud.begin_trial(FaultPlan::none());
        let answer = place_with(&shop, "the-key", Duration::from_millis(1_700)).await;
        let points = shop.world.cloud.end_trial();
        answer.expect(StatusCode::ACCEPTED);
        assert!(answer.header("location").is_some_and(|location| location.starts_with("orders/")));
        for (service, _) in NEEDED {
            assert_eq!(calls_to(service, &points), 0, "{points:?}");
        }
        // It ends by itself.
        shop.minutes(1).await;
        assert_eq!(shop.in_state("DONE"), 1);
        shop.expect_sums();
    }

    /// The write that would have recorded the decision gets no answer.
    #[tokio::test(start_paused = true)]
    async fn gives_a_decision_up_that_cannot_be_recorded_in_time_to_say_so() {
        let shop = Shop::open().await;
        shop.world.cloud.begin_trial(FaultPlan::none());
        shop.place("another-key").await.answer.expect(StatusCode::CREATED);
        let points = shop.world.cloud.end_trial();
        let decision = points.iter().rposition(|point| point.label == "orders → PutItem OrdersTable").unwrap();

        shop.world.cloud.begin_trial(FaultPlan::none().and(decision, FaultKind::NoReply));
        let began = Instant::now();
        let answer = place_with(&shop, "the-key", Duration::from_millis(2_300)).await;
        let points = shop.world.cloud.end_trial();
        assert_eq!(points[decision].label, "orders → PutItem OrdersTable");
        answer.expect(StatusCode::ACCEPTED);
        assert!(began.elapsed() < Duration::from_millis(1_700), "{:?}", began.elapsed());
        shop.minutes(1).await;
        assert_eq!(shop.in_state("DONE"), 2);
        shop.expect_sums();
    }

    #[tokio::test(start_paused = true)]
    async fn gives_a_slow_step_up_in_time_to_say_so() {
        let shop = Shop::open().await;
        shop.world.cloud.inject_fault("payments.internal", HostFault::Silent);
        let began = Instant::now();
        let answer = place_with(&shop, "the-key", Duration::from_secs(4)).await;
        answer.expect(StatusCode::ACCEPTED);
        assert!(began.elapsed() < Duration::from_millis(2_600), "{:?}", began.elapsed());
        shop.world.cloud.bring_back();
        shop.minutes(1).await;
        assert_eq!(shop.in_state("DONE"), 1);
        shop.expect_sums();
    }
    /// Five failures in a row would have the service left alone.
    #[tokio::test(start_paused = true)]
    async fn is_no_failure_of_the_service_that_it_leaves_no_time() {
        let shop = Shop::open().await;
        shop.world.cloud.inject_fault("payments.internal", HostFault::Silent);
        for n in 0..6 {
            place_with(&shop, &format!("key-{n}"), Duration::from_secs(4)).await.expect(StatusCode::ACCEPTED);
        }
        shop.world.cloud.bring_back();
        shop.place("the-key").await.answer.expect(StatusCode::CREATED);
    }
}
