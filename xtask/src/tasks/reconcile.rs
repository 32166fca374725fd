//! `make reconcile`: compares orders, stock, payments and the provider, and prints each
//! mismatch with what to do.
//!
//! The order worker compares. It stops when its invocation has no more time, and
//! returns how far it has come; this task invokes it again with that until it is done.

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde_json::{Value, json};

use crate::{emulator_api, log_reader::LogSource, prelude::*};

/// The width of the kinds of mismatches.
const KINDS: usize = 28;
/// The worker's function has an answer after a minute at the latest.
const CLI_TIMEOUT_SECONDS: &str = "90";

pub fn run(project: &Project) -> Result<()> {
    let mut request = match make_variable("SINCE") {
        Some(since) => json!({ "since": parse_time(&since)? }),
        None => json!("all"),
    };
    let source = LogSource::wanted(project)?;
    let step = Step::begin("Comparing orders, stock, payments and the provider");
    let (mut mismatches, mut counts) = (Vec::new(), [("orders", 0), ("products", 0), ("charges", 0)]);
    loop {
        let mut report = invoke(project, &source, &json!({ "reconcile": request }))?;
        for (name, count) in &mut counts {
            *count +=
                report[*name].as_u64().with_context(|| format!("the worker's response is no report: {report}"))?;
        }
        if let Value::Array(found) = report["mismatches"].take() {
            mismatches.extend(found);
        }
        match report["next"].take() {
            Value::Null => break,
            next => request = json!({ "continue": next }),
        }
    }
    step.done(counts.map(|(name, count)| format!("{count} {name}")).join(", "));
    for mismatch in &mismatches {
        say!("{}", entry(mismatch));
    }
    match mismatches.len() {
        0 => say!("There is no mismatch."),
        count => bail!("{count} found; docs/runbook.md has a section for each kind"),
    }
    Ok(())
}

/// Reads a time such as `2026-11-27T16:00:00Z`, or a day, which begins at midnight UTC.
fn parse_time(text: &str) -> Result<Timestamp> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let day: Date = text.parse().with_context(|| format!("SINCE={text} is neither a time nor a day: 2026-11-27"))?;
    Ok(day.to_zoned(TimeZone::UTC)?.timestamp())
}

fn invoke(project: &Project, source: &LogSource, event: &Value) -> Result<Value> {
    match source {
        LogSource::Emulator(stack) => {
            let function = stack.functions.get("order_worker").context("the stack has no order worker")?;
            emulator_api::invoke(stack, function, event)
        }
        LogSource::Aws { tools, stack } => {
            let cloud = tools.cloud(None);
            let query = "Stacks[0].Outputs[?OutputKey=='OrderWorkerFunction'].OutputValue";
            let describe = cmd!(cloud, "aws cloudformation describe-stacks --stack-name {stack} --query {query}");
            let function = quiet(describe.args(["--output", "text"]))?;
            // The event may be too long for a command line.
            let folder = project.local();
            create_folder(&folder)?;
            let (request, response) = (folder.join("reconcile-request.json"), folder.join("reconcile-response.json"));
            write_file(&request, event.to_string())?;
            let payload = format!("fileb://{}", request.display());
            let name = format!("{}:live", function.trim());
            let invoke = cmd!(cloud, "aws lambda invoke --function-name {name} --payload {payload} {response}");
            let outcome = quiet(invoke.args(["--cli-read-timeout", CLI_TIMEOUT_SECONDS, "--output", "json"]))?;
            let response = std::fs::read_to_string(&response)?;
            let outcome: Value = serde_json::from_str(&outcome).context("the AWS CLI prints no JSON")?;
            ensure!(outcome["FunctionError"].is_null(), "the order worker failed: {response}");
            serde_json::from_str(&response).context("the order worker's response is no JSON")
        }
    }
}

fn entry(mismatch: &Value) -> String {
    let text = |name: &str| mismatch[name].as_str().unwrap_or_default();
    let (kind, subject, found, what_to_do) = (text("kind"), text("subject"), text("found"), text("what_to_do"));
    let indent = " ".repeat(KINDS);
    format!("{kind:KINDS$}{subject}\n{indent}found: {found}\n{indent}do:    {what_to_do}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_or_a_day_says_since_when() {
        let midnight: Timestamp = "2026-11-27T00:00:00Z".parse().unwrap();
        assert_eq!(parse_time("2026-11-27").unwrap(), midnight);
        assert_eq!(parse_time("2026-11-27T01:00:00+01:00").unwrap(), midnight);
        assert!(parse_time("yesterday").is_err());
    }

    #[test]
    fn an_entry_shows_what_was_found_and_what_to_do() {
        let mismatch = json!({
            "kind": "hold_never_ended", "subject": "ord_1", "found": "the charge is AUTHORISED",
            "what_to_do": "Void the hold at the provider.",
        });
        let lines = entry(&mismatch);
        assert!(lines.starts_with("hold_never_ended            ord_1\n"), "{lines}");
        assert!(lines.ends_with("do:    Void the hold at the provider."), "{lines}");
    }
}
