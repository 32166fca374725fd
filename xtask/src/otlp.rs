//! Sends spans to a collector of OpenTelemetry, in OTLP's JSON form.
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    http::{self, TIMEOUT},
    prelude::*,
    spans::Span,
};

/// The members of a line that have a place of their own in OTLP.
const PLACED: [&str; 8] = ["span", "name", "at", "service", "trace_id", "span_id", "parent_id", "links"];

/// Sends spans to the collector at `url`, such as `http://localhost:4318`.
pub fn send(url: &str, spans: &[Span]) -> Result<()> {
    ensure!(!spans.is_empty(), "no span is recorded: the stack's parameter SpanLines is not log");
    let url = format!("{}/v1/traces", url.trim_end_matches('/'));
    let answer = http::send("POST", &url, &[], Some(&request(spans)), TIMEOUT)?.success()?;
    let rejected = plain_number(&answer["partialSuccess"]["rejectedSpans"]);
    ensure!(rejected == 0, "the collector refused {rejected} spans: {}", answer["partialSuccess"]["errorMessage"]);
    Ok(())
}

/// A 64-bit number is a text in OTLP's JSON, but a collector may send a number.
fn plain_number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

fn request(spans: &[Span]) -> Value {
    let mut by_service = BTreeMap::<&str, Vec<Value>>::new();
    for span in spans {
        by_service.entry(&span.service).or_default().push(document(span));
    }
    let resource = |(service, spans): (&str, Vec<Value>)| {
        json!({
            "resource": { "attributes": [attribute("service.name", &service.into())] },
            "scopeSpans": [{ "scope": { "name": "holdfast" }, "spans": spans }],
        })
    };
    json!({ "resourceSpans": by_service.into_iter().map(resource).collect::<Vec<_>>() })
}

fn document(span: &Span) -> Value {
    let (error, nanos) = (span.error(), |micros: i64| format!("{micros}000"));
    let own = span.fields.iter().filter(|(name, _)| !PLACED.contains(&name.as_str()));
    let links = span.fields.get("links").and_then(Value::as_array).into_iter().flatten().filter_map(link);
    let mut document = json!({
        "traceId": span.field("trace_id"),
        "spanId": span.id,
        "name": span.name,
        "kind": kind(&span.name),
        "startTimeUnixNano": nanos(span.begin),
        "endTimeUnixNano": nanos(span.end.unwrap_or(span.begin)),
        "attributes": own.map(|(name, value)| attribute(name, value)).collect::<Vec<_>>(),
        "links": links.collect::<Vec<_>>(),
        "status": match &error {
            Some(error) => json!({ "code": 2, "message": error }),
            None => json!({ "code": 1 }),
        },
    });
    if let Some(parent) = &span.parent {
        document["parentSpanId"] = parent.as_str().into();
    }
    document
}

/// OTLP's number for the part that a span has in a request or a message.
fn kind(name: &str) -> u8 {
    match name {
        "request" => 2,
        "attempt" | "aws" | "send" | "provider" => 3,
        "publish" => 4,
        "message" => 5,
        _ => 1,
    }
}

fn attribute(name: &str, value: &Value) -> Value {
    let value = match value {
        Value::Bool(value) => json!({ "boolValue": value }),
        Value::Number(value) if value.is_i64() => json!({ "intValue": value.to_string() }),
        Value::Number(value) => json!({ "doubleValue": value }),
        Value::String(value) => json!({ "stringValue": value }),
        other => json!({ "stringValue": other.to_string() }),
    };
    json!({ "key": name, "value": value })
}

/// Converts a value of the header `traceparent`.
fn link(traceparent: &Value) -> Option<Value> {
    let mut parts = traceparent.as_str()?.split('-').skip(1);
    Some(json!({ "traceId": parts.next()?, "spanId": parts.next()? }))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::TcpListener,
        thread,
    };

    use super::*;
    use crate::{log_reader::Line, spans::spans};

    fn example() -> Vec<Span> {
        let lines = [
            json!({ "span": "begin", "name": "request", "at": 5, "service": "orders", "trace_id": "a1", "span_id": "b1", "route": "/orders" }),
            json!({ "span": "end", "name": "request", "at": 9, "service": "orders", "trace_id": "a1", "span_id": "b1", "status": 503 }),
            json!({ "span": "begin", "name": "message", "at": 12, "service": "notifications", "trace_id": "a1",
                    "span_id": "b2", "links": ["00-a1-b1-01"] }),
        ];
        let line = |json: &Value| Line { time: 0, function: String::new(), text: json.to_string() };
        spans(&lines.iter().map(line).collect::<Vec<_>>())
    }

    #[test]
    fn each_span_has_its_service_its_times_its_links_and_its_error() {
        let request = request(&example());
        let resources = request["resourceSpans"].as_array().expect("resources");
        assert_eq!(resources.len(), 2);
        let message = &resources[0]["scopeSpans"][0]["spans"][0];
        assert_eq!(resources[0]["resource"]["attributes"][0]["value"]["stringValue"], "notifications");
        assert_eq!(message["links"], json!([{ "traceId": "a1", "spanId": "b1" }]));
        assert_eq!((&message["kind"], &message["status"]["code"]), (&json!(5), &json!(2)));
        let orders = &resources[1]["scopeSpans"][0]["spans"][0];
        assert_eq!((&orders["startTimeUnixNano"], &orders["endTimeUnixNano"]), (&json!("5000"), &json!("9000")));
        assert_eq!(orders["status"], json!({ "code": 2, "message": "503" }));
        let attributes = json!([
            { "key": "route", "value": { "stringValue": "/orders" } },
            { "key": "status", "value": { "intValue": "503" } },
        ]);
        assert_eq!(orders["attributes"], attributes);
    }

    /// Answers one request with `answer`, and returns the request's first line and body.
    fn collector(answer: &'static str) -> (String, thread::JoinHandle<(String, Value)>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first).expect("a request");
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).expect("a header");
                match header.to_lowercase().strip_prefix("content-length:") {
                    Some(value) => length = value.trim().parse().expect("a length"),
                    None if header.trim().is_empty() => break,
                    None => {}
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len());
            stream.write_all((head + answer).as_bytes()).expect("the reader is there");
            (first.trim().to_owned(), serde_json::from_slice(&body).expect("JSON"))
        });
        (url, served)
    }

    #[test]
    fn a_collector_gets_the_spans() {
        let (url, served) = collector("{}");
        send(&format!("{url}/"), &example()).expect("the collector accepts the spans");
        let (first, body) = served.join().expect("a request");
        assert_eq!(first, "POST /v1/traces HTTP/1.1");
        assert_eq!(body, request(&example()));
    }

    #[test]
    fn spans_that_a_collector_refuses_are_an_error() {
        let (url, served) = collector(r#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}"#);
        let error = send(&url, &example()).expect_err("two spans are refused").to_string();
        served.join().expect("a request");
        assert!(error.contains("2 spans") && error.contains("too old"), "{error}");
    }
}
