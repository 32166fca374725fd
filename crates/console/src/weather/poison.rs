//! A message that no parser accepts: sends it, watches it, and removes it.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::redelivery;
use crate::emulator::{Emulator, SQS};

const QUEUE: &str = "order_events";
const DEAD_LETTERS: &str = "dead_letter";
/// What each poisonous message contains.
const MARK: &str = "poison from the console";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In its queue, after so many deliveries.
    Queue(u64),
    DeadLetters,
    Gone,
}

pub async fn send(emulator: &Emulator) -> Result<()> {
    redelivery::hasten(emulator).await?;
    let request = json!({ "QueueUrl": emulator.stack.queue(QUEUE)?, "MessageBody": format!("{{{MARK}") });
    emulator.call(SQS, "SendMessage", &request).await?;
    Ok(())
}

pub async fn place(emulator: &Emulator) -> Result<Place> {
    if let Some(message) = emulator.queued(QUEUE).await?.iter().find(|message| is_poison(message)) {
        return Ok(Place::Queue(message["ReceiveCount"].as_u64().unwrap_or_default()));
    }
    let is_dead = emulator.queued(DEAD_LETTERS).await?.iter().any(is_poison);
    Ok(if is_dead { Place::DeadLetters } else { Place::Gone })
}

/// Removes the message from the dead-letter queue. Other letters stay.
pub async fn remove(emulator: &Emulator) -> Result<()> {
    let queue = emulator.stack.queue(DEAD_LETTERS)?;
    let letters = emulator.queued(DEAD_LETTERS).await?.len();
    // Received letters are hidden, so each request receives other ones.
    for _ in 0..=letters {
        let receive = json!({ "QueueUrl": queue, "MaxNumberOfMessages": 10, "VisibilityTimeout": 2 });
        let received = emulator.call(SQS, "ReceiveMessage", &receive).await?;
        let Some(messages) = received["Messages"].as_array().filter(|messages| !messages.is_empty()) else { break };
        for message in messages.iter().filter(|message| is_poison(message)) {
            let handle = message["ReceiptHandle"].as_str().context("a message has no receipt handle")?;
            emulator.call(SQS, "DeleteMessage", &json!({ "QueueUrl": queue, "ReceiptHandle": handle })).await?;
        }
    }
    Ok(())
}

fn is_poison(message: &Value) -> bool {
    message["Body"].as_str().is_some_and(|body| body.contains(MARK))
}
