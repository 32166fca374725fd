//! The e-mails that an emulator's SES has accepted. AWS sends an e-mail to its
//! recipients; each emulator keeps it in its own format.

use serde_json::Value;

use crate::{
    http::{self, TIMEOUT},
    prelude::*,
};

/// All e-mails of an emulator, to any recipient.
pub struct Inbox {
    url: String,
    read: Reader,
}

type Reader = fn(&Value) -> Option<Vec<Mail>>;

pub struct Mail {
    pub id: String,
    pub from: String,
    pub to: Vec<String>,
    pub subject: String,
    pub text: String,
}

impl Mail {
    pub fn is_to(&self, email: &str) -> bool {
        self.to.iter().any(|address| address.contains(email))
    }
}

impl Inbox {
    /// The inbox of the stack's emulator, unless its format is unknown.
    pub fn of(stack: &Stack) -> Result<Option<Self>> {
        let known: [(&str, Reader); 2] = [("/_ministack/ses/messages", ministack), ("/_aws/ses", localstack)];
        for (path, read) in known {
            let inbox = Self { url: format!("{}{path}", stack.emulator_url), read };
            let answer = http::get(&inbox.url, TIMEOUT)?;
            if answer.is_success() && read(&answer.body).is_some() {
                return Ok(Some(inbox));
            }
        }
        Ok(None)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn mails(&self) -> Result<Vec<Mail>> {
        let answer = http::get(&self.url, TIMEOUT)?.success()?;
        (self.read)(&answer).with_context(|| format!("the format of {} is unknown", self.url))
    }
}

/// MiniStack groups the messages by account.
fn ministack(answer: &Value) -> Option<Vec<Mail>> {
    let accounts = answer["messages"].as_object()?;
    let mails = accounts.values().filter_map(Value::as_array).flatten().map(|mail| Mail {
        id: plain(&mail["MessageId"]),
        from: plain(&mail["Source"]),
        to: plain_list(&mail["To"]),
        subject: plain(&mail["Subject"]),
        text: plain(&mail["BodyText"]),
    });
    Some(mails.collect())
}

fn localstack(answer: &Value) -> Option<Vec<Mail>> {
    let mails = answer["messages"].as_array()?.iter().map(|mail| Mail {
        id: plain(&mail["Id"]),
        from: plain(&mail["Source"]),
        to: plain_list(&mail["Destination"]["ToAddresses"]),
        subject: plain(&mail["Subject"]),
        text: plain(&mail["Body"]["text_part"]),
    });
    Some(mails.collect())
}

fn plain_list(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(plain).collect()
}

/// The text of a JSON string without quotes; other values as JSON.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_inboxes_of_two_emulators_are_read_alike() {
        let one = json!({ "messages": { "000000000000": [{
            "MessageId": "1", "Source": "shop@example.com", "To": ["Ada <ada@example.com>"],
            "Subject": "Thank you", "BodyText": "Soon.",
        }] } });
        let other = json!({ "messages": [{
            "Id": "1", "Source": "shop@example.com", "Destination": { "ToAddresses": ["ada@example.com"] },
            "Subject": "Thank you", "Body": { "text_part": "Soon.", "html_part": null },
        }] });
        for (read, answer) in [(ministack as Reader, &one), (localstack, &other)] {
            let mails = read(answer).expect("an inbox");
            let [mail] = mails.as_slice() else { panic!("{answer}") };
            assert!(mail.is_to("ada@example.com") && !mail.is_to("grace@example.com"));
            assert_eq!((mail.id.as_str(), mail.subject.as_str(), mail.text.as_str()), ("1", "Thank you", "Soon."));
        }
        assert!(ministack(&other).is_none() && localstack(&one).is_none());
    }
}
