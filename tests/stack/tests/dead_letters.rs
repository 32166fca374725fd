//! Messages that cannot be handled: they reach the dead-letter queue alone, and
//! `make redrive` sends them again.

use std::{panic::AssertUnwindSafe, path::Path, time::Duration};

use futures::FutureExt;
use serde_json::json;
use stack_tests::{Person, Stack, eventually, queue::Queue};
use tokio::{process::Command, sync::Mutex};
use uuid::Uuid;

/// Held by the one test that runs: each test changes queue and account settings
/// that the other test relies on.
static SETTINGS: Mutex<()> = Mutex::const_new(());
/// The pause between two deliveries of a message. A message is dead after five
/// deliveries, so a short pause keeps the tests short.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(2);

/// An order's id and a refund event about the order, addressed to a person.
/// The order does not exist.
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

/// SES keeps new accounts in a sandbox, in which only verified addresses get
/// mail. Puts the account into the sandbox, or takes the account out of it.
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut make = Command::new("make");
    make.args(["--silent", "redrive"]).current_dir(root);
    // With the variables that Cargo has set for this test, Cargo would compile
    // everything again.
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_"];
    for (name, _) in std::env::vars().filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix))) {
        make.env_remove(name);
    }
    let output = make.output().await.expect("make runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a text")
}

#[tokio::test]
async fn a_message_that_is_not_an_event_reaches_the_dead_letter_queue_alone_and_the_other_messages_are_sent() {
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

    // The e-mail is refused until the event is a dead letter.
    set_mail_sandbox(&stack, true).await;
    queue.send(&[&letter]).await;
    let is_dead = AssertUnwindSafe(eventually("the event in the dead-letter queue", || is_in(&dead_letters, &letter)));
    let is_dead = is_dead.catch_unwind().await;
    set_mail_sandbox(&stack, false).await;
    assert!(is_dead.is_ok());
    assert_eq!(mails_about(&stack, &ada, &order).await, 0);

    // A redrive that is killed between its send and its deletion leaves the event
    // in both queues. The test sends the event as such a redrive would have.
    queue.send(&[&letter]).await;
    let (first, second) = tokio::join!(redrive(), redrive());
    assert!(first.contains("moved") || second.contains("moved"), "{first}{second}");
    assert!(is_in(&dead_letters, &letter).await.is_none());
    eventually("the event to leave the queue", || is_not_in(&queue, &letter)).await;
    assert_eq!(mails_about(&stack, &ada, &order).await, 1);
    // The text message was sent at the first delivery, and is not repeated.
    assert_eq!(stack.text_messages(&ada.phone).await.len(), 1);
    queue.set_visibility_timeout(usual).await;
}
