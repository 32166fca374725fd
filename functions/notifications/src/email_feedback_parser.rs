//! Parses what SES reports about e-mails that it had accepted: bounces and complaints, in
//! the form in which EventBridge puts them into the queue.
//! <https://docs.aws.amazon.com/ses/latest/dg/monitoring-eventbridge.html>

use chassis::{contact::Email, id::UserId, trace::TraceContext};
use serde::Deserialize;

use crate::{
    domain::{EmailFeedback, EventAction, EventId, Feedback, OrderId, WhyIgnored},
    event_parser::{InvalidEvent, InvalidReason, ParsedEvent, read},
};

/// The `source` of all events of SES.
const SOURCE: &str = "aws.ses";

/// The tag of an e-mail that holds the customer's id.
pub const USER_TAG: &str = "user";
/// The tag of an e-mail that holds the id of the order that the e-mail is about.
pub const ORDER_TAG: &str = "order";

/// Parses the body of a message. Returns `None` if the message is not from SES.
pub fn parse(body: &str) -> Option<Result<ParsedEvent, InvalidEvent>> {
    #[derive(Deserialize)]
    struct Source<'a> {
        source: &'a str,
    }
    let source: Source<'_> = serde_json::from_str(body).ok()?;
    (source.source == SOURCE).then(|| parse_event(body))
}

fn parse_event(body: &str) -> Result<ParsedEvent, InvalidEvent> {
    let event: SesEvent =
        read(body).map_err(|problem| InvalidEvent { event_id: None, reason: InvalidReason::Envelope(problem) })?;
    // EventBridge's ids are UUIDs, which may begin with a digit.
    let event_id: EventId =
        format!("ses:{}", event.id).parse().map_err(|_| InvalidEvent { event_id: None, reason: InvalidReason::Id })?;
    let invalid = |reason| InvalidEvent { event_id: Some(event_id.clone()), reason };
    let missing = |member: &str| invalid(InvalidReason::Data(format!("missing field `{member}`")));
    let Detail { mail, bounce, complaint } = event.detail;
    let feedback = match event.kind.as_str() {
        "Email Bounced" => match bounce.ok_or_else(|| missing("bounce"))?.bounce_type {
            BounceType::Permanent => Some(Feedback::Bounced),
            BounceType::Transient => Some(Feedback::TransientlyBounced),
        },
        "Email Complaint Received" => {
            let kind = complaint.ok_or_else(|| missing("complaint"))?.complaint_feedback_type;
            // With this type, the recipient reports that the e-mail is wanted after all.
            (kind.as_deref() != Some("not-spam")).then_some(Feedback::Complained)
        }
        _ => return Err(invalid(InvalidReason::Kind)),
    };
    let ([user_id], [order_id], [address]) = (mail.tags.user, mail.tags.order, mail.destination);
    let of_email = |feedback| EmailFeedback { user_id, order_id, provider_id: mail.message_id, address, feedback };
    let action =
        feedback.map(of_email).map_or(EventAction::Ignore(WhyIgnored::NoComplaint), EventAction::RecordFeedback);
    // SES passes no trace on. So the handling of the event begins a trace of its own.
    Ok(ParsedEvent { event_id, order_id: Some(order_id), kind: event.kind, trace: TraceContext::start(), action })
}

#[derive(Deserialize)]
struct SesEvent {
    id: String,
    #[serde(rename = "detail-type")]
    kind: String,
    detail: Detail,
}

#[derive(Deserialize)]
struct Detail {
    mail: Mail,
    #[serde(default)]
    bounce: Option<Bounce>,
    #[serde(default)]
    complaint: Option<Complaint>,
}

/// The e-mail as this service has sent it: to one address, with one value for each tag.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mail {
    message_id: String,
    destination: [Email; 1],
    tags: Tags,
}

#[derive(Deserialize)]
struct Tags {
    user: [UserId; 1],
    order: [OrderId; 1],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bounce {
    bounce_type: BounceType,
}

#[derive(Deserialize)]
enum BounceType {
    Permanent,
    /// Also `Undetermined`: an address is suppressed only if SES knows that it is dead.
    #[serde(other)]
    Transient,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Complaint {
    #[serde(default)]
    complaint_feedback_type: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::parse;
    use crate::domain::{EventAction, Feedback};

    fn event(kind: &str, detail: Value) -> Value {
        let mut event = json!({
            "version": "0", "id": "0a1b2c3d-0000-4000-8000-000000000001", "source": "aws.ses", "detail-type": kind,
            "time": "2026-11-23T08:00:00Z", "detail": {
                "mail": {
                    "messageId": "m-1", "destination": ["ada@example.com"],
                    "tags": {
                        "ses:configuration-set": ["holdfast-email"],
                        "user": ["user_0195a8e0-0000-7000-8000-000000000002"],
                        "order": ["ord_0195a8e0-0000-7000-8000-000000000001"],
                    },
                },
            },
        });
        for (name, value) in detail.as_object().unwrap() {
            event["detail"][name] = value.clone();
        }
        event
    }

    fn feedback(kind: &str, detail: Value) -> Option<Feedback> {
        match parse(&event(kind, detail).to_string()).unwrap().unwrap().action {
            EventAction::RecordFeedback(feedback) => Some(feedback.feedback),
            EventAction::Ignore(_) => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_permanent_bounce_and_a_complaint_suppress_an_address() {
        for (kind, detail, expected, suppresses) in [
            ("Email Bounced", json!({ "bounce": { "bounceType": "Permanent" } }), Feedback::Bounced, true),
            ("Email Bounced", json!({ "bounce": { "bounceType": "Transient" } }), Feedback::TransientlyBounced, false),
            (
                "Email Bounced",
                json!({ "bounce": { "bounceType": "Undetermined" } }),
                Feedback::TransientlyBounced,
                false,
            ),
            ("Email Complaint Received", json!({ "complaint": {} }), Feedback::Complained, true),
            (
                "Email Complaint Received",
                json!({ "complaint": { "complaintFeedbackType": "abuse" } }),
                Feedback::Complained,
                true,
            ),
        ] {
            let found = feedback(kind, detail).unwrap();
            assert_eq!((found, found.suppresses()), (expected, suppresses), "{kind}");
        }
    }

    #[test]
    fn the_report_that_an_e_mail_is_wanted_after_all_is_no_complaint() {
        let detail = json!({ "complaint": { "complaintFeedbackType": "not-spam" } });
        assert_eq!(feedback("Email Complaint Received", detail), None);
    }

    #[test]
    fn an_event_of_a_service_of_the_shop_is_not_from_ses() {
        for body in [r#"{ "source": "/orders" }"#, "{}", "not JSON", r#"{ "source": 1 }"#] {
            assert!(parse(body).is_none(), "{body}");
        }
    }

    #[test]
    fn an_event_that_lacks_what_identifies_the_address_is_refused_without_quoting_it() {
        let bounce = || event("Email Bounced", json!({ "bounce": { "bounceType": "Permanent" } }));
        for path in ["/detail/mail/tags/user", "/detail/mail/tags/order", "/detail/mail/destination", "/detail/bounce"]
        {
            for wrong in [json!(["ada@example.com", "ada@example.com"]), json!(null), json!("ada@example.com")] {
                let mut event = bounce();
                *event.pointer_mut(path).unwrap() = wrong;
                let error = parse(&event.to_string()).unwrap().unwrap_err().to_string();
                assert!(!error.contains("ada"), "{path}: {error}");
            }
        }
        assert!(parse(&event("Email Opened", json!({})).to_string()).unwrap().is_err());
    }
}
