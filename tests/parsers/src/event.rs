//! A message from the queue: either this service knows what to do about it, or
//! the message is refused without a word of what stood in it.

use notifications::{
    domain::{EventAction, Notification, NotificationContent},
    event_parser::{ParsedEvent, parse},
    templates::render,
};

/// The characters of a text message of one part (3GPP TS 23.038).
const SMS_LENGTH: usize = 160;

pub(crate) fn check(bytes: &[u8]) {
    let Ok(body) = std::str::from_utf8(bytes) else { return };
    match parse(body) {
        Ok(ParsedEvent { action: EventAction::Notify(notification), .. }) => {
            let message = render(&notification).expect("words");
            let subject = &message.email.subject;
            assert!(!subject.is_empty() && !subject.contains(char::is_control), "{subject:?}");
            let html = &message.email.html;
            let plain = render(&without_typed_text(notification)).expect("words").email.html;
            assert_eq!(marks(html), marks(&plain), "a name brought markup along:\n{html}");
            let sms = message.sms;
            assert!(sms.is_ascii() && sms.len() <= SMS_LENGTH, "{sms:?}");
        }
        Ok(ParsedEvent { action: EventAction::EraseUser(_) | EventAction::Ignore, .. }) => {}
        Err(error) => {
            let said = error.to_string();
            // A log line, and about nobody.
            assert!(said.len() < 200 && !said.contains(char::is_control), "{said:?}");
            assert!(!said.contains('@'), "{said:?}");
        }
    }
}

/// The same, with harmless words for whatever people have typed.
fn without_typed_text(mut notification: Notification) -> Notification {
    notification.recipient.name = "Ada".parse().expect("a name");
    if let NotificationContent::OrderCreated(order) = &mut notification.content {
        for line in &mut order.lines {
            line.name = "Teapot".parse().expect("a product's name");
        }
    }
    notification
}

/// What makes HTML of a text: its tags, and the quotes around their attributes.
fn marks(html: &str) -> [usize; 3] {
    ['<', '>', '"'].map(|mark| html.matches(mark).count())
}
