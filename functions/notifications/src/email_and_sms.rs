//! Sends e-mails with Amazon SES and text messages with Amazon SNS.

use std::time::Duration;

use aws_config::{SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_sesv2::{
    error::{BuildError, ProvideErrorMetadata, SdkError},
    types::{Body, Content, Destination, EmailContent, Message, MessageTag},
};
use aws_sdk_sns::types::MessageAttributeValue;
use backon::{ExponentialBuilder, Retryable};
use chassis::{
    aws::was_never_sent,
    contact::{Email, Phone},
    telemetry,
    time_limits::SEND_TIMEOUT,
};

use crate::templates;

/// The maximum number of retries for a message that was certainly not sent.
const RETRIES: usize = 5;
/// The error codes of SES that say that the recipient's e-mail address is malformed.
/// All other error codes can be about the sender, the account or its permissions, and
/// an operator has to act on them. `MessageRejected` is not in the list, because SES also
/// uses this code if the sender's identity is not verified.
/// <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>
const PERMANENT_EMAIL_REFUSALS: [&str; 1] = ["BadRequestException"];
/// The error codes of SNS that say that the phone number is malformed, or that the
/// recipient has opted out of text messages. `InvalidParameter` can only be about
/// the phone number, since all other parameters are the same for every recipient.
/// <https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>
const PERMANENT_SMS_REFUSALS: [&str; 4] =
    ["InvalidParameter", "InvalidParameterValue", "OptedOut", "OptedOutException"];

/// Sends e-mails and text messages.
#[derive(Clone, Debug)]
pub struct MessageSender {
    ses: aws_sdk_sesv2::Client,
    sns: aws_sdk_sns::Client,
    sender: Email,
    configuration_set: String,
}

/// The reason why a message was not sent, or may not have been sent.
///
/// The text of a provider's refusal often quotes the recipient's e-mail address or phone
/// number. Logs must therefore contain neither that text nor the SDK's error, which
/// includes that text. This is why the error contains only codes and no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The provider refused the message, and would refuse every retry, too: the
    /// recipient cannot be reached on this channel.
    #[error("the provider refused the recipient permanently, with {code}")]
    PermanentlyRefused {
        /// The provider's error code.
        code: String,
    },
    /// The provider refused the message: nothing was sent.
    #[error("the provider refused the message with {code}, status {status}")]
    Refused {
        /// The provider's error code.
        code: String,
        /// The HTTP status, or 0 if the SDK refused to build the request.
        status: u16,
    },
    /// No request reached the provider: nothing was sent.
    #[error("no connection to the provider: {0}")]
    NotSent(String),
    /// The provider did not respond, or its response does not show whether the message was
    /// sent.
    #[error("it is unknown whether the message was sent: {0}")]
    OutcomeUnknown(String),
}

impl MessageSender {
    /// Creates the clients from the SDK's shared configuration. `sender` is the e-mail
    /// address that the e-mails are sent from. With `configuration_set`, SES reports bounces
    /// and complaints.
    pub fn new(config: &SdkConfig, sender: Email, configuration_set: String) -> Self {
        // SES and SNS cannot distinguish a retry from a second message. The SDK's retries
        // are therefore disabled. `send_email` and `send_sms` retry only a message that was
        // certainly not sent. A message that may have been sent is sent again only at the
        // next delivery of the event, which counts a possible repetition.
        let retries = RetryConfig::disabled();
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(SEND_TIMEOUT).build();
        let ses = aws_sdk_sesv2::config::Builder::from(config)
            .retry_config(retries.clone())
            .timeout_config(timeouts.clone())
            .build();
        let sns = aws_sdk_sns::config::Builder::from(config).retry_config(retries).timeout_config(timeouts).build();
        let (ses, sns) = (aws_sdk_sesv2::Client::from_conf(ses), aws_sdk_sns::Client::from_conf(sns));
        Self { ses, sns, sender, configuration_set }
    }

    /// Sends an e-mail. Returns the message's id at SES. If the e-mail bounces, SES reports
    /// it with the tags, each of which has a name and a value.
    pub async fn send_email(
        &self,
        to: &Email,
        email: &templates::Email,
        tags: [(&str, String); 2],
    ) -> Result<String, SendError> {
        let body = Body::builder().text(utf8(&email.text)?).html(utf8(&email.html)?).build();
        let message = Message::builder().subject(utf8(&email.subject)?).body(body).build();
        let tag = |(name, value): (&str, String)| MessageTag::builder().name(name).value(value).build();
        let tags = tags.into_iter().map(tag).collect::<Result<Vec<_>, _>>().map_err(unbuildable)?;
        let request = self
            .ses
            .send_email()
            .configuration_set_name(&self.configuration_set)
            .set_email_tags(Some(tags))
            .from_email_address(self.sender.expose())
            .destination(Destination::builder().to_addresses(to.expose()).build())
            .content(EmailContent::builder().simple(message).build());
        let send = || async { request.clone().send().await };
        let output = send.retry(backoff()).when(is_certainly_not_sent).await;
        Ok(output.map_err(|error| classify(&error, &PERMANENT_EMAIL_REFUSALS))?.message_id.unwrap_or_default())
    }

    /// Sends a text message. Returns the message's id at SNS.
    pub async fn send_sms(&self, to: &Phone, text: &str) -> Result<String, SendError> {
        // Without this attribute SNS treats a message as promotional and may delay it, but
        // the customer expects the message at once.
        let transactional = MessageAttributeValue::builder().data_type("String").string_value("Transactional").build();
        let request = self
            .sns
            .publish()
            .phone_number(to.expose())
            .message(text)
            .message_attributes("AWS.SNS.SMS.SMSType", transactional.map_err(unbuildable)?);
        let send = || async { request.clone().send().await };
        let output = send.retry(backoff()).when(is_certainly_not_sent).await;
        Ok(output.map_err(|error| classify(&error, &PERMANENT_SMS_REFUSALS))?.message_id.unwrap_or_default())
    }
}

fn utf8(text: &str) -> Result<Content, SendError> {
    Content::builder().charset("UTF-8").data(text).build().map_err(unbuildable)
}

/// Converts the error of a request that the SDK refused to build. No request was sent.
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

/// Returns `true` if the provider throttled the request, or if no request reached the
/// provider. In these two cases a retry cannot send the message twice.
fn is_certainly_not_sent<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    let is_throttled = |code: &str| code.starts_with("Thrott") || code == "TooManyRequestsException";
    error.as_service_error().and_then(ProvideErrorMetadata::code).is_some_and(is_throttled) || was_never_sent(error)
}

fn classify<E>(error: &SdkError<E>, permanent_refusals: &[&str]) -> SendError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match error {
        SdkError::ServiceError(refusal) => {
            let code = refusal.err().code().unwrap_or("no code").to_owned();
            let status = refusal.raw().status();
            if permanent_refusals.contains(&code.as_str()) {
                SendError::PermanentlyRefused { code }
            } else if status.is_client_error() {
                SendError::Refused { code, status: status.as_u16() }
            } else {
                SendError::OutcomeUnknown(format!("{code}, status {}", status.as_u16()))
            }
        }
        SdkError::ConstructionFailure(_) => {
            SendError::Refused { code: "the request could not be built".into(), status: 0 }
        }
        // The remaining errors are about the connection, not about the request's content.
        // Their texts can be logged, since they contain host names but no personal data.
        error if was_never_sent(error) => SendError::NotSent(telemetry::chain(error)),
        error => SendError::OutcomeUnknown(telemetry::chain(error)),
    }
}
