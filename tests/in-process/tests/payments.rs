//! The payments service: authorising, capturing and cancelling, and what is
//! left of each when something between our records, the provider and the queue
//! is lost or happens twice.
//!
//! After every scenario three witnesses are asked: our record, the provider's
//! ledger, and the events that were sent.

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
        AuthoriseOutcome, CaptureOutcome, PaymentProvider, ProviderError, ProviderKey, RefundOutcome, SandboxProvider,
        VoidOutcome,
    },
    repository::{DynamoRepository, Repository},
    service::Payments,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// An order to pay, and its customer.
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

/// The one item of a table with this partition key.
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

/// Cents that the provider took and did not give back.
fn kept(world: &World, purchase: &Purchase) -> i64 {
    let cents = |item: &Value, name: &str| item[name]["N"].as_str().expect("a number").parse::<i64>().expect("cents");
    ledger(world, purchase).map_or(0, |item| cents(&item, "captured_minor") - cents(&item, "refunded_minor"))
}

/// The events sent so far, whichever payment they are about.
fn take_events(world: &World) -> Vec<Value> {
    world.cloud.take_messages().iter().map(|text| serde_json::from_str(text).expect("an event")).collect()
}

/// Which kinds of events were sent about a payment, each once.
fn kinds(events: &[Value], purchase: &Purchase) -> Vec<String> {
    let about = events.iter().filter(|event| event["subject"] == purchase.payment().as_str());
    let mut kinds: Vec<_> = about.map(|event| event["type"].as_str().expect("a type").to_owned()).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// Asserts that our record, the provider's ledger and the events tell the same
/// story, and that it ends in `expected`.
#[track_caller]
fn assert_story(world: &World, purchase: &Purchase, events: &[Value], expected: &str) {
    let (record, ledger) = (record(world, purchase), ledger(world, purchase));
    assert_eq!(status(&record), expected, "our record; the ledger: {ledger:?}");
    let (provider, kept_cents, told): (_, _, &[&str]) = match expected {
        "AUTHORISED" | "VOIDED" | "DECLINED" => (expected, 0, &[]),
        "CAPTURED" => (expected, 5997, &["PaymentCaptured"]),
        "REFUNDED" => (expected, 0, &["PaymentCaptured", "PaymentRefunded"]),
        "CANCELLED" => ("nothing", 0, &[]),
        other => panic!("{other} is no end of a story"),
    };
    assert_eq!(status(&ledger), provider, "the provider's ledger");
    assert_eq!(kept(world, purchase), kept_cents, "{ledger:?}");
    assert_eq!(kinds(events, purchase), told);
    for event in events.iter().filter(|event| event["subject"] == purchase.payment().as_str()) {
        let kind = event["type"].as_str().expect("a type");
        assert_eq!(event["id"], format!("{}:{kind}", purchase.payment()), "a repeat has the same id");
    }
    assert!(record.is_some_and(|record| record.get("payment_method").is_none()), "the token is not kept");
}

// ── Interfering ─────────────────────────────────────────────────────────────

/// What happens when a point of the code is reached.
enum Act {
    /// Nothing.
    Pass,
    /// The message is lost: before an operation it never happens, after it its
    /// answer never arrives.
    Lose,
    /// Somebody else does something at this moment.
    Run(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// Decides what happens at the named points between the service and what it
/// talks to: `capture:before`, `capture:after`, `record:before` and so on.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Plan>>);

#[derive(Default)]
struct Plan {
    acts: HashMap<String, VecDeque<Act>>,
    reached: Vec<String>,
}

impl Script {
    /// At the `nth` time (from 0) that `point` is reached, `act`.
    fn at(&self, point: &str, nth: usize, act: Act) {
        let acts = (0..nth).map(|_| Act::Pass).chain([act]).collect();
        self.0.lock().unwrap().acts.insert(point.into(), acts);
    }

    fn lose(&self, point: &str) {
        self.at(point, 0, Act::Lose);
    }

    /// Whether everything happened; forgets the rest.
    fn is_over(&self) -> bool {
        let mut plan = self.0.lock().unwrap();
        let over = plan.acts.values().all(VecDeque::is_empty);
        *plan = Plan::default();
        over
    }

    /// The points that were reached since the script was over, each with how
    /// often it had been reached before.
    fn take_reached(&self) -> Vec<(String, usize)> {
        let points = std::mem::take(&mut self.0.lock().unwrap().reached);
        let count = |n: usize| points[..n].iter().filter(|point| **point == points[n]).count();
        (0..points.len()).map(|n| (points[n].clone(), count(n))).collect()
    }

    async fn reach(&self, point: String) -> Result<(), ()> {
        let act = {
            let mut plan = self.0.lock().unwrap();
            plan.reached.push(point.clone());
            plan.acts.get_mut(&point).and_then(VecDeque::pop_front)
        };
        match act.unwrap_or(Act::Pass) {
            Act::Pass => Ok(()),
            Act::Lose => Err(()),
            Act::Run(work) => {
                work.await;
                Ok(())
            }
        }
    }
}

/// Something real with a script around it.
struct Staged<T> {
    inner: T,
    script: Script,
}

impl<T> Staged<T> {
    async fn act<R, E>(
        &self,
        name: &str,
        lost: impl Fn() -> E,
        work: impl Future<Output = Result<R, E>>,
    ) -> Result<R, E> {
        self.script.reach(format!("{name}:before")).await.map_err(|()| lost())?;
        let result = work.await;
        self.script.reach(format!("{name}:after")).await.map_err(|()| lost())?;
        result
    }
}

fn no_answer() -> ProviderError {
    ProviderError::Unavailable("lost".into())
}

fn no_write() -> StoreError {
    StoreError::unavailable("payments", "lost")
}

#[async_trait::async_trait]
impl PaymentProvider for Staged<SandboxProvider> {
    async fn authorise(
        &self,
        key: &ProviderKey,
        amount: Money,
        method: Option<&PaymentMethod>,
    ) -> Result<AuthoriseOutcome, ProviderError> {
        self.act("authorise", no_answer, self.inner.authorise(key, amount, method)).await
    }

    async fn capture(&self, key: &ProviderKey) -> Result<CaptureOutcome, ProviderError> {
        self.act("capture", no_answer, self.inner.capture(key)).await
    }

    async fn void(&self, key: &ProviderKey) -> Result<VoidOutcome, ProviderError> {
        self.act("void", no_answer, self.inner.void(key)).await
    }

    async fn refund(&self, key: &ProviderKey) -> Result<RefundOutcome, ProviderError> {
        self.act("refund", no_answer, self.inner.refund(key)).await
    }
}

#[async_trait::async_trait]
impl Repository for Staged<DynamoRepository> {
    async fn create(&self, record: &PaymentRecord) -> Result<SaveOutcome, StoreError> {
        self.act("create", no_write, self.inner.create(record)).await
    }

    async fn find(&self, id: PaymentId) -> Result<Option<PaymentRecord>, StoreError> {
        self.inner.find(id).await
    }

    async fn advance(&self, before: &Payment, after: &Payment) -> Result<SaveOutcome, StoreError> {
        self.act("record", no_write, self.inner.advance(before, after)).await
    }

    async fn erase_recipient(&self, id: PaymentId) -> Result<(), StoreError> {
        self.inner.erase_recipient(id).await
    }
}

async fn table(world: &World, name: &str) -> Table {
    world::table(world.cloud.clone(), name).await
}

/// A world whose payments service follows a script.
async fn staged() -> (Arc<World>, Script) {
    let world = Arc::new(World::start().await);
    let (aws, script) = (world::aws(world.cloud.clone()).await, Script::default());
    let table = |name: &str| Table::new(aws_sdk_dynamodb::Client::new(&aws.config), name);
    let provider = SandboxProvider::new(table("SandboxLedgerTable"), Clock::System);
    let payments = Payments::new(
        Staged { inner: DynamoRepository::new(table("PaymentsTable")), script: script.clone() },
        Staged { inner: provider, script: script.clone() },
        EventPublisher::new(aws_sdk_sqs::Client::new(&aws.config), "https://sqs.us-east-1.amazonaws.com/order-events"),
        Clock::System,
    );
    let tokens = TokenConfig {
        key_set: "http://pool.test/keys".parse().unwrap(),
        issuer: "http://pool.test".into(),
        audience: "client".into(),
    };
    let authenticator =
        Authenticator::new(TokenVerifier::new(tokens, aws.connector.clone(), Clock::System), InternalAuth::Iam);
    world.cloud.serve("payments", payments::handlers::router(payments, table("PaymentsTable"), authenticator));
    (world, script)
}

// ── What each route answers ─────────────────────────────────────────────────

#[tokio::test]
async fn an_authorised_payment_is_held_and_its_id_derives_from_the_orders() {
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
    assert_story(&world, &purchase, &take_events(&world), "AUTHORISED");
}

#[tokio::test]
async fn without_a_token_the_customers_default_method_pays() {
    let world = World::start().await;
    let purchase = Purchase { token: None, ..Purchase::with("") };
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    assert_story(&world, &purchase, &take_events(&world), "AUTHORISED");
}

#[tokio::test]
async fn the_same_request_again_gets_the_same_answer_and_holds_nothing_twice() {
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
async fn who_changed_their_name_meanwhile_still_repeats_the_same_request() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    let mut body = purchase.body();
    body["recipient"]["name"] = "Countess".into();
    world.post(&Caller::service(), "/payments", body).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn another_request_for_the_same_order_is_a_conflict_wherever_the_payment_is() {
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
    assert_story(&world, &purchase, &take_events(&world), "CAPTURED");
}

#[tokio::test]
async fn a_declined_payment_stays_declined_and_says_why() {
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
        assert_story(&world, &purchase, &take_events(&world), "DECLINED");
    }
}

#[tokio::test]
async fn a_capture_takes_the_money_and_tells_so() {
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
    assert_story(&world, &purchase, &events, "CAPTURED");
    let event = &events[0];
    assert_eq!((&event["specversion"], &event["source"]), (&json!("1.0"), &json!("/payments")));
    assert_eq!(event["traceparent"], trace, "the events belong to the request that authorised");
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
async fn a_second_capture_gets_the_same_answer_and_a_repeated_authorisation_the_payment_as_it_is() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    let first = capture(&world, &purchase).await.expect(StatusCode::OK);
    assert_eq!(capture(&world, &purchase).await.expect(StatusCode::OK), first);
    assert_eq!(authorise(&world, &purchase).await.expect(StatusCode::CREATED), first);
    let events = take_events(&world);
    assert_eq!(events.len(), 1);
    assert_story(&world, &purchase, &events, "CAPTURED");
}

#[tokio::test]
async fn a_capture_that_the_provider_refuses_for_good_leaves_a_hold_that_cancel_gives_up() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_capture_refused");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    for _ in 0..2 {
        let problem = capture(&world, &purchase).await.expect_problem(402, "capture_refused");
        assert_eq!(problem["reason"], "refused_by_issuer");
    }
    assert_story(&world, &purchase, &take_events(&world), "AUTHORISED");
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "VOIDED");
    authorise(&world, &purchase).await.expect_problem(409, "payment_cancelled");
    assert_story(&world, &purchase, &take_events(&world), "VOIDED");
}

#[tokio::test]
async fn what_is_not_there_is_not_captured() {
    let world = World::start().await;
    capture(&world, &Purchase::with("tok_accepted")).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn cancel_voids_what_is_held() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    let cancelled = cancel(&world, &purchase).await.expect(StatusCode::OK);
    assert_eq!((&cancelled["status"], &cancelled["order_id"]), (&json!("VOIDED"), &json!(purchase.order())));
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK), cancelled);
    authorise(&world, &purchase).await.expect_problem(409, "payment_cancelled");
    capture(&world, &purchase).await.expect_problem(409, "payment_cancelled");
    assert_story(&world, &purchase, &take_events(&world), "VOIDED");
}

#[tokio::test]
async fn cancel_refunds_what_was_captured_and_tells_so() {
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
    assert_story(&world, &purchase, &events, "REFUNDED");
}

#[tokio::test]
async fn cancel_before_anything_leaves_a_tombstone_that_refuses_a_late_authorisation() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    let tombstone = json!({ "id": purchase.payment(), "status": "CANCELLED" });
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK), tombstone);
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK), tombstone);
    authorise(&world, &purchase).await.expect_problem(409, "payment_cancelled");
    capture(&world, &purchase).await.expect_problem(409, "payment_cancelled");
    let capture_immediately = Purchase { capture_immediately: true, ..purchase.clone() };
    authorise(&world, &capture_immediately).await.expect_problem(409, "payment_cancelled");
    assert_story(&world, &purchase, &take_events(&world), "CANCELLED");
}

#[tokio::test]
async fn a_charge_at_once_is_captured_in_the_same_request_and_once() {
    let world = World::start().await;
    let purchase = Purchase::capture_immediately("tok_accepted");
    let first = authorise(&world, &purchase).await;
    assert_eq!(first.expect(StatusCode::CREATED)["status"], "CAPTURED");
    assert_eq!(authorise(&world, &purchase).await.text, first.text);
    let events = take_events(&world);
    assert_eq!(events.len(), 1);
    assert_story(&world, &purchase, &events, "CAPTURED");
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "REFUNDED");
    authorise(&world, &purchase).await.expect_problem(409, "payment_cancelled");
}

#[tokio::test]
async fn a_charge_at_once_that_cannot_be_captured_holds_nothing_and_keeps_its_refusal() {
    let world = World::start().await;
    let purchase = Purchase::capture_immediately("tok_capture_refused");
    for _ in 0..2 {
        let problem = authorise(&world, &purchase).await.expect_problem(402, "capture_refused");
        assert_eq!(problem["reason"], "refused_by_issuer");
        assert_story(&world, &purchase, &take_events(&world), "VOIDED");
    }
    cancel(&world, &purchase).await.expect(StatusCode::OK);
    authorise(&world, &purchase).await.expect_problem(402, "capture_refused");
    let declined = Purchase::capture_immediately("tok_declined");
    authorise(&world, &declined).await.expect_problem(402, "payment_declined");
    assert_story(&world, &declined, &take_events(&world), "DECLINED");
}

#[tokio::test]
async fn a_payment_is_shown_to_its_owner_administrators_and_services_only() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    let payment = authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    let path = format!("/payments/{}", purchase.payment());
    for person in [&purchase.customer, &Caller::admin(), &Caller::service()] {
        assert_eq!(world.get(person, &path).await.expect(StatusCode::OK), payment);
    }
    world.get(&Caller::named("Mallory"), &path).await.expect_problem(404, "not_found");
    world.get(&Caller::anonymous(), &path).await.expect_problem(401, "unauthenticated");
    let nothing = format!("/payments/{}", Purchase::with("").payment());
    world.get(&Caller::service(), &nothing).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_tombstone_is_shown_to_services_only() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    let tombstone = cancel(&world, &purchase).await.expect(StatusCode::OK);
    let path = format!("/payments/{}", purchase.payment());
    assert_eq!(world.get(&Caller::service(), &path).await.expect(StatusCode::OK), tombstone);
    for person in [&purchase.customer, &Caller::admin()] {
        world.get(person, &path).await.expect_problem(404, "not_found");
    }
}

#[tokio::test]
async fn people_move_no_money() {
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
    assert_story(&world, &purchase, &take_events(&world), "AUTHORISED");
}

#[tokio::test]
async fn every_bad_field_is_named_at_once() {
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
    world.get(&service, "/payments/42").await.expect_bad_fields(&["id"]);
    assert!(world.cloud.scan("PaymentsTable").is_empty() && world.cloud.scan("SandboxLedgerTable").is_empty());
}

#[tokio::test]
async fn health_is_for_anyone() {
    let world = World::start().await;
    let health = world.get(&Caller::anonymous(), "/health/payments").await.expect(StatusCode::OK);
    assert_eq!((&health["service"], &health["status"]), (&json!("payments"), &json!("ok")));
    let deep = world.get(&Caller::admin(), "/health/payments?deep=true").await.expect(StatusCode::OK);
    assert_eq!(deep["table"], "ok");
}

// ── When the provider doesn't answer, or late ───────────────────────────────

#[tokio::test]
async fn an_unavailable_provider_leaves_an_intent_that_the_next_try_resolves() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_flaky");
    authorise(&world, &purchase).await.expect_problem(503, "unavailable");
    let intent = record(&world, &purchase).unwrap();
    assert_eq!((&intent["status"]["S"], &intent["payment_method"]["S"]), (&json!("INTENT"), &json!("tok_flaky")));
    assert_eq!(status(&ledger(&world, &purchase)), "ATTEMPTED");
    capture(&world, &purchase).await.expect_problem(409, "payment_not_authorised");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    assert_story(&world, &purchase, &take_events(&world), "AUTHORISED");
}

#[tokio::test]
async fn a_cancelled_intent_holds_nothing_at_the_provider_and_refuses_a_late_authorisation() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_flaky");
    authorise(&world, &purchase).await.expect_problem(503, "unavailable");
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "VOIDED");
    authorise(&world, &purchase).await.expect_problem(409, "payment_cancelled");
    assert_story(&world, &purchase, &take_events(&world), "VOIDED");
}

#[tokio::test]
async fn an_intent_that_turns_out_to_be_declined_is_as_good_as_cancelled() {
    let (world, script) = staged().await;
    let purchase = Purchase::with("tok_declined");
    script.lose("authorise:before");
    authorise(&world, &purchase).await.expect_problem(503, "unavailable");
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "DECLINED");
    authorise(&world, &purchase).await.expect_problem(402, "payment_declined");
    assert_story(&world, &purchase, &take_events(&world), "DECLINED");
}

#[tokio::test]
async fn a_cancel_that_cannot_ask_the_provider_says_so_and_goes_on_later() {
    let (world, script) = staged().await;
    let purchase = Purchase::with("tok_accepted");
    script.lose("authorise:after");
    authorise(&world, &purchase).await.expect_problem(503, "unavailable");
    script.lose("authorise:before");
    cancel(&world, &purchase).await.expect_problem(503, "unavailable");
    assert_eq!(status(&record(&world, &purchase)), "INTENT");
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "VOIDED");
    assert_story(&world, &purchase, &take_events(&world), "VOIDED");
}

#[tokio::test(start_paused = true)]
async fn a_slow_provider_is_waited_for() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_slow");
    let started = tokio::time::Instant::now();
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    let took = started.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_secs(5)).contains(&took), "{took:?}");
    capture(&world, &purchase).await.expect(StatusCode::OK);
    assert_story(&world, &purchase, &take_events(&world), "CAPTURED");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_is_given_up_after_five_seconds() {
    let (world, script) = staged().await;
    let purchase = Purchase::with("tok_accepted");
    script.at("authorise:after", 0, Act::Run(Box::pin(tokio::time::sleep(Duration::from_secs(60)))));
    let started = tokio::time::Instant::now();
    authorise(&world, &purchase).await.expect_problem(503, "unavailable");
    let took = started.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(6)).contains(&took), "{took:?}");
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "VOIDED");
    assert_story(&world, &purchase, &take_events(&world), "VOIDED");
}

/// A request in an invocation that has so much time left.
fn within(time: Duration, path: &str, body: Value) -> Request<Body> {
    let mut context = lambda_http::Context::default();
    let end = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap() + time;
    context.deadline = end.as_millis() as u64;
    let request = Request::post(path).header("content-type", "application/json").extension(context);
    request.body(Body::from(body.to_string())).unwrap()
}

/// Each answer of the provider fits into an invocation, but no two do.
#[tokio::test(start_paused = true)]
async fn a_cancel_that_runs_out_of_time_goes_on_from_where_it_was() {
    let (world, script) = staged().await;
    let purchase = Purchase::with("tok_accepted");
    script.lose("authorise:after");
    authorise(&world, &purchase).await.expect_problem(503, "unavailable");
    let slowly = || Act::Run(Box::pin(tokio::time::sleep(Duration::from_millis(4500))));
    let path = format!("/payments/{}/cancel", purchase.payment());
    let mut tries = 0;
    loop {
        script.at("authorise:after", 0, slowly());
        script.at("void:after", 0, slowly());
        let answer = world.send_raw(&Caller::service(), within(Duration::from_secs(8), &path, json!({}))).await;
        tries += 1;
        if answer.status == StatusCode::OK {
            break;
        }
        answer.expect_problem(503, "unavailable");
        assert!(tries < 4, "it never gets anywhere");
    }
    assert_eq!(status(&record(&world, &purchase)), "VOIDED");
    assert_story(&world, &purchase, &take_events(&world), "VOIDED");
}

#[tokio::test(start_paused = true)]
async fn the_provider_is_not_waited_for_when_there_would_be_no_time_to_record() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_slow");
    let within = |time| within(time, "/payments", purchase.body());
    let started = tokio::time::Instant::now();
    let answer = world.send_raw(&Caller::service(), within(Duration::from_millis(3500))).await;
    answer.expect_problem(503, "unavailable");
    // Less, if the machine was busy: Lambda's deadlines are of the real clock.
    let took = started.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_millis(2500)).contains(&took), "{took:?}");
    assert_eq!(status(&record(&world, &purchase)), "INTENT");
    // No time for it at all: the provider isn't even asked.
    let charge = ledger(&world, &purchase);
    let answer = world.send_raw(&Caller::service(), within(Duration::from_millis(1400))).await;
    answer.expect_problem(503, "unavailable");
    assert_eq!(ledger(&world, &purchase), charge);
    // The provider has had the charge all along.
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    assert_story(&world, &purchase, &take_events(&world), "AUTHORISED");
}

// ── When the event doesn't get out ──────────────────────────────────────────

#[tokio::test]
async fn nothing_is_acknowledged_or_recorded_before_its_event_is_out() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);

    world.cloud.take_down("sqs");
    capture(&world, &purchase).await.expect_problem(503, "unavailable");
    assert_eq!((status(&record(&world, &purchase)), kept(&world, &purchase)), ("AUTHORISED", 5997));
    world.cloud.bring_back();
    capture(&world, &purchase).await.expect(StatusCode::OK);
    let mut events = take_events(&world);
    assert_story(&world, &purchase, &events, "CAPTURED");

    world.cloud.take_down("sqs");
    cancel(&world, &purchase).await.expect_problem(503, "unavailable");
    assert_eq!((status(&record(&world, &purchase)), kept(&world, &purchase)), ("CAPTURED", 0));
    world.cloud.bring_back();
    cancel(&world, &purchase).await.expect(StatusCode::OK);
    events.extend(take_events(&world));
    assert_story(&world, &purchase, &events, "REFUNDED");
}

#[tokio::test]
async fn an_event_that_goes_out_twice_has_one_id() {
    let (world, script) = staged().await;
    let purchase = Purchase::with("tok_accepted");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    script.lose("record:before");
    capture(&world, &purchase).await.expect_problem(503, "unavailable");
    capture(&world, &purchase).await.expect(StatusCode::OK);
    script.lose("record:before");
    cancel(&world, &purchase).await.expect_problem(503, "unavailable");
    cancel(&world, &purchase).await.expect(StatusCode::OK);
    let events = take_events(&world);
    let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap().rsplit(':').next().unwrap()).collect();
    assert_eq!(ids, ["PaymentCaptured", "PaymentCaptured", "PaymentRefunded", "PaymentRefunded"]);
    assert_story(&world, &purchase, &events, "REFUNDED");
}

// ── When our record and the provider's ledger disagree ──────────────────────

#[tokio::test]
async fn cancel_gives_back_a_capture_that_our_record_knows_nothing_of() {
    for point in ["capture:after", "record:before"] {
        let (world, script) = staged().await;
        let purchase = Purchase::with("tok_accepted");
        authorise(&world, &purchase).await.expect(StatusCode::CREATED);
        script.lose(point);
        capture(&world, &purchase).await.expect_problem(503, "unavailable");
        assert_eq!((status(&record(&world, &purchase)), kept(&world, &purchase)), ("AUTHORISED", 5997));
        assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "REFUNDED");
        assert_story(&world, &purchase, &take_events(&world), "REFUNDED");
    }
}

#[tokio::test]
async fn a_capture_that_finds_the_hold_voided_finishes_the_cancel() {
    for point in ["void:after", "record:before"] {
        let (world, script) = staged().await;
        let purchase = Purchase::with("tok_accepted");
        authorise(&world, &purchase).await.expect(StatusCode::CREATED);
        script.lose(point);
        cancel(&world, &purchase).await.expect_problem(503, "unavailable");
        assert_eq!(status(&record(&world, &purchase)), "AUTHORISED");
        capture(&world, &purchase).await.expect_problem(409, "payment_cancelled");
        assert_story(&world, &purchase, &take_events(&world), "VOIDED");
    }
}

/// Sets the record's or the ledger's status by hand.
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
async fn whatever_our_record_missed_cancel_leaves_no_money_with_us() {
    // What stands at the provider, and what our record says instead.
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
                // Whatever it answers: it must not get in the way.
                capture(&world, &purchase).await;
            }
            let cancelled = cancel(&world, &purchase).await.expect(StatusCode::OK);
            assert_eq!(cancelled["status"], end, "{at_provider} recorded as {recorded}");
            events.extend(take_events(&world));
            assert_story(&world, &purchase, &events, end);
        }
    }
}

#[tokio::test]
async fn a_capture_that_the_provider_does_not_know_of_leaves_no_hold_when_it_is_cancelled() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    authorise(&world, &purchase).await.expect(StatusCode::CREATED);
    let pk = format!("PAYMENT#{}", purchase.payment());
    set_status(&world, "PaymentsTable", &pk, "PAYMENT", "CAPTURED").await;
    assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], "REFUNDED");
    assert_eq!((status(&ledger(&world, &purchase)), kept(&world, &purchase)), ("VOIDED", 0));
    assert_eq!(kinds(&take_events(&world), &purchase), ["PaymentRefunded"]);
}

#[tokio::test]
async fn a_provider_that_knows_the_payment_with_another_amount_is_an_error_of_ours() {
    let world = World::start().await;
    let purchase = Purchase::with("tok_accepted");
    let provider = SandboxProvider::new(table(&world, "SandboxLedgerTable").await, Clock::System);
    let key = ProviderKey::from(PaymentId::from_uuid(purchase.uuid));
    provider.authorise(&key, Money::from_minor(1, Currency::USD).unwrap(), None).await.unwrap();
    authorise(&world, &purchase).await.expect_problem(500, "internal_error");
}

// ── Every loss at every point ───────────────────────────────────────────────

/// An operation of the service, for the tables below.
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

/// Where a payment is before something is tried with it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    Nothing,
    /// The provider never got the request.
    Unasked,
    /// The provider has answered, to nobody.
    Unheard,
    Authorised,
    Captured,
}

impl Start {
    async fn prepare(self, world: &World, script: &Script, purchase: &Purchase) {
        match self {
            Self::Nothing => return,
            Self::Unasked => script.lose("authorise:before"),
            Self::Unheard => script.lose("authorise:after"),
            Self::Authorised | Self::Captured => {}
        }
        authorise(world, purchase).await;
        if self == Self::Captured {
            capture(world, purchase).await.expect(StatusCode::OK);
        }
        assert!(script.is_over());
    }
}

/// Which points `operation` passes when nothing interferes.
async fn rehearse(
    world: &World,
    script: &Script,
    purchase: &Purchase,
    start: Start,
    operation: Operation,
) -> Vec<(String, usize)> {
    start.prepare(world, script, purchase).await;
    operation.run(world, purchase).await;
    take_events(world);
    script.take_reached()
}

#[tokio::test]
async fn after_any_loss_at_any_point_the_same_request_again_ends_as_if_nothing_had_happened() {
    use Operation::{Authorise, Cancel, Capture};
    use Start::{Authorised, Captured, Nothing, Unasked, Unheard};

    let accepted = || Purchase::with("tok_accepted");
    let charge = || Purchase::capture_immediately("tok_accepted");
    let unchargeable = || Purchase::capture_immediately("tok_capture_refused");
    let uncapturable = || Purchase::with("tok_capture_refused");
    let declined = || Purchase::with("tok_declined");
    // The answer, the state in the end, and at how many points a message can
    // be lost on the way: two for each write and each call to the provider.
    type Case = (fn() -> Purchase, Start, Operation, u16, &'static str, usize);
    let cases: [Case; 15] = [
        (accepted, Nothing, Authorise, 201, "AUTHORISED", 6),
        (accepted, Unasked, Authorise, 201, "AUTHORISED", 6),
        (accepted, Unheard, Authorise, 201, "AUTHORISED", 6),
        (declined, Nothing, Authorise, 402, "DECLINED", 6),
        (charge, Nothing, Authorise, 201, "CAPTURED", 10),
        (unchargeable, Nothing, Authorise, 402, "VOIDED", 14),
        (accepted, Authorised, Capture, 200, "CAPTURED", 4),
        (uncapturable, Authorised, Capture, 402, "AUTHORISED", 4),
        (accepted, Nothing, Cancel, 200, "CANCELLED", 2),
        (accepted, Unasked, Cancel, 200, "VOIDED", 8),
        (accepted, Unheard, Cancel, 200, "VOIDED", 8),
        (declined, Unheard, Cancel, 200, "DECLINED", 4),
        (accepted, Authorised, Cancel, 200, "VOIDED", 4),
        (uncapturable, Authorised, Cancel, 200, "VOIDED", 4),
        (accepted, Captured, Cancel, 200, "REFUNDED", 4),
    ];
    for (purchase, start, operation, answer, end, losses) in cases {
        let (world, script) = staged().await;
        let points = rehearse(&world, &script, &purchase(), start, operation).await;
        assert_eq!(points.len(), losses, "{operation:?} of {start:?}: {points:?}");
        for (point, nth) in points {
            let purchase = purchase();
            let case = format!("{operation:?} of {start:?}, {:?}, lost at {point} {nth}", purchase.token);
            start.prepare(&world, &script, &purchase).await;
            script.at(&point, nth, Act::Lose);
            let first = operation.run(&world, &purchase).await;
            assert!(script.is_over(), "{case}");
            assert_eq!(first.status, 503, "{case}: {}", first.text);
            let again = operation.run(&world, &purchase).await;
            assert_eq!(again.status, answer, "{case}: {}", again.text);
            let mut events = take_events(&world);
            assert_story(&world, &purchase, &events, end);

            // And whatever it was, it can be undone.
            cancel(&world, &purchase).await.expect(StatusCode::OK);
            events.extend(take_events(&world));
            let undone = match end {
                "AUTHORISED" => "VOIDED",
                "CAPTURED" => "REFUNDED",
                end => end,
            };
            assert_story(&world, &purchase, &events, undone);
        }
    }
}

#[tokio::test]
async fn a_cancel_after_any_loss_at_any_point_leaves_no_money_with_us() {
    use Operation::{Authorise, Capture};

    let accepted = || Purchase::with("tok_accepted");
    let charge = || Purchase::capture_immediately("tok_accepted");
    let unchargeable = || Purchase::capture_immediately("tok_capture_refused");
    type Case = (fn() -> Purchase, Start, Operation);
    let cases: [Case; 4] = [
        (accepted, Start::Nothing, Authorise),
        (charge, Start::Nothing, Authorise),
        (unchargeable, Start::Nothing, Authorise),
        (accepted, Start::Authorised, Capture),
    ];
    for (purchase, start, operation) in cases {
        let (world, script) = staged().await;
        for (point, nth) in rehearse(&world, &script, &purchase(), start, operation).await {
            let purchase = purchase();
            start.prepare(&world, &script, &purchase).await;
            script.at(&point, nth, Act::Lose);
            operation.run(&world, &purchase).await.expect_problem(503, "unavailable");
            let end = cancel(&world, &purchase).await.expect(StatusCode::OK);
            let end = end["status"].as_str().unwrap();
            assert!(["VOIDED", "REFUNDED", "CANCELLED"].contains(&end), "{end}");
            let late = authorise(&world, &purchase).await;
            assert!(late.status == 409 || late.status == 402, "{}", late.text);
            assert_story(&world, &purchase, &take_events(&world), end);
        }
    }
}

// ── Every pair of operations, at every point ────────────────────────────────

#[tokio::test]
async fn two_operations_at_once_agree_and_a_cancel_among_them_leaves_no_money_with_us() {
    use Operation::{Authorise, Cancel, Capture};

    use Start::{Authorised, Captured, Nothing, Unasked, Unheard};

    type Case = (fn() -> Purchase, &'static [Start]);
    let cases: [Case; 4] = [
        (|| Purchase::with("tok_accepted"), &[Nothing, Unasked, Unheard, Authorised, Captured]),
        (|| Purchase::with("tok_declined"), &[Nothing, Unheard]),
        (|| Purchase::capture_immediately("tok_accepted"), &[Nothing, Unheard]),
        (|| Purchase::capture_immediately("tok_capture_refused"), &[Nothing, Unheard]),
    ];
    let operations = [Authorise, Capture, Cancel];
    let pairs = operations.iter().flat_map(|&outer| operations.map(|inner| (outer, inner)));
    let mut met = 0;
    for (purchase, starts) in cases {
        for (&start, (outer, inner)) in starts.iter().flat_map(|start| pairs.clone().map(move |pair| (start, pair))) {
            let (world, script) = staged().await;
            for (point, nth) in rehearse(&world, &script, &purchase(), start, outer).await {
                let purchase = purchase();
                let case = format!("{inner:?} at {point} {nth} of {outer:?} of {start:?}, {:?}", purchase.token);
                start.prepare(&world, &script, &purchase).await;
                let inside = Arc::new(Mutex::new(None));
                let (there, theirs, slot) = (world.clone(), purchase.clone(), inside.clone());
                let work = async move {
                    let answer = inner.run(&there, &theirs).await;
                    *slot.lock().unwrap() = Some(answer);
                };
                script.at(&point, nth, Act::Run(Box::pin(work)));
                let outside = outer.run(&world, &purchase).await;
                assert!(script.is_over(), "{case}");
                let inside = inside.lock().unwrap().take().expect("an answer");
                for answer in [&outside, &inside] {
                    assert!(answer.status.as_u16() < 500, "{case}: {}", answer.text);
                }
                met += 1;

                let mut events = take_events(&world);
                let end = status(&record(&world, &purchase)).to_owned();
                assert_story(&world, &purchase, &events, &end);
                if outer != Cancel && inner != Cancel {
                    cancel(&world, &purchase).await.expect(StatusCode::OK);
                    events.extend(take_events(&world));
                }
                let end = status(&record(&world, &purchase)).to_owned();
                assert!(["DECLINED", "VOIDED", "REFUNDED", "CANCELLED"].contains(&end.as_str()), "{case}: {end}");
                assert_story(&world, &purchase, &events, &end);
            }
        }
    }
    assert!(met > 100, "only {met} pairs met");
}

#[tokio::test]
async fn a_cancel_in_the_middle_of_a_capture_keeps_no_money_and_neither_does_the_reverse() {
    for (point, captured, end) in [
        // The void gets in first: the capture is refused.
        ("capture:before", false, "VOIDED"),
        // The capture gets in first: the cancel refunds it.
        ("capture:after", false, "REFUNDED"),
        ("record:before", false, "REFUNDED"),
        // The capture is recorded, but not yet answered.
        ("record:after", true, "REFUNDED"),
    ] {
        let (world, script) = staged().await;
        let purchase = Purchase::with("tok_accepted");
        authorise(&world, &purchase).await.expect(StatusCode::CREATED);
        let (there, theirs) = (world.clone(), purchase.clone());
        let work = async move {
            cancel(&there, &theirs).await.expect(StatusCode::OK);
        };
        script.at(point, 0, Act::Run(Box::pin(work)));
        let answer = capture(&world, &purchase).await;
        match captured {
            true => assert_eq!(answer.expect(StatusCode::OK)["status"], "CAPTURED"),
            false => assert_eq!(answer.expect_problem(409, "payment_cancelled")["status"], 409),
        }
        assert_story(&world, &purchase, &take_events(&world), end);
    }
    for (point, end) in [("void:before", "REFUNDED"), ("void:after", "VOIDED"), ("record:before", "VOIDED")] {
        let (world, script) = staged().await;
        let purchase = Purchase::with("tok_accepted");
        authorise(&world, &purchase).await.expect(StatusCode::CREATED);
        let (there, theirs) = (world.clone(), purchase.clone());
        let work = async move {
            capture(&there, &theirs).await;
        };
        script.at(point, 0, Act::Run(Box::pin(work)));
        assert_eq!(cancel(&world, &purchase).await.expect(StatusCode::OK)["status"], end);
        assert_story(&world, &purchase, &take_events(&world), end);
    }
}

// ── The sandbox itself keeps a provider's promises ──────────────────────────

async fn sandbox() -> (World, SandboxProvider) {
    let world = World::start().await;
    let provider = SandboxProvider::new(table(&world, "SandboxLedgerTable").await, Clock::System);
    (world, provider)
}

fn five_dollars() -> Money {
    Money::from_minor(500, Currency::USD).unwrap()
}

#[tokio::test]
async fn the_sandbox_answers_a_repeated_authorisation_as_the_first_even_after_a_void() {
    let (_world, provider) = sandbox().await;
    let key = ProviderKey::from(PaymentId::generate());
    let first = provider.authorise(&key, five_dollars(), None).await.unwrap();
    assert_eq!(provider.authorise(&key, five_dollars(), None).await.unwrap(), first);
    assert_eq!(provider.void(&key).await, Ok(VoidOutcome::Voided));
    assert_eq!(provider.void(&key).await, Ok(VoidOutcome::Voided));
    assert_eq!(provider.authorise(&key, five_dollars(), None).await.unwrap(), first);
    assert_eq!(provider.capture(&key).await, Ok(CaptureOutcome::Released));
    assert_eq!(provider.refund(&key).await, Ok(RefundOutcome::NothingToRefund));
    let other = Money::from_minor(501, Currency::USD).unwrap();
    assert_eq!(provider.authorise(&key, other, None).await, Err(ProviderError::KeyConflict));
    let euros = Money::from_minor(500, "EUR".parse().unwrap()).unwrap();
    assert_eq!(provider.authorise(&key, euros, None).await, Err(ProviderError::KeyConflict));
}

#[tokio::test]
async fn the_sandbox_captures_and_refunds_once_and_writes_down_what_happened() {
    let (world, provider) = sandbox().await;
    let id = PaymentId::generate();
    let key = ProviderKey::from(id);
    provider.authorise(&key, five_dollars(), None).await.unwrap();
    for _ in 0..2 {
        assert_eq!(provider.capture(&key).await, Ok(CaptureOutcome::Captured));
    }
    assert_eq!(provider.void(&key).await, Ok(VoidOutcome::AlreadyCaptured));
    for _ in 0..2 {
        assert_eq!(provider.refund(&key).await, Ok(RefundOutcome::Refunded));
    }
    assert_eq!(provider.void(&key).await, Ok(VoidOutcome::AlreadyCaptured));
    assert_eq!(provider.capture(&key).await, Ok(CaptureOutcome::Released));
    let charge = item(&world, "SandboxLedgerTable", &format!("CHARGE#{id}")).unwrap();
    for (name, cents) in [("amount_minor", "500"), ("captured_minor", "500"), ("refunded_minor", "500")] {
        assert_eq!(charge[name]["N"], cents, "{name}");
    }
    let history = charge["history"]["L"].as_array().unwrap();
    let statuses: Vec<_> = history.iter().map(|entry| entry["M"]["status"]["S"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["AUTHORISED", "CAPTURED", "REFUNDED"]);
}

#[tokio::test]
async fn the_sandbox_has_nothing_to_capture_void_or_refund_where_nothing_is_held() {
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
        assert_eq!(provider.capture(&key).await, Ok(refusal));
        assert_eq!(provider.void(&key).await, Ok(VoidOutcome::NothingToVoid));
        assert_eq!(provider.refund(&key).await, Ok(RefundOutcome::NothingToRefund));
    }
}
