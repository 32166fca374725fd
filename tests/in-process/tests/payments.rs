//! Tests of the payments service: authorise, capture and cancel, also when messages
//! between the service, the provider, the table and the queue are lost or repeated.
//!
//! Most tests end with a comparison of three sources: our record in the payments table,
//! the provider's ledger, and the events that were published.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use chassis::{
    caller::{Authenticator, InternalAuth},
    clock::Clock,
    dynamo::{Table, WriteOutcome},
    events::EventPublisher,
    money::{Currency, Money},
    store::{SaveOutcome, StoreError},
    token::{TokenConfig, TokenVerifier},
};
use http::{Method, Request, StatusCode};
use in_process_tests::{Answer, Caller, World, world};
use payments::{
    domain::{Payment, PaymentId, PaymentMethod, PaymentRecord},
    provider::{
        AuthoriseOutcome, CaptureOutcome, ChargeReport, PaymentProvider, ProviderError, ProviderKey, RefundOutcome,
        SandboxProvider, VoidOutcome,
    },
    repository::{DynamoRepository, Repository},
    service::Payments,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// An order that is to be paid, and its customer.
#[derive(Clone)]
struct Purchase {
    uuid: Uuid,
    customer: Caller,
    token: Option<&'static str>,
    capture_immediately: bool,
}

impl Purchase {
    fn with(token: &'static str) -> Self {
        Self { uuid: Uuid::now_v7(), customer: Caller::named("Ada"), token: Some(token), capture_immediately: false }
    }

    fn capture_immediately(token: &'static str) -> Self {
        Self { capture_immediately: true, ..Self::with(token) }
    }

    fn order(&self) -> String {
        format!("ord_{}", self.uuid)
    }

    fn payment(&self) -> String {
        format!("pay_{}", self.uuid)
    }

    fn recipient(&self) -> Value {
        json!({ "name": "Ada", "email": self.customer.email(), "phone": self.customer.phone() })
    }

    fn body(&self) -> Value {
        let mut body = json!({
            "order_id": self.order(),
            "user_id": self.customer.id().to_string(),
            "amount": { "minor": 5997, "currency": "USD" },
            "recipient": self.recipient(),
        });
        if let Some(token) = self.token {
            body["payment_method"] = token.into();
        }
        if self.capture_immediately {
            body["capture"] = true.into();
        }
        body
    }
}

async fn authorise(world: &World, purchase: &Purchase) -> Answer {
    world.post(&Caller::service(), "/payments", purchase.body()).await
}

async fn capture(world: &World, purchase: &Purchase) -> Answer {
    let path = format!("/payments/{}/capture", purchase.payment());
    world.send(&Caller::service(), Method::POST, &path, None).await
}

async fn cancel(world: &World, purchase: &Purchase) -> Answer {
    let path = format!("/payments/{}/cancel", purchase.payment());
    world.send(&Caller::service(), Method::POST, &path, None).await
}

/// Returns the item with the partition key `pk`, which only one item of the table has.
fn item(world: &World, table: &str, pk: &str) -> Option<Value> {
    world.cloud.scan(table).into_iter().find(|item| item["pk"]["S"] == pk)
}

fn record(world: &World, purchase: &Purchase) -> Option<Value> {
    item(world, "PaymentsTable", &format!("PAYMENT#{}", purchase.payment()))
}

fn ledger(world: &World, purchase: &Purchase) -> Option<Value> {
    item(world, "SandboxLedgerTable", &format!("CHARGE#{}", purchase.payment()))
}

fn status(item: &Option<Value>) -> &str {
    item.as_ref().map_or("nothing", |item| item["status"]["S"].as_str().expect("a status"))
}

/// Returns the amount in cents that the provider captured and did not refund.
fn net_captured(world: &World, purchase: &Purchase) -> i64 {
    let cents = |item: &Value, name: &str| item[name]["N"].as_str().expect("a number").parse::<i64>().expect("cents");
    ledger(world, purchase).map_or(0, |item| cents(&item, "captured_minor") - cents(&item, "refunded_minor"))
}

/// Takes all events that were published so far, for all payments.
fn take_events(world: &World) -> Vec<Value> {
    world.cloud.take_messages().iter().map(|text| serde_json::from_str(text).expect("an event")).collect()
}

/// Returns the types of the events about a payment, sorted and without repeats.
fn event_types(events: &[Value], purchase: &Purchase) -> Vec<String> {
    let about = events.iter().filter(|event| event["subject"] == purchase.payment().as_str());
    let mut types: Vec<_> = about.map(|event| event["type"].as_str().expect("a type").to_owned()).collect();
    types.sort();
    types.dedup();
    types
}

/// Asserts that our record, the provider's ledger and the events are consistent, and
/// that the payment is in the state `expected`.
#[track_caller]
fn assert_consistent(world: &World, purchase: &Purchase, events: &[Value], expected: &str) {
    let (record, ledger) = (record(world, purchase), ledger(world, purchase));
    assert_eq!(status(&record), expected, "our record; the ledger: {ledger:?}");
    let (provider, captured_cents, types): (_, _, &[&str]) = match expected {
        "AUTHORISED" | "VOIDED" | "DECLINED" => (expected, 0, &[]),
        "CAPTURED" => (expected, 5997, &["PaymentCaptured"]),
        "REFUNDED" => (expected, 0, &["PaymentCaptured", "PaymentRefunded"]),
        "CANCELLED" => ("nothing", 0, &[]),
        other => panic!("no test ends with {other}"),
    };
    assert_eq!(status(&ledger), provider, "the provider's ledger");
    assert_eq!(net_captured(world, purchase), captured_cents, "{ledger:?}");
    assert_eq!(event_types(events, purchase), types);
    for event in events.iter().filter(|event| event["subject"] == purchase.payment().as_str()) {
        let kind = event["type"].as_str().expect("a type");
        assert_eq!(event["id"], format!("{}:{kind}", purchase.payment()), "an event has the same id at each repeat");
    }
    assert!(record.is_some_and(|record| record.get("payment_method").is_none()), "the token is no longer stored");
}

// ── Interference ─────────────────────────────────────────────────────────────

/// The interference that a test plans for a point in the calls between the service, its
/// table and the provider.
enum Interference {
    None,
    /// A message is lost. At the point before an operation, the request is lost and the
    /// operation does not happen. At the point after the operation, the operation has
    /// happened, but its response is lost.
    LoseMessage,
    /// Another operation runs at this point.
    Run(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// Decides what happens at the points in the calls between the service, its table and the
/// provider. For example, `capture:before` is the point before the provider executes a
/// capture, and `record:after` is the point after the table has stored a changed payment.
#[derive(Clone, Default)]
struct InterferencePlan(Arc<Mutex<PlanState>>);

#[derive(Default)]
struct PlanState {
    interferences: HashMap<String, VecDeque<Interference>>,
    reached: Vec<String>,
}

impl InterferencePlan {
    /// Plans `interference` for the `nth` time (from 0) that `point` is reached.
    fn at(&self, point: &str, nth: usize, interference: Interference) {
        let interferences = (0..nth).map(|_| Interference::None).chain([interference]).collect();
        self.0.lock().unwrap().interferences.insert(point.into(), interferences);
    }

    fn lose_message_at(&self, point: &str) {
        self.at(point, 0, Interference::LoseMessage);
    }

    /// Clears the plan. Returns `true` if all planned interferences happened.
    fn finish(&self) -> bool {
        let mut state = self.0.lock().unwrap();
        let is_complete = state.interferences.values().all(VecDeque::is_empty);
        *state = PlanState::default();
        is_complete
    }

    /// Takes the points that were reached since the last [`InterferencePlan::finish`]. The
    /// number beside a point states how often the point had been reached before.
    fn take_reached(&self) -> Vec<(String, usize)> {
        let points = std::mem::take(&mut self.0.lock().unwrap().reached);
        let count = |n: usize| points[..n].iter().filter(|point| **point == points[n]).count();
        (0..points.len()).map(|n| (points[n].clone(), count(n))).collect()
    }

    async fn reach(&self, point: String) -> Result<(), ()> {
        let interference = {
            let mut state = self.0.lock().unwrap();
            state.reached.push(point.clone());
            state.interferences.get_mut(&point).and_then(VecDeque::pop_front)
        };
        match interference.unwrap_or(Interference::None) {
            Interference::None => Ok(()),
            Interference::LoseMessage => Err(()),
            Interference::Run(work) => {
                work.await;
                Ok(())
            }
        }
    }
}

/// Wraps a real provider or repository, and interferes with its calls as planned.
struct WithInterference<T> {
    inner: T,
    plan: InterferencePlan,
}

impl<T> WithInterference<T> {
    async fn call<R, E>(
        &self,
        name: &str,
        error: impl Fn() -> E,
        work: impl Future<Output = Result<R, E>>,
    ) -> Result<R, E> {
        self.plan.reach(format!("{name}:before")).await.map_err(|()| error())?;
        let result = work.await;
        self.plan.reach(format!("{name}:after")).await.map_err(|()| error())?;
        result
    }
}

fn provider_unavailable() -> ProviderError {
    ProviderError::Unavailable("lost".into())
}

fn store_unavailable() -> StoreError {
    StoreError::unavailable("payments", "lost")
}

#[async_trait::async_trait]
impl PaymentProvider for WithInterference<SandboxProvider> {
    async fn authorise(
        &self,
        key: &ProviderKey,
        amount: Money,
        method: Option<&PaymentMethod>,
    ) -> Result<AuthoriseOutcome, ProviderError> {
        self.call("authorise", provider_unavailable, self.inner.authorise(key, amount, method)).await
    }

    async fn capture(&self, key: &ProviderKey) -> Result<CaptureOutcome, ProviderError> {
        self.call("capture", provider_unavailable, self.inner.capture(key)).await
    }

    async fn void(&self, key: &ProviderKey) -> Result<VoidOutcome, ProviderError> {
        self.call("void", provider_unavailable, self.inner.void(key)).await
    }

    async fn refund(&self, key: &ProviderKey) -> Result<RefundOutcome, ProviderError> {
        self.call("refund", provider_unavailable, self.inner.refund(key)).await
    }

    async fn charge(&self, key: &ProviderKey) -> Result<Option<ChargeReport>, ProviderError> {
        self.inner.charge(key).await
    }

    async fn charges(
        &self,
        from: &ProviderKey,
        to: &ProviderKey,
        limit: usize,
    ) -> Result<Vec<ProviderKey>, ProviderError> {
        self.inner.charges(from, to, limit).await
    }
}

#[async_trait::async_trait]
impl Repository for WithInterference<DynamoRepository> {
    async fn create(&self, record: &PaymentRecord) -> Result<SaveOutcome, StoreError> {
        self.call("create", store_unavailable, self.inner.create(record)).await
    }

    async fn find(&self, id: PaymentId) -> Result<Option<PaymentRecord>, StoreError> {
        self.inner.find(id).await
    }

    async fn advance(&self, before: &Payment, after: &Payment) -> Result<SaveOutcome, StoreError> {
        self.call("record", store_unavailable, self.inner.advance(before, after)).await
    }

    async fn erase_recipient(&self, id: PaymentId) -> Result<(), StoreError> {
        self.inner.erase_recipient(id).await
    }
}

async fn table(world: &World, name: &str) -> Table {
    world::table(world.cloud.clone(), name).await
}

/// Starts a world with a payments service whose calls to the provider and the table can be
/// interfered with.
async fn world_with_interference() -> (Arc<World>, InterferencePlan) {
    let world = Arc::new(World::start().await);
    let (aws, plan) = (world::aws(world.cloud.clone()).await, InterferencePlan::default());
    let table = |name: &str| Table::new(aws_sdk_dynamodb::Client::new(&aws.config), name);
    let provider = SandboxProvider::new(table("SandboxLedgerTable"), Clock::System);
    let payments = Payments::new(
        WithInterference { inner: DynamoRepository::new(table("PaymentsTable")), plan: plan.clone() },
        WithInterference { inner: provider, plan: plan.clone() },
        EventPublisher::new(aws_sdk_sqs::Client::new(&aws.config), "https://sqs.us-east-1.amazonaws.com/order-events"),
        Clock::System,
    );
    let tokens = TokenConfig {
        key_set: "http://pool.test/keys".parse().unwrap(),
        issuer: "http://pool.test".into(),
        audience: "client".into(),
    };
    let authenticator = Authenticator::new(
        TokenVerifier::new(tokens, aws.connector.clone(), Clock::System),
        world::configuration::<InternalAuth>("payments"),
    );
    world.cloud.serve("payments", payments::handlers::router(payments, table("PaymentsTable"), authenticator));
    (world, plan)
}

// ── The responses of the routes ──────────────────────────────────────────────

#[tokio::test]
async fn an_authorised_payment_is_held_and_its_id_is_derived_from_the_orders_id() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    let answer = authorise(&world, &purchase).await;
    let payment = answer.expect(StatusCode::CREATED);
    assert_eq!(payment["id"], purchase.payment());
    assert_eq!(payment["order_id"], purchase.order());
    assert_eq!(payment["user_id"], purchase.customer.id().to_string());
    assert_eq!((&payment["amount"], &payment["currency"]), (&json!(59.97), &json!("USD")));
    assert!(answer.text.contains("\"amount\":59.97,"), "{}", answer.text);
    assert_eq!(payment["status"], "AUTHORISED");
    assert_eq!(answer.header("location"), Some(format!("payments/{}", purchase.payment()).as_str()));
    assert_consistent(&world, &purchase, &take_events(&world), "AUTHORISED");
}

#[tokio::test]
async fn without_a_token_the_customers_default_method_pays() {
    let world = World::start().await;
    let purchase = Purchase { token: None, ..Purchase::with("") };
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    assert_consistent(&world, &purchase, &take_events(&world), "AUTHORISED");
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_response_and_holds_nothing_twice() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    let first = authorise(&world, &purchase).await;
    first.expect(StatusCode::CREATED);
    let charge = ledger(&world, &purchase);
    let again = authorise(&world, &purchase).await;
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    assert_eq!(ledger(&world, &purchase), charge);
}

#[tokio::test]
async fn a_request_with_another_name_of_the_recipient_is_still_a_repeat() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    let mut body = purchase.body();
    body["recipient"]["name"] = "Countess".into();
    world.post(&Caller::service(), "/payments", body).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_different_request_for_the_same_order_is_a_conflict() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    let others = || {
        let change = |field: &str, value: Value| {
            let mut body = purchase.body();
            body[field] = value;
            body
        };
        [
            change("amount", json!({ "minor": 5998, "currency": "USD" })),
            change("amount", json!({ "minor": 5997, "currency": "EUR" })),
            change("payment_method", json!("tok_slow")),
            change("user_id", json!(Caller::named("Eve").id().to_string())),
            change("capture", json!(true)),
        ]
    };
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    for body in others() {
        world.post(&Caller::service(), "/payments", body).await.expect_problem(409, "payment_mismatch");
    }
    capture(&world, &purchase).await.expect(StatusCode::OK);
    for body in others() {
        world.post(&Caller::service(), "/payments", body).await.expect_problem(409, "payment_mismatch");
    }
    assert_consistent(&world, &purchase, &take_events(&world), "CAPTURED");
}

#[tokio::test]
async fn a_declined_payment_stays_declined_and_each_response_states_the_reason() {
    let world = World::start().await;
    for (token, reason) in [
        ("tok_declined", "card_declined"),
        ("tok_insufficient_funds", "insufficient_funds"),
        ("tok_from_another_shop", "unknown_payment_method"),
    ] {
        let purchase = Purchase::with(token);
        for _ in 0..2 {
            let problem = authorise(&world, &purchase).await.expect_problem(402, "payment_declined");
            assert_eq!(problem["reason"], reason);
        }
        capture(&world, &purchase).await.expect_problem(409, "payment_not_authorised");
        assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "DECLINED");
        authorise(&world, &purchase).await.expect_problem(402, "payment_declined");
        assert_consistent(&world, &purchase, &take_events(&world), "DECLINED");
    }
}

#[tokio::test]
async fn a_capture_transfers_the_amount_and_publishes_an_event() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("traceparent", trace)];
    world
        .send_with(&Caller::service(), Method::POST, "/payments", Some(purchase.body()), &headers)
        .await
        .expect(StatusCode::CREATED);
    let payment = capture(&world, &purchase).await.expect(StatusCode::OK);
    assert_eq!((&payment["status"], &payment["amount"]), (&json!("CAPTURED"), &json!(59.97)));

    let events = take_events(&world);
    assert_consistent(&world, &purchase, &events, "CAPTURED");
    let event = &events[0];
    assert_eq!((&event["specversion"], &event["source"]), (&json!("1.0"), &json!("/payments")));
    assert_eq!(
        event["traceparent"], trace,
        "the event has the trace context of the request that authorised the payment"
    );
    assert_eq!(event["time"], payment["updated_at"]);
    let data = json!({
        "payment_id": purchase.payment(),
        "order_id": purchase.order(),
        "user_id": purchase.customer.id().to_string(),
        "recipient": purchase.recipient(),
        "amount": 59.97,
        "currency": "USD",
    });
    assert_eq!(event["data"], data);
}

#[tokio::test]
async fn a_repeated_capture_or_authorisation_gets_the_captured_payment() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    let first = capture(&world, &purchase).await.expect(StatusCode::OK);
    assert_eq!(capture(&world, &purchase).await.expect(StatusCode::OK), first);
    assert_eq!(authorise(&world, &purchase).await.expect(StatusCode::CREATED), first);
    let events = take_events(&world);
    assert_eq!(events.len(), 1);
    assert_consistent(&world, &purchase, &events, "CAPTURED");
}

#[tokio::test]
async fn a_permanently_refused_capture_leaves_a_hold_that_a_cancellation_voids() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_capture_refused");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    for _ in 0..2 {
        let problem = capture(&world, &purchase).await.expect_problem(402, "capture_refused");
        assert_eq!(problem["reason"], "refused_by_issuer");
    }
    assert_consistent(&world, &purchase, &take_events(&world), "AUTHORISED");
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "VOIDED");
    authorise(&world, &purchase).await.expect_problem(409, "payment_cancelled");
    assert_consistent(&world, &purchase, &take_events(&world), "VOIDED");
}

#[tokio::test]
async fn a_capture_of_an_unknown_payment_is_not_found() {
    let world = World::start().await;
    capture(&world, &Purchase::with("tok_accepted")).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_cancellation_voids_a_hold() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    let cancelled = cancel(&world, &purchase).await.expect(StatusCode::OK);
    assert_eq!((&cancelled["status"], &cancelled["order_id"]), (&json!("VOIDED"), &json!(purchase.order())));
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK), cancelled);
    authorise(&world, &purchase).await.expect_problem(409, "payment_cancelled");
    capture(&world, &purchase).await.expect_problem(409, "payment_cancelled");
    assert_consistent(&world, &purchase, &take_events(&world), "VOIDED");
}

#[tokio::test]
async fn a_cancellation_refunds_a_capture_and_publishes_an_event() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    capture(&world, &purchase).await.expect(StatusCode::OK);
    let refunded = cancel(&world, &purchase).await.expect(StatusCode::OK);
    assert_eq!(refunded["status"], "REFUNDED");
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK), refunded);
    authorise(&world, &purchase).await.expect_problem(409, "payment_cancelled");
    capture(&world, &purchase).await.expect_problem(409, "payment_cancelled");
    let events = take_events(&world);
    assert_eq!(events.len(), 2);
    assert_eq!(events[1]["data"]["amount"], json!(59.97));
    assert_consistent(&world, &purchase, &events, "REFUNDED");
}

#[tokio::test]
async fn after_a_cancellation_of_an_unknown_payment_the_authorisation_is_refused() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    let tombstone = json!({ "id": purchase.payment(), "status": "CANCELLED" });
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK), tombstone);
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK), tombstone);
    authorise(&world, &purchase).await.expect_problem(409, "payment_cancelled");
    capture(&world, &purchase).await.expect_problem(409, "payment_cancelled");
    let immediate = Purchase { capture_immediately: true, ..purchase.clone() };
    authorise(&world, &immediate).await.expect_problem(409, "payment_cancelled");
    assert_consistent(&world, &purchase, &take_events(&world), "CANCELLED");
}

#[tokio::test]
async fn an_immediate_capture_happens_once_and_in_the_request_that_authorises() {
    let world = World::start().await;
    let purchase = Purchase::capture_immediately("tok_accepted");
    let first = authorise(&world, &purchase).await;
    assert_eq!(first.expect(StatusCode::CREATED)["status"], "CAPTURED");
    assert_eq!(authorise(&world, &purchase).await.text, first.text);
    let events = take_events(&world);
    assert_eq!(events.len(), 1);
    assert_consistent(&world, &purchase, &events, "CAPTURED");
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "REFUNDED");
    authorise(&world, &purchase).await.expect_problem(409, "payment_cancelled");
}

#[tokio::test]
async fn a_refused_immediate_capture_leaves_no_hold_and_a_repeat_is_refused_too() {
    let world = World::start().await;
    let purchase = Purchase::capture_immediately("tok_capture_refused");
    for _ in 0..2 {
        let problem = authorise(&world, &purchase).await.expect_problem(402, "capture_refused");
        assert_eq!(problem["reason"], "refused_by_issuer");
        assert_consistent(&world, &purchase, &take_events(&world), "VOIDED");
    }
    cancel(&world, &purchase).await.expect(StatusCode::OK);
    authorise(&world, &purchase).await.expect_problem(402, "capture_refused");
    let declined = Purchase::capture_immediately("tok_declined");
    authorise(&world, &declined).await.expect_problem(402, "payment_declined");
    assert_consistent(&world, &declined, &take_events(&world), "DECLINED");
}

#[tokio::test]
async fn only_the_owner_and_administrators_see_a_payment() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    let payment = authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    let path = format!("/payments/{}", purchase.payment());
    for person in [&purchase.customer, &Caller::admin()] {
        assert_eq!(world.get(person, &path).await.expect(StatusCode::OK), payment);
    }
    world.get(&Caller::named("Mallory"), &path).await.expect_problem(404, "not_found");
    world.get(&Caller::anonymous(), &path).await.expect_problem(401, "unauthenticated");
    world.get(&Caller::service(), &path).await.expect_problem(403, "forbidden");
    let nothing = format!("/payments/{}", Purchase::with("").payment());
    world.get(&Caller::admin(), &nothing).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn nobody_sees_a_tombstone() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    cancel(&world, &purchase).await.expect(StatusCode::OK);
    let path = format!("/payments/{}", purchase.payment());
    for person in [&purchase.customer, &Caller::admin()] {
        world.get(person, &path).await.expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn only_services_can_authorise_capture_and_cancel() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    for person in [&purchase.customer, &Caller::admin(), &Caller::anonymous()] {
        world.post(person, "/payments", purchase.body()).await.expect_problem(403, "forbidden");
        for operation in ["capture", "cancel"] {
            let path = format!("/payments/{}/{operation}", purchase.payment());
            world.send(person, Method::POST, &path, None).await.expect_problem(403, "forbidden");
        }
    }
    assert_consistent(&world, &purchase, &take_events(&world), "AUTHORISED");
}

#[tokio::test]
async fn one_response_names_every_bad_field() {
    let world = World::start().await;
    let service = Caller::service();
    let bad = json!({
        "order_id": "ord_1", "user_id": "ada", "payment_method": "tok accepted",
        "amount": { "minor": 0, "currency": "USD" },
        "recipient": { "name": " ", "email": "ada", "phone": "1" },
    });
    let fields = [
        "order_id",
        "user_id",
        "amount.minor",
        "payment_method",
        "recipient.name",
        "recipient.email",
        "recipient.phone",
    ];
    world.post(&service, "/payments", bad).await.expect_bad_fields(&fields);

    let good = Purchase::with("tok_accepted").body();
    for (field, value) in [
        ("order_id", json!(good["order_id"].as_str().unwrap().to_uppercase())),
        ("order_id", json!(7)),
        ("amount", json!(59.97)),
        ("amount.minor", json!(0)),
        ("amount.minor", json!(-1)),
        ("amount.minor", json!(1.005)),
        ("amount.minor", json!("5997")),
        ("amount.minor", json!(1e16)),
        ("amount.currency", json!("usd")),
        ("amount.currency", json!("XAU")),
        ("payment_method", json!("")),
        ("capture", json!("yes")),
    ] {
        let mut body = good.clone();
        let place = match field.split_once('.') {
            Some((outer, inner)) => &mut body[outer][inner],
            None => &mut body[field],
        };
        *place = value;
        world.post(&service, "/payments", body).await.expect_bad_fields(&[field]);
    }
    for operation in ["capture", "cancel"] {
        let path = format!("/payments/42/{operation}");
        world.send(&service, Method::POST, &path, None).await.expect_bad_fields(&["id"]);
    }
    world.get(&Caller::admin(), "/payments/42").await.expect_bad_fields(&["id"]);
    assert!(world.cloud.scan("PaymentsTable").is_empty() && world.cloud.scan("SandboxLedgerTable").is_empty());
}

#[tokio::test]
async fn everybody_may_read_the_health_and_administrators_the_deep_health() {
    let world = World::start().await;
    let health = world.get(&Caller::anonymous(), "/health/payments").await.expect(StatusCode::OK);
    assert_eq!((&health["service"], &health["status"]), (&json!("payments"), &json!("ok")));
    let deep = world.get(&Caller::admin(), "/health/payments?deep=true").await.expect(StatusCode::OK);
    assert_eq!((&deep["dependencies"][0]["name"], &deep["dependencies"][0]["state"]), (&json!("table"), &json!("ok")));
}

// ── A provider that does not answer, or answers late ─────────────────────────

#[tokio::test]
async fn an_unavailable_provider_leaves_an_intent_that_the_next_attempt_resolves() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_flaky");
    authorise(&world, &purchase).await.expect_problem(503, "unavailable");
    let intent = record(&world, &purchase).unwrap();
    assert_eq!((&intent["status"]["S"], &intent["payment_method"]["S"]), (&json!("INTENT"), &json!("tok_flaky")));
    assert_eq!(status(&ledger(&world, &purchase)), "ATTEMPTED");
    capture(&world, &purchase).await.expect_problem(409, "payment_not_authorised");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    assert_consistent(&world, &purchase, &take_events(&world), "AUTHORISED");
}

#[tokio::test]
async fn after_the_cancellation_of_an_intent_nothing_is_held_and_an_authorisation_is_refused() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_flaky");
    authorise(&world, &purchase).await.expect_problem(503, "unavailable");
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "VOIDED");
    authorise(&world, &purchase).await.expect_problem(409, "payment_cancelled");
    assert_consistent(&world, &purchase, &take_events(&world), "VOIDED");
}

#[tokio::test]
async fn a_cancellation_of_an_intent_that_is_then_declined_succeeds() {
    let (world, plan) = world_with_interference().await;
    let purchase = Purchase::with("tok_declined");
    plan.lose_message_at("authorise:before");
    authorise(&world, &purchase).await.expect_problem(503, "unavailable");
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "DECLINED");
    authorise(&world, &purchase).await.expect_problem(402, "payment_declined");
    assert_consistent(&world, &purchase, &take_events(&world), "DECLINED");
}

#[tokio::test]
async fn a_cancellation_fails_while_the_provider_is_unavailable_and_succeeds_later() {
    let (world, plan) = world_with_interference().await;
    let purchase = Purchase::with("tok_accepted");
    plan.lose_message_at("authorise:after");
    authorise(&world, &purchase).await.expect_problem(503, "unavailable");
    plan.lose_message_at("authorise:before");
    cancel(&world, &purchase).await.expect_problem(503, "unavailable");
    assert_eq!(status(&record(&world, &purchase)), "INTENT");
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "VOIDED");
    assert_consistent(&world, &purchase, &take_events(&world), "VOIDED");
}

#[tokio::test(start_paused = true)]
async fn the_service_waits_for_a_slow_provider() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_slow");
    let started = tokio::time::Instant::now();
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    let took = started.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_secs(5)).contains(&took), "{took:?}");
    capture(&world, &purchase).await.expect(StatusCode::OK);
    assert_consistent(&world, &purchase, &take_events(&world), "CAPTURED");
}

#[tokio::test(start_paused = true)]
async fn a_call_to_the_provider_times_out_after_five_seconds() {
    let (world, plan) = world_with_interference().await;
    let purchase = Purchase::with("tok_accepted");
    plan.at("authorise:after", 0, Interference::Run(Box::pin(tokio::time::sleep(Duration::from_secs(60)))));
    let started = tokio::time::Instant::now();
    authorise(&world, &purchase).await.expect_problem(503, "unavailable");
    let took = started.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(6)).contains(&took), "{took:?}");
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "VOIDED");
    assert_consistent(&world, &purchase, &take_events(&world), "VOIDED");
}

/// Returns a request to an invocation that has `time` left.
fn within(time: Duration, path: &str, body: Value) -> Request<Body> {
    let mut context = lambda_http::Context::default();
    let end = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap() + time;
    context.deadline = end.as_millis() as u64;
    let request = Request::post(path).header("content-type", "application/json").extension(context);
    request.body(Body::from(body.to_string())).unwrap()
}

/// The provider responds so slowly that an invocation has time for one response, but not for
/// two responses.
#[tokio::test(start_paused = true)]
async fn a_cancellation_that_runs_out_of_time_continues_in_the_next_request() {
    let (world, plan) = world_with_interference().await;
    let purchase = Purchase::with("tok_accepted");
    plan.lose_message_at("authorise:after");
    authorise(&world, &purchase).await.expect_problem(503, "unavailable");
    let slowly = || Interference::Run(Box::pin(tokio::time::sleep(Duration::from_millis(4500))));
    let path = format!("/payments/{}/cancel", purchase.payment());
    let mut tries = 0;
    loop {
        plan.at("authorise:after", 0, slowly());
        plan.at("void:after", 0, slowly());
        let answer = world.send_raw(&Caller::service(), within(Duration::from_secs(8), &path, json!({}))).await;
        tries += 1;
        if answer.status == StatusCode::OK {
            break;
        }
        answer.expect_problem(503, "unavailable");
        assert!(tries < 4, "the cancellation makes no progress");
    }
    assert_eq!(status(&record(&world, &purchase)), "VOIDED");
    assert_consistent(&world, &purchase, &take_events(&world), "VOIDED");
}

#[tokio::test(start_paused = true)]
async fn the_provider_is_not_called_if_there_is_no_time_to_store_its_response() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_slow");
    let within = |time| within(time, "/payments", purchase.body());
    let started = tokio::time::Instant::now();
    let answer = world.send_raw(&Caller::service(), within(Duration::from_millis(3500))).await;
    answer.expect_problem(503, "unavailable");
    // Lambda's deadline is a time of the real clock, but `took` is a time of Tokio's paused
    // clock. On a slow machine, less time is left before the deadline, and `took` is shorter.
    let took = started.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_millis(2500)).contains(&took), "{took:?}");
    assert_eq!(status(&record(&world, &purchase)), "INTENT");
    // The second invocation has no time for a call, so the provider is not called.
    let charge = ledger(&world, &purchase);
    let answer = world.send_raw(&Caller::service(), within(Duration::from_millis(1400))).await;
    answer.expect_problem(503, "unavailable");
    assert_eq!(ledger(&world, &purchase), charge);
    // The provider stored the charge at the first request, so this request succeeds.
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    assert_consistent(&world, &purchase, &take_events(&world), "AUTHORISED");
}

// ── Events that cannot be published ──────────────────────────────────────────

#[tokio::test]
async fn no_state_is_stored_or_returned_before_its_event_is_published() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);

    world.cloud.take_down("sqs");
    capture(&world, &purchase).await.expect_problem(503, "unavailable");
    assert_eq!((status(&record(&world, &purchase)), net_captured(&world, &purchase)), ("AUTHORISED", 5997));
    world.cloud.bring_back();
    capture(&world, &purchase).await.expect(StatusCode::OK);
    let mut events = take_events(&world);
    assert_consistent(&world, &purchase, &events, "CAPTURED");

    world.cloud.take_down("sqs");
    cancel(&world, &purchase).await.expect_problem(503, "unavailable");
    assert_eq!((status(&record(&world, &purchase)), net_captured(&world, &purchase)), ("CAPTURED", 0));
    world.cloud.bring_back();
    cancel(&world, &purchase).await.expect(StatusCode::OK);
    events.extend(take_events(&world));
    assert_consistent(&world, &purchase, &events, "REFUNDED");
}

#[tokio::test]
async fn an_event_that_is_published_twice_has_the_same_id_both_times() {
    let (world, plan) = world_with_interference().await;
    let purchase = Purchase::with("tok_accepted");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    plan.lose_message_at("record:before");
    capture(&world, &purchase).await.expect_problem(503, "unavailable");
    capture(&world, &purchase).await.expect(StatusCode::OK);
    plan.lose_message_at("record:before");
    cancel(&world, &purchase).await.expect_problem(503, "unavailable");
    cancel(&world, &purchase).await.expect(StatusCode::OK);
    let events = take_events(&world);
    let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap().rsplit(':').next().unwrap()).collect();
    assert_eq!(ids, ["PaymentCaptured", "PaymentCaptured", "PaymentRefunded", "PaymentRefunded"]);
    assert_consistent(&world, &purchase, &events, "REFUNDED");
}

// ── Differences between our record and the provider's ledger ─────────────────

#[tokio::test]
async fn a_cancellation_refunds_a_capture_that_is_missing_from_our_record() {
    for point in ["capture:after", "record:before"] {
        let (world, plan) = world_with_interference().await;
        let purchase = Purchase::with("tok_accepted");
        authorise(&world, &purchase).await.expect(StatusCode::CREATED);
        plan.lose_message_at(point);
        capture(&world, &purchase).await.expect_problem(503, "unavailable");
        assert_eq!((status(&record(&world, &purchase)), net_captured(&world, &purchase)), ("AUTHORISED", 5997));
        assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "REFUNDED");
        assert_consistent(&world, &purchase, &take_events(&world), "REFUNDED");
    }
}

#[tokio::test]
async fn a_capture_of_a_voided_hold_completes_the_cancellation() {
    for point in ["void:after", "record:before"] {
        let (world, plan) = world_with_interference().await;
        let purchase = Purchase::with("tok_accepted");
        authorise(&world, &purchase).await.expect(StatusCode::CREATED);
        plan.lose_message_at(point);
        cancel(&world, &purchase).await.expect_problem(503, "unavailable");
        assert_eq!(status(&record(&world, &purchase)), "AUTHORISED");
        capture(&world, &purchase).await.expect_problem(409, "payment_cancelled");
        assert_consistent(&world, &purchase, &take_events(&world), "VOIDED");
    }
}

/// Overwrites the status of an item.
async fn set_status(world: &World, name: &str, pk: &str, sk: &str, status: &str) {
    let table = table(world, name).await;
    let update = table
        .update(&chassis::dynamo::Key::new(pk, sk))
        .update_expression("SET #status = :status")
        .expression_attribute_names("#status", "status")
        .expression_attribute_values(":status", chassis::dynamo::string(status));
    assert_eq!(table.send(update).await.unwrap(), WriteOutcome::Written);
}

#[tokio::test]
async fn a_cancellation_leaves_nothing_captured_even_if_our_record_is_outdated() {
    // The status in the ledger, the outdated status in our record, and the final status
    // after the cancellation.
    for (at_provider, recorded, end) in [
        ("AUTHORISED", "INTENT", "VOIDED"),
        ("CAPTURED", "INTENT", "REFUNDED"),
        ("CAPTURED", "AUTHORISED", "REFUNDED"),
        ("REFUNDED", "INTENT", "REFUNDED"),
        ("REFUNDED", "AUTHORISED", "REFUNDED"),
        ("REFUNDED", "CAPTURED", "REFUNDED"),
        ("VOIDED", "INTENT", "VOIDED"),
        ("VOIDED", "AUTHORISED", "VOIDED"),
    ] {
        for late_capture in [false, true] {
            let world = World::start().await;
            let purchase = Purchase::with("tok_accepted");
            authorise(&world, &purchase).await.expect(StatusCode::CREATED);
            if matches!(at_provider, "CAPTURED" | "REFUNDED") {
                capture(&world, &purchase).await.expect(StatusCode::OK);
            }
            if matches!(at_provider, "VOIDED" | "REFUNDED") {
                cancel(&world, &purchase).await.expect(StatusCode::OK);
            }
            let pk = format!("PAYMENT#{}", purchase.payment());
            set_status(&world, "PaymentsTable", &pk, "PAYMENT", recorded).await;
            let mut events = take_events(&world);
            if recorded != "CAPTURED" {
                events.clear();
            }
            if late_capture {
                // The capture may succeed or fail, but must not prevent the cancellation.
                capture(&world, &purchase).await;
            }
            let cancelled = cancel(&world, &purchase).await.expect(StatusCode::OK);
            assert_eq!(cancelled["status"], end, "{at_provider} recorded as {recorded}");
            events.extend(take_events(&world));
            assert_consistent(&world, &purchase, &events, end);
        }
    }
}

#[tokio::test]
async fn a_cancellation_of_a_capture_that_is_missing_from_the_ledger_leaves_no_hold() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    let pk = format!("PAYMENT#{}", purchase.payment());
    set_status(&world, "PaymentsTable", &pk, "PAYMENT", "CAPTURED").await;
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "REFUNDED");
    assert_eq!((status(&ledger(&world, &purchase)), net_captured(&world, &purchase)), ("VOIDED", 0));
    assert_eq!(event_types(&take_events(&world), &purchase), ["PaymentRefunded"]);
}

#[tokio::test]
async fn a_key_that_the_provider_knows_with_another_amount_is_an_internal_error() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    let provider = SandboxProvider::new(table(&world, "SandboxLedgerTable").await, Clock::System);
    let key = ProviderKey::from(PaymentId::from_uuid(purchase.uuid));
    provider.authorise(&key, Money::from_minor(1, Currency::USD).unwrap(), None).await.unwrap();
    authorise(&world, &purchase).await.expect_problem(500, "internal_error");
}

// ── Every lost message at every point ────────────────────────────────────────

/// An operation of the payments service, for the tables of test cases.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Authorise,
    Capture,
    Cancel,
}

impl Operation {
    async fn run(self, world: &World, purchase: &Purchase) -> Answer {
        match self {
            Self::Authorise => authorise(world, purchase).await,
            Self::Capture => capture(world, purchase).await,
            Self::Cancel => cancel(world, purchase).await,
        }
    }
}

/// The state of a payment before the tested operation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum InitialState {
    Nothing,
    /// The payment is an intent, because the authorisation's request to the provider was lost.
    RequestLost,
    /// The payment is an intent, because the provider's response to the authorisation was
    /// lost.
    AnswerLost,
    Authorised,
    Captured,
}

impl InitialState {
    async fn prepare(self, world: &World, plan: &InterferencePlan, purchase: &Purchase) {
        match self {
            Self::Nothing => return,
            Self::RequestLost => plan.lose_message_at("authorise:before"),
            Self::AnswerLost => plan.lose_message_at("authorise:after"),
            Self::Authorised | Self::Captured => {}
        }
        authorise(world, purchase).await;
        if self == Self::Captured {
            capture(world, purchase).await.expect(StatusCode::OK);
        }
        assert!(plan.finish());
    }
}

/// Returns the points that `operation` reaches if nothing interferes with it.
async fn points_of(
    world: &World,
    plan: &InterferencePlan,
    purchase: &Purchase,
    start: InitialState,
    operation: Operation,
) -> Vec<(String, usize)> {
    start.prepare(world, plan, purchase).await;
    operation.run(world, purchase).await;
    take_events(world);
    plan.take_reached()
}

#[tokio::test]
async fn after_any_lost_message_a_repeated_request_ends_as_if_no_message_was_lost() {
    use InitialState::{AnswerLost, Authorised, Captured, Nothing, RequestLost};
    use Operation::{Authorise, Cancel, Capture};

    let accepted = || Purchase::with("tok_accepted");
    let charge = || Purchase::capture_immediately("tok_accepted");
    let refused_charge = || Purchase::capture_immediately("tok_capture_refused");
    let refused_capture = || Purchase::with("tok_capture_refused");
    let declined = || Purchase::with("tok_declined");
    // Each case has the purchase, the initial state, the operation, the HTTP status of the
    // response, the final state, and the number of points at which a message can be lost:
    // two points for each write, and two points for each call to the provider.
    type Case = (fn() -> Purchase, InitialState, Operation, u16, &'static str, usize);
    let cases: [Case; 15] = [
        (accepted, Nothing, Authorise, 201, "AUTHORISED", 6),
        (accepted, RequestLost, Authorise, 201, "AUTHORISED", 6),
        (accepted, AnswerLost, Authorise, 201, "AUTHORISED", 6),
        (declined, Nothing, Authorise, 402, "DECLINED", 6),
        (charge, Nothing, Authorise, 201, "CAPTURED", 10),
        (refused_charge, Nothing, Authorise, 402, "VOIDED", 14),
        (accepted, Authorised, Capture, 200, "CAPTURED", 4),
        (refused_capture, Authorised, Capture, 402, "AUTHORISED", 4),
        (accepted, Nothing, Cancel, 200, "CANCELLED", 2),
        (accepted, RequestLost, Cancel, 200, "VOIDED", 8),
        (accepted, AnswerLost, Cancel, 200, "VOIDED", 8),
        (declined, AnswerLost, Cancel, 200, "DECLINED", 4),
        (accepted, Authorised, Cancel, 200, "VOIDED", 4),
        (refused_capture, Authorised, Cancel, 200, "VOIDED", 4),
        (accepted, Captured, Cancel, 200, "REFUNDED", 4),
    ];
    for (purchase, start, operation, answer, end, points_expected) in cases {
        let (world, plan) = world_with_interference().await;
        let points = points_of(&world, &plan, &purchase(), start, operation).await;
        assert_eq!(points.len(), points_expected, "{operation:?} of {start:?}: {points:?}");
        for (point, nth) in points {
            let purchase = purchase();
            let case = format!("{operation:?} of {start:?}, {:?}, lost at {point} {nth}", purchase.token);
            start.prepare(&world, &plan, &purchase).await;
            plan.at(&point, nth, Interference::LoseMessage);
            let first = operation.run(&world, &purchase).await;
            assert!(plan.finish(), "{case}");
            assert_eq!(first.status, 503, "{case}: {}", first.text);
            let again = operation.run(&world, &purchase).await;
            assert_eq!(again.status, answer, "{case}: {}", again.text);
            let mut events = take_events(&world);
            assert_consistent(&world, &purchase, &events, end);

            // The payment can be cancelled in every final state.
            cancel(&world, &purchase).await.expect(StatusCode::OK);
            events.extend(take_events(&world));
            let cancelled = match end {
                "AUTHORISED" => "VOIDED",
                "CAPTURED" => "REFUNDED",
                end => end,
            };
            assert_consistent(&world, &purchase, &events, cancelled);
        }
    }
}

#[tokio::test]
async fn a_cancellation_after_any_lost_message_leaves_nothing_captured() {
    use Operation::{Authorise, Capture};

    let accepted = || Purchase::with("tok_accepted");
    let charge = || Purchase::capture_immediately("tok_accepted");
    let refused_charge = || Purchase::capture_immediately("tok_capture_refused");
    type Case = (fn() -> Purchase, InitialState, Operation);
    let cases: [Case; 4] = [
        (accepted, InitialState::Nothing, Authorise),
        (charge, InitialState::Nothing, Authorise),
        (refused_charge, InitialState::Nothing, Authorise),
        (accepted, InitialState::Authorised, Capture),
    ];
    for (purchase, start, operation) in cases {
        let (world, plan) = world_with_interference().await;
        for (point, nth) in points_of(&world, &plan, &purchase(), start, operation).await {
            let purchase = purchase();
            start.prepare(&world, &plan, &purchase).await;
            plan.at(&point, nth, Interference::LoseMessage);
            operation.run(&world, &purchase).await.expect_problem(503, "unavailable");
            let end = cancel(&world, &purchase).await.expect(StatusCode::OK);
            let end = end["status"].as_str().unwrap();
            assert!(["VOIDED", "REFUNDED", "CANCELLED"].contains(&end), "{end}");
            let late = authorise(&world, &purchase).await;
            assert!(late.status == 409 || late.status == 402, "{}", late.text);
            assert_consistent(&world, &purchase, &take_events(&world), end);
        }
    }
}

// ── Every pair of operations, at every point ─────────────────────────────────

#[tokio::test]
async fn two_concurrent_operations_agree_and_a_cancellation_leaves_nothing_captured() {
    use Operation::{Authorise, Cancel, Capture};

    use InitialState::{AnswerLost, Authorised, Captured, Nothing, RequestLost};

    type Case = (fn() -> Purchase, &'static [InitialState]);
    let cases: [Case; 4] = [
        (|| Purchase::with("tok_accepted"), &[Nothing, RequestLost, AnswerLost, Authorised, Captured]),
        (|| Purchase::with("tok_declined"), &[Nothing, AnswerLost]),
        (|| Purchase::capture_immediately("tok_accepted"), &[Nothing, AnswerLost]),
        (|| Purchase::capture_immediately("tok_capture_refused"), &[Nothing, AnswerLost]),
    ];
    let operations = [Authorise, Capture, Cancel];
    let pairs = operations.iter().flat_map(|&outer| operations.map(|inner| (outer, inner)));
    let mut pairs_run = 0;
    for (purchase, starts) in cases {
        for (&start, (outer, inner)) in starts.iter().flat_map(|start| pairs.clone().map(move |pair| (start, pair))) {
            let (world, plan) = world_with_interference().await;
            for (point, nth) in points_of(&world, &plan, &purchase(), start, outer).await {
                let purchase = purchase();
                let case = format!("{inner:?} at {point} {nth} of {outer:?} of {start:?}, {:?}", purchase.token);
                start.prepare(&world, &plan, &purchase).await;
                let inner_answer = Arc::new(Mutex::new(None));
                let (inner_world, inner_purchase, slot) = (world.clone(), purchase.clone(), inner_answer.clone());
                let work = async move {
                    let answer = inner.run(&inner_world, &inner_purchase).await;
                    *slot.lock().unwrap() = Some(answer);
                };
                plan.at(&point, nth, Interference::Run(Box::pin(work)));
                let outer_answer = outer.run(&world, &purchase).await;
                assert!(plan.finish(), "{case}");
                let inner_answer = inner_answer.lock().unwrap().take().expect("an answer");
                for answer in [&outer_answer, &inner_answer] {
                    assert!(answer.status.as_u16() < 500, "{case}: {}", answer.text);
                }
                pairs_run += 1;

                let mut events = take_events(&world);
                let end = status(&record(&world, &purchase)).to_owned();
                assert_consistent(&world, &purchase, &events, &end);
                if outer != Cancel && inner != Cancel {
                    cancel(&world, &purchase).await.expect(StatusCode::OK);
                    events.extend(take_events(&world));
                }
                let end = status(&record(&world, &purchase)).to_owned();
                assert!(["DECLINED", "VOIDED", "REFUNDED", "CANCELLED"].contains(&end.as_str()), "{case}: {end}");
                assert_consistent(&world, &purchase, &events, &end);
            }
        }
    }
    assert!(pairs_run > 100, "only {pairs_run} pairs of operations ran");
}

#[tokio::test]
async fn if_a_capture_and_a_cancellation_run_at_once_no_money_stays_captured() {
    // The point in the capture at which the cancellation runs, whether the capture succeeds,
    // and the final status.
    for (point, captured, end) in [
        // The void happens before the capture, so the capture is refused.
        ("capture:before", false, "VOIDED"),
        // The capture happens before the cancellation, which refunds the captured amount.
        ("capture:after", false, "REFUNDED"),
        ("record:before", false, "REFUNDED"),
        // The capture is stored, but its response is sent after the cancellation.
        ("record:after", true, "REFUNDED"),
    ] {
        let (world, plan) = world_with_interference().await;
        let purchase = Purchase::with("tok_accepted");
        authorise(&world, &purchase).await.expect(StatusCode::CREATED);
        let (inner_world, inner_purchase) = (world.clone(), purchase.clone());
        let work = async move {
            cancel(&inner_world, &inner_purchase).await.expect(StatusCode::OK);
        };
        plan.at(point, 0, Interference::Run(Box::pin(work)));
        let answer = capture(&world, &purchase).await;
        match captured {
            true => assert_eq!(answer.expect(StatusCode::OK)["status"], "CAPTURED"),
            false => assert_eq!(answer.expect_problem(409, "payment_cancelled")["status"], 409),
        }
        assert_consistent(&world, &purchase, &take_events(&world), end);
    }
    // The point in the cancellation at which the capture runs, and the final status.
    for (point, end) in [("void:before", "REFUNDED"), ("void:after", "VOIDED"), ("record:before", "VOIDED")] {
        let (world, plan) = world_with_interference().await;
        let purchase = Purchase::with("tok_accepted");
        authorise(&world, &purchase).await.expect(StatusCode::CREATED);
        let (inner_world, inner_purchase) = (world.clone(), purchase.clone());
        let work = async move {
            capture(&inner_world, &inner_purchase).await;
        };
        plan.at(point, 0, Interference::Run(Box::pin(work)));
        assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], end);
        assert_consistent(&world, &purchase, &take_events(&world), end);
    }
}

// ── The sandbox fulfils the promises of the provider's interface ─────────────

async fn sandbox() -> (World, SandboxProvider) {
    let world = World::start().await;
    let provider = SandboxProvider::new(table(&world, "SandboxLedgerTable").await, Clock::System);
    (world, provider)
}

fn five_dollars() -> Money {
    Money::from_minor(500, Currency::USD).unwrap()
}

#[tokio::test]
async fn the_sandbox_gives_a_repeated_authorisation_the_first_outcome_even_after_a_void() {
    let (_world, provider) = sandbox().await;
    let key = ProviderKey::from(PaymentId::generate());
    let first = provider.authorise(&key, five_dollars(), None).await.unwrap();
    assert_eq!(provider.authorise(&key, five_dollars(), None).await.unwrap(), first);
    assert_eq!(provider.void(&key).await.unwrap(), VoidOutcome::Voided);
    assert_eq!(provider.void(&key).await.unwrap(), VoidOutcome::Voided);
    assert_eq!(provider.authorise(&key, five_dollars(), None).await.unwrap(), first);
    assert_eq!(provider.capture(&key).await.unwrap(), CaptureOutcome::Released);
    assert_eq!(provider.refund(&key).await.unwrap(), RefundOutcome::NothingToRefund);
    let other = Money::from_minor(501, Currency::USD).unwrap();
    assert!(matches!(provider.authorise(&key, other, None).await, Err(ProviderError::KeyConflict)));
    let euros = Money::from_minor(500, "EUR".parse().unwrap()).unwrap();
    assert!(matches!(provider.authorise(&key, euros, None).await, Err(ProviderError::KeyConflict)));
}

#[tokio::test]
async fn the_sandbox_captures_and_refunds_once_and_keeps_a_history() {
    let (world, provider) = sandbox().await;
    let id = PaymentId::generate();
    let key = ProviderKey::from(id);
    provider.authorise(&key, five_dollars(), None).await.unwrap();
    for _ in 0..2 {
        assert_eq!(provider.capture(&key).await.unwrap(), CaptureOutcome::Captured);
    }
    assert_eq!(provider.void(&key).await.unwrap(), VoidOutcome::AlreadyCaptured);
    for _ in 0..2 {
        assert_eq!(provider.refund(&key).await.unwrap(), RefundOutcome::Refunded);
    }
    assert_eq!(provider.void(&key).await.unwrap(), VoidOutcome::AlreadyCaptured);
    assert_eq!(provider.capture(&key).await.unwrap(), CaptureOutcome::Released);
    let charge = item(&world, "SandboxLedgerTable", &format!("CHARGE#{id}")).unwrap();
    for (name, cents) in [("amount_minor", "500"), ("captured_minor", "500"), ("refunded_minor", "500")] {
        assert_eq!(charge[name]["N"], cents, "{name}");
    }
    let history = charge["history"]["L"].as_array().unwrap();
    let statuses: Vec<_> = history.iter().map(|entry| entry["M"]["status"]["S"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["AUTHORISED", "CAPTURED", "REFUNDED"]);
}

#[tokio::test]
async fn the_sandbox_captures_voids_and_refunds_nothing_if_nothing_is_held() {
    let (_world, provider) = sandbox().await;
    let unknown = ProviderKey::from(PaymentId::generate());
    let declined = ProviderKey::from(PaymentId::generate());
    let token: PaymentMethod = "tok_declined".parse().unwrap();
    provider.authorise(&declined, five_dollars(), Some(&token)).await.unwrap();
    let attempted = ProviderKey::from(PaymentId::generate());
    let token: PaymentMethod = "tok_flaky".parse().unwrap();
    provider.authorise(&attempted, five_dollars(), Some(&token)).await.unwrap_err();
    for key in [unknown, declined, attempted] {
        let refusal = CaptureOutcome::Refused { reason: "not_authorised".into() };
        assert_eq!(provider.capture(&key).await.unwrap(), refusal);
        assert_eq!(provider.void(&key).await.unwrap(), VoidOutcome::NothingToVoid);
        assert_eq!(provider.refund(&key).await.unwrap(), RefundOutcome::NothingToRefund);
    }
}
