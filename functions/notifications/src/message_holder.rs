//! Keeps messages in the queue while administrators have paused them.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use chassis::{
    deadline::Deadline,
    events::{EventPublisher, PublishError},
    metric,
    pause::PauseSwitch,
    store::StoreError,
    time_limits::NOTIFY_RECORD_RESERVE,
};

use crate::domain::EventId;

/// After this time the queue delivers a held event again. So messages are sent at the latest this long after the pause.
const HELD_FOR: Duration = Duration::from_secs(60);

chassis::metrics! {
    /// An event that was held.
    pub struct HeldMessage {
        /// Events whose messages wait in the queue, because administrators have paused messages. An event counts again
        /// each minute.
        held: u64 = "MessagesHeld", Count, ["Stack"];
    }
}

/// The reason why it is not known whether an event must be held, or why it could not be held. The queue delivers the
/// event again.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    #[error("the switch cannot be read")]
    Switch(#[from] StoreError),
    #[error("the event cannot be sent back to the queue")]
    Queue(#[from] PublishError),
    #[error("no time is left")]
    NoTime,
}

#[derive(Clone, Debug)]
pub struct MessageHolder {
    pause: PauseSwitch,
    /// Opened when the first event is held. To build the client takes a fifth of the init, and a pause is rare.
    queue: Arc<LazyLock<EventPublisher, OpenQueue>>,
}

type OpenQueue = Box<dyn FnOnce() -> EventPublisher + Send>;

impl MessageHolder {
    /// `open_queue` opens the queue that the function consumes.
    pub fn new(pause: PauseSwitch, open_queue: impl FnOnce() -> EventPublisher + Send + 'static) -> Self {
        Self { pause, queue: Arc::new(LazyLock::new(Box::new(open_queue))) }
    }

    /// If messages are paused, sends the event back to the queue, which delivers it again later, and returns `true`.
    /// Then the queue may delete the delivered message.
    ///
    /// A delivery that fails would count towards the dead-letter queue: after five minutes of a pause, all messages
    /// would be there. If the function ends after it has sent the event back, the queue has the event twice. That does
    /// not send a message twice, because a message belongs to the event's id.
    pub async fn hold(&self, id: &EventId, body: &str, deadline: Deadline) -> Result<bool, HoldError> {
        let by = deadline.earlier_by(NOTIFY_RECORD_RESERVE);
        if !by.run(self.pause.is_paused()).await.map_err(|_| HoldError::NoTime)?? {
            return Ok(false);
        }
        self.queue.send_later(&id.to_string(), body, HELD_FOR, by).await?;
        metric::write(&HeldMessage { held: 1 });
        tracing::info!("the message waits in the queue, because messages are paused");
        Ok(true)
    }
}
