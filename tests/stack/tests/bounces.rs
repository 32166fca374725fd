//! A bounce that SES reports matches the rule, and the address gets no e-mail any more.
//!
//! The emulator's SES reports nothing, and nobody else may put an event of SES onto the bus.
//! So the test asks whether the rule matches the event, and puts the event into the queue as
//! the rule does.

use serde_json::{Value, json};
use stack_tests::{Stack, eventually};
use uuid::Uuid;

#[tokio::test]
async fn an_address_whose_e_mail_bounced_gets_no_e_mail_any_more() {
    let stack = Stack::deployed();
    let (queue, admin, ada) = (stack.queue("order_events").await, stack.admin().await, stack.sign_up("Ada").await);
    let (user, order) = (format!("user_{}", Uuid::new_v4()), format!("ord_{}", Uuid::new_v4()));
    let event = json!({
        "version": "0", "id": Uuid::new_v4(), "source": "aws.ses", "detail-type": "Email Bounced",
        "account": "000000000000", "time": "2026-11-23T08:00:00Z", "region": stack.region, "resources": [],
        "detail": {
            "eventType": "Bounce",
            "bounce": { "bounceType": "Permanent", "bounceSubType": "General" },
            "mail": {
                "messageId": Uuid::new_v4(), "destination": [ada.email],
                "tags": { "ses:configuration-set": ["holdfast-email"], "user": [user], "order": [order] },
            },
        },
    });
    let event = event.to_string();
    let list = ["events", "list-rules", "--name-prefix", "holdfast-EmailFeedbackRule", "--output", "text"];
    let pattern = stack.aws(&[&list[..], &["--query", "Rules[0].EventPattern"]].concat()).await;
    let matches = ["events", "test-event-pattern", "--query", "Result", "--output", "text", "--event", &event];
    let matched = stack.aws(&[&matches[..], &["--event-pattern", pattern.trim()]].concat()).await;
    assert_eq!(matched.trim(), "True", "{pattern} does not match {event}");
    queue.send(&[&event]).await;
    eventually("the bounce is recorded", || async {
        let items = stack.scan("notifications").await;
        items.iter().any(|item| item.to_string().contains(&format!("SUPPRESSED#{user}"))).then_some(())
    })
    .await;

    let refund = json!({
        "specversion": "1.0", "id": format!("{order}:PaymentRefunded"), "source": "/payments",
        "type": "PaymentRefunded", "subject": order, "time": "2026-11-23T08:00:00Z",
        "datacontenttype": "application/json",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "data": {
            "order_id": order, "user_id": user, "amount": 59.97, "currency": "USD",
            "recipient": { "name": ada.name, "email": ada.email },
        },
    });
    queue.send(&[&refund.to_string()]).await;
    let path = format!("/messages?order_id={order}");
    let message = eventually("the message is recorded", || async {
        let page: Value = admin.get(&path).await.json();
        page["items"].as_array().and_then(|items| items.first().cloned())
    })
    .await;
    assert_eq!((&message["channel"], &message["status"]), (&json!("EMAIL"), &json!("SUPPRESSED")));
    let mails = stack.mails(&ada.email).await;
    assert!(!mails.iter().any(|mail| mail.to_string().contains(&order)), "{mails:#?}");
}
