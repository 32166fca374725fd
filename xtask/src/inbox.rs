//! Reads the e-mails that an emulator's SES has accepted. An emulator stores e-mails
//! instead of sending them. Each kind of emulator has its own URL and format for them.

use serde_json::Value;

use crate::{
    http::{self, TIMEOUT},
    prelude::*,
};

/// The place where an emulator stores the e-mails to all recipients.
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
    /// Finds the inbox of the stack's emulator. Returns `None` for an emulator that is
    /// neither MiniStack nor LocalStack.
    pub fn of(stack: &Stack) -> Result<Option<Self>> {
        let known: [(&str, Reader); 2] = [("/_ministack/ses/messages", ministack), ("/_aws/ses", localstack)];
        for (path, read) in known {
            let inbox = Self { url: format!("{}{path}", stack.emulator_url), read };
            let response = http::get(&inbox.url, TIMEOUT)?;
            if response.is_success() && read(&response.body).is_some() {
                return Ok(Some(inbox));
            }
        }
        Ok(None)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn mails(&self) -> Result<Vec<Mail>> {
        let response = http::get(&self.url, TIMEOUT)?.success()?;
        (self.read)(&response).with_context(|| format!("the format of {} is unknown", self.url))
    }
}

/// Reads e-mails in MiniStack's format, which groups them by AWS account.
fn ministack(response: &Value) -> Option<Vec<Mail>> {
    let accounts = response["messages"].as_object()?;
    let mails = accounts.values().filter_map(Value::as_array).flatten().map(|mail| Mail {
        id: plain(&mail["MessageId"]),
        from: plain(&mail["Source"]),
        to: plain_list(&mail["To"]),
        subject: plain(&mail["Subject"]),
        text: plain(&mail["BodyText"]),
    });
    Some(mails.collect())
}

/// Reads e-mails in LocalStack's format.
fn localstack(response: &Value) -> Option<Vec<Mail>> {
    let mails = response["messages"].as_array()?.iter().map(|mail| Mail {
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

/// Formats a JSON string as its text, without quotes, and any other value as JSON.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn e_mails_of_ministack_and_of_localstack_are_read() {
        let one = json!({ "messages": { "000000000000": [{
            "MessageId": "1", "Source": "shop@example.com", "To": ["Ada <ada@example.com>"],
            "Subject": "Thank you", "BodyText": "Soon.",
        }] } });
        let other = json!({ "messages": [{
            "Id": "1", "Source": "shop@example.com", "Destination": { "ToAddresses": ["ada@example.com"] },
            "Subject": "Thank you", "Body": { "text_part": "Soon.", "html_part": null },
        }] });
        for (read, response) in [(ministack as Reader, &one), (localstack, &other)] {
            let mails = read(response).expect("an inbox");
            let [mail] = mails.as_slice() else { panic!("{response}") };
            assert!(mail.is_to("ada@example.com") && !mail.is_to("grace@example.com"));
            assert_eq!((mail.id.as_str(), mail.subject.as_str(), mail.text.as_str()), ("1", "Thank you", "Soon."));
        }
        assert!(ministack(&other).is_none() && localstack(&one).is_none());
    }
}
