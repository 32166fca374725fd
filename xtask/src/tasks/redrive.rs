//! `make redrive`: moves dead letters back to their queues.
//!
//! On AWS, `aws sqs start-message-move-task` does the same. MiniStack does not implement
//! that action. This task sends a dead letter to its queue before it deletes the letter
//! from the dead-letter queue, so an interruption loses no letter. If a letter is
//! sent twice, the customer still gets one message: the notifier remembers each event for
//! longer than the queues keep an event.

use std::{env, path::Path};

use serde_json::{Value, json};

use crate::{emulator_api::SQS, prelude::*};

/// The maximum number of messages in one response of SQS.
const BATCH: usize = 10;
/// The visibility timeout of a letter that is being moved. No other consumer receives the
/// letter during this time.
const HIDDEN_SECONDS: u32 = 30;

/// Moves the messages that are in the dead-letter queues when the task begins. A message
/// that fails again and returns to its dead-letter queue while the task runs stays there.
pub fn run(project: &Project) -> Result<()> {
    // The tests set HOLDFAST_STACK to the file of their own stack.
    let stack = match env::var_os("HOLDFAST_STACK") {
        Some(file) => Stack::read(Path::new(&file))?,
        None => Stack::running(project)?,
    };
    move_letters(&stack, "Dead letters about orders", "dead_letter", "order_events")?;
    move_letters(&stack, "Dead letters about users", "user_events_dead_letter", "user_events")
}

fn move_letters(stack: &Stack, name: &str, from: &str, to: &str) -> Result<()> {
    let step = Step::begin(format!("{name}: back to the queue"));
    let (dead_letters, queue) = (stack.queue(from)?, stack.queue(to)?);
    let (waiting, hidden) = count(stack, dead_letters)?;
    let mut moved = 0;
    while moved < waiting {
        let receive = json!({
            "QueueUrl": dead_letters,
            "MaxNumberOfMessages": BATCH.min(waiting - moved),
            "VisibilityTimeout": HIDDEN_SECONDS,
            "MessageAttributeNames": ["All"],
            "MessageSystemAttributeNames": ["AWSTraceHeader"],
        });
        let mut received = SQS.call(stack, "ReceiveMessage", &receive)?;
        // A response without letters ends the loop before `waiting` letters were moved:
        // that count is approximate, and another consumer may have received letters.
        let Value::Array(letters) = received["Messages"].take() else { break };
        if letters.is_empty() {
            break;
        }
        for letter in letters {
            SQS.call(stack, "SendMessage", &sent_again(queue, &letter))?;
            let delete = json!({ "QueueUrl": dead_letters, "ReceiptHandle": letter["ReceiptHandle"] });
            SQS.call(stack, "DeleteMessage", &delete)?;
            moved += 1;
        }
    }
    if moved < waiting {
        let missing = waiting - moved;
        step.note(format!(
            "{missing} counted letters were not received; `make redrive` again moves them if they exist"
        ));
    }
    if hidden > 0 {
        step.note(format!(
            "another consumer has received {hidden}; those that it does not delete can be moved in {HIDDEN_SECONDS} s"
        ));
    }
    step.done(match moved {
        0 => "there is nothing to move".to_owned(),
        1 => "1 letter moved".to_owned(),
        _ => format!("{moved} letters moved"),
    });
    Ok(())
}

/// Returns the number of messages that can be received, and the number of messages that
/// some consumer has received but not deleted yet.
fn count(stack: &Stack, queue: &str) -> Result<(usize, usize)> {
    const WAITING: &str = "ApproximateNumberOfMessages";
    const HIDDEN: &str = "ApproximateNumberOfMessagesNotVisible";
    let request = json!({ "QueueUrl": queue, "AttributeNames": [WAITING, HIDDEN] });
    let response = SQS.call(stack, "GetQueueAttributes", &request)?;
    let number = |name: &str| {
        let number = response["Attributes"][name].as_str().and_then(|number| number.parse().ok());
        number.with_context(|| format!("the queue reports no {name}"))
    };
    Ok((number(WAITING)?, number(HIDDEN)?))
}

/// The request that sends a letter again, with its body and its attributes.
fn sent_again(queue: &str, letter: &Value) -> Value {
    let mut message = json!({ "QueueUrl": queue, "MessageBody": letter["Body"] });
    if letter["MessageAttributes"].is_object() {
        message["MessageAttributes"] = letter["MessageAttributes"].clone();
    }
    let trace = &letter["Attributes"]["AWSTraceHeader"];
    if trace.is_string() {
        message["MessageSystemAttributes"] =
            json!({ "AWSTraceHeader": { "DataType": "String", "StringValue": trace } });
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_sent_again_with_its_attributes() {
        let attributes = json!({ "tenant": { "DataType": "String", "StringValue": "one" } });
        let letter = json!({
            "MessageId": "m", "ReceiptHandle": "r", "Body": "{}",
            "MessageAttributes": attributes, "Attributes": { "AWSTraceHeader": "Root=1-2-3" },
        });
        let again = json!({
            "QueueUrl": "q", "MessageBody": "{}", "MessageAttributes": attributes,
            "MessageSystemAttributes": { "AWSTraceHeader": { "DataType": "String", "StringValue": "Root=1-2-3" } },
        });
        assert_eq!(sent_again("q", &letter), again);
    }

    #[test]
    fn a_letter_without_attributes_is_sent_again_as_its_body() {
        let letter = json!({ "MessageId": "m", "ReceiptHandle": "r", "Body": "{}" });
        assert_eq!(sent_again("q", &letter), json!({ "QueueUrl": "q", "MessageBody": "{}" }));
    }
}
