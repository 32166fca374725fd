//! Logs: one JSON object per line, on standard output, where Lambda collects
//! the lines.

#[cfg(feature = "aws")]
pub use self::output::{LogFilter, init};

#[cfg(feature = "aws")]
mod output {
    use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

    /// The filter that selects log lines: a level, and other levels for the targets that
    /// are named, such as `warn,orders=debug`.
    pub type LogFilter = Targets;

    /// Starts logging, including panics.
    pub fn init(filter: LogFilter) {
        let lines = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_target(false);
        tracing_subscriber::registry().with(filter).with(lines).init();
        super::log_panics();
    }
}

/// Logs a panic like any other event, but only with its place in the code: its
/// message may quote personal data.
#[cfg(any(feature = "aws", test))]
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
        io, panic,
        sync::{Arc, Mutex},
    };

    use super::log_panics;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panicked meanwhile").write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_logged_by_its_place_without_its_message() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        let hook = panic::take_hook();
        log_panics();
        let caught =
            tracing::subscriber::with_default(subscriber, || panic::catch_unwind(|| panic!("about {}", "Zoe")));
        panic::set_hook(hook);
        assert!(caught.is_err());
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(log.contains("telemetry.rs:") && !log.contains("Zoe"), "{log}");
    }
}
