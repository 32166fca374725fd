//! Telling each event once on each channel.

use std::{sync::Arc, time::Duration};

use chassis::{clock::Clock, deadline::Deadline, id::UserId, metric, store::StoreError, telemetry};
use jiff::Timestamp;

use crate::{
    channels::{Channels, SendError},
    domain::{Channel, Notification},
    message,
    repository::{Attempt, Claim, Repository},
};

/// Kept back at an invocation's end. Nothing is sent in it any more: it is
/// for noting what was sent, and for the answer.
pub const RESERVE: Duration = Duration::from_millis(1500);
/// The part of [`RESERVE`] that is for the answer.
const ANSWER_RESERVE: Duration = Duration::from_millis(300);

/// Counts messages that may have reached somebody twice.
const POSSIBLY_REPEATED: &str = "NotificationsPossiblyRepeated";
/// Counts messages that the provider refused because of their recipient.
const REFUSED: &str = "NotificationsRefused";

/// Why an event was not told, or not on every channel.
#[derive(Debug, thiserror::Error)]
pub enum Untold {
    /// A template could not be filled in.
    #[error("the message cannot be rendered")]
    Unrenderable(#[from] askama::Error),
    /// It can't be found out whether the customer was erased.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The invocation ends.
    #[error("no time left")]
    NoTime,
    /// On at least one channel; the log has said why.
    #[error("not sent on every channel")]
    Channel,
}

/// Why a message was not sent on a channel.
#[derive(Debug, thiserror::Error)]
enum Unsent {
    #[error("another delivery of the event is being sent")]
    Busy,
    #[error("no time left")]
    NoTime,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the provider answered {0}")]
    Provider(#[from] SendError),
}

/// The use case.
#[derive(Clone)]
pub struct Notifications {
    repository: Arc<dyn Repository>,
    channels: Channels,
    clock: Clock,
}

impl Notifications {
    /// On top of `repository` and `channels`.
    pub fn new(repository: impl Repository + 'static, channels: Channels, clock: Clock) -> Self {
        Self { repository: Arc::new(repository), channels, clock }
    }

    /// Sends nothing to this customer from now on.
    pub async fn forget(&self, id: UserId) -> Result<(), StoreError> {
        self.repository.remember_erased(id, self.clock.now()).await?;
        tracing::info!(user = %id, "nothing is sent to this user any more");
        Ok(())
    }

    /// Tells `notification` on every channel on which it hasn't been told,
    /// unless its customer was erased. The channels don't depend on each other: what was sent on one stays
    /// sent when another fails, and the next delivery only does the rest.
    pub async fn tell(&self, notification: &Notification, deadline: Deadline) -> Result<(), Untold> {
        // Rendered before anything is claimed, so that a fault in a template
        // leaves no claim behind.
        let message = message::render(notification)?;
        let recipient = &notification.recipient;
        let ask_by = deadline.earlier_by(RESERVE).instant();
        let is_erased = tokio::time::timeout_at(ask_by, self.repository.is_erased(notification.user_id)).await;
        if is_erased.map_err(|_| Untold::NoTime)?? {
            tracing::info!("the customer was erased: nothing is sent");
            return Ok(());
        }
        // Made for this delivery of this message alone, whatever ids Lambda
        // and SQS give: a retried invocation has the same.
        let owner = uuid::Uuid::now_v7().to_string();
        let attempt = |channel| Attempt { event_id: notification.event_id.clone(), channel, owner: owner.clone() };

        let email = async {
            let Some(address) = &recipient.email else { return true };
            self.once(attempt(Channel::Email), deadline, self.channels.mail(address, &message.email)).await
        };
        let sms = async {
            let Some(phone) = &recipient.phone else { return true };
            self.once(attempt(Channel::Sms), deadline, self.channels.text(phone, &message.sms)).await
        };
        match futures::join!(email, sms) {
            (true, true) => Ok(()),
            _ => Err(Untold::Channel),
        }
    }

    /// Runs `send` unless that was done before. Whether it is done now.
    async fn once(
        &self,
        attempt: Attempt,
        deadline: Deadline,
        send: impl Future<Output = Result<String, SendError>>,
    ) -> bool {
        let channel = attempt.channel;
        match self.claim_and_send(&attempt, deadline, send).await {
            Ok(()) => true,
            Err(Unsent::Busy) => {
                tracing::info!(%channel, "another delivery of the event is being sent; this one waits its turn");
                false
            }
            Err(error) => {
                tracing::error!(%channel, cause = telemetry::chain(&error), "not sent");
                false
            }
        }
    }

    async fn claim_and_send(
        &self,
        attempt: &Attempt,
        deadline: Deadline,
        send: impl Future<Output = Result<String, SendError>>,
    ) -> Result<(), Unsent> {
        let channel = attempt.channel;
        let send_by = deadline.earlier_by(RESERVE).instant();
        let claim = tokio::time::timeout_at(send_by, self.repository.claim(attempt, self.clock.now()));
        match claim.await.map_err(|_| Unsent::NoTime)?? {
            Claim::Granted { perhaps_sent: false } => {}
            Claim::Granted { perhaps_sent: true } => {
                tracing::warn!(%channel, "an earlier delivery left no word whether it had sent; sending");
                metric::count(POSSIBLY_REPEATED, 1);
            }
            Claim::Sent => {
                tracing::info!(%channel, "sent before");
                return Ok(());
            }
            Claim::RefusedForGood => {
                tracing::info!(%channel, "refused for good before");
                return Ok(());
            }
            Claim::Busy => return Err(Unsent::Busy),
        }
        let sent = tokio::time::timeout_at(send_by, send).await;
        match sent.unwrap_or_else(|_| Err(SendError::Unclear("no time left".into()))) {
            Ok(message_id) => {
                tracing::info!(%channel, message_id, "sent");
                self.note_sent(attempt, &message_id, self.clock.now(), deadline).await;
                Ok(())
            }
            Err(SendError::RefusedForGood { code }) => {
                tracing::warn!(%channel, code, "the provider refuses this recipient for good");
                metric::count(REFUSED, 1);
                self.note_refused(attempt, &code, deadline).await;
                Ok(())
            }
            Err(error) => {
                // Without a clear answer the claim stays until its lease ends,
                // and whoever takes it over counts a possible repetition.
                if let SendError::Refused { .. } | SendError::NeverLeft(_) = error {
                    self.give_back(attempt, deadline).await;
                }
                Err(error.into())
            }
        }
    }

    /// It was sent: whatever happens here doesn't make that untrue. If it
    /// can't be noted, another delivery of the same event may send it again.
    async fn note_sent(&self, attempt: &Attempt, message_id: &str, now: Timestamp, deadline: Deadline) {
        let until = deadline.earlier_by(ANSWER_RESERVE).instant();
        let noted = tokio::time::timeout_at(until, self.repository.mark_sent(attempt, message_id, now)).await;
        let cause = match noted {
            Ok(Ok(true)) => return,
            Ok(Ok(false)) => "the claim was taken over meanwhile".to_owned(),
            Ok(Err(error)) => telemetry::chain(&error),
            Err(_) => "no time left".to_owned(),
        };
        tracing::warn!(channel = %attempt.channel, cause, "sent, but that could not be noted");
        metric::count(POSSIBLY_REPEATED, 1);
    }

    /// It is refused, whatever happens here. If that can't be noted, another
    /// delivery of the same event hears the same.
    async fn note_refused(&self, attempt: &Attempt, code: &str, deadline: Deadline) {
        let until = deadline.earlier_by(ANSWER_RESERVE).instant();
        let cause = match tokio::time::timeout_at(until, self.repository.mark_refused(attempt, code)).await {
            Ok(Ok(true)) => return,
            Ok(Ok(false)) => "the claim was taken over meanwhile".to_owned(),
            Ok(Err(error)) => telemetry::chain(&error),
            Err(_) => "no time left".to_owned(),
        };
        tracing::warn!(channel = %attempt.channel, cause, "refused for good, but that could not be noted");
    }

    async fn give_back(&self, attempt: &Attempt, deadline: Deadline) {
        let until = deadline.earlier_by(ANSWER_RESERVE).instant();
        let given = tokio::time::timeout_at(until, self.repository.give_back(attempt)).await;
        if let Ok(Err(error)) = given {
            // The lease will end by itself.
            tracing::warn!(channel = %attempt.channel, cause = telemetry::chain(&error), "claim not given back");
        }
    }
}
