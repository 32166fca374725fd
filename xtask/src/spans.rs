//! Reads spans from the lines that functions write about the beginnings and the ends of
//! spans; `docs/observability.md` describes them.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::{inbox::plain, log_reader::Line};

/// A span, from the lines about its beginning and its end.
pub struct Span {
    pub id: String,
    pub parent: Option<String>,
    pub name: String,
    pub service: String,
    /// Microseconds since 1970.
    pub begin: i64,
    /// `None` if no line says that the span has ended.
    pub end: Option<i64>,
    pub fields: BTreeMap<String, Value>,
}

/// Reads the spans from the lines about them, the earliest first.
pub fn spans(lines: &[Line]) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut ends = HashMap::new();
    for json in lines.iter().map(Line::json) {
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        let (Some(id), Some(at)) = (text("span_id"), json["at"].as_i64()) else { continue };
        let fields: BTreeMap<_, _> =
            json.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        match json["span"].as_str() {
            Some("begin") => spans.push(Span {
                id,
                parent: text("parent_id"),
                name: text("name").unwrap_or_default(),
                service: text("service").unwrap_or_default(),
                begin: at,
                end: None,
                fields,
            }),
            Some("end") => drop(ends.insert(id, (at, fields))),
            _ => {}
        }
    }
    for span in &mut spans {
        if let Some((at, fields)) = ends.remove(&span.id) {
            span.end = Some(at);
            span.fields.extend(fields);
        }
    }
    spans.sort_by_key(|span| span.begin);
    spans
}

impl Span {
    /// A field as text; empty if the span has no such field.
    pub fn field(&self, name: &str) -> String {
        self.fields.get(name).map(plain).unwrap_or_default()
    }

    /// What went wrong in the span. `None` if it ended well.
    pub fn error(&self) -> Option<String> {
        if self.end.is_none() {
            return Some("never ended: the function was stopped, or is still running".to_owned());
        }
        let status: u64 = self.fields.get("status").and_then(Value::as_u64).unwrap_or_default();
        match (self.name.as_str(), self.field("outcome").as_str()) {
            (_, "ok") => None,
            ("request", _) if status == 0 => Some("given up".to_owned()),
            ("request", _) => (status >= 400).then(|| status.to_string()),
            (_, "") => Some("given up".to_owned()),
            ("aws", outcome) if status > 0 => Some(format!("{outcome} with {status}")),
            (_, outcome) => Some(outcome.to_owned()),
        }
    }
}
