//! `make redrive`: dead letters go back to the queue in which they died.
//!
//! SQS can do this by itself (`aws sqs start-message-move-task`), which the
//! emulator does not. A letter is sent first and deleted after, so that
//! stopping at any moment loses none. One that is sent twice is told once: the
//! notifier remembers each event for longer than the queues keep it.

use std::{env, fs};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{progress::Step, project::Project, shop::Http, stack::Stack};

/// The most that SQS hands out at once.
const BATCH: usize = 10;
/// How long nobody else sees a letter that is being moved.
const HIDDEN_SECONDS: u32 = 30;

/// Moves what is in the dead-letter queues now, and nothing that dies again
/// meanwhile.
pub fn redrive(project: &Project) -> Result<()> {
    let stack = stack(project)?;
    let queues = &stack.queues;
    redrive_queue(&stack, "Dead letters about orders", &queues.dead_letter, &queues.order_events)?;
    redrive_queue(&stack, "Dead letters about users", &queues.user_events_dead_letter, &queues.user_events)
}

fn redrive_queue(stack: &Stack, name: &str, dead_letters: &str, queue: &str) -> Result<()> {
    let step = Step::begin(format!("{name}: back to the queue"));
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
        let mut received = ask(stack, "ReceiveMessage", &receive)?;
        // The count is approximate, and somebody else may be faster: the end is
        // when there is nothing more.
        let Value::Array(letters) = received["Messages"].take() else { break };
        if letters.is_empty() {
            break;
        }
        for letter in letters {
            ask(stack, "SendMessage", &sent_again(queue, &letter))?;
            let delete = json!({ "QueueUrl": dead_letters, "ReceiptHandle": letter["ReceiptHandle"] });
            ask(stack, "DeleteMessage", &delete)?;
            moved += 1;
        }
    }
    if moved < waiting {
        step.note(format!(
            "{} that were counted did not come; once more moves them, if they are there",
            waiting - moved
        ));
    }
    if hidden > 0 {
        step.note(format!("{hidden} in somebody's hands; what they leave can be moved in {HIDDEN_SECONDS} s"));
    }
    step.done(match moved {
        0 => "there is nothing to move".to_owned(),
        1 => "1 letter moved".to_owned(),
        _ => format!("{moved} letters moved"),
    });
    Ok(())
}

/// The stack whose file `HOLDFAST_STACK` names, or else that of `make up`.
fn stack(project: &Project) -> Result<Stack> {
    let Some(file) = env::var_os("HOLDFAST_STACK") else { return Stack::running(project) };
    let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no stack", file.display()))
}

/// How many messages a queue has to give, and how many it has given to somebody
/// who has not deleted them yet.
fn count(stack: &Stack, queue: &str) -> Result<(usize, usize)> {
    const WAITING: &str = "ApproximateNumberOfMessages";
    const HIDDEN: &str = "ApproximateNumberOfMessagesNotVisible";
    let request = json!({ "QueueUrl": queue, "AttributeNames": [WAITING, HIDDEN] });
    let answer = ask(stack, "GetQueueAttributes", &request)?;
    let number = |name: &str| {
        let number = answer["Attributes"][name].as_str().and_then(|number| number.parse().ok());
        number.with_context(|| format!("the queue does not tell its {name}"))
    };
    Ok((number(WAITING)?, number(HIDDEN)?))
}

/// The request that sends a letter again: its body, and all that it carries.
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

/// Asks SQS directly: AWS CLI would start Python twice a letter. The emulator
/// takes its root user's name without a signature.
fn ask(stack: &Stack, action: &str, request: &Value) -> Result<Value> {
    let credential = format!("Credential=test/20200101/{}/sqs/aws4_request", stack.region);
    let headers = [
        ("content-type", "application/x-amz-json-1.0"),
        ("x-amz-target", &format!("AmazonSQS.{action}")),
        ("authorization", &format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=0")),
    ];
    Http::new().send("POST", &stack.emulator_url, &headers, Some(request))?.granted()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_sent_again_with_all_that_it_carries() {
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
    fn a_letter_that_carries_nothing_is_its_body() {
        let letter = json!({ "MessageId": "m", "ReceiptHandle": "r", "Body": "{}" });
        assert_eq!(sent_again("q", &letter), json!({ "QueueUrl": "q", "MessageBody": "{}" }));
    }
}
