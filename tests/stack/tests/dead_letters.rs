//! What becomes of messages that can't be delivered.

use std::{panic::AssertUnwindSafe, path::Path, time::Duration};

use futures::FutureExt;
use serde_json::json;
use stack_tests::{Person, Stack, eventually, queue::Queue};
use tokio::{process::Command, sync::Mutex};
use uuid::Uuid;

/// One test at a time: each changes what the others rely on.
static ALONE: Mutex<()> = Mutex::const_new(());
/// How long a message waits for its next delivery: five take as long as a test
/// likes to wait.
const SOON: Duration = Duration::from_secs(2);

/// A word of the payment of an order that nobody has placed.
fn event(person: &Person, kind: &str) -> (String, String) {
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

async fn allow_mail_to_anybody(stack: &Stack, is_allowed: bool) {
    let access = if is_allowed { "--production-access-enabled" } else { "--no-production-access-enabled" };
    let details = ["--mail-type", "TRANSACTIONAL", "--website-url", "https://holdfast.example"];
    stack.aws(&[&["sesv2", "put-account-details", access], &details[..]].concat()).await;
}

async fn is_in(queue: &Queue, body: &str) -> Option<()> {
    queue.bodies().await.iter().any(|other| other == body).then_some(())
}

async fn is_not_in(queue: &Queue, body: &str) -> Option<()> {
    is_in(queue, body).await.is_none().then_some(())
}

/// `make redrive`, of this stack. Returns what it says.
async fn redrive() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut make = Command::new("make");
    make.args(["--silent", "redrive"]).current_dir(root);
    // What Cargo told the tests of themselves would have it compile afresh.
    let own = ["CARGO_PKG_", "CARGO_MANIFEST_"];
    for (name, _) in std::env::vars().filter(|(name, _)| own.iter().any(|prefix| name.starts_with(prefix))) {
        make.env_remove(name);
    }
    let output = make.output().await.expect("make runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a text")
}

#[tokio::test]
async fn a_message_that_is_no_event_dies_alone_and_its_neighbours_are_told() {
    let _alone = ALONE.lock().await;
    let stack = Stack::deployed();
    let (queue, dead_letters) = (stack.queue("order_events").await, stack.queue("dead_letter").await);
    let ada = stack.sign_up("Ada").await;
    let usual = queue.deliver_again_after(SOON).await;

    let (orders, mut bodies): (Vec<_>, Vec<_>) = (0..9).map(|_| event(&ada, "PaymentRefunded")).unzip();
    let poison = json!({ "no": "event", "of": ada.email }).to_string();
    bodies.insert(4, poison.clone());
    queue.send(&bodies.iter().map(String::as_str).collect::<Vec<_>>()).await;

    eventually("the poison among the dead letters", || is_in(&dead_letters, &poison)).await;
    for (order, body) in orders.iter().zip(bodies.iter().filter(|body| **body != poison)) {
        assert_eq!(mails_about(&stack, &ada, order).await, 1);
        assert!(is_in(&dead_letters, body).await.is_none());
    }
    queue.deliver_again_after(usual).await;
}

#[tokio::test]
async fn a_letter_whose_reason_to_die_is_mended_is_told_once_however_often_it_is_redriven() {
    let _alone = ALONE.lock().await;
    let stack = Stack::deployed();
    let (queue, dead_letters) = (stack.queue("order_events").await, stack.queue("dead_letter").await);
    let ada = stack.sign_up("Ada").await;
    let (order, letter) = event(&ada, "PaymentRefunded");
    let usual = queue.deliver_again_after(SOON).await;

    // SES keeps new accounts in a sandbox, where only verified addresses get
    // mail. This one falls back into it, and is let out again.
    allow_mail_to_anybody(&stack, false).await;
    queue.send(&[&letter]).await;
    let died = AssertUnwindSafe(eventually("the letter's death", || is_in(&dead_letters, &letter)));
    let died = died.catch_unwind().await;
    allow_mail_to_anybody(&stack, true).await;
    assert!(died.is_ok());
    assert_eq!(mails_about(&stack, &ada, &order).await, 0);

    // A redrive that is killed after it sent and before it deleted leaves the
    // letter in both queues.
    queue.send(&[&letter]).await;
    let (one, other) = tokio::join!(redrive(), redrive());
    assert!(one.contains("moved") || other.contains("moved"), "{one}{other}");
    assert!(is_in(&dead_letters, &letter).await.is_none());
    eventually("the letter's end", || is_not_in(&queue, &letter)).await;
    assert_eq!(mails_about(&stack, &ada, &order).await, 1);
    // The text message went out at the first delivery, and is not repeated.
    assert_eq!(stack.texts(&ada.phone).await.len(), 1);
    queue.deliver_again_after(usual).await;
}
