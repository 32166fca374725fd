//! The layer that gives each span its place in a trace, and writes the lines.
//!
//! There are two kinds of spans. A *context* (level `INFO`) is one request, one order of
//! the worker, or one message: it always exists, because its ids are in each log line.
//! A *detail* (level `DEBUG`) is a step, a call or an attempt in it. Details exist only
//! if spans are recorded: otherwise a detail costs one comparison, and none of its
//! fields is formatted. Spans of libraries are ignored.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use jiff::Timestamp;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::Interest,
};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::{Context, Layer},
    registry::{LookupSpan, SpanRef},
};

use super::json::Members;
use crate::{trace::TraceContext, version::VERSION};

/// The target of the spans that this project's code makes, see
/// [`context_span!`](crate::context_span).
pub const SPAN_TARGET: &str = "holdfast";
/// The fields of a span that each log line within the span repeats.
const IDS: [&str; 4] = ["request_id", "order_id", "payment_id", "event_id"];
/// The crates whose debug lines are sampled. The SDK's debug lines quote requests and so
/// personal data.
const OWN_CRATES: [&str; 6] = ["chassis", "users", "products", "orders", "payments", "notifications"];
/// More than the length of most lines.
const LINE: usize = 512;

/// What is written.
pub(super) struct Lines {
    pub(super) service: &'static str,
    pub(super) filter: Targets,
    pub(super) writes_spans: bool,
    /// The debug lines of a trace are written if its selector is below this number.
    pub(super) debug_below: u64,
    pub(super) sink: Box<dyn Fn(&str) + Send + Sync>,
    /// `true` once a line of an invocation was written.
    pub(super) is_warm: AtomicBool,
}

/// A span's place in its trace, and what is known about it.
pub(super) struct SpanData {
    pub(super) context: TraceContext,
    /// The members of [`IDS`] that this span itself has.
    ids: Members,
    /// What was recorded after the span's beginning, for the line about its end.
    recorded: Members,
    /// The X-Ray header that outgoing calls pass on.
    pub(super) xray: Option<Box<str>>,
    is_debugged: bool,
}

impl Lines {
    fn wants(&self, metadata: &Metadata<'_>) -> Interest {
        if metadata.is_span() {
            let is_own = metadata.target() == SPAN_TARGET;
            let is_wanted = is_own && (self.writes_spans || *metadata.level() <= Level::INFO);
            return if is_wanted { Interest::always() } else { Interest::never() };
        }
        if self.filter.would_enable(metadata.target(), metadata.level()) {
            return Interest::always();
        }
        let own_crate = metadata.target().split("::").next().unwrap_or_default();
        match self.debug_below > 0 && *metadata.level() == Level::DEBUG && OWN_CRATES.contains(&own_crate) {
            true => Interest::sometimes(),
            false => Interest::never(),
        }
    }

    fn write(&self, members: Members) {
        (self.sink)(&members.into_line());
    }

    fn begin_span_line(&self, phase: &str, metadata: &Metadata<'_>, context: &TraceContext) -> Members {
        let mut line = Members::with_capacity(LINE);
        line.text("span", phase);
        line.text("name", metadata.name());
        line.literal("at", Timestamp::now().as_microsecond());
        line.text("service", self.service);
        line.text("trace_id", context.trace_id());
        line.text("span_id", context.span_id());
        line
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        self.wants(metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        let interest = self.wants(metadata);
        interest.is_always()
            || interest.is_sometimes()
                && context
                    .lookup_current()
                    .is_some_and(|span| span.extensions().get::<SpanData>().is_some_and(|data| data.is_debugged))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let spans_or_samples = match self.writes_spans || self.debug_below > 0 {
            true => LevelFilter::DEBUG,
            false => LevelFilter::INFO,
        };
        let lines = Layer::<S>::max_level_hint(&self.filter)?;
        Some(lines.max(spans_or_samples))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = SpanFields::new(self.writes_spans);
        attributes.record(&mut fields);
        let local = span.parent().and_then(|parent| place_of(&parent));
        // A span that follows from a span of another process has a link to that span, and
        // another link to the local span around it. Otherwise the span around it, here or
        // in another process, is its parent.
        let (trace, parent, links) = match (fields.link, fields.parent, local) {
            (Some(link), _, local) => (
                link.new_span(),
                None,
                [Some(link.clone()), local.map(|(local, _)| local)].into_iter().flatten().collect(),
            ),
            (None, Some(remote), _) => (remote.new_span(), Some(remote), Vec::new()),
            (None, None, Some((local, _))) => (local.new_span(), Some(local), Vec::new()),
            (None, None, None) => (TraceContext::start(), None, Vec::new()),
        };
        let is_debugged = trace.selector() < self.debug_below;
        if self.writes_spans {
            let mut line = self.begin_span_line("begin", attributes.metadata(), &trace);
            if let Some(parent) = &parent {
                line.text("parent_id", parent.span_id());
            }
            if !links.is_empty() {
                let links: Vec<_> = links.iter().map(|link: &TraceContext| format!("\"{link}\"")).collect();
                line.json("links", &format!("[{}]", links.join(",")));
            }
            line.extend(fields.ids.as_str());
            inherit(&mut line, span.parent());
            line.extend(fields.rest.as_str());
            self.write(line);
        }
        span.extensions_mut().insert(SpanData {
            context: trace,
            ids: fields.ids,
            recorded: Members::default(),
            xray: fields.xray,
            is_debugged,
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = SpanFields::new(self.writes_spans);
        values.record(&mut fields);
        if let Some(data) = span.extensions_mut().get_mut::<SpanData>() {
            let is_known = IDS.iter().any(|id| fields.ids.contains(id) && data.ids.contains(id));
            if !is_known {
                data.ids.extend(fields.ids.as_str());
                if self.writes_spans {
                    data.recorded.extend(fields.ids.as_str());
                }
            }
            data.recorded.extend(fields.rest.as_str());
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = EventFields::default();
        event.record(&mut fields);
        let mut line = Members::with_capacity(LINE);
        line.text("timestamp", format_args!("{:.3}", Timestamp::now()));
        line.text("level", event.metadata().level());
        line.text("message", fields.message.as_str());
        line.text("service", self.service);
        line.text("version", VERSION);
        let span = context.event_span(event);
        if let Some((place, _)) = span.as_ref().and_then(place_of) {
            if !self.is_warm.swap(true, Ordering::Relaxed) {
                line.literal("cold_start", true);
            }
            line.text("trace_id", place.trace_id());
            line.text("span_id", place.span_id());
        }
        line.extend(fields.rest.as_str());
        inherit(&mut line, span);
        self.write(line);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if !self.writes_spans {
            return;
        }
        let Some(span) = context.span(&id) else { return };
        let extensions = span.extensions();
        let Some(data) = extensions.get::<SpanData>() else { return };
        let mut line = self.begin_span_line("end", span.metadata(), &data.context);
        line.extend(data.recorded.as_str());
        self.write(line);
    }
}

/// The context of a span, or of the nearest span around it that has one.
fn place_of<'a, R: LookupSpan<'a>>(span: &SpanRef<'a, R>) -> Option<(TraceContext, Option<Box<str>>)> {
    span.scope()
        .find_map(|span| span.extensions().get::<SpanData>().map(|data| (data.context.clone(), data.xray.clone())))
}

/// Adds the ids that the spans around a line have, and that the line has not yet.
fn inherit<'a, R: LookupSpan<'a>>(line: &mut Members, span: Option<SpanRef<'a, R>>) {
    for span in span.iter().flat_map(SpanRef::scope) {
        let extensions = span.extensions();
        let Some(data) = extensions.get::<SpanData>() else { continue };
        if !data.ids.is_empty() && !IDS.iter().any(|id| data.ids.contains(id) && line.contains(id)) {
            line.extend(data.ids.as_str());
        }
    }
}

/// Sorts the fields of a span.
struct SpanFields {
    is_detailed: bool,
    parent: Option<TraceContext>,
    link: Option<TraceContext>,
    xray: Option<Box<str>>,
    ids: Members,
    /// All other fields, if spans are written.
    rest: Members,
}

impl SpanFields {
    fn new(is_detailed: bool) -> Self {
        Self { is_detailed, parent: None, link: None, xray: None, ids: Members::default(), rest: Members::default() }
    }

    fn text(&mut self, field: &Field, value: impl fmt::Display) {
        match field.name() {
            "parent" => self.parent = TraceContext::parse(&value.to_string()),
            "link" => self.link = TraceContext::parse(&value.to_string()),
            "xray" => self.xray = Some(value.to_string().into()),
            name if IDS.contains(&name) => self.ids.text(name, value),
            name if self.is_detailed => self.rest.text(name, value),
            _ => {}
        }
    }

    fn literal(&mut self, field: &Field, value: impl fmt::Display) {
        if self.is_detailed {
            self.rest.literal(field.name(), value);
        }
    }
}

/// The fields of an event. Its message is written before the other fields.
#[derive(Default)]
struct EventFields {
    message: String,
    rest: Members,
}

impl EventFields {
    fn text(&mut self, field: &Field, value: impl fmt::Display) {
        match field.name() {
            "message" => self.message = value.to_string(),
            name => self.rest.text(name, value),
        }
    }

    fn literal(&mut self, field: &Field, value: impl fmt::Display) {
        self.rest.literal(field.name(), value);
    }
}

macro_rules! visit {
    ($fields:ty) => {
        impl Visit for $fields {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                self.text(field, format_args!("{value:?}"));
            }

            fn record_str(&mut self, field: &Field, value: &str) {
                self.text(field, value);
            }

            fn record_i64(&mut self, field: &Field, value: i64) {
                self.literal(field, value);
            }

            fn record_u64(&mut self, field: &Field, value: u64) {
                self.literal(field, value);
            }

            fn record_bool(&mut self, field: &Field, value: bool) {
                self.literal(field, value);
            }
        }
    };
}

visit!(SpanFields);
visit!(EventFields);
