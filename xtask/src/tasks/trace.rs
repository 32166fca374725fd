//! `make trace`: draws the way of one order through all functions, from the lines about
//! the beginnings and the ends of spans, or sends the spans to a collector.

use std::{collections::HashMap, fmt::Write};

use crate::{
    log_reader::{Line, LogSource, OrderId},
    order_heading::heading,
    otlp,
    prelude::*,
    spans::{Span, spans},
};

/// The width of the names, with their indentation.
const NAMES: usize = 52;
/// The width of the bars.
const BARS: usize = 36;

pub fn run(project: &Project) -> Result<()> {
    let order = OrderId::wanted("make trace ORDER=ord_… [ENV=dev] [OTLP=http://localhost:4318]")?;
    let lines = LogSource::wanted(project)?.lines_of(&order)?;
    ensure!(!lines.is_empty(), "no function has written a line about {}", order.as_str());
    match make_variable("OTLP") {
        Some(collector) => {
            otlp::send(&collector, &spans(&lines))?;
            say!("The spans of {} are at {collector}.", order.as_str());
        }
        None => say!("{}", drawing(&order, &lines)),
    }
    Ok(())
}

fn label(span: &Span) -> String {
    let of = |name: &str| span.field(name);
    match span.name.as_str() {
        "request" => format!("{} {}", of("method"), of("route")),
        "invocation" => format!("invocation by the {}", of("source")),
        "order" => format!("order, from {}", of("from")),
        "message" => format!("message {}", of("kind")),
        "step" => format!("step: {}", of("step")),
        "call" => format!("call {}: {} {}", of("to"), of("method"), short_path(&of("path"))),
        "attempt" => format!("attempt {}", of("attempt")),
        "publish" => format!("publish {}", of("kind")),
        "provider" => format!("payment provider: {}", of("operation")),
        "send" => format!("send {}", of("channel")),
        "aws" => format!("AWS {}", operation(&of("operation"))),
        other => other.to_owned(),
    }
}

/// What is to be said about how a span ended.
fn remark(span: &Span) -> String {
    match span.error() {
        Some(error) => format!("✗ {error}"),
        None if span.name == "request" => span.field("status"),
        None => String::new(),
    }
}

/// The path without the ids in it, which are long.
fn short_path(path: &str) -> String {
    path.split('/')
        .map(|part| if part.contains('_') && part.len() > 36 { "…" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

/// The name of an operation of AWS: the end of a target, an action, or a path.
fn operation(text: &str) -> &str {
    text.rsplit(['.', '=', '/']).next().unwrap_or(text)
}

fn drawing(order: &OrderId, lines: &[Line]) -> String {
    let spans = spans(lines);
    let mut text = heading(order, lines);
    if spans.is_empty() {
        text.push_str(
            "\nNo span is recorded: the stack's parameter SpanLines is not log. `make logs ORDER=…` shows the log lines.\n",
        );
        return text;
    }
    let ids: HashMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    let parent = |span: &Span| span.parent.as_deref().filter(|parent| ids.contains_key(parent)).map(str::to_owned);
    let mut children: HashMap<Option<String>, Vec<&Span>> = HashMap::new();
    for span in &spans {
        children.entry(parent(span)).or_default().push(span);
    }
    let first = spans[0].begin;
    // The parts of the trace that nobody waits for come seconds later. With one scale for all
    // parts, the bars of each part would be too short to compare.
    let roots = children.get(&None).into_iter().flatten().copied();
    // Those who look at an order do not change it.
    let (reads, roots): (Vec<&Span>, Vec<&Span>) = roots.partition(|root| root.field("method") == "GET");
    for root in roots {
        let mut part = Vec::new();
        collect(root, 0, &children, &mut part);
        let end = part.iter().filter_map(|(_, span)| span.end).max().unwrap_or(root.begin).max(root.begin + 1);
        let after = match root.begin - first {
            0 => String::new(),
            micros => format!(", {} later", duration(micros)),
        };
        writeln!(text, "\n{}{after}", root.service).ok();
        for (depth, span) in part {
            let name = clipped(&format!("{}{}", "  ".repeat(depth + 1), label(span)), NAMES);
            let bar = bar(span.begin, span.end.unwrap_or(end), root.begin, end);
            let time = span.end.map_or_else(|| "?".to_owned(), |end| duration(end - span.begin));
            let service =
                if depth > 0 && span.name == "request" { format!("{} ", span.service) } else { String::new() };
            let line = format!("{name:<NAMES$} {bar} {time:>8}  {service}{}", remark(span));
            writeln!(text, "{}", line.trim_end()).ok();
        }
    }
    if !reads.is_empty() {
        writeln!(text, "\nNot drawn: {} that only read the order", requests(reads.len())).ok();
    }
    text
}

fn requests(count: usize) -> String {
    if count == 1 { "1 request".to_owned() } else { format!("{count} requests") }
}

fn collect<'a>(
    span: &'a Span,
    depth: usize,
    children: &HashMap<Option<String>, Vec<&'a Span>>,
    into: &mut Vec<(usize, &'a Span)>,
) {
    into.push((depth, span));
    for child in children.get(&Some(span.id.clone())).into_iter().flatten() {
        collect(child, depth + 1, children, into);
    }
}

fn clipped(text: &str, width: usize) -> String {
    if text.chars().count() <= width { text.to_owned() } else { text.chars().take(width - 1).chain(['…']).collect() }
}

/// A bar from `begin` to `end` on the scale from `from` to `to`.
fn bar(begin: i64, end: i64, from: i64, to: i64) -> String {
    let column = |at: i64| {
        let share = (at - from) as f64 / (to - from) as f64;
        ((share * BARS as f64) as usize).min(BARS - 1)
    };
    let (first, last) = (column(begin), column(end));
    (0..BARS).map(|at| if (first..=last).contains(&at) { '█' } else { '·' }).collect()
}

fn duration(micros: i64) -> String {
    match micros {
        ..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn line(json: Value) -> Line {
        Line { time: 0, function: "orders".to_owned(), text: json.to_string() }
    }

    fn begin(id: &str, parent: Option<&str>, at: i64, name: &str, service: &str, more: Value) -> Line {
        let mut json = json!({ "span": "begin", "name": name, "at": at, "service": service, "span_id": id });
        if let Some(parent) = parent {
            json["parent_id"] = parent.into();
        }
        for (name, value) in more.as_object().expect("an object") {
            json[name] = value.clone();
        }
        line(json)
    }

    fn end(id: &str, at: i64, more: Value) -> Line {
        let mut json = json!({ "span": "end", "at": at, "span_id": id });
        for (name, value) in more.as_object().expect("an object") {
            json[name] = value.clone();
        }
        line(json)
    }

    fn order() -> OrderId {
        OrderId::parse("ord_0195a8e0-0000-7000-8000-000000000001").expect("an id")
    }

    #[test]
    fn a_trace_is_drawn_as_a_tree_with_its_errors_and_its_late_parts() {
        let lines = [
            begin(
                "a",
                Some("unknown"),
                1_000_000,
                "request",
                "orders",
                json!({ "method": "POST", "route": "/orders" }),
            ),
            begin("b", Some("a"), 1_000_500, "step", "orders", json!({ "step": "authorise payment" })),
            begin("c", Some("b"), 1_001_000, "attempt", "orders", json!({ "attempt": 1 })),
            end("c", 1_009_000, json!({ "outcome": "refused: payment_declined" })),
            end("b", 1_009_500, json!({})),
            line(json!({ "message": "order transition", "to": "CANCELLING", "reason": "payment_declined" })),
            line(json!({ "message": "order transition", "to": "CANCELLED" })),
            end("a", 1_010_000, json!({ "status": 402 })),
            begin("d", None, 3_000_000, "message", "notifications", json!({ "kind": "OrderCancelled" })),
            begin("e", None, 4_000_000, "request", "orders", json!({ "method": "GET", "route": "/orders/{id}" })),
            begin("f", Some("e"), 4_000_100, "aws", "orders", json!({ "operation": "DynamoDB_20120810.GetItem" })),
        ];
        let drawn = drawing(&order(), &lines);
        let lines: Vec<_> = drawn.lines().collect();
        assert_eq!(lines[1], "CANCELLED, because the payment provider declined the payment (payment_declined)");
        assert_eq!((lines[3], lines[8]), ("orders", "notifications, 2.00 s later"));
        assert!(lines[4].starts_with("  POST /orders ") && lines[4].ends_with("10.0 ms  ✗ 402"), "{drawn}");
        assert!(lines[5].starts_with("    step: authorise payment ") && lines[5].ends_with("✗ given up"), "{drawn}");
        assert!(
            lines[6].starts_with("      attempt 1 ") && lines[6].ends_with("✗ refused: payment_declined"),
            "{drawn}"
        );
        assert!(lines[9].starts_with("  message OrderCancelled ") && lines[9].contains("✗ never ended"), "{drawn}");
        assert_eq!(lines[10..], ["", "Not drawn: 1 request that only read the order"]);
    }

    #[test]
    fn a_bar_shows_when_a_span_began_and_ended() {
        assert_eq!(bar(0, 100, 0, 100), "█".repeat(BARS));
        assert_eq!(bar(100, 100, 0, 100), format!("{}█", "·".repeat(BARS - 1)));
        assert_eq!(bar(0, 0, 0, 100), format!("█{}", "·".repeat(BARS - 1)));
    }

    #[test]
    fn without_spans_the_state_is_told_and_what_to_do() {
        let lines = [line(json!({ "message": "order transition", "to": "CONFIRMED" }))];
        let drawn = drawing(&order(), &lines);
        assert!(drawn.contains("\nCONFIRMED\n") && drawn.contains("SpanLines"), "{drawn}");
    }

    #[test]
    fn names_are_short() {
        assert_eq!(short_path("/payments/pay_0195a8e0-0000-7000-8000-000000000001/capture"), "/payments/…/capture");
        assert_eq!(operation("DynamoDB_20120810.GetItem"), "GetItem");
        assert_eq!(operation("Action=Publish"), "Publish");
        assert_eq!(operation("/v2/email/outbound-emails"), "outbound-emails");
        assert_eq!(
            (duration(12), duration(1_234), duration(1_234_567)),
            ("12 µs".into(), "1.2 ms".into(), "1.23 s".into())
        );
    }
}
