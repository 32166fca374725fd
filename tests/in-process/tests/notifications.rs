//! Tests of the notifications service: each event's message is sent once on each
//! channel, whatever else is in the batch, and however often the event is delivered.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chassis::{clock::Clock, time_limits::NOTIFICATION_LEASE};
use http::StatusCode;
use in_process_tests::{
    Caller, World,
    cloud::HostFault,
    fault::{FaultKind, FaultPlan},
    world::{self, email_feedback, sqs_record},
};
use jiff::{SignedDuration, Timestamp};
use lambda_http::{Context, LambdaEvent};
use notifications::{
    domain::{Channel, MessageKind},
    repository::{Attempt, CLAIM_RETENTION, ClaimOutcome, DynamoRepository, Repository},
};
use serde_json::{Value, json};

const ADA: &str = "ada@example.com";
const GRACE: &str = "grace@example.com";
const ORDER: &str = "ord_0195a8e0-0000-7000-8000-000000000001";

fn event(id: &str, kind: &str, email: &str) -> Value {
    let data = json!({
        "order_id": ORDER,
        "user_id": "user_0195a8e0-0000-7000-8000-000000000002",
        "payment_id": "pay_0195a8e0-0000-7000-8000-000000000001",
        "recipient": { "name": "Ada", "email": email, "phone": "+15555550100" },
        "lines": [{ "product_id": "prod_1", "name": "Rope", "quantity": 3, "unit_price": 19.99, "line_total": 59.97 }],
        "reason": "customer_request", "confirmed": true, "customer_told": false, "paid": true,
        "total": 59.97, "amount": 59.97, "currency": "USD",
    });
    json!({
        "specversion": "1.0", "id": id, "source": "/orders", "type": kind, "subject": ORDER,
        "time": "2026-11-23T08:00:00Z", "datacontenttype": "application/json",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "data": data,
    })
}

fn created(id: &str, email: &str) -> Value {
    event(id, "OrderCreated", email)
}

fn batch(bodies: &[String]) -> Value {
    let records = bodies.iter().enumerate().map(|(n, body)| sqs_record(&format!("m-{n}"), body));
    json!({ "Records": records.collect::<Vec<_>>() })
}

fn failures(ids: &[&str]) -> Value {
    let failures: Vec<_> = ids.iter().map(|id| json!({ "itemIdentifier": id })).collect();
    json!({ "batchItemFailures": failures })
}

fn addressee(mail: &Value) -> &str {
    mail["Destination"]["ToAddresses"][0].as_str().expect("an address")
}

fn addressees(world: &World) -> Vec<String> {
    let mut addressees: Vec<_> = world.cloud.mails().iter().map(|mail| addressee(mail).to_owned()).collect();
    addressees.sort();
    addressees
}

fn states(world: &World) -> HashMap<String, String> {
    let text = |value: &Value| value["S"].as_str().unwrap_or_default().to_owned();
    let items = world.cloud.scan("NotificationsTable");
    items.iter().map(|item| (format!("{} {}", text(&item["pk"]), text(&item["sk"])), text(&item["state"]))).collect()
}

/// The key of a claim, as [`states`] shows it.
fn claim(event: &str, channel: &str) -> String {
    format!("ORDER#{ORDER} EVENT#{event}#{channel}")
}

/// Starts a world with Tokio's clock, so that a test can let a lease end.
async fn world_with_tokio_clock() -> World {
    World::start_at(Clock::tokio("2026-11-23T08:00:00Z".parse().unwrap())).await
}

async fn let_the_lease_end() {
    tokio::time::advance(NOTIFICATION_LEASE + Duration::from_secs(1)).await;
}

#[tokio::test]
async fn an_order_is_confirmed_by_e_mail_and_by_sms() {
    let world = World::start().await;
    world.cloud.put_message(created("e-1", ADA).to_string());
    assert_eq!(world.deliver_messages().await, failures(&[]));

    let mails = world.cloud.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0]["FromEmailAddress"], "orders@holdfast.example");
    assert_eq!(mails[0]["Destination"], json!({ "ToAddresses": [ADA] }));
    let simple = &mails[0]["Content"]["Simple"];
    assert_eq!(simple["Subject"], json!({ "Charset": "UTF-8", "Data": format!("Your order is confirmed ({ORDER})") }));
    let text = simple["Body"]["Text"]["Data"].as_str().unwrap();
    assert!(text.contains("3 x Rope\n    19.99 USD each, 59.97 USD in total\n"), "{text}");
    assert!(simple["Body"]["Html"]["Data"].as_str().unwrap().contains(">59.97 USD</td>"));
    assert_eq!(simple["Body"]["Html"]["Charset"], "UTF-8");

    let texts = world.cloud.texts();
    assert_eq!(texts.len(), 1);
    assert_eq!(texts[0]["PhoneNumber"], "+15555550100");
    assert!(texts[0]["Message"].starts_with("Holdfast: your order for 59.97 USD is confirmed and paid."));
    assert_eq!(texts[0]["MessageAttributes.entry.1.Name"], "AWS.SNS.SMS.SMSType");
    assert_eq!(texts[0]["MessageAttributes.entry.1.Value.StringValue"], "Transactional");
}

#[tokio::test]
async fn the_record_of_a_sent_message_has_no_personal_data() {
    let world = World::start().await;
    world.cloud.put_message(created("e-1", ADA).to_string());
    world.deliver_messages().await;
    assert_eq!(
        states(&world),
        HashMap::from([(claim("e-1", "EMAIL"), "SENT".into()), (claim("e-1", "SMS"), "SENT".into()),])
    );
    for item in world.cloud.scan("NotificationsTable") {
        let expires_at: i64 = item["expires_at"]["N"].as_str().unwrap().parse().unwrap();
        let expected = (Timestamp::now() + CLAIM_RETENTION).as_second();
        assert!((expected - 60..=expected).contains(&expires_at), "{item}");
        assert!(!item["message_id"]["S"].as_str().unwrap().is_empty(), "{item}");
        let text = item.to_string();
        assert!(!text.contains("Ada") && !text.contains(ADA) && !text.contains("15555550100"), "{text}");
    }
}

#[tokio::test]
async fn a_confirmation_a_cancellation_and_a_refund_are_sent_on_both_channels() {
    for (kind, subject) in [
        ("OrderCreated", "Your order is confirmed"),
        ("OrderCancelled", "Your order is cancelled"),
        ("PaymentRefunded", "Your money is on its way back"),
    ] {
        let world = World::start().await;
        world.cloud.put_message(event("e-1", kind, ADA).to_string());
        assert_eq!(world.deliver_messages().await, failures(&[]), "{kind}");
        let mails = world.cloud.mails();
        assert_eq!(mails[0]["Content"]["Simple"]["Subject"]["Data"], format!("{subject} ({ORDER})"));
        assert_eq!(world.cloud.texts().len(), 1, "{kind}");
    }
}

#[tokio::test]
async fn a_captured_payment_gets_no_message_of_its_own() {
    let world = World::start().await;
    world.cloud.put_message(event("e-1", "PaymentCaptured", ADA).to_string());
    assert_eq!(world.deliver_messages().await, failures(&[]));
    assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (0, 0));
}

#[tokio::test]
async fn a_refusal_that_the_customer_knows_from_the_response_gets_no_message() {
    let world = World::start().await;
    let mut event = event("e-1", "OrderCancelled", ADA);
    event["data"]["confirmed"] = false.into();
    event["data"]["customer_told"] = true.into();
    world.cloud.put_message(event.to_string());
    assert_eq!(world.deliver_messages().await, failures(&[]));
    assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (0, 0));
}

#[tokio::test]
async fn nothing_is_sent_to_an_erased_customer() {
    let world = World::start().await;
    let user = "user_0195a8e0-0000-7000-8000-000000000002";
    let mut erased = event(&format!("{user}:UserErased"), "UserErased", ADA);
    erased["data"] = json!({ "user_id": user });
    for _ in 0..2 {
        world.cloud.put_message(erased.to_string());
        assert_eq!(world.deliver_messages().await, failures(&[]));
    }
    for kind in ["OrderCreated", "OrderCancelled", "PaymentRefunded"] {
        world.cloud.put_message(event(&format!("e-{kind}"), kind, ADA).to_string());
    }
    assert_eq!(world.deliver_messages().await, failures(&[]));
    assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (0, 0));
    // Other customers still get messages.
    let mut other = created("e-2", GRACE);
    other["data"]["user_id"] = "user_0195a8e0-0000-7000-8000-000000000003".into();
    world.cloud.put_message(other.to_string());
    assert_eq!(world.deliver_messages().await, failures(&[]));
    assert_eq!(addressees(&world), [GRACE]);
}

#[tokio::test]
async fn a_customer_without_an_e_mail_address_gets_only_a_text_message() {
    let world = World::start().await;
    let mut event = created("e-1", ADA);
    event["data"]["recipient"].as_object_mut().unwrap().remove("email");
    world.cloud.put_message(event.to_string());
    assert_eq!(world.deliver_messages().await, failures(&[]));
    assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (0, 1));
}

#[tokio::test]
async fn a_permanently_refused_recipient_is_not_tried_again_on_that_channel() {
    for code in ["InvalidParameter", "OptedOut"] {
        let world = World::start().await;
        world.cloud.refuse_texts(code);
        for _ in 0..2 {
            world.cloud.put_message(created("e-1", ADA).to_string());
            assert_eq!(world.deliver_messages().await, failures(&[]), "{code}");
        }
        assert_eq!(addressees(&world), [ADA]);
        let states = states(&world);
        assert_eq!((&*states[&*claim("e-1", "EMAIL")], &*states[&*claim("e-1", "SMS")]), ("SENT", "REFUSED"));
    }
    let world = World::start().await;
    world.cloud.answer_mail(|_| Some((400, json!({ "__type": "BadRequestException", "message": "Illegal address" }))));
    world.cloud.put_message(created("e-1", ADA).to_string());
    assert_eq!(world.deliver_messages().await, failures(&[]));
    assert_eq!((world.cloud.texts().len(), &*states(&world)[&*claim("e-1", "EMAIL")]), (1, "REFUSED"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_because_of_the_sender_or_the_account_ends_in_the_dead_letter_queue() {
    for code in ["AuthorizationError", "KMSAccessDenied", "Throttled"] {
        let world = world_with_tokio_clock().await;
        world.cloud.refuse_texts(code);
        world.cloud.put_message(created("e-1", ADA).to_string());
        for _ in 0..5 {
            assert_eq!(world.deliver_messages().await, failures(&["m-0"]), "{code}");
        }
        assert_eq!(world.cloud.dead_letters().len(), 1);
    }
}

#[tokio::test]
async fn a_customer_without_a_phone_number_gets_only_an_e_mail() {
    let world = World::start().await;
    let mut event = created("e-1", ADA);
    event["data"]["recipient"].as_object_mut().unwrap().remove("phone");
    world.cloud.put_message(event.to_string());
    assert_eq!(world.deliver_messages().await, failures(&[]));
    assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (1, 0));
    assert_eq!(states(&world).len(), 1);
}

#[tokio::test]
async fn a_redelivered_event_is_not_sent_again() {
    let world = World::start().await;
    for _ in 0..3 {
        world.cloud.put_message(created("e-1", ADA).to_string());
        assert_eq!(world.deliver_messages().await, failures(&[]));
    }
    assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (1, 1));
}

#[tokio::test]
async fn an_event_that_is_in_a_batch_several_times_is_sent_once() {
    let world = World::start().await;
    for _ in 0..6 {
        world.cloud.put_message(created("e-1", ADA).to_string());
    }
    // One record claims the event and sends the messages. The other records fail while that
    // record holds the claim. At their second delivery the messages have been sent.
    world.deliver_messages().await;
    assert_eq!(world.deliver_messages().await, failures(&[]));
    assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (1, 1));
}

#[tokio::test]
async fn a_bad_record_fails_alone() {
    let mut without_lines = created("e-2", ADA);
    without_lines["data"].as_object_mut().unwrap().remove("lines");
    let mut other_version = created("e-2", ADA);
    other_version["specversion"] = "2.0".into();
    let bad = [
        "not JSON".to_owned(),
        "{}".to_owned(),
        String::new(),
        event("e-2", "OrderEaten", ADA).to_string(),
        without_lines.to_string(),
        other_version.to_string(),
    ];
    for bad in bad {
        let world = World::start().await;
        let bodies = [created("e-1", ADA).to_string(), bad.clone(), created("e-3", GRACE).to_string()];
        assert_eq!(world.invoke_notifications(&batch(&bodies)).await.unwrap(), failures(&["m-1"]), "{bad}");
        assert_eq!(addressees(&world), [ADA, GRACE], "{bad}");
    }
}

#[tokio::test]
async fn a_malformed_record_fails_alone() {
    let world = World::start().await;
    for record in [json!({ "messageId": "m-x" }), json!({ "messageId": "m-x", "body": { "id": 1 } })] {
        let good = sqs_record("m-0", &created("e-1", ADA).to_string());
        let payload = json!({ "Records": [record, good] });
        assert_eq!(world.invoke_notifications(&payload).await.unwrap(), failures(&["m-x"]));
    }
    assert_eq!(addressees(&world), [ADA]);
}

#[tokio::test]
async fn a_record_without_a_message_id_is_never_lost() {
    let world = World::start().await;
    let unnamed = |body: &str| {
        let mut record = sqs_record("", body);
        record.as_object_mut().unwrap().remove("messageId");
        record
    };
    let payload = json!({ "Records": [unnamed(&created("e-1", ADA).to_string())] });
    assert_eq!(world.invoke_notifications(&payload).await.unwrap(), failures(&[]));

    // A partial batch response cannot list a record without a message id, so the whole batch
    // fails and is delivered again. The valid record's message is sent only once.
    let neighbour = sqs_record("m-0", &created("e-2", GRACE).to_string());
    let payload = json!({ "Records": [unnamed("not JSON"), neighbour] });
    for _ in 0..2 {
        assert!(world.invoke_notifications(&payload).await.is_err());
    }
    assert_eq!(addressees(&world), [ADA, GRACE]);
}

#[tokio::test]
async fn a_refused_e_mail_fails_only_its_record_and_is_sent_at_the_next_delivery() {
    let world = World::start().await;
    world.cloud.answer_mail(|mail| {
        let rejected =
            json!({ "__type": "MessageRejected", "message": format!("{} is not verified", addressee(mail)) });
        (addressee(mail) == ADA).then_some((400, rejected))
    });
    world.cloud.put_message(created("e-1", ADA).to_string());
    world.cloud.put_message(created("e-2", GRACE).to_string());
    assert_eq!(world.deliver_messages().await, failures(&["m-0"]));
    // The failed record's SMS was sent, and the claim of its e-mail was released at once.
    assert_eq!((addressees(&world), world.cloud.texts().len()), (vec![GRACE.to_owned()], 2));
    assert_eq!(states(&world)[&*claim("e-1", "EMAIL")], "FAILED");

    world.cloud.answer_mail(|_| None);
    assert_eq!(world.deliver_messages().await, failures(&[]));
    assert_eq!((addressees(&world), world.cloud.texts().len()), (vec![ADA.to_owned(), GRACE.to_owned()], 2));
    assert_eq!(states(&world)[&*claim("e-1", "EMAIL")], "SENT");
}

#[tokio::test(start_paused = true)]
async fn an_sms_without_a_response_is_sent_later_and_the_e_mail_is_not_sent_again() {
    let world = world_with_tokio_clock().await;
    world.cloud.inject_fault("sns", HostFault::Silent);
    world.cloud.put_message(created("e-1", ADA).to_string());
    assert_eq!(world.deliver_messages().await, failures(&["m-0"]));
    assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (1, 0));

    // SNS did not respond, so it is unknown whether the SMS was sent. The claim therefore
    // stays until its lease ends.
    world.cloud.bring_back();
    assert_eq!(world.deliver_messages().await, failures(&["m-0"]));
    let_the_lease_end().await;
    assert_eq!(world.deliver_messages().await, failures(&[]));
    assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_certainly_not_sent_is_retried_at_once() {
    let world = world_with_tokio_clock().await;
    // Call 0 is GetItem of the erased user, calls 1 and 2 store the two claims, and calls 3
    // and 4 send the SMS and the e-mail. The connections of calls 3 and 4 are refused.
    world
        .cloud
        .begin_trial(FaultPlan::none().and(3, FaultKind::ConnectionRefused).and(4, FaultKind::ConnectionRefused));
    world.cloud.put_message(created("e-1", ADA).to_string());
    assert_eq!(world.deliver_messages().await, failures(&[]));
    world.cloud.end_trial();
    assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (1, 1));

    world.cloud.take_down("email");
    world.cloud.put_message(created("e-2", ADA).to_string());
    assert_eq!(world.deliver_messages().await, failures(&["m-0"]));
    assert_eq!(
        states(&world)[&*claim("e-2", "EMAIL")],
        "FAILED",
        "the claim was released, so the next delivery need not wait"
    );
}

#[tokio::test(start_paused = true)]
async fn a_throttled_message_is_retried() {
    let world = world_with_tokio_clock().await;
    let asked = AtomicU32::new(0);
    world.cloud.answer_mail(move |_| {
        let too_many = json!({ "__type": "TooManyRequestsException", "message": "Maximum sending rate exceeded." });
        (asked.fetch_add(1, Ordering::Relaxed) < 2).then_some((429, too_many))
    });
    world.cloud.put_message(created("e-1", ADA).to_string());
    assert_eq!(world.deliver_messages().await, failures(&[]));
    assert_eq!(addressees(&world), [ADA]);
}

#[tokio::test]
async fn a_message_that_may_have_been_sent_is_not_retried_in_the_same_delivery() {
    for status in [500, 503] {
        let world = World::start().await;
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        world.cloud.answer_mail(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Some((status, json!({ "__type": "InternalFailure" })))
        });
        world.cloud.put_message(created("e-1", ADA).to_string());
        assert_eq!(world.deliver_messages().await, failures(&["m-0"]));
        assert_eq!(states(&world)[&*claim("e-1", "EMAIL")], "CLAIMED");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_only_its_record_and_its_claim_is_taken_over_after_the_lease() {
    let world = world_with_tokio_clock().await;
    world.cloud.answer_mail(|mail| {
        assert_ne!(addressee(mail), ADA, "the panic that this test causes");
        None
    });
    world.cloud.put_message(created("e-1", ADA).to_string());
    world.cloud.put_message(created("e-2", GRACE).to_string());
    assert_eq!(world.deliver_messages().await, failures(&["m-0"]));
    assert_eq!(addressees(&world), [GRACE]);

    world.cloud.answer_mail(|_| None);
    assert_eq!(world.deliver_messages().await, failures(&["m-0"]), "the claim's lease has not ended");
    let_the_lease_end().await;
    assert_eq!(world.deliver_messages().await, failures(&[]));
    assert_eq!(addressees(&world), [ADA, GRACE]);
}

#[tokio::test]
async fn a_sent_message_counts_as_sent_even_if_the_outcome_cannot_be_recorded() {
    let world = World::start().await;
    let cloud = world.cloud.clone();
    world.cloud.answer_mail(move |_| {
        cloud.take_down("dynamodb");
        None
    });
    let mut event = created("e-1", ADA);
    event["data"]["recipient"].as_object_mut().unwrap().remove("phone");
    world.cloud.put_message(event.to_string());
    assert_eq!(world.deliver_messages().await, failures(&[]));
    assert_eq!(addressees(&world), [ADA]);
    assert_eq!(states(&world)[&*claim("e-1", "EMAIL")], "CLAIMED");
}

#[tokio::test]
async fn nothing_is_sent_without_a_claim() {
    let world = World::start().await;
    world.cloud.take_down("dynamodb");
    world.cloud.put_message(created("e-1", ADA).to_string());
    assert_eq!(world.deliver_messages().await, failures(&["m-0"]));
    assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (0, 0));
}

#[tokio::test]
async fn nothing_is_sent_if_the_invocation_is_about_to_end() {
    let world = World::start().await;
    let payload = batch(&[created("e-1", ADA).to_string(), created("e-2", GRACE).to_string()]);
    let payload = serde_json::value::to_raw_value(&payload).unwrap();
    let mut context = Context::default();
    let end = SystemTime::now() + Duration::from_millis(1400);
    context.deadline = end.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let answer = world.notifications.handle(LambdaEvent::new(payload, context)).await.unwrap();
    assert_eq!(answer, failures(&["m-0", "m-1"]));
    assert!(world.cloud.mails().is_empty() && states(&world).is_empty());
}

fn attempt(owner: &str) -> Attempt {
    Attempt {
        order_id: ORDER.parse().unwrap(),
        event_id: "e-1".parse().unwrap(),
        kind: MessageKind::OrderCreated,
        resend_of: None,
        channel: Channel::Email,
        owner: owner.into(),
    }
}

async fn repository(world: &World) -> DynamoRepository {
    DynamoRepository::new(world::table(world.cloud.clone(), "NotificationsTable").await)
}

#[tokio::test]
async fn a_claim_belongs_to_its_owner_until_the_lease_ends_and_can_then_be_taken_over() {
    let world = World::start().await;
    let claims = repository(&world).await;
    let now: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
    let later = now + NOTIFICATION_LEASE + SignedDuration::from_millis(1);
    assert_eq!(claims.claim(&attempt("a"), now).await.unwrap(), ClaimOutcome::Claimed { possibly_sent: false });
    // The SDK repeats a put if the response was lost. The owner then finds its own claim.
    assert_eq!(claims.claim(&attempt("a"), now).await.unwrap(), ClaimOutcome::Claimed { possibly_sent: false });
    assert_eq!(claims.claim(&attempt("b"), now + NOTIFICATION_LEASE).await.unwrap(), ClaimOutcome::HeldByAnother);
    assert_eq!(claims.claim(&attempt("b"), later).await.unwrap(), ClaimOutcome::Claimed { possibly_sent: true });
    // The attempt that lost the claim can neither mark the message as sent nor release the
    // claim.
    assert!(!claims.mark_sent(&attempt("a"), "ses-1", later).await.unwrap());
    claims.release(&attempt("a")).await.unwrap();
    assert_eq!(claims.claim(&attempt("c"), later).await.unwrap(), ClaimOutcome::HeldByAnother);
    // Marking the message as sent for a second time succeeds and changes nothing.
    assert!(claims.mark_sent(&attempt("b"), "ses-2", later).await.unwrap());
    assert!(claims.mark_sent(&attempt("b"), "ses-2", later).await.unwrap());
    assert_eq!(claims.claim(&attempt("c"), later + NOTIFICATION_LEASE * 9).await.unwrap(), ClaimOutcome::AlreadySent);
}

/// Stores a claim with the owner `a`, and returns a time at which the claim's lease has
/// ended.
async fn abandoned(claims: &DynamoRepository) -> Timestamp {
    let now: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
    assert_eq!(claims.claim(&attempt("a"), now).await.unwrap(), ClaimOutcome::Claimed { possibly_sent: false });
    now + NOTIFICATION_LEASE + SignedDuration::from_millis(1)
}

#[tokio::test(start_paused = true)]
async fn only_one_of_two_attempts_takes_over_an_abandoned_claim() {
    let world = World::start().await;
    let claims = repository(&world).await;
    let later = abandoned(&claims).await;
    // With this latency, both attempts read the abandoned claim before either attempt takes
    // the claim over.
    world.cloud.set_latency("nobody", Duration::from_secs(1));
    let (b, c) = (attempt("b"), attempt("c"));
    let (b, c) = tokio::join!(claims.claim(&b, later), claims.claim(&c, later));
    let mut outcomes = [b.unwrap(), c.unwrap()];
    outcomes.sort_by_key(|claim| *claim == ClaimOutcome::HeldByAnother);
    assert_eq!(outcomes, [ClaimOutcome::Claimed { possibly_sent: true }, ClaimOutcome::HeldByAnother]);
}

#[tokio::test]
async fn an_attempt_recognises_its_own_takeover_if_the_response_was_lost() {
    let world = World::start().await;
    let claims = repository(&world).await;
    let later = abandoned(&claims).await;
    // Call 0 finds the abandoned claim. Call 1 takes the claim over, and the response is
    // lost. Call 2 is the repeat of call 1 by the SDK.
    world.cloud.begin_trial(FaultPlan::none().and(1, FaultKind::ResponseLost));
    assert_eq!(claims.claim(&attempt("b"), later).await.unwrap(), ClaimOutcome::Claimed { possibly_sent: true });
    assert_eq!(world.cloud.end_trial().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_over_too_late_finds_the_message_sent() {
    let world = World::start().await;
    let claims = repository(&world).await;
    let later = abandoned(&claims).await;
    world.cloud.set_latency("nobody", Duration::from_secs(1));
    let faster = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        world.cloud.set_latency("nobody", Duration::ZERO);
        assert_eq!(claims.claim(&attempt("c"), later).await.unwrap(), ClaimOutcome::Claimed { possibly_sent: true });
        assert!(claims.mark_sent(&attempt("c"), "ses-1", later).await.unwrap());
    };
    let slow = attempt("b");
    let (slow, ()) = tokio::join!(claims.claim(&slow, later), faster);
    assert_eq!(slow.unwrap(), ClaimOutcome::AlreadySent);
}

#[tokio::test]
async fn a_claim_after_a_release_is_not_a_possible_repetition() {
    let world = World::start().await;
    let claims = repository(&world).await;
    let now: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
    assert_eq!(claims.claim(&attempt("a"), now).await.unwrap(), ClaimOutcome::Claimed { possibly_sent: false });
    claims.release(&attempt("a")).await.unwrap();
    claims.release(&attempt("a")).await.unwrap();
    assert_eq!(claims.claim(&attempt("b"), now).await.unwrap(), ClaimOutcome::Claimed { possibly_sent: false });
    assert_eq!(claims.claim(&attempt("a"), now).await.unwrap(), ClaimOutcome::HeldByAnother);
}

#[tokio::test]
async fn everybody_may_read_the_health_and_administrators_the_deep_health() {
    let world = World::start().await;
    let health = world.get(&Caller::anonymous(), "/health/notifications").await.expect(StatusCode::OK);
    assert_eq!((&health["service"], &health["status"]), (&json!("notifications"), &json!("ok")));
    assert_eq!((&health["version"], &health["commit"]), (&json!(env!("CARGO_PKG_VERSION")), &json!("unknown")));
    let deep = "/health/notifications?deep=true";
    world.get(&Caller::anonymous(), deep).await.expect_problem(401, "unauthenticated");
    world.get(&Caller::named("Ada"), deep).await.expect_problem(403, "forbidden");
    assert_eq!(world.get(&Caller::admin(), deep).await.expect(StatusCode::OK)["status"], "ok");
    world.cloud.take_down("dynamodb");
    let degraded = world.get(&Caller::admin(), deep).await.expect(StatusCode::OK);
    assert_eq!(
        (&degraded["status"], &degraded["dependencies"][0]["state"]),
        (&json!("degraded"), &json!("unavailable"))
    );
    world.get(&Caller::anonymous(), "/health/notifications").await.expect(StatusCode::OK);
    world.get(&Caller::anonymous(), "/notifications").await.expect_problem(404, "no_such_route");
}

#[tokio::test]
async fn a_payload_that_is_neither_a_batch_nor_a_request_is_an_error() {
    let world = World::start().await;
    for payload in [json!({}), json!([]), json!({ "Records": [{ "eventSource": "aws:s3" }] }), json!("text")] {
        assert!(world.invoke_notifications(&payload).await.is_err(), "{payload}");
    }
}

mod bounces_and_complaints {
    use super::*;

    const USER: &str = "user_0195a8e0-0000-7000-8000-000000000002";

    async fn deliver(world: &World, event: &Value) {
        world.cloud.put_message(event.to_string());
        assert_eq!(world.deliver_messages().await, failures(&[]));
    }

    /// Sends Ada an e-mail, and reports what became of it.
    async fn after(kind: &str, change: impl Fn(&mut Value)) -> World {
        let world = World::start().await;
        deliver(&world, &created("e-1", ADA)).await;
        let mut report = email_feedback(kind, &world.cloud.mails()[0]);
        change(&mut report["detail"]);
        deliver(&world, &report).await;
        world
    }

    async fn after_a_bounce() -> World {
        after("Email Bounced", |_| ()).await
    }

    fn suppressed(world: &World) -> usize {
        states(world).keys().filter(|key| key.starts_with("SUPPRESSED#")).count()
    }

    fn erased() -> Value {
        let mut erased = event(&format!("{USER}:UserErased"), "UserErased", ADA);
        erased["data"] = json!({ "user_id": USER });
        erased
    }

    #[tokio::test]
    async fn an_e_mail_is_sent_so_that_ses_reports_about_it_and_names_the_customer_and_the_order() {
        let world = World::start().await;
        deliver(&world, &created("e-1", ADA)).await;
        let mail = &world.cloud.mails()[0];
        assert_eq!(mail["ConfigurationSetName"], "holdfast-email");
        let tags = json!([{ "Name": "user", "Value": USER }, { "Name": "order", "Value": ORDER }]);
        assert_eq!(mail["EmailTags"], tags);
    }

    #[tokio::test]
    async fn nothing_is_sent_to_an_address_that_bounced_or_complained_and_the_text_message_is_sent() {
        for kind in ["Email Bounced", "Email Complaint Received"] {
            let world = after(kind, |_| ()).await;
            for id in ["e-2", "e-2", "e-3"] {
                deliver(&world, &event(id, "OrderCancelled", ADA)).await;
            }
            assert_eq!((world.cloud.mails().len(), world.cloud.texts().len()), (1, 3), "{kind}");
            let states = states(&world);
            for (id, state) in [("e-1", "SENT"), ("e-2", "SUPPRESSED"), ("e-3", "SUPPRESSED")] {
                assert_eq!(states[&*claim(id, "EMAIL")], state, "{kind}: {id}");
            }
        }
    }

    #[tokio::test]
    async fn a_transient_bounce_and_a_report_that_an_e_mail_is_wanted_suppress_nothing() {
        let transient = |detail: &mut Value| detail["bounce"]["bounceType"] = "Transient".into();
        let wanted = |detail: &mut Value| detail["complaint"]["complaintFeedbackType"] = "not-spam".into();
        let worlds = [after("Email Bounced", transient).await, after("Email Complaint Received", wanted).await];
        for world in worlds {
            deliver(&world, &created("e-2", ADA)).await;
            assert_eq!((world.cloud.mails().len(), suppressed(&world)), (2, 0));
        }
    }

    #[tokio::test]
    async fn another_address_of_the_customer_gets_e_mails_and_so_does_another_customer_with_the_address() {
        let world = after_a_bounce().await;
        deliver(&world, &created("e-2", GRACE)).await;
        let mut other = created("e-3", ADA);
        other["data"]["user_id"] = "user_0195a8e0-0000-7000-8000-000000000003".into();
        deliver(&world, &other).await;
        assert_eq!(addressees(&world), [ADA, ADA, GRACE]);
        // An older event still has the address that bounced.
        deliver(&world, &created("e-4", ADA)).await;
        assert_eq!(states(&world)[&*claim("e-4", "EMAIL")], "SUPPRESSED");
    }

    #[tokio::test]
    async fn an_address_is_stored_only_as_a_digest_and_until_the_customer_is_erased() {
        let world = after_a_bounce().await;
        assert_eq!(suppressed(&world), 1);
        let stored = json!(world.cloud.scan("NotificationsTable")).to_string();
        assert!(!stored.contains("ada") && !stored.contains("example.com"), "{stored}");
        deliver(&world, &erased()).await;
        assert_eq!(suppressed(&world), 0);
        // SES reports a bounce after the erasure.
        deliver(&world, &email_feedback("Email Bounced", &world.cloud.mails()[0])).await;
        assert_eq!(suppressed(&world), 0);
    }

    #[tokio::test]
    async fn administrators_see_which_e_mail_bounced_and_which_was_not_sent() {
        let world = World::start().await;
        deliver(&world, &created("e-1", ADA)).await;
        let list = async || {
            let path = format!("/messages?order_id={ORDER}");
            let page = world.get(&Caller::admin(), &path).await.expect(StatusCode::OK);
            let items = page["items"].as_array().unwrap().iter().filter(|it| it["channel"] == "EMAIL");
            items.cloned().collect::<Vec<_>>()
        };
        let mut report = email_feedback("Email Bounced", &world.cloud.mails()[0]);
        report["detail"]["mail"]["messageId"] = list().await[0]["provider_id"].clone();
        deliver(&world, &report).await;
        deliver(&world, &created("e-2", ADA)).await;
        let shown: Vec<_> =
            list().await.iter().map(|it| json!([it["event_id"], it["status"], it["feedback"]])).collect();
        assert_eq!(shown, [json!(["e-1", "SENT", "BOUNCED"]), json!(["e-2", "SUPPRESSED", null])]);
    }

    #[tokio::test]
    async fn a_report_without_the_customer_fails_alone() {
        let world = World::start().await;
        deliver(&world, &created("e-1", ADA)).await;
        let mut report = email_feedback("Email Bounced", &world.cloud.mails()[0]);
        report["detail"]["mail"]["tags"] = json!({});
        let bodies = [report.to_string(), created("e-2", GRACE).to_string()];
        assert_eq!(world.invoke_notifications(&batch(&bodies)).await.unwrap(), failures(&["m-0"]));
        assert_eq!(addressees(&world), [ADA, GRACE]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bounce_is_recorded_although_a_call_of_the_notifier_fails_or_the_notifier_crashes() {
        for kind in [FaultKind::Outage, FaultKind::ResponseLost, FaultKind::CrashBefore, FaultKind::CrashAfter] {
            for call in 0..4 {
                let world = world_with_tokio_clock().await;
                deliver(&world, &created("e-1", ADA)).await;
                let report = email_feedback("Email Bounced", &world.cloud.mails()[0]);
                world.cloud.put_message(report.to_string());
                world.cloud.begin_trial(FaultPlan::none().and(call, kind));
                world.deliver_messages().await;
                world.cloud.end_trial();
                world.deliver_messages().await;
                deliver(&world, &created("e-2", ADA)).await;
                assert_eq!((world.cloud.mails().len(), suppressed(&world)), (1, 1), "{kind:?} at call {call}");
            }
        }
    }
}
