//! How soon the queue of order events delivers a failed event again: its visibility timeout.

use anyhow::Result;
use serde_json::json;

use crate::emulator::{Emulator, SQS};

/// The value in template.yaml.
const AS_DEPLOYED: u32 = 180;
/// A person at the page does not wait for three minutes. Five deliveries still take longer
/// than the claim of a killed notifier (60 seconds), so that no event becomes a dead letter
/// because of it.
const HASTENED: u32 = 15;

pub async fn hasten(emulator: &Emulator) -> Result<()> {
    set(emulator, HASTENED).await
}

pub async fn restore(emulator: &Emulator) -> Result<()> {
    set(emulator, AS_DEPLOYED).await
}

async fn set(emulator: &Emulator, seconds: u32) -> Result<()> {
    let attributes = json!({ "VisibilityTimeout": seconds.to_string() });
    let request = json!({ "QueueUrl": emulator.stack.queue("order_events")?, "Attributes": attributes });
    emulator.call(SQS, "SetQueueAttributes", &request).await?;
    Ok(())
}
