//! Tests of orders while a dependency is dead (it does not respond), slow,
//! flapping (some of its calls fail) or contended: clients wait for a bounded
//! time, no order is decided wrongly, and all orders are finished once the
//! dependency works again.
//!
//! The tests run on Tokio's paused clock, which advances only while all code
//! waits for a timer. Therefore a measured time consists only of timeouts and
//! pauses, and is the same on every machine.

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
    shop::{number, order_id, order_request},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

/// The body of a function URL's response with status 429.
const TOO_MANY: &str =
    r#"{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}"#;

/// The services that an order needs, each with the maximum time for which one
/// order waits if the service does not respond: two attempts and the pause
/// between them.
const SERVICES: [(&str, Duration); 3] = [
    ("users", Duration::from_millis(4_250)),
    ("products", Duration::from_millis(4_250)),
    ("payments", Duration::from_millis(10_250)),
];
/// The total of an order, in minor units.
const PRICE: i64 = 1999;
/// The stock of each product at the start.
const STOCK: u32 = 100;

/// A world with one customer and one product.
struct Fixture {
    world: World,
    ada: Caller,
    teapot: String,
    began: Instant,
}

/// A response, and the time for which its client waited.
struct TimedAnswer {
    answer: Answer,
    after: Duration,
}

impl Fixture {
    async fn start() -> Self {
        fastrand::seed(7);
        let began = Instant::now();
        let world = World::start_at(Clock::tokio(Timestamp::from_second(1_800_000_000).unwrap())).await;
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", STOCK).await;
        Self { world, ada, teapot, began }
    }

    fn body(&self) -> Value {
        order_request(&[(&self.teapot, 1)], "tok_accepted")
    }

    async fn place(&self, key: &str) -> TimedAnswer {
        let began = Instant::now();
        let answer = self.world.place(&self.ada, self.body(), key).await;
        TimedAnswer { answer, after: began.elapsed() }
    }

    /// Places orders one after another.
    async fn place_many(&self, count: usize) -> Vec<TimedAnswer> {
        let mut answers = Vec::new();
        for n in 0..count {
            answers.push(self.place(&format!("key-{n}")).await);
        }
        answers
    }

    /// The set of the states of all orders.
    fn states(&self) -> BTreeSet<String> {
        self.world.stored_orders().iter().map(|order| order["state"]["S"].as_str().unwrap().to_owned()).collect()
    }

    /// Asserts that stock is reserved and money is kept for exactly the
    /// finished orders.
    #[track_caller]
    fn expect_sums(&self) {
        let done = self.world.orders_in_state("DONE");
        assert_eq!(self.world.stock_sums(), (i64::from(STOCK) - done, done));
        assert_eq!(self.world.kept_money(), done * PRICE);
    }
}

/// The number of calls that were made to `service`.
fn calls_to(service: &str, points: &[FaultPoint]) -> usize {
    points.iter().filter(|point| point.label.contains(&format!(" {service} "))).count()
}

mod a_dead_service {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn delays_only_the_first_clients_by_its_timeouts() {
        for (service, maximum) in SERVICES {
            let fixture = Fixture::start().await;
            fixture.world.cloud.inject_fault(&format!("{service}.internal"), HostFault::Silent);
            fixture.world.cloud.begin_trial(FaultPlan::none());
            let timed = fixture.place_many(20).await;
            let reached = calls_to(service, &fixture.world.cloud.end_trial());

            for (n, timed) in timed.iter().enumerate() {
                timed.answer.expect(StatusCode::ACCEPTED);
                assert!(timed.after <= maximum, "{service}, order {n}: {:?}", timed.after);
            }
            // After five failures in a row, the circuit breaker opens: later calls
            // fail at once.
            assert_eq!(reached, 5, "{service}");
            let waited: Vec<_> = timed.iter().filter(|timed| timed.after > Duration::from_secs(1)).collect();
            assert_eq!(waited.len(), 3, "{service}");
        }
    }

    /// With HTTP/2, all calls to a service share one connection. If a call
    /// times out, only the connection may be dead. Therefore each retry uses a
    /// new connection.
    #[tokio::test(start_paused = true)]
    async fn is_retried_on_a_new_connection() {
        for (service, _) in SERVICES {
            let fixture = Fixture::start().await;
            fixture.place("answered").await.answer.expect(StatusCode::CREATED);
            assert!(fixture.world.cloud.abandoned_connections().is_empty());
            let host = format!("{service}.internal");
            fixture.world.cloud.inject_fault(&host, HostFault::Silent);
            fixture.place("unanswered").await.answer.expect(StatusCode::ACCEPTED);
            assert_eq!(fixture.world.cloud.abandoned_connections(), [host.clone(), host]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn decides_no_order_and_the_orders_are_finished_when_it_works_again() {
        for (service, _) in SERVICES {
            let fixture = Fixture::start().await;
            fixture.world.cloud.inject_fault(&format!("{service}.internal"), HostFault::Silent);
            fixture.place_many(10).await;
            assert_eq!(fixture.states(), BTreeSet::from(["PENDING".into()]), "{service}");
            assert!(fixture.world.cloud.scan("SandboxLedgerTable").is_empty());

            fixture.world.cloud.bring_back();
            fixture.world.pass_minutes(2).await;
            assert_eq!(fixture.world.orders_in_state("DONE"), 10, "{service}: {:?}", fixture.states());
            fixture.expect_sums();
            // A repeated request gets the response that the first request would
            // have got.
            assert_eq!(fixture.place("key-3").await.answer.expect(StatusCode::CREATED)["status"], "CONFIRMED");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn that_stays_dead_times_orders_out_and_leaves_nothing_reserved_or_charged() {
        for (service, _) in SERVICES {
            let fixture = Fixture::start().await;
            fixture.world.cloud.inject_fault(&format!("{service}.internal"), HostFault::Silent);
            fixture.place_many(3).await;
            fixture.world.pass_minutes(5).await;
            // The orders have timed out. They are not cancelled yet, because
            // they still need the dead service: products and payments for the
            // compensation, or users for the contact details of the customer
            // who must be notified.
            assert_eq!(fixture.states(), BTreeSet::from(["CANCELLING".into()]), "{service}");
            fixture.world.cloud.bring_back();
            fixture.world.pass_minutes(10).await;
            assert_eq!(fixture.states(), BTreeSet::from(["CANCELLED".into()]), "{service}");
            fixture.expect_sums();
            // The responses were 202 and did not report the cancellations.
            // Therefore the customer is notified of each cancellation.
            let mails = fixture.world.cloud.mails();
            let notified = mails.iter().filter(|mail| mail.to_string().contains("could not be placed"));
            assert_eq!(notified.count(), 3, "{service}");
        }
    }
}

mod a_dead_queue {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn delays_no_client_and_loses_no_event() {
        let fixture = Fixture::start().await;
        fixture.world.cloud.inject_fault("sqs", HostFault::Silent);
        for timed in fixture.place_many(4).await {
            timed.answer.expect(StatusCode::CREATED);
            assert!(timed.after < Duration::from_secs(1), "{:?}", timed.after);
        }
        fixture.world.pass_minutes(3).await;
        // The payment may be captured, but an order is not done before its event
        // is published.
        assert_eq!(fixture.states(), BTreeSet::from(["CONFIRMED".into()]));
        assert!(fixture.world.cloud.mails().is_empty());
        fixture.world.cloud.bring_back();
        fixture.world.pass_minutes(10).await;
        assert_eq!(fixture.world.orders_in_state("DONE"), 4);
        fixture.expect_sums();
        assert_eq!(fixture.world.cloud.mails().len(), 4);
    }
}

mod a_dead_database {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_answered_with_503_and_a_repeated_request_places_one_order() {
        let fixture = Fixture::start().await;
        for fault in [HostFault::Down, HostFault::Silent] {
            fixture.world.cloud.inject_fault("dynamodb", fault);
            let timed = fixture.place("the-key").await;
            timed.answer.expect_problem(503, "unavailable");
            assert_eq!(timed.answer.header("retry-after"), Some("2"));
            // Without an idempotency key, the response must not ask for a
            // retry: the order or the product may have been stored, and a retry
            // would store another one.
            let product = json!({ "name": "Cup", "description": "Small.", "price": 5, "stock": 1 });
            for (person, path, body) in
                [(&fixture.ada, "/orders", fixture.body()), (&Caller::admin(), "/products", product)]
            {
                let keyless = fixture.world.post(person, path, body).await;
                keyless.expect_problem(503, "unavailable");
                assert_eq!(keyless.header("retry-after"), None, "{path}");
            }
            fixture.world.cloud.bring_back();
            assert!(fixture.world.stored_orders().is_empty());
        }
        fixture.place("the-key").await.answer.expect(StatusCode::CREATED);
        fixture.world.pass_minutes(1).await;
        assert_eq!(fixture.world.orders_in_state("DONE"), 1);
        fixture.expect_sums();
    }
}

/// Counts the calls that the orders function makes one after another. Each of
/// its calls takes one second, and each call of another function takes no time.
/// Therefore the number of seconds until the response is the number of
/// sequential calls.
mod sequential_calls {
    use super::*;

    const CALL: Duration = Duration::from_secs(1);

    async fn placed(lines: usize, token: &str) -> TimedAnswer {
        let fixture = Fixture::start().await;
        let mut items = vec![json!({ "product_id": fixture.teapot, "quantity": 1 })];
        for n in 1..lines {
            let body = json!({ "name": format!("Cup {n}"), "description": "For tea.", "price": 1, "stock": STOCK });
            let cup = fixture.world.post(&Caller::admin(), "/products", body).await.expect(StatusCode::CREATED);
            items.push(json!({ "product_id": cup["id"], "quantity": 1 }));
        }
        fixture.world.read_switches().await;
        fixture.world.cloud.set_latency("orders", CALL);
        let body = json!({ "items": items, "payment_method": token });
        let began = Instant::now();
        let headers = [("idempotency-key", "the-key")];
        let answer = fixture.world.send_with(&fixture.ada, Method::POST, "/orders", Some(body), &headers).await;
        TimedAnswer { answer, after: began.elapsed() }
    }

    #[tokio::test(start_paused = true)]
    async fn are_four_for_a_confirmed_order_with_any_number_of_lines() {
        for lines in [1, 3, 50] {
            let timed = placed(lines, "tok_accepted").await;
            timed.answer.expect(StatusCode::CREATED);
            assert_eq!(timed.after.as_secs(), 4, "{lines} lines");
        }
    }

    /// Four calls decide the order. Three more calls compensate the order,
    /// publish its event and finish it before the response. Therefore the stock
    /// is available again when the client receives the response.
    #[tokio::test(start_paused = true)]
    async fn are_seven_for_a_refused_order_which_is_compensated_before_the_response() {
        for lines in [1, 50] {
            let timed = placed(lines, "tok_declined").await;
            timed.answer.expect_problem(402, "payment_declined");
            assert_eq!(timed.after.as_secs(), 7, "{lines} lines");
        }
    }
}

mod a_slow_service {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn that_responds_within_its_timeout_only_delays_the_response() {
        for (service, _) in SERVICES {
            let fixture = Fixture::start().await;
            fixture
                .world
                .cloud
                .inject_fault(&format!("{service}.internal"), HostFault::Slow(Duration::from_millis(1_500)));
            for timed in fixture.place_many(8).await {
                timed.answer.expect(StatusCode::CREATED);
                assert!(timed.after < Duration::from_millis(1_600), "{service}: {:?}", timed.after);
            }
            fixture.world.pass_minutes(1).await;
            assert_eq!(fixture.world.orders_in_state("DONE"), 8, "{service}");
            fixture.expect_sums();
        }
    }

    /// Each call takes effect after its caller has given up.
    #[tokio::test(start_paused = true)]
    async fn that_responds_after_its_timeout_decides_nothing_and_each_order_is_charged_once() {
        for (service, maximum) in SERVICES {
            let fixture = Fixture::start().await;
            fixture.world.cloud.inject_fault(&format!("{service}.internal"), HostFault::Slow(Duration::from_secs(6)));
            for timed in fixture.place_many(8).await {
                timed.answer.expect(StatusCode::ACCEPTED);
                assert!(timed.after <= maximum, "{service}: {:?}", timed.after);
            }
            fixture.world.cloud.bring_back();
            fixture.world.pass_minutes(2).await;
            assert_eq!(fixture.world.orders_in_state("DONE"), 8, "{service}: {:?}", fixture.states());
            fixture.expect_sums();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn that_stays_too_slow_leaves_nothing_reserved_or_charged() {
        for (service, _) in SERVICES {
            let fixture = Fixture::start().await;
            fixture.world.cloud.inject_fault(&format!("{service}.internal"), HostFault::Slow(Duration::from_secs(6)));
            fixture.place_many(4).await;
            fixture.world.pass_minutes(5).await;
            fixture.world.cloud.bring_back();
            fixture.world.pass_minutes(10).await;
            assert_eq!(fixture.states(), BTreeSet::from(["CANCELLED".into()]), "{service}");
            fixture.expect_sums();
        }
    }
}

mod a_flapping_service {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn loses_no_order_and_charges_none_twice() {
        for seed in 0..10 {
            for (service, maximum) in SERVICES {
                let fixture = Fixture::start().await;
                let flapping = HostFault::Flapping(fastrand::Rng::with_seed(seed));
                fixture.world.cloud.inject_fault(&format!("{service}.internal"), flapping);
                for timed in fixture.place_many(12).await {
                    assert!([201, 202].contains(&timed.answer.status.as_u16()), "{}", timed.answer.text);
                    assert!(timed.after <= maximum, "{service}: {:?}", timed.after);
                }
                // The service keeps flapping while the worker finishes the
                // orders.
                fixture.world.pass_minutes(10).await;
                assert_eq!(fixture.world.orders_in_state("DONE"), 12, "seed {seed}, {service}: {:?}", fixture.states());
                fixture.expect_sums();
            }
        }
    }
}

/// Requests of other clients use the same items all the time. This contention
/// is not a failure of the service: the circuit breaker does not count it, and
/// requests for other items do not wait.
mod a_function_url {
    use super::*;

    /// A function URL may answer a call itself, for example if it may not invoke
    /// the function, or if the function crashes. Such an answer says nothing
    /// about the request, so no order may be refused because of it.
    #[tokio::test(start_paused = true)]
    async fn that_answers_in_place_of_the_function_decides_no_order() {
        let answers = [
            (400, r#"{"message":"Bad Request"}"#),
            (403, r#"{"Message":"Forbidden"}"#),
            (403, r#"{"message":"The request signature we calculated does not match the signature you provided."}"#),
            (404, r#"{"Message":null}"#),
            (408, ""),
            (413, r#"{"message":"Request Entity Too Large"}"#),
            (429, TOO_MANY),
            (500, "Internal Server Error"),
            (502, "Internal Server Error"),
            (503, "Service Unavailable"),
            (504, r#"{"message":"Gateway Timeout"}"#),
        ];
        for (service, _) in SERVICES {
            for (status, body) in answers {
                let fixture = Fixture::start().await;
                fixture.world.cloud.inject_fault(&format!("{service}.internal"), HostFault::Answered(status, body));
                fixture.place("the-key").await.answer.expect(StatusCode::ACCEPTED);
                fixture.world.cloud.bring_back();
                fixture.world.pass_minutes(1).await;
                assert_eq!(fixture.world.orders_in_state("DONE"), 1, "{service}: {status} {body}");
                fixture.expect_sums();
            }
        }
    }
}

mod a_contended_service {
    use super::*;

    /// Makes the item with this partition key contended for this time.
    type Contend = fn(&World, &str, Duration);
    /// Two kinds of contention: other clients' transactions write the item all
    /// the time, or other clients' requests use up the throughput of the item's
    /// partition.
    const CONTENTIONS: [Contend; 2] =
        [|world, key, time| world.cloud.contend(key, time), |world, key, time| world.cloud.throttle(key, time)];

    /// The maximum time for which an order retries a contended call.
    const RETRY_TIME: Duration = Duration::from_secs(12);

    /// The partition key of the product's stock.
    fn key(product: &str) -> String {
        format!("STOCK#{product}#0")
    }

    fn failures(fixture: &Fixture) -> Vec<i64> {
        // An order without a failure has no such attribute.
        let of = |order: &Value| if order["failures"].is_null() { 0 } else { number(&order["failures"]) };
        fixture.world.stored_orders().iter().map(of).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn is_retried_until_the_contention_has_ended() {
        for contend in CONTENTIONS {
            let fixture = Fixture::start().await;
            contend(&fixture.world, &key(&fixture.teapot), Duration::from_secs(5));
            let timed = fixture.place("the-key").await;
            timed.answer.expect(StatusCode::CREATED);
            assert!((5..8).contains(&timed.after.as_secs()), "{:?}", timed.after);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_delay_orders_of_other_products() {
        for contend in CONTENTIONS {
            let fixture = Fixture::start().await;
            let cup = fixture.world.product("19.99", STOCK).await;
            contend(&fixture.world, &key(&fixture.teapot), Duration::from_secs(600));
            let hot = async {
                let timed = futures::future::join_all(["a", "b", "c"].map(|key| fixture.place(key))).await;
                for timed in timed {
                    timed.answer.expect(StatusCode::ACCEPTED);
                    assert!(timed.after < RETRY_TIME, "{:?}", timed.after);
                }
            };
            let others = async {
                for n in 0..10 {
                    tokio::time::sleep(Duration::from_millis(900)).await;
                    let body = json!({ "items": [{ "product_id": cup, "quantity": 1 }] });
                    let began = Instant::now();
                    fixture.world.post(&fixture.ada, "/orders", body).await.expect(StatusCode::CREATED);
                    assert!(began.elapsed() < Duration::from_millis(100), "{n}: {:?}", began.elapsed());
                }
            };
            tokio::join!(hot, others);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn postpones_the_order_briefly_without_counting_a_failure() {
        for contend in CONTENTIONS {
            let fixture = Fixture::start().await;
            contend(&fixture.world, &key(&fixture.teapot), Duration::from_secs(60));
            fixture.place("the-key").await.answer.expect(StatusCode::ACCEPTED);
            for _ in 0..3 {
                fixture.world.deliver_stream().await;
                fixture.world.sweep_within(Duration::from_secs(12)).await;
                assert_eq!((fixture.world.orders_in_state("PENDING"), failures(&fixture)), (1, vec![0]));
                let next =
                    fixture.world.stored_orders()[0]["next_check"]["N"].as_str().unwrap().parse::<i64>().unwrap();
                let began = 1_800_000_000_000 + i64::try_from(fixture.began.elapsed().as_millis()).unwrap();
                assert!(next - began <= 4_000, "{}", next - began);
                tokio::time::advance(Duration::from_secs(5)).await;
            }
            fixture.world.pass_minutes(1).await;
            assert_eq!(fixture.world.orders_in_state("DONE"), 1);
            fixture.expect_sums();
            assert_eq!(fixture.place("the-key").await.answer.expect(StatusCode::CREATED)["status"], "CONFIRMED");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn that_stays_contended_times_the_order_out_and_leaves_nothing_reserved() {
        let fixture = Fixture::start().await;
        fixture.world.cloud.contend(&key(&fixture.teapot), Duration::from_secs(200));
        fixture.place("the-key").await.answer.expect(StatusCode::ACCEPTED);
        fixture.world.pass_minutes(6).await;
        let answer = fixture.place("the-key").await.answer.expect(StatusCode::CONFLICT);
        assert_eq!(answer["code"], "order_timed_out");
        assert_eq!(fixture.states(), BTreeSet::from(["CANCELLED".into()]));
        fixture.expect_sums();
    }

    /// A function URL that throttles a call has not passed the call on to the
    /// function. Therefore throttling is treated like contention.
    #[tokio::test(start_paused = true)]
    async fn includes_a_service_whose_function_url_throttles() {
        for (service, _) in SERVICES {
            let fixture = Fixture::start().await;
            fixture.world.cloud.inject_fault(&format!("{service}.internal"), HostFault::Answered(429, TOO_MANY));
            let timed = fixture.place("the-key").await;
            timed.answer.expect(StatusCode::ACCEPTED);
            assert!(timed.after < RETRY_TIME, "{service}: {:?}", timed.after);
            fixture.world.cloud.bring_back();
            fixture.place("another-key").await.answer.expect(StatusCode::CREATED);
            fixture.world.pass_minutes(1).await;
            assert_eq!(fixture.world.orders_in_state("DONE"), 2, "{service}");
            fixture.expect_sums();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn is_answered_with_a_409_that_may_be_retried() {
        let fixture = Fixture::start().await;
        fixture.place("the-key").await.answer.expect(StatusCode::CREATED);
        let order = order_id(&fixture.world.stored_order()).to_owned();
        let minute = Duration::from_secs(60);
        fixture.world.cloud.contend(&key(&fixture.teapot), minute);
        fixture.world.cloud.contend(&format!("ORDER#{order}"), minute);
        let (admin, product) = (Caller::admin(), format!("/products/{}", fixture.teapot));
        let change = Some(json!({ "name": "Pot" }));
        let answer = fixture.world.send_with(&admin, Method::PATCH, &product, change, &[("if-match", "*")]).await;
        answer.expect_problem(409, "contended");
        assert_eq!(answer.header("retry-after"), Some("1"));
        let delivery = json!({ "adjustment_id": "a-1", "delta": 1, "reason": "Delivery" });
        let answer = fixture.world.post(&admin, &format!("{product}/stock-adjustments"), delivery).await;
        answer.expect_problem(409, "contended");
        let answer = fixture.world.send(&fixture.ada, Method::POST, &format!("/orders/{order}/cancel"), None).await;
        answer.expect_problem(409, "contended");
    }

    #[tokio::test(start_paused = true)]
    async fn is_answered_with_a_503_if_its_table_is_throttled() {
        let fixture = Fixture::start().await;
        fixture.world.cloud.throttle(&key(&fixture.teapot), Duration::from_secs(60));
        let answer = fixture.world.get(&Caller::anonymous(), &format!("/products/{}", fixture.teapot)).await;
        answer.expect_problem(503, "throttled");
        assert_eq!(answer.header("retry-after"), Some("2"));
    }

    /// If the item of the idempotency key is contended, another request with
    /// this key is writing the item.
    #[tokio::test(start_paused = true)]
    async fn is_answered_as_in_flight_if_the_contended_item_is_the_idempotency_key() {
        let fixture = Fixture::start().await;
        let key = format!("KEY#{}#POST/orders#the-key", fixture.ada.id());
        fixture.world.cloud.contend(&key, Duration::from_secs(5));
        let answer = fixture.place("the-key").await.answer;
        answer.expect_problem(409, "idempotency_in_flight");
        assert!(fixture.world.stored_orders().is_empty());
    }
}

mod an_invocation_that_ends_soon {
    use super::*;

    /// Places an order in an invocation whose deadline is `left` from now.
    async fn place_with(fixture: &Fixture, key: &str, left: Duration) -> Answer {
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + left;
        let request = Request::post("/orders").header("content-type", "application/json");
        let request = request.header("idempotency-key", key);
        let mut request = request.body(Body::from(fixture.body().to_string())).unwrap();
        let mut context = lambda_http::Context::default();
        context.deadline = u64::try_from(end.as_millis()).unwrap();
        request.extensions_mut().insert(context);
        fixture.world.send_raw(&fixture.ada, request).await
    }

    #[tokio::test(start_paused = true)]
    async fn starts_no_step_whose_outcome_it_has_no_time_to_record() {
        let fixture = Fixture::start().await;
        fixture.world.cloud.begin_trial(FaultPlan::none());
        let answer = place_with(&fixture, "the-key", Duration::from_millis(1_700)).await;
        let points = fixture.world.cloud.end_trial();
        answer.expect(StatusCode::ACCEPTED);
        assert!(answer.header("location").is_some_and(|location| location.starts_with("orders/")));
        for (service, _) in SERVICES {
            assert_eq!(calls_to(service, &points), 0, "{points:?}");
        }
        // The worker finishes the order.
        fixture.world.pass_minutes(1).await;
        assert_eq!(fixture.world.orders_in_state("DONE"), 1);
        fixture.expect_sums();
    }

    /// The write of the decision gets no response.
    #[tokio::test(start_paused = true)]
    async fn answers_202_in_time_if_its_decision_cannot_be_recorded() {
        let fixture = Fixture::start().await;
        fixture.world.read_switches().await;
        fixture.world.cloud.begin_trial(FaultPlan::none());
        fixture.place("another-key").await.answer.expect(StatusCode::CREATED);
        let points = fixture.world.cloud.end_trial();
        let decision = points.iter().rposition(|point| point.label == "orders → PutItem OrdersTable").unwrap();

        fixture.world.cloud.begin_trial(FaultPlan::none().and(decision, FaultKind::NoResponse));
        let began = Instant::now();
        let answer = place_with(&fixture, "the-key", Duration::from_millis(2_300)).await;
        let points = fixture.world.cloud.end_trial();
        assert_eq!(points[decision].label, "orders → PutItem OrdersTable");
        answer.expect(StatusCode::ACCEPTED);
        assert!(began.elapsed() < Duration::from_millis(1_700), "{:?}", began.elapsed());
        fixture.world.pass_minutes(1).await;
        assert_eq!(fixture.world.orders_in_state("DONE"), 2);
        fixture.expect_sums();
    }

    #[tokio::test(start_paused = true)]
    async fn answers_202_in_time_if_a_step_is_too_slow() {
        let fixture = Fixture::start().await;
        fixture.world.cloud.inject_fault("payments.internal", HostFault::Silent);
        let began = Instant::now();
        let answer = place_with(&fixture, "the-key", Duration::from_secs(4)).await;
        answer.expect(StatusCode::ACCEPTED);
        assert!(began.elapsed() < Duration::from_millis(2_600), "{:?}", began.elapsed());
        fixture.world.cloud.bring_back();
        fixture.world.pass_minutes(1).await;
        assert_eq!(fixture.world.orders_in_state("DONE"), 1);
        fixture.expect_sums();
    }

    /// Each of these six invocations is too short to wait for the payments
    /// service until its timeout. If the six calls counted as failures of the
    /// service, the circuit breaker would open, and the last order would not be
    /// confirmed.
    #[tokio::test(start_paused = true)]
    async fn does_not_count_its_own_lack_of_time_as_a_failure_of_the_service() {
        let fixture = Fixture::start().await;
        fixture.world.cloud.inject_fault("payments.internal", HostFault::Silent);
        for n in 0..6 {
            place_with(&fixture, &format!("key-{n}"), Duration::from_secs(4)).await.expect(StatusCode::ACCEPTED);
        }
        fixture.world.cloud.bring_back();
        fixture.place("the-key").await.answer.expect(StatusCode::CREATED);
    }
}

mod the_deep_health {
    use super::*;

    const DEEP: &str = "/health/orders?deep=true";

    /// The name, the state and the breaker of each dependency.
    fn dependencies<'a>(health: &'a Value) -> Vec<(&'a str, &'a str, Option<bool>)> {
        let dependencies = health["dependencies"].as_array().unwrap().iter();
        let parts =
            |it: &'a Value| (it["name"].as_str().unwrap(), it["state"].as_str().unwrap(), it["breaker_open"].as_bool());
        dependencies.map(parts).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn of_orders_names_each_dependency_with_its_state_and_changes_nothing() {
        let world = Fixture::start().await.world;
        let health = world.get(&Caller::admin(), DEEP).await.expect(StatusCode::OK);
        let closed = |name| (name, "ok", Some(false));
        let expected = [("table", "ok", None), closed("users"), closed("products"), closed("payments")];
        assert_eq!((&health["status"], dependencies(&health)), (&json!("ok"), expected.to_vec()));
        assert!(health["dependencies"].as_array().unwrap().iter().all(|it| it["milliseconds"].is_u64()));
        assert!(world.stored_orders().is_empty() && world.cloud.scan("PaymentsTable").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn of_orders_shows_what_does_not_work_and_for_how_long_it_was_waited() {
        let Fixture { world, .. } = Fixture::start().await;
        world.cloud.inject_fault("users.internal", HostFault::Slow(Duration::from_secs(60)));
        world.cloud.inject_fault("products.internal", HostFault::Answered(403, r#"{"Message":"Forbidden"}"#));
        world.cloud.take_down("dynamodb");
        let began = Instant::now();
        let health = world.get(&Caller::admin(), DEEP).await.expect(StatusCode::OK);
        assert!(began.elapsed() <= Duration::from_secs(2), "{:?}", began.elapsed());
        let failed = |name| (name, "unavailable", Some(false));
        // The payments service answers, although its table does not: only its own deep check reads the table.
        let payments = ("payments", "ok", Some(false));
        let expected = [("table", "unavailable", None), failed("users"), failed("products"), payments];
        assert_eq!((&health["status"], dependencies(&health)), (&json!("degraded"), expected.to_vec()));
        assert_eq!(health["dependencies"][1]["milliseconds"], 2000);
    }

    #[tokio::test(start_paused = true)]
    async fn of_orders_shows_an_open_breaker_and_does_not_open_or_close_it() {
        let fixture = Fixture::start().await;
        let breaker = async || {
            let health = fixture.world.get(&Caller::admin(), DEEP).await.expect(StatusCode::OK);
            dependencies(&health).into_iter().find(|it| it.0 == "users").map(|it| (it.1.to_owned(), it.2))
        };
        fixture.world.cloud.take_down("users.internal");
        for _ in 0..10 {
            assert_eq!(breaker().await, Some(("unavailable".into(), Some(false))));
        }
        fixture.place_many(5).await;
        assert_eq!(breaker().await, Some(("unavailable".into(), Some(true))));
        fixture.world.cloud.bring_back();
        assert_eq!(breaker().await, Some(("ok".into(), Some(true))));
    }
}
