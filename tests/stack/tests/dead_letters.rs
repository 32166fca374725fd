//! Messages that cannot be handled reach the dead-letter queue, without the other
//! messages of their batch. `make redrive` sends dead letters again.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use serde_json::json;
use stack_tests::{Person, Stack, eventually, make, queue::Queue};
use tokio::sync::Mutex;
use uuid::Uuid;

/// The tests hold this lock, so that they run one after the other: each test changes
/// settings of the queue or of the account that the other test relies on.
static SETTINGS: Mutex<()> = Mutex::const_new(());
/// The pause between two deliveries of a message. A message becomes a dead letter after
/// five deliveries, so a short pause keeps the tests short.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the id of an order that does not exist, and an event about a refund for this
/// order. A person is the recipient of the event's message.
fn refund_event(person: &Person) -> (String, String) {
    let kind = "PaymentRefunded";
    let order = format!("ord_{}", Uuid::new_v4());
    let event = json!({
        "specversion": "1.0", "id": format!("{order}:{kind}"), "source": "/payments", "type": kind, "subject": order,
        "time": "2026-11-23T08:00:00Z", "datacontenttype": "application/json",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "data": {
            "order_id": order, "user_id": format!("user_{}", Uuid::new_v4()), "amount": 59.97, "currency": "USD",
            "recipient": { "name": person.name, "email": person.email, "phone": person.phone },
        },
    });
    (order, event.to_string())
}

async fn mails_about(stack: &Stack, person: &Person, order: &str) -> usize {
    let mails = stack.mails(&person.email).await;
    mails.iter().filter(|mail| mail["Subject"].as_str().is_some_and(|subject| subject.contains(order))).count()
}

/// Puts the account into SES's sandbox, or takes the account out of the sandbox. SES
/// keeps new accounts there, and refuses to send e-mails to addresses that are not
/// verified.
async fn set_mail_sandbox(stack: &Stack, is_in_sandbox: bool) {
    let access = if is_in_sandbox { "--no-production-access-enabled" } else { "--production-access-enabled" };
    let details = ["--mail-type", "TRANSACTIONAL", "--website-url", "https://holdfast.example"];
    stack.aws(&[&["sesv2", "put-account-details", access], &details[..]].concat()).await;
}

async fn is_in(queue: &Queue, body: &str) -> Option<()> {
    queue.bodies().await.iter().any(|other| other == body).then_some(())
}

async fn is_not_in(queue: &Queue, body: &str) -> Option<()> {
    is_in(queue, body).await.is_none().then_some(())
}

/// Runs `make redrive` on this stack. Returns its output.
async fn redrive() -> String {
    make(&["redrive"]).await
}

#[tokio::test]
async fn a_malformed_message_reaches_the_dead_letter_queue_and_the_other_messages_of_its_batch_are_handled() {
    let _settings = SETTINGS.lock().await;
    let stack = Stack::deployed();
    let (queue, dead_letters) = (stack.queue("order_events").await, stack.queue("dead_letter").await);
    let ada = stack.sign_up("Ada").await;
    let usual = queue.set_visibility_timeout(VISIBILITY_TIMEOUT).await;

    let (orders, mut bodies): (Vec<_>, Vec<_>) = (0..9).map(|_| refund_event(&ada)).unzip();
    let malformed = json!({ "no": "event", "of": ada.email }).to_string();
    bodies.insert(4, malformed.clone());
    queue.send(&bodies.iter().map(String::as_str).collect::<Vec<_>>()).await;

    eventually("the malformed message in the dead-letter queue", || is_in(&dead_letters, &malformed)).await;
    for (order, body) in orders.iter().zip(bodies.iter().filter(|body| **body != malformed)) {
        assert_eq!(mails_about(&stack, &ada, order).await, 1);
        assert!(is_in(&dead_letters, body).await.is_none());
    }
    queue.set_visibility_timeout(usual).await;
}

#[tokio::test]
async fn a_dead_letter_that_is_redriven_twice_is_sent_once() {
    let _settings = SETTINGS.lock().await;
    let stack = Stack::deployed();
    let (queue, dead_letters) = (stack.queue("order_events").await, stack.queue("dead_letter").await);
    let ada = stack.sign_up("Ada").await;
    let (order, letter) = refund_event(&ada);
    let usual = queue.set_visibility_timeout(VISIBILITY_TIMEOUT).await;

    // SES refuses the e-mail until the event is a dead letter.
    set_mail_sandbox(&stack, true).await;
    queue.send(&[&letter]).await;
    let is_dead = AssertUnwindSafe(eventually("the event in the dead-letter queue", || is_in(&dead_letters, &letter)));
    let is_dead = is_dead.catch_unwind().await;
    set_mail_sandbox(&stack, false).await;
    assert!(is_dead.is_ok());
    assert_eq!(mails_about(&stack, &ada, &order).await, 0);

    // A redrive sends the event to the queue, and then deletes the event from the
    // dead-letter queue. If the redrive is killed in between, the event is in both
    // queues. The test causes the same state: it sends the event itself.
    queue.send(&[&letter]).await;
    let (first, second) = tokio::join!(redrive(), redrive());
    assert!(first.contains("moved") || second.contains("moved"), "{first}{second}");
    assert!(is_in(&dead_letters, &letter).await.is_none());
    eventually("the event to leave the queue", || is_not_in(&queue, &letter)).await;
    assert_eq!(mails_about(&stack, &ada, &order).await, 1);
    // The text message was sent at the first delivery, and not again.
    assert_eq!(stack.text_messages(&ada.phone).await.len(), 1);
    queue.set_visibility_timeout(usual).await;
}
