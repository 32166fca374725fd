//! The ways out: SES for e-mail, SNS for SMS.

use std::time::Duration;

use aws_config::{SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_sesv2::{
    error::{BuildError, ProvideErrorMetadata, SdkError},
    types::{Body, Content, Destination, EmailContent, Message as Simple},
};
use aws_sdk_sns::types::MessageAttributeValue;
use backon::{ExponentialBuilder, Retryable};
use chassis::{
    aws::never_left,
    contact::{Email, Phone},
    telemetry,
};

use crate::message;

/// An answer that takes longer is given up. Generous, because it is not known
/// then whether the message was sent.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a message is offered again that was surely not sent.
const RETRIES: usize = 5;
/// The error codes of SES that say that the recipient's address is no address.
/// All else that it refuses is about the sender, the account or its rights, and
/// needs a person: `MessageRejected`, too, is how it calls an identity that is
/// not verified.
/// <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>
const MAIL_REFUSALS_FOR_GOOD: [&str; 1] = ["BadRequestException"];
/// The error codes of SNS that say that the phone number is no number, or that
/// its owner wants no messages. Everything else in the request is the same for
/// everybody.
/// <https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>
const TEXT_REFUSALS_FOR_GOOD: [&str; 4] =
    ["InvalidParameter", "InvalidParameterValue", "OptedOut", "OptedOutException"];

/// Sends messages.
#[derive(Clone, Debug)]
pub struct Channels {
    ses: aws_sdk_sesv2::Client,
    sns: aws_sdk_sns::Client,
    sender: Email,
}

/// A message that was not sent, or perhaps not.
///
/// What a provider says of a refusal often quotes the address: neither it nor
/// the SDK's error, which contains it, may get into a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Refused, and every repetition would be refused, too: this recipient
    /// cannot be reached on this channel.
    #[error("refused for good with {code}")]
    RefusedForGood {
        /// The provider's error code.
        code: String,
    },
    /// Refused: nothing was sent.
    #[error("refused with {code}, status {status}")]
    Refused {
        /// The provider's error code.
        code: String,
        /// The HTTP status.
        status: u16,
    },
    /// The request never left this process: nothing was sent.
    #[error("no connection: {0}")]
    NeverLeft(String),
    /// No answer that would show whether it was sent.
    #[error("without a clear answer: {0}")]
    Unclear(String),
}

impl Channels {
    /// On the SDK's shared configuration; e-mail comes from `sender`.
    pub fn new(config: &SdkConfig, sender: Email) -> Self {
        // Neither provider can tell a repeat from a second message. What may
        // have been sent is left to the next delivery, which counts it; here
        // only what was certainly refused is tried again.
        let retries = RetryConfig::disabled();
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build();
        let ses = aws_sdk_sesv2::config::Builder::from(config)
            .retry_config(retries.clone())
            .timeout_config(timeouts.clone())
            .build();
        let sns = aws_sdk_sns::config::Builder::from(config).retry_config(retries).timeout_config(timeouts).build();
        Self { ses: aws_sdk_sesv2::Client::from_conf(ses), sns: aws_sdk_sns::Client::from_conf(sns), sender }
    }

    /// Sends an e-mail. Returns SES's id for it.
    pub async fn mail(&self, to: &Email, email: &message::Email) -> Result<String, SendError> {
        let body = Body::builder().text(utf8(&email.text)?).html(utf8(&email.html)?).build();
        let simple = Simple::builder().subject(utf8(&email.subject)?).body(body).build();
        let request = self
            .ses
            .send_email()
            .from_email_address(self.sender.expose())
            .destination(Destination::builder().to_addresses(to.expose()).build())
            .content(EmailContent::builder().simple(simple).build());
        let send = || async { request.clone().send().await };
        let output = send.retry(backoff()).when(is_surely_unsent).await;
        Ok(output.map_err(|error| judged(&error, &MAIL_REFUSALS_FOR_GOOD))?.message_id.unwrap_or_default())
    }

    /// Sends a text message. Returns SNS's id for it.
    pub async fn text(&self, to: &Phone, text: &str) -> Result<String, SendError> {
        // Somebody waits for it: not to be held back as advertising may be.
        let transactional = MessageAttributeValue::builder().data_type("String").string_value("Transactional").build();
        let request = self
            .sns
            .publish()
            .phone_number(to.expose())
            .message(text)
            .message_attributes("AWS.SNS.SMS.SMSType", transactional.map_err(unbuildable)?);
        let send = || async { request.clone().send().await };
        let output = send.retry(backoff()).when(is_surely_unsent).await;
        Ok(output.map_err(|error| judged(&error, &TEXT_REFUSALS_FOR_GOOD))?.message_id.unwrap_or_default())
    }
}

fn utf8(text: &str) -> Result<Content, SendError> {
    Content::builder().charset("UTF-8").data(text).build().map_err(unbuildable)
}

/// Never left this process.
fn unbuildable(error: BuildError) -> SendError {
    SendError::Refused { code: error.to_string(), status: 0 }
}

fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(Duration::from_secs(4))
        .with_max_times(RETRIES)
        .with_jitter()
}

/// Refused for being too many at once, or not even sent: another try can't send
/// the message twice.
fn is_surely_unsent<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    let too_many = |code: &str| code.starts_with("Thrott") || code == "TooManyRequestsException";
    error.as_service_error().and_then(ProvideErrorMetadata::code).is_some_and(too_many) || never_left(error)
}

fn judged<E>(error: &SdkError<E>, refusals_for_good: &[&str]) -> SendError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match error {
        SdkError::ServiceError(refusal) => {
            let code = refusal.err().code().unwrap_or("no code").to_owned();
            let status = refusal.raw().status();
            if refusals_for_good.contains(&code.as_str()) {
                SendError::RefusedForGood { code }
            } else if status.is_client_error() {
                SendError::Refused { code, status: status.as_u16() }
            } else {
                SendError::Unclear(format!("{code}, status {}", status.as_u16()))
            }
        }
        SdkError::ConstructionFailure(_) => SendError::Refused { code: "not a request".into(), status: 0 },
        // What became of the request, not what was in it: these name hosts at most.
        error if never_left(error) => SendError::NeverLeft(telemetry::chain(error)),
        error => SendError::Unclear(telemetry::chain(error)),
    }
}
