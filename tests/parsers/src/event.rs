//! A message from the queue of order events: the notifications service either
//! understands the message, which may also be a report of SES, or refuses it with an error that quotes no part of the
//! message.

use notifications::{
    domain::{EventAction, Notification, NotificationContent},
    email_feedback_parser,
    event_parser::{self, ParsedEvent},
    templates::render,
};

/// The maximum length of a text message that is sent as one part (3GPP TS
/// 23.038).
const SMS_LENGTH: usize = 160;

pub(crate) fn check(bytes: &[u8]) {
    let Ok(body) = std::str::from_utf8(bytes) else { return };
    match email_feedback_parser::parse(body).unwrap_or_else(|| event_parser::parse(body)) {
        Ok(ParsedEvent { action: EventAction::Notify(notification), .. }) => {
            let message = render(&notification).expect("words");
            let subject = &message.email.subject;
            assert!(!subject.is_empty() && !subject.contains(char::is_control), "{subject:?}");
            let html = &message.email.html;
            let plain = render(&with_plain_text(notification)).expect("words").email.html;
            assert_eq!(count_markup(html), count_markup(&plain), "a name was not escaped:\n{html}");
            let sms = message.sms;
            assert!(sms.is_ascii() && sms.len() <= SMS_LENGTH, "{sms:?}");
        }
        Ok(ParsedEvent {
            action: EventAction::EraseUser(_) | EventAction::RecordFeedback(_) | EventAction::Ignore(_),
            ..
        }) => {}
        Err(error) => {
            let error = error.to_string();
            // The error fits into one log line and contains no e-mail address.
            assert!(error.len() < 200 && !error.contains(char::is_control), "{error:?}");
            assert!(!error.contains('@'), "{error:?}");
        }
    }
}

/// The same notification with plain words in place of all text that people have
/// typed.
fn with_plain_text(mut notification: Notification) -> Notification {
    notification.recipient.name = "Ada".parse().expect("a name");
    if let NotificationContent::OrderCreated(order) = &mut notification.content {
        for line in &mut order.lines {
            line.name = "Teapot".parse().expect("a product's name");
        }
    }
    notification
}

/// The number of each character that delimits HTML tags and attributes.
fn count_markup(html: &str) -> [usize; 3] {
    ['<', '>', '"'].map(|mark| html.matches(mark).count())
}
