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
    contact::{Email, Phone},
    telemetry,
};

use crate::message;

/// An answer that takes longer is given up. Generous, because it is not known
/// then whether the message was sent.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a message is offered again that was refused for being too many
/// at once.
const THROTTLE_RETRIES: usize = 5;

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
    /// Refused: nothing was sent.
    #[error("refused with {code}, status {status}")]
    Refused {
        /// The provider's error code.
        code: String,
        /// The HTTP status.
        status: u16,
    },
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
        let output = send.retry(backoff()).when(is_throttled).await.map_err(|error| judged(&error))?;
        Ok(output.message_id.unwrap_or_default())
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
        let output = send.retry(backoff()).when(is_throttled).await.map_err(|error| judged(&error))?;
        Ok(output.message_id.unwrap_or_default())
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
        .with_max_times(THROTTLE_RETRIES)
        .with_jitter()
}

/// Refused for being too many at once.
fn is_throttled<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    let too_many = |code: &str| code.starts_with("Thrott") || code == "TooManyRequestsException";
    error.as_service_error().and_then(ProvideErrorMetadata::code).is_some_and(too_many)
}

fn judged<E>(error: &SdkError<E>) -> SendError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match error {
        SdkError::ServiceError(refusal) => {
            let code = refusal.err().code().unwrap_or("no code").to_owned();
            let status = refusal.raw().status();
            if status.is_client_error() {
                SendError::Refused { code, status: status.as_u16() }
            } else {
                SendError::Unclear(format!("{code}, status {}", status.as_u16()))
            }
        }
        SdkError::ConstructionFailure(_) => SendError::Refused { code: "not a request".into(), status: 0 },
        // The request's fate, not its content: these name hosts at most.
        error => SendError::Unclear(telemetry::chain(error)),
    }
}
