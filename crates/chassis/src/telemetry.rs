//! What a function writes about its work on standard output, where Lambda collects the
//! lines: log lines and, if they are wanted, the beginnings and ends of spans. Each line
//! is one JSON object; `docs/observability.md` describes them.

#[cfg(feature = "aws")]
mod json;
#[cfg(feature = "aws")]
mod layer;

#[cfg(feature = "aws")]
pub use self::output::{LogFilter, Share, SpanLines, TelemetryConfig, context_of, dispatch, init, xray_header};

/// Begins a *context*: one request, one order of the worker, or one message. Each log
/// line in it repeats the context's ids: the fields `request_id`, `order_id`,
/// `payment_id` and `event_id`.
///
/// The field `parent` is the trace context of the span around it in another process. The
/// field `link` is the trace context of a span that has caused this one, and does not
/// wait for it. Without these, the span around it in this process is its parent.
#[macro_export]
macro_rules! context_span {
    ($($fields:tt)*) => { ::tracing::info_span!(target: "holdfast", $($fields)*) };
}

/// Begins a *detail* of a context, such as a step, a call or an attempt. It costs next to
/// nothing unless spans are written. The field `outcome` says how it ended; if nobody
/// records it, the work was given up.
#[macro_export]
macro_rules! detail_span {
    ($($fields:tt)*) => { ::tracing::debug_span!(target: "holdfast", $($fields)*, outcome = ::tracing::field::Empty) };
}

/// Says in the current span how its work ended: `ok`, or the error.
pub fn record_outcome<T, E: std::fmt::Display>(span: &tracing::Span, result: &Result<T, E>) {
    match result {
        Ok(_) => span.record("outcome", "ok"),
        Err(error) => span.record("outcome", tracing::field::display(error)),
    };
}

/// Says that the current request, message or order is about the order `id`.
pub fn concerns_order(id: impl std::fmt::Display) {
    tracing::Span::current().record("order_id", tracing::field::display(id));
}

/// Says that the current request is about the payment `id`.
pub fn concerns_payment(id: impl std::fmt::Display) {
    tracing::Span::current().record("payment_id", tracing::field::display(id));
}

#[cfg(feature = "aws")]
mod output {
    use std::{
        io::{self, Write},
        str::FromStr,
        sync::atomic::AtomicBool,
    };

    use tracing::{Dispatch, Span};
    use tracing_subscriber::{
        Registry,
        filter::Targets,
        layer::SubscriberExt,
        registry::{LookupSpan, SpanRef},
    };

    use super::layer::{Lines, SpanData};
    use crate::{configuration, trace::TraceContext};

    /// The filter that selects log lines: a level, and other levels for the targets that
    /// are named, such as `warn,orders=debug`.
    pub type LogFilter = Targets;

    configuration! {
        /// The settings of what a function writes about its work.
        #[derive(Clone, Debug)]
        pub struct TelemetryConfig {
            /// The filter that selects the lines that are logged.
            pub log: LogFilter = default("RUST_LOG", "what to log, such as info or warn,orders=debug", "info"),
            /// The share of all traces whose debug lines are logged, too.
            pub debug_share: Share = default("LOG_DEBUG_SHARE", "the share of traces, from 0 to 1, whose debug lines are logged, too", "0"),
            /// Whether spans are written.
            pub spans: SpanLines = default("TRACE_SPANS", "log, to write the beginning and the end of each span as a line; or off", "off"),
        }
    }

    /// Whether the beginning and the end of each span are written.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum SpanLines {
        /// No span is written.
        Off,
        /// Each span is written as two lines between the log lines.
        Log,
    }

    /// The error for a setting that has no such value.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
    #[error("not one of the possible values")]
    pub struct InvalidSetting;

    impl FromStr for SpanLines {
        type Err = InvalidSetting;

        fn from_str(text: &str) -> Result<Self, InvalidSetting> {
            match text {
                "off" => Ok(Self::Off),
                "log" => Ok(Self::Log),
                _ => Err(InvalidSetting),
            }
        }
    }

    /// A share of all traces.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Share(f64);

    impl FromStr for Share {
        type Err = InvalidSetting;

        fn from_str(text: &str) -> Result<Self, InvalidSetting> {
            let share = text.parse().map_err(|_| InvalidSetting)?;
            if (0.0..=1.0).contains(&share) { Ok(Self(share)) } else { Err(InvalidSetting) }
        }
    }

    impl Share {
        /// The number below which the selectors of this share of all traces are.
        fn below(self) -> u64 {
            // The conversion saturates: the share 1 becomes the largest number.
            (self.0 * u64::MAX as f64) as u64
        }
    }

    /// Starts to write the lines of the function `service`, including panics.
    pub fn init(service: &'static str, config: TelemetryConfig) {
        let dispatch = dispatch(service, config, |line| {
            // There is no other place to report that standard output cannot be written.
            io::stdout().lock().write_all(line.as_bytes()).ok();
        });
        if tracing::dispatcher::set_global_default(dispatch).is_ok() {
            super::log_panics();
        }
    }

    /// Returns what passes the lines of the function `service` to `sink`.
    pub fn dispatch(
        service: &'static str,
        config: TelemetryConfig,
        sink: impl Fn(&str) + Send + Sync + 'static,
    ) -> Dispatch {
        let lines = Lines {
            service,
            filter: config.log,
            writes_spans: config.spans == SpanLines::Log,
            debug_below: config.debug_share.below(),
            sink: Box::new(sink),
            is_warm: AtomicBool::new(false),
        };
        Dispatch::new(tracing_subscriber::registry().with(lines))
    }

    /// Returns the trace context of a span, or `None` if nothing gives spans a place in a
    /// trace.
    pub fn context_of(span: &Span) -> Option<TraceContext> {
        find(span, |data| Some(data.context.clone()))
    }

    /// Returns the X-Ray header that a call from the current span passes on: the header of
    /// the invocation, in which Lambda's own segment is the parent. X-Ray knows Lambda's
    /// segments, but not the spans of this process.
    pub fn xray_header() -> Option<Box<str>> {
        find(&Span::current(), |data| data.xray.clone())
    }

    fn find<T>(span: &Span, part: impl Fn(&SpanData) -> Option<T>) -> Option<T> {
        let found = span.with_subscriber(|(id, dispatch)| {
            let span: SpanRef<'_, Registry> = dispatch.downcast_ref::<Registry>()?.span(id)?;
            span.scope().find_map(|span| span.extensions().get::<SpanData>().and_then(&part))
        });
        found.flatten()
    }

    impl TraceContext {
        /// Returns the current span if it belongs to the same trace, and `self` otherwise:
        /// the context that a call or an event carries.
        #[must_use]
        pub fn at_current_span(&self) -> Self {
            context_of(&Span::current()).filter(|current| current.is_same_trace(self)).unwrap_or_else(|| self.clone())
        }
    }
}

/// Logs a panic like any other event, but only with its place in the code: its
/// message may quote personal data.
#[cfg(feature = "aws")]
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panic");
    }));
}

/// Writes an error and all its sources in one line: `a: b: c`.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(all(test, feature = "aws"))]
mod tests {
    use std::{
        panic,
        sync::{Arc, Mutex},
    };

    use serde_json::Value;
    use tracing::field::Empty;

    use super::{TelemetryConfig, context_of, dispatch, log_panics, xray_header};
    use crate::{config::Configuration, trace::TraceContext};

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// Runs `work`, and returns the lines that it has caused.
    fn lines(settings: &[(&str, &str)], work: impl FnOnce()) -> Vec<Value> {
        let config = TelemetryConfig::from_variables(&|name| {
            settings.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        });
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = written.clone();
        let dispatch = dispatch("orders", config.expect("valid settings"), move |line| {
            sink.lock().expect("no test panicked meanwhile").push(line.to_owned());
        });
        tracing::dispatcher::with_default(&dispatch, work);
        let written = written.lock().expect("no test panicked meanwhile");
        written.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    const SPANS: [(&str, &str); 1] = [("TRACE_SPANS", "log")];

    #[test]
    fn a_panic_is_logged_by_its_place_without_its_message() {
        let hook = panic::take_hook();
        log_panics();
        let lines = lines(&[], || assert!(panic::catch_unwind(|| panic!("about {}", "Zoe")).is_err()));
        panic::set_hook(hook);
        assert!(lines[0]["place"].as_str().unwrap().contains("telemetry.rs:"), "{lines:?}");
        assert!(!lines[0].to_string().contains("Zoe"));
    }

    #[test]
    fn each_line_of_a_request_has_the_ids_of_the_request_and_of_its_span() {
        let lines = lines(&[], || {
            let trace = TraceContext::parse(TRACE);
            let request = crate::context_span!(
                "request",
                parent = trace.map(tracing::field::display),
                request_id = "r-1",
                order_id = Empty
            );
            let _in_request = request.enter();
            tracing::info!("first");
            request.record("order_id", "ord_1");
            crate::detail_span!("step", step = "reserve").in_scope(|| tracing::warn!(cause = "a \"b\"", "second"));
        });
        let [first, second] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(first["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(
            (&first["request_id"], &first["level"], &first["service"]),
            (&"r-1".into(), &"INFO".into(), &"orders".into())
        );
        assert_eq!((&first["cold_start"], &second["cold_start"]), (&true.into(), &Value::Null));
        assert!(first["order_id"].is_null() && first["span_id"] != "b7ad6b7169203331");
        assert_eq!((&second["order_id"], &second["cause"]), (&"ord_1".into(), &"a \"b\"".into()));
        assert_eq!((&second["trace_id"], &second["span_id"]), (&first["trace_id"], &first["span_id"]));
    }

    #[test]
    fn no_span_is_written_and_no_field_of_a_detail_is_formatted_when_spans_are_off() {
        struct NotToBeFormatted;
        impl std::fmt::Debug for NotToBeFormatted {
            fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                panic!("formatted")
            }
        }
        let lines = lines(&[], || {
            let request = crate::context_span!("request", request_id = "r-1", method = ?NotToBeFormatted);
            let _in_request = request.enter();
            let detail = crate::detail_span!("call", service = ?NotToBeFormatted);
            assert!(detail.is_disabled());
        });
        assert_eq!(lines, [Value::Null; 0]);
    }

    #[test]
    fn a_span_is_written_at_its_beginning_and_at_its_end() {
        let lines = lines(&SPANS, || {
            let request = crate::context_span!("request", request_id = "r-1", route = "/orders", status = Empty);
            let _in_request = request.enter();
            let call = crate::detail_span!("call", service = "users");
            super::record_outcome(&call, &Err::<(), _>("no response"));
            drop(call);
            request.record("status", 201);
        });
        let [request, call, call_end, request_end] = &lines[..] else { panic!("{lines:?}") };
        let phases = lines.iter().map(|line| (line["span"].as_str().unwrap(), line["name"].as_str().unwrap()));
        let expected = [("begin", "request"), ("begin", "call"), ("end", "call"), ("end", "request")];
        assert_eq!(phases.collect::<Vec<_>>(), expected);
        assert!(request["parent_id"].is_null());
        assert_eq!((&call["parent_id"], &call["trace_id"]), (&request["span_id"], &request["trace_id"]));
        assert_eq!((&call["request_id"], &request["route"]), (&"r-1".into(), &"/orders".into()));
        assert_eq!((&call_end["span_id"], &call_end["outcome"]), (&call["span_id"], &"no response".into()));
        assert_eq!((&request_end["span_id"], &request_end["status"]), (&request["span_id"], &201.into()));
        assert!(request["at"].as_i64() <= request_end["at"].as_i64());
    }

    #[test]
    fn a_span_with_a_link_keeps_the_trace_and_has_no_parent() {
        let lines = lines(&SPANS, || {
            let batch = crate::context_span!("batch", request_id = "r-1");
            let _in_batch = batch.enter();
            drop(crate::context_span!("message", link = TRACE, order_id = "ord_1"));
        });
        let (batch, message) = (&lines[0], &lines[1]);
        assert_eq!(message["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert!(message["parent_id"].is_null());
        let around = format!("00-{}-{}-01", batch["trace_id"].as_str().unwrap(), batch["span_id"].as_str().unwrap());
        assert_eq!(message["links"], serde_json::json!([TRACE, around]));
        assert_eq!(message["request_id"], "r-1");
    }

    #[test]
    fn spans_of_libraries_are_ignored() {
        let lines = lines(&SPANS, || {
            let library = tracing::info_span!("invoke", secret = "x");
            let _in_library = library.enter();
            tracing::info!("said");
        });
        assert_eq!(lines.len(), 1);
        assert!(lines[0].get("secret").is_none() && lines[0].get("trace_id").is_none());
    }

    #[test]
    fn debug_lines_are_written_for_the_selected_share_of_traces() {
        let written = |share| {
            let lines = lines(&[("LOG_DEBUG_SHARE", share)], || {
                tracing::debug!("outside of every trace");
                for _ in 0..400 {
                    let request = crate::context_span!("request", request_id = "r-1");
                    let _in_request = request.enter();
                    tracing::debug!("detail");
                    tracing::debug!(target: "aws_smithy_runtime", "detail of a library");
                }
            });
            assert!(lines.iter().all(|line| line["message"] == "detail"), "{lines:?}");
            lines.len()
        };
        assert_eq!((written("0"), written("1")), (0, 400));
        assert!((40..160).contains(&written("0.25")));
    }

    #[test]
    fn all_functions_select_the_debug_lines_of_the_same_traces() {
        let trace = TraceContext::start();
        let written = || {
            lines(&[("LOG_DEBUG_SHARE", "0.5")], || {
                let request = crate::context_span!("request", parent = %trace.new_span());
                let _in_request = request.enter();
                tracing::debug!("detail");
            })
        };
        assert_eq!(written().len(), written().len());
    }

    #[test]
    fn a_call_carries_the_current_span_of_its_trace_and_the_xray_header_of_the_invocation() {
        let trace = TraceContext::parse(TRACE).unwrap();
        assert_eq!(trace.at_current_span(), trace);
        lines(&SPANS, || {
            let request = crate::context_span!("request", parent = %trace, xray = "Root=1-2-3;Sampled=1");
            let _in_request = request.enter();
            let call = crate::detail_span!("call", service = "users");
            let _in_call = call.enter();
            let carried = trace.at_current_span();
            assert_eq!(Some(carried.clone()), context_of(&call));
            assert!(carried.is_same_trace(&trace) && carried != trace);
            assert_eq!(xray_header().as_deref(), Some("Root=1-2-3;Sampled=1"));
            let other = TraceContext::start();
            assert_eq!(other.at_current_span(), other);
        });
    }

    #[test]
    fn a_setting_without_a_meaning_is_refused() {
        for (name, value) in [
            ("LOG_DEBUG_SHARE", "1.1"),
            ("LOG_DEBUG_SHARE", "-0.1"),
            ("LOG_DEBUG_SHARE", "NaN"),
            ("TRACE_SPANS", "yes"),
        ] {
            let config = TelemetryConfig::from_variables(&|asked| (asked == name).then(|| value.to_owned()));
            assert!(config.is_err(), "{name}={value}");
        }
    }
}
