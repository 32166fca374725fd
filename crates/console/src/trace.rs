//! Reads spans from the lines that the functions write; `docs/observability.md` describes
//! these lines. The emulator shows the lines of an invocation when the invocation ends.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::emulator::{Emulator, LOGS};

/// The logs are read at most this often, however many orders are watched.
const PERIOD: Duration = Duration::from_millis(400);
/// Lines may appear this much later than the time that they have.
const LATE: i64 = 3_000;

/// A piece of work of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub id: String,
    pub parent: Option<String>,
    pub links: Vec<String>,
    pub service: String,
    pub name: String,
    /// Microseconds since 1970.
    pub begin: i64,
    /// `None` if no line says that the span has ended.
    pub end: Option<i64>,
    pub fields: Map<String, Value>,
}

impl Span {
    pub fn field(&self, name: &str) -> String {
        match self.fields.get(name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    /// What went wrong in the span. `None` if it ended well. The lines of an invocation appear
    /// when the invocation ends, so a span without an end was cut off.
    pub fn error(&self) -> Option<String> {
        if self.end.is_none() {
            return Some("never ended: the function was stopped".to_owned());
        }
        let status = self.fields.get("status").and_then(Value::as_u64).unwrap_or_default();
        match (self.name.as_str(), self.field("outcome").as_str()) {
            (_, "ok") => None,
            ("request", _) if status == 0 => Some("given up".to_owned()),
            ("request", _) => (status >= 400).then(|| format!("answered with {status}")),
            (_, "") => Some("given up: its time was over".to_owned()),
            ("aws", outcome) if status > 0 => Some(format!("{outcome} with {status}")),
            (_, outcome) => Some(outcome.to_owned()),
        }
    }

    fn label(&self) -> String {
        let of = |name: &str| self.field(name);
        match self.name.as_str() {
            "request" => format!("{} {}", of("method"), of("route")),
            "invocation" => format!("started by the {}", of("source")),
            "order" => format!("the worker continues from {}", of("from")),
            "message" => format!("message {}", of("kind")),
            "step" => format!("step: {}", of("step")),
            "call" => format!("call {}: {} {}", of("to"), of("method"), without_ids(&of("path"))),
            "attempt" => format!("attempt {}", of("attempt")),
            "publish" => format!("publish {}", of("kind")),
            "provider" => format!("payment provider: {}", of("operation")),
            "send" => format!("send {}", of("channel").to_lowercase()),
            "aws" => of("operation").rsplit(['.', '=', '/']).next().unwrap_or_default().to_owned(),
            other => other.to_owned(),
        }
    }

    fn document(&self, first: i64) -> Value {
        let error = self.error();
        json!({
            "span_id": self.id,
            "parent_id": self.parent,
            "links": self.links,
            "service": self.service,
            "name": self.name,
            "label": self.label(),
            "start_ms": milliseconds(self.begin - first),
            "duration_ms": self.end.map(|end| milliseconds(end - self.begin)),
            "failed": error.is_some(),
            "remark": error,
        })
    }
}

/// Milliseconds, with three decimals.
#[expect(clippy::cast_precision_loss, reason = "a trace lasts minutes, so its microseconds are far below 2^52")]
fn milliseconds(micros: i64) -> f64 {
    micros as f64 / 1000.0
}

fn without_ids(path: &str) -> String {
    let is_id = |part: &str| part.contains('_') && part.len() > 36;
    path.split('/').map(|part| if is_id(part) { "…" } else { part }).collect::<Vec<_>>().join("/")
}

/// The spans as the page draws them: each span is followed by its children, the earliest first.
pub fn waterfall(spans: &[Span]) -> Vec<Value> {
    let first = spans.first().map_or(0, |span| span.begin);
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    let mut children: BTreeMap<Option<&str>, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        let parent = span.parent.as_deref().filter(|parent| ids.contains(parent));
        children.entry(parent).or_default().push(span);
    }
    // The last one is drawn next.
    let mut waiting: Vec<&Span> = children.remove(&None).into_iter().flatten().rev().collect();
    let mut drawn = Vec::new();
    while let Some(span) = waiting.pop() {
        drawn.push(span.document(first));
        waiting.extend(children.remove(&Some(span.id.as_str())).into_iter().flatten().rev());
    }
    drawn
}

/// The lines of one trace.
#[derive(Default)]
struct Lines {
    begins: Vec<Map<String, Value>>,
    ends: HashMap<String, Map<String, Value>>,
}

/// Reads the logs of all functions, and keeps the lines about spans.
#[derive(Clone)]
pub struct Traces {
    emulator: Emulator,
    read: Arc<Mutex<Read>>,
}

#[derive(Default)]
struct Read {
    at: Option<Instant>,
    /// The log groups of all functions.
    groups: Vec<String>,
    /// For each log group, the time of the newest line that was read.
    newest: BTreeMap<String, i64>,
    /// The lines that were read and may be read again: their group, stream, time and text.
    recent: BTreeSet<(i64, String)>,
    traces: HashMap<String, Lines>,
}

impl Traces {
    pub fn of(emulator: Emulator) -> Self {
        Self { emulator, read: Arc::default() }
    }

    /// The spans of an order, the earliest first. The text argument `trace` is the id of the
    /// order's trace.
    pub async fn spans(&self, trace: &str, order: &str) -> Result<Vec<Span>> {
        let mut read = self.read.lock().await;
        if read.at.is_none_or(|at| at.elapsed() > PERIOD) {
            self.read_on(&mut read).await?;
            read.at = Some(Instant::now());
        }
        Ok(read.traces.get(trace).map(|lines| spans(lines, order)).unwrap_or_default())
    }

    async fn groups(&self) -> Result<Vec<String>> {
        let own = json!({ "logGroupNamePrefix": "/aws/lambda/" });
        let groups = self.emulator.call(LOGS, "DescribeLogGroups", &own).await?;
        let name = |group: &Value| group["logGroupName"].as_str().map(str::to_owned).context("a log group has no name");
        groups["logGroups"].as_array().into_iter().flatten().map(name).collect()
    }

    async fn read_on(&self, read: &mut Read) -> Result<()> {
        // The deployment creates the groups, so they are listed once. To list them again and again
        // would slow the emulator down: it counts the bytes of all lines each time.
        if read.groups.is_empty() {
            read.groups = self.groups().await?;
        }
        for group in read.groups.clone() {
            let newest = read.newest.get(&group).copied().unwrap_or_default();
            let mut request = json!({ "logGroupName": group, "startTime": (newest - LATE).max(0) });
            loop {
                // The emulator fails if a function begins to log while its logs are read. The
                // next reading begins at the same line.
                let Ok(mut page) = self.emulator.call(LOGS, "FilterLogEvents", &request).await else { break };
                for event in page["events"].as_array().into_iter().flatten() {
                    read.keep(&group, event);
                }
                match page["nextToken"].take() {
                    Value::Null => break,
                    token => request["nextToken"] = token,
                }
            }
        }
        let oldest = read.newest.values().min().copied().unwrap_or_default() - 2 * LATE;
        read.recent = read.recent.split_off(&(oldest, String::new()));
        Ok(())
    }
}

impl Read {
    fn keep(&mut self, group: &str, event: &Value) {
        let (Some(time), Some(text)) = (event["timestamp"].as_i64(), event["message"].as_str()) else { return };
        let newest = self.newest.entry(group.to_owned()).or_default();
        *newest = time.max(*newest);
        if !text.contains("\"span\":") || !self.recent.insert((time, text.to_owned())) {
            return;
        }
        let Ok(Value::Object(line)) = serde_json::from_str(text) else { return };
        let (Some(trace), Some(id)) = (line.get("trace_id").and_then(Value::as_str), line.get("span_id")) else {
            return;
        };
        let id = id.as_str().unwrap_or_default().to_owned();
        let lines = self.traces.entry(trace.to_owned()).or_default();
        match line.get("span").and_then(Value::as_str) {
            Some("begin") if lines.begins.iter().all(|begin| begin.get("span_id") != line.get("span_id")) => {
                lines.begins.push(line);
            }
            Some("end") => drop(lines.ends.insert(id, line)),
            _ => {}
        }
    }
}

fn spans(lines: &Lines, order: &str) -> Vec<Span> {
    let mut spans: Vec<_> = lines.begins.iter().filter_map(|begin| span(begin, &lines.ends)).collect();
    // A client may send several requests with one trace context.
    spans.retain(|span| span.fields.get("order_id").is_none_or(|id| id == order));
    spans.sort_by_key(|span| span.begin);
    spans
}

fn span(begin: &Map<String, Value>, ends: &HashMap<String, Map<String, Value>>) -> Option<Span> {
    let text = |name: &str| begin.get(name).and_then(Value::as_str).map(str::to_owned);
    let id = text("span_id")?;
    let end = ends.get(&id);
    let mut fields = begin.clone();
    fields.extend(end.cloned().into_iter().flatten());
    Some(Span {
        parent: text("parent_id"),
        links: begin.get("links").and_then(Value::as_array).into_iter().flatten().filter_map(linked).collect(),
        service: text("service").unwrap_or_default(),
        name: text("name").unwrap_or_default(),
        begin: begin.get("at")?.as_i64()?,
        end: end.and_then(|end| end.get("at")?.as_i64()),
        fields,
        id,
    })
}

/// The span's id in a link, which has the form of the header `traceparent`.
fn linked(link: &Value) -> Option<String> {
    link.as_str()?.split('-').nth(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(time: i64, line: &Value) -> Value {
        json!({ "timestamp": time, "message": line.to_string() })
    }

    #[test]
    fn a_span_is_read_once_from_its_beginning_and_its_end() {
        let mut read = Read::default();
        let begin = json!({
            "span": "begin", "name": "step", "at": 1000, "service": "orders", "trace_id": "t", "span_id": "s",
            "step": "reserve stock", "order_id": "ord_1", "links": ["00-t-before-01"],
        });
        let end =
            json!({ "span": "end", "name": "step", "at": 3500, "trace_id": "t", "span_id": "s", "outcome": "ok" });
        for _ in 0..2 {
            read.keep("g", &event(1, &begin));
            read.keep("g", &event(2, &end));
        }
        let found = spans(&read.traces["t"], "ord_1");
        let [span] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((span.begin, span.end, span.error()), (1000, Some(3500), None));
        assert_eq!(span.links, ["before"]);
        assert_eq!(span.label(), "step: reserve stock");
        assert!(spans(&read.traces["t"], "ord_2").is_empty());
    }

    #[test]
    fn a_span_is_drawn_above_its_children_and_roots_are_drawn_in_the_sequence_of_their_beginnings() {
        let span = |id: &str, parent: Option<&str>, begin: i64| Span {
            id: id.into(),
            parent: parent.map(str::to_owned),
            links: Vec::new(),
            service: "orders".into(),
            name: "step".into(),
            begin,
            end: Some(begin + 1),
            fields: Map::new(),
        };
        let spans = [
            span("request", Some("of the client"), 0),
            span("users", Some("request"), 1),
            span("products", Some("request"), 2),
            span("of users", Some("users"), 3),
            span("of products", Some("products"), 4),
            span("message", None, 5),
        ];
        let drawn = waterfall(&spans);
        let ids: Vec<_> = drawn.iter().filter_map(|span| span["span_id"].as_str()).collect();
        assert_eq!(ids, ["request", "users", "of users", "products", "of products", "message"]);
    }

    #[test]
    fn a_span_without_an_end_was_cut_off() {
        let begin = json!({ "span": "begin", "name": "step", "at": 0, "span_id": "s" });
        let Value::Object(begin) = begin else { panic!("{begin}") };
        let span = span(&begin, &HashMap::new()).expect("a span");
        assert!(span.error().is_some_and(|error| error.contains("stopped")));
    }
}
