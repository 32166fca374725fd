//! Sends the message about each event once on each channel.
//!
//! Before the service sends a message, it stores a claim in the repository. After the
//! sending, it stores the outcome there. If the same event is delivered again while
//! another delivery holds the claim, or after the message was sent, the service sends
//! nothing.

use std::sync::Arc;

use chassis::{
    clock::Clock,
    deadline::Deadline,
    detail_span,
    id::UserId,
    metric::{Labelled, Unit},
    store::StoreError,
    telemetry,
    time_limits::{NOTIFY_ANSWER_RESERVE, NOTIFY_RECORD_RESERVE},
};
use jiff::Timestamp;
use tracing::Instrument;

use crate::{
    domain::{AddressDigest, Channel, EmailFeedback, Feedback, Notification, OrderId, SentMessage},
    email_and_sms::{MessageSender, SendError},
    email_feedback_parser::{ORDER_TAG, USER_TAG},
    message_holder::HoldError,
    repository::{Attempt, ClaimOutcome, Repository},
    templates,
};

chassis::metrics! {
    /// One delivery of one message on one channel.
    pub struct MessageWork {
        /// Messages, by channel (`email`, `sms`) and result: `sent`, `refused` (for good, because of the recipient) or
        /// `failed` (the queue delivers the event again, so a message may fail several times before it is sent).
        message: Option<Labelled<2>> = "Notifications", Count, ["Stack", "Channel", "Result"];
        /// Messages that a recipient may have received twice.
        possibly_repeated: u64 = "NotificationsPossiblyRepeated", Count, ["Stack"];
        /// E-mails that were not sent, because an earlier e-mail to the address bounced or brought a complaint.
        suppressed: u64 = "EmailsSuppressed", Count, ["Stack"];
    }
}

chassis::metrics! {
    /// What SES reported about one e-mail.
    pub struct FeedbackWork {
        /// E-mails that SES could not deliver, by bounce: `permanent` or `transient`.
        bounced: Option<Labelled<1>> = "EmailsBounced", Count, ["Stack", "Bounce"];
        /// E-mails whose recipients complained.
        complained: u64 = "EmailsComplained", Count, ["Stack"];
    }
}

fn message(channel: Channel, result: &'static str) -> Option<Labelled<2>> {
    let channel = match channel {
        Channel::Email => "email",
        Channel::Sms => "sms",
    };
    Some(Labelled { labels: [channel, result], value: 1 })
}

/// The reason why a notification was not sent on every channel.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    #[error("the message cannot be rendered")]
    Unrenderable(#[from] askama::Error),
    /// The repository could not read, or could not store, that the customer was erased.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Messages are paused, and the event could not be sent back to the queue, or whether they are paused is not known.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The invocation is about to end.
    #[error("no time is left")]
    NoTime,
    /// Sending failed on at least one channel. The reason has been logged.
    #[error("the notification was not sent on every channel")]
    Channel,
}

/// The reason why a message was not sent on a channel.
#[derive(Debug, thiserror::Error)]
enum ChannelError {
    #[error("another delivery of the event holds the claim")]
    HeldByAnother,
    #[error("no time is left")]
    NoTime,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Send(#[from] SendError),
}

/// The use cases: to send a notification, and to stop sending to an erased user or to a dead address.
#[derive(Clone)]
pub struct Notifications {
    repository: Arc<dyn Repository>,
    sender: MessageSender,
    clock: Clock,
}

impl Notifications {
    pub fn new(repository: impl Repository + 'static, sender: MessageSender, clock: Clock) -> Self {
        Self { repository: Arc::new(repository), sender, clock }
    }

    /// Records that the user was erased, so that no message is sent to this user from now on.
    pub async fn erase_user(&self, id: UserId) -> Result<(), StoreError> {
        self.repository.put_erased_user(id, self.clock.now()).await?;
        // After the user is recorded as erased: `suppress` relies on this order.
        self.repository.forget_addresses(id).await?;
        tracing::info!(user = %id, "nothing is sent to this user from now on");
        Ok(())
    }

    /// Records what SES reported about an e-mail. After a permanent bounce and after a
    /// complaint, nothing is sent to the address any more.
    pub async fn record_feedback(&self, email: &EmailFeedback) -> Result<(), StoreError> {
        if email.feedback.suppresses() {
            self.suppress(email).await?;
        }
        let is_shown = self.repository.record_feedback(email).await?;
        let mut work = Unit::<FeedbackWork>::new();
        let bounce = |kind| Some(Labelled { labels: [kind], value: 1 });
        match email.feedback {
            Feedback::Bounced => work.bounced = bounce("permanent"),
            Feedback::TransientlyBounced => work.bounced = bounce("transient"),
            Feedback::Complained => work.complained = 1,
        }
        let (user, feedback) = (email.user_id, email.feedback);
        tracing::warn!(%user, message_id = email.provider_id, ?feedback, is_shown, "an e-mail was not welcome");
        Ok(())
    }

    /// Stores a digest of the address, unless the user was erased. The user may be erased
    /// at the same time, so this method writes before it reads, as `erase_user` does.
    /// Whichever of the two reads last sees both writes, and deletes the digest.
    async fn suppress(&self, email: &EmailFeedback) -> Result<(), StoreError> {
        let address = AddressDigest::of(email.user_id, &email.address);
        self.repository.suppress(email.user_id, &address, self.clock.now()).await?;
        if self.repository.is_user_erased(email.user_id).await? {
            self.repository.forget_addresses(email.user_id).await?;
        }
        Ok(())
    }

    /// Returns the records of all messages about an order, the oldest attempt first. Only
    /// administrators may read them. The records of the last 30 days are stored.
    pub async fn messages(&self, order: OrderId) -> Result<Vec<SentMessage>, StoreError> {
        let mut messages = self.repository.messages(order).await?;
        messages.sort_by_key(|message| message.attempted_at);
        Ok(messages)
    }

    /// Sends `notification` on each channel on which it has not been sent yet,
    /// unless the customer was erased. The channels are independent: if one channel
    /// fails, the next delivery of the event sends on that channel only.
    pub async fn notify(&self, notification: &Notification, deadline: Deadline) -> Result<(), NotifyError> {
        // The message is rendered before anything is claimed, so that an error in a
        // template leaves no claim behind.
        let message = templates::render(notification)?;
        let recipient = &notification.recipient;
        let send_by = deadline.earlier_by(NOTIFY_RECORD_RESERVE);
        let user = notification.user_id;
        let is_suppressed = async {
            let Some(address) = &recipient.email else { return Ok(false) };
            self.repository.is_suppressed(user, &AddressDigest::of(user, address)).await
        };
        let checks = async { futures::try_join!(self.repository.is_user_erased(user), is_suppressed) };
        let (is_erased, is_suppressed) = send_by.run(checks).await.map_err(|_| NotifyError::NoTime)??;
        if is_erased {
            tracing::info!("nothing is sent, because the customer was erased");
            return Ok(());
        }
        // The owner is a new id for each delivery of each record. Lambda's request id and
        // SQS's message id are not suitable, because a retried invocation has the same ids.
        let owner = uuid::Uuid::now_v7().to_string();
        let attempt = |channel| Attempt {
            order_id: notification.content.order_id(),
            event_id: notification.event_id.clone(),
            kind: notification.content.kind(),
            resend_of: notification.resend_of.clone(),
            channel,
            owner: owner.clone(),
        };

        let email = async {
            let Some(address) = &recipient.email else { return true };
            if is_suppressed {
                return self.skip_suppressed(&attempt(Channel::Email), deadline).await;
            }
            let tags = [(USER_TAG, user.to_string()), (ORDER_TAG, notification.content.order_id().to_string())];
            let send = self.sender.send_email(address, &message.email, tags);
            self.send_once(attempt(Channel::Email), deadline, send).await
        };
        let sms = async {
            let Some(phone) = &recipient.phone else { return true };
            self.send_once(attempt(Channel::Sms), deadline, self.sender.send_sms(phone, &message.sms)).await
        };
        match futures::join!(email, sms) {
            (true, true) => Ok(()),
            _ => Err(NotifyError::Channel),
        }
    }

    /// Records that the message is not sent, because the address is suppressed. Returns
    /// `true` if the event need not be delivered again for this channel.
    async fn skip_suppressed(&self, attempt: &Attempt, deadline: Deadline) -> bool {
        let until = deadline.earlier_by(NOTIFY_ANSWER_RESERVE);
        let cause = match until.run(self.repository.record_suppressed(attempt, self.clock.now())).await {
            Ok(Ok(is_new)) => {
                let mut work = Unit::<MessageWork>::new();
                work.suppressed += u64::from(is_new);
                tracing::info!(channel = %attempt.channel, "nothing is sent, because the address is suppressed");
                return true;
            }
            Ok(Err(error)) => telemetry::chain(&error),
            Err(_) => "no time is left".to_owned(),
        };
        tracing::warn!(channel = %attempt.channel, cause, "the suppression could not be recorded");
        false
    }

    /// Runs `send`, unless an earlier delivery of the event has sent the message. Returns
    /// `true` if the event need not be delivered again for this channel.
    async fn send_once(
        &self,
        attempt: Attempt,
        deadline: Deadline,
        send: impl Future<Output = Result<String, SendError>>,
    ) -> bool {
        let channel = attempt.channel;
        let mut work = Unit::<MessageWork>::new();
        match self.claim_and_send(&attempt, deadline, send, &mut work).await {
            Ok(()) => true,
            Err(ChannelError::HeldByAnother) => {
                // The record fails, so SQS delivers it again later.
                tracing::info!(%channel, "another delivery of the event holds the claim");
                false
            }
            Err(error) => {
                work.message = message(channel, "failed");
                tracing::error!(%channel, cause = telemetry::chain(&error), "the message was not sent");
                false
            }
        }
    }

    async fn claim_and_send(
        &self,
        attempt: &Attempt,
        deadline: Deadline,
        send: impl Future<Output = Result<String, SendError>>,
        work: &mut MessageWork,
    ) -> Result<(), ChannelError> {
        let channel = attempt.channel;
        let send_by = deadline.earlier_by(NOTIFY_RECORD_RESERVE);
        let claim = send_by.run(self.repository.claim(attempt, self.clock.now()));
        match claim.await.map_err(|_| ChannelError::NoTime)?? {
            ClaimOutcome::Claimed { possibly_sent: false } => {}
            ClaimOutcome::Claimed { possibly_sent: true } => {
                tracing::warn!(%channel, "an earlier delivery may have sent the message; sending it again");
                work.possibly_repeated += 1;
            }
            ClaimOutcome::AlreadySent => {
                tracing::info!(%channel, "the message was sent before");
                return Ok(());
            }
            ClaimOutcome::PermanentlyRefused => {
                tracing::info!(%channel, "the provider refused the recipient permanently before");
                return Ok(());
            }
            ClaimOutcome::HeldByAnother => return Err(ChannelError::HeldByAnother),
        }
        let span = detail_span!("send", %channel);
        let sent = send_by.run(send).instrument(span.clone()).await;
        let sent = sent.unwrap_or_else(|_| Err(SendError::OutcomeUnknown("no time is left".into())));
        telemetry::record_outcome(&span, &sent);
        match sent {
            Ok(message_id) => {
                work.message = message(channel, "sent");
                tracing::info!(%channel, message_id, "the message was sent");
                if !self.record_sent(attempt, &message_id, self.clock.now(), deadline).await {
                    work.possibly_repeated += 1;
                }
                Ok(())
            }
            Err(SendError::PermanentlyRefused { code }) => {
                tracing::warn!(%channel, code, "the provider refused the recipient permanently");
                work.message = message(channel, "refused");
                self.record_permanent_refusal(attempt, &code, deadline).await;
                Ok(())
            }
            Err(error) => {
                // The claim is released only if certainly nothing was sent. Otherwise the
                // claim stays until its lease ends, and the delivery that then takes over
                // the claim counts a possible repetition.
                if let SendError::Refused { .. } | SendError::NotSent(_) = error {
                    self.release_claim(attempt, deadline).await;
                }
                Err(error.into())
            }
        }
    }

    /// Records that the message was sent. If the recording fails, this delivery still
    /// succeeds, but another delivery of the same event may send the message again. Returns
    /// whether it was recorded.
    async fn record_sent(&self, attempt: &Attempt, message_id: &str, now: Timestamp, deadline: Deadline) -> bool {
        let until = deadline.earlier_by(NOTIFY_ANSWER_RESERVE);
        let recorded = until.run(self.repository.mark_sent(attempt, message_id, now)).await;
        let cause = match recorded {
            Ok(Ok(true)) => return true,
            Ok(Ok(false)) => "another delivery took over the claim meanwhile".to_owned(),
            Ok(Err(error)) => telemetry::chain(&error),
            Err(_) => "no time is left".to_owned(),
        };
        tracing::warn!(channel = %attempt.channel, cause, "the message was sent, but that could not be recorded");
        false
    }

    /// Records that the provider refused the recipient permanently. If the recording fails,
    /// another delivery of the same event may try to send the message again, and then gets
    /// the same refusal.
    async fn record_permanent_refusal(&self, attempt: &Attempt, code: &str, deadline: Deadline) {
        let until = deadline.earlier_by(NOTIFY_ANSWER_RESERVE);
        let cause = match until.run(self.repository.mark_permanently_refused(attempt, code)).await {
            Ok(Ok(true)) => return,
            Ok(Ok(false)) => "another delivery took over the claim meanwhile".to_owned(),
            Ok(Err(error)) => telemetry::chain(&error),
            Err(_) => "no time is left".to_owned(),
        };
        tracing::warn!(channel = %attempt.channel, cause, "the permanent refusal could not be recorded");
    }

    async fn release_claim(&self, attempt: &Attempt, deadline: Deadline) {
        let until = deadline.earlier_by(NOTIFY_ANSWER_RESERVE);
        let released = until.run(self.repository.release(attempt)).await;
        if let Ok(Err(error)) = released {
            // The claim stays until its lease ends, and can then be taken over.
            tracing::warn!(channel = %attempt.channel, cause = telemetry::chain(&error), "the claim was not released");
        }
    }
}
