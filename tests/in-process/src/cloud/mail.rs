//! Stand-ins for SES and SNS that keep every message that they accept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use aws_smithy_runtime_api::{client::orchestrator::HttpResponse, http::StatusCode};
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};

use super::{Cloud, lock};

/// Returns the status and the body with which SES refuses an e-mail; `None` if
/// SES accepts the e-mail.
type MailAnswer = dyn Fn(&Value) -> Option<(u16, Value)> + Send + Sync;

#[derive(Default)]
pub(super) struct Mail {
    mails: Mutex<Vec<Value>>,
    answer: Mutex<Option<Arc<MailAnswer>>>,
    texts: Mutex<Vec<HashMap<String, String>>>,
    /// The error code with which SNS refuses text messages; `None` if SNS
    /// accepts them.
    text_refusal: Mutex<Option<&'static str>>,
}

impl Cloud {
    /// Calls `answer` with each e-mail before SES accepts the e-mail. If
    /// `answer` returns a status and a body, SES responds with this status and
    /// body, and does not send the e-mail.
    pub fn answer_mail(&self, answer: impl Fn(&Value) -> Option<(u16, Value)> + Send + Sync + 'static) {
        *lock(&self.0.mail.answer) = Some(Arc::new(answer));
    }

    /// Makes SNS refuse every text message with this error code.
    pub fn refuse_texts(&self, code: &'static str) {
        *lock(&self.0.mail.text_refusal) = Some(code);
    }

    /// The e-mails sent so far, as requests to SES.
    pub fn mails(&self) -> Vec<Value> {
        lock(&self.0.mail.mails).clone()
    }

    /// The text messages sent so far, as requests to SNS.
    pub fn texts(&self) -> Vec<HashMap<String, String>> {
        lock(&self.0.mail.texts).clone()
    }
}

impl Mail {
    pub(super) fn send_email(&self, body: &[u8]) -> (u16, String) {
        let mail: Value = serde_json::from_slice(body).expect("a SendEmail request");
        let answer = lock(&self.answer).clone();
        if let Some((status, body)) = answer.and_then(|answer| answer(&mail)) {
            return (status, body.to_string());
        }
        lock(&self.mails).push(mail);
        (200, json!({ "MessageId": uuid::Uuid::now_v7() }).to_string())
    }

    pub(super) fn publish(&self, body: &[u8]) -> HttpResponse {
        let form = serde_urlencoded::from_bytes::<HashMap<String, String>>(body).expect("a form");
        assert_eq!(form.get("Action").map(String::as_str), Some("Publish"));
        if let Some(code) = *lock(&self.text_refusal) {
            let xml = format!("<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>");
            return HttpResponse::new(StatusCode::try_from(400).expect("a status"), SdkBody::from(xml));
        }
        lock(&self.texts).push(form);
        let xml = "<PublishResponse><PublishResult><MessageId>m-1</MessageId></PublishResult></PublishResponse>";
        HttpResponse::new(StatusCode::try_from(200).expect("a status"), SdkBody::from(xml))
    }
}
