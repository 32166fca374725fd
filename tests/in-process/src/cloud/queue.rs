//! A stand-in for SQS: the queue of order events, the queue of user events, and
//! one dead-letter queue for both.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::{Cloud, lock};
use crate::event_document::EventChecker;

/// A message moves to the dead-letter queue after this number of failed
/// deliveries (`maxReceiveCount`).
const MAX_RECEIVES: u32 = 5;

#[derive(Clone, Debug)]
pub struct Message {
    pub body: String,
    /// The number of deliveries that were not acknowledged.
    pub receives: u32,
}

#[derive(Default)]
pub(super) struct Queues {
    /// Order events, which the notifications function consumes.
    order_events: Mutex<Vec<Message>>,
    /// User events, which the order worker consumes.
    user_events: Mutex<Vec<Message>>,
    /// Every order event that was ever sent.
    sent: Mutex<Vec<String>>,
    dead_letters: Mutex<Vec<String>>,
    /// The differences between the sent events and the AsyncAPI document.
    undocumented: Mutex<Vec<String>>,
}

impl Cloud {
    /// Takes the messages out of the queue of order events, oldest first.
    pub fn take_messages(&self) -> Vec<String> {
        self.receive().into_iter().map(|message| message.body).collect()
    }

    /// Takes the messages, with their numbers of failed deliveries, out of the
    /// queue of order events, oldest first.
    pub fn receive(&self) -> Vec<Message> {
        std::mem::take(&mut lock(&self.0.queues.order_events))
    }

    /// Takes the messages out of the queue of user events, oldest first.
    pub fn receive_user_events(&self) -> Vec<Message> {
        std::mem::take(&mut lock(&self.0.queues.user_events))
    }

    /// Puts a message into the queue of order events.
    pub fn put_message(&self, message: impl Into<String>) {
        lock(&self.0.queues.order_events).push(Message { body: message.into(), receives: 0 });
    }

    /// Puts an unacknowledged order event back into its queue or, after
    /// [`MAX_RECEIVES`] deliveries, into the dead-letter queue.
    pub fn return_message(&self, message: Message) {
        self.0.queues.return_to(&self.0.queues.order_events, message);
    }

    /// Puts an unacknowledged user event back into its queue or, after
    /// [`MAX_RECEIVES`] deliveries, into the dead-letter queue.
    pub fn return_user_event(&self, message: Message) {
        self.0.queues.return_to(&self.0.queues.user_events, message);
    }

    /// The number of messages in the queue of order events.
    pub fn queued_messages(&self) -> usize {
        lock(&self.0.queues.order_events).len()
    }

    /// The number of messages in the queue of user events.
    pub fn queued_user_events(&self) -> usize {
        lock(&self.0.queues.user_events).len()
    }

    /// Every order event that was ever sent, oldest first.
    pub fn sent_messages(&self) -> Vec<String> {
        lock(&self.0.queues.sent).clone()
    }

    /// Every difference between the events that were sent and the AsyncAPI document.
    pub fn undocumented_events(&self) -> Vec<String> {
        lock(&self.0.queues.undocumented).clone()
    }

    /// The messages in the dead-letter queue.
    pub fn dead_letters(&self) -> Vec<String> {
        lock(&self.0.queues.dead_letters).clone()
    }
}

impl Queues {
    fn return_to(&self, queue: &Mutex<Vec<Message>>, message: Message) {
        let receives = message.receives + 1;
        if receives < MAX_RECEIVES {
            lock(queue).push(Message { receives, ..message });
        } else {
            lock(&self.dead_letters).push(message.body);
        }
    }

    pub(super) fn send_message(&self, body: &[u8]) -> (u16, String) {
        let request: Value = serde_json::from_slice(body).expect("a SendMessage request");
        let message = request["MessageBody"].as_str().expect("a message body").to_owned();
        // SQS also refuses control characters, but JSON documents contain them
        // only in escaped form.
        if message.contains(['\u{FFFE}', '\u{FFFF}']) {
            return (400, json!({ "__type": "com.amazonaws.sqs#InvalidMessageContents" }).to_string());
        }
        let event = serde_json::from_str(&message).expect("an event");
        lock(&self.undocumented).extend(EventChecker::current().errors(&event));
        let queue = if is_user_events_queue(&request) {
            &self.user_events
        } else {
            lock(&self.sent).push(message.clone());
            &self.order_events
        };
        lock(queue).push(Message { body: message, receives: 0 });
        (200, json!({ "MessageId": uuid::Uuid::now_v7() }).to_string())
    }
}

/// Returns whether a request to SQS names the queue of user events.
pub(super) fn is_user_events_queue(request: &Value) -> bool {
    request["QueueUrl"].as_str().is_some_and(|url| url.ends_with("/user-events"))
}
