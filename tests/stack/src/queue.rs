//! The deployed queues, which the tests read and change with an operator's rights.

use std::time::Duration;

use aws_sdk_sqs::{
    Client,
    types::{QueueAttributeName, SendMessageBatchRequestEntry},
};

use crate::{Stack, find_member};

pub struct Queue {
    stack: Stack,
    client: Client,
    url: String,
}

impl Stack {
    /// The queue with this short name.
    pub async fn queue(&self, name: &str) -> Queue {
        Queue { stack: self.clone(), client: Client::new(&self.sdk().await), url: self.queues[name].clone() }
    }
}

impl Queue {
    /// Sends at most ten messages in one batch, so that one delivery can contain
    /// all of them.
    pub async fn send(&self, bodies: &[&str]) {
        let entries = bodies.iter().enumerate().map(|(index, body)| {
            let entry = SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(*body);
            entry.build().expect("an entry")
        });
        let batch = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries.collect()));
        let sent = batch.send().await.expect("an answer of the queue");
        assert!(sent.failed().is_empty(), "{sent:?}");
    }

    /// The bodies of all messages, including messages that are being delivered.
    /// Reading does not count as a delivery.
    pub async fn bodies(&self) -> Vec<String> {
        let queue = self.stack.emulator_json(&format!("/_ministack/sqs/messages?QueueUrl={}", self.url)).await;
        let messages =
            find_member(&queue, &self.url).and_then(|messages| messages.as_array().cloned()).unwrap_or_default();
        messages.iter().filter_map(|message| message["Body"].as_str().map(str::to_owned)).collect()
    }

    /// Sets the queue's visibility timeout: the time after which a message is
    /// delivered again when its handling failed. Returns the previous timeout.
    pub async fn set_visibility_timeout(&self, time: Duration) -> Duration {
        let name = QueueAttributeName::VisibilityTimeout;
        let get = self.client.get_queue_attributes().queue_url(&self.url).attribute_names(name.clone());
        let attributes = get.send().await.expect("attributes").attributes.unwrap_or_default();
        let before = attributes[&name].parse().expect("a number of seconds");
        let set = self.client.set_queue_attributes().queue_url(&self.url);
        set.attributes(name, time.as_secs().to_string()).send().await.expect("a change of the queue");
        Duration::from_secs(before)
    }
}
