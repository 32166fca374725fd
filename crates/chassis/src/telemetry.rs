//! Logs: one JSON object a line, on standard output, where Lambda collects it.

#[cfg(feature = "aws")]
pub use self::output::{LogFilter, init};

#[cfg(feature = "aws")]
mod output {
    use tracing_subscriber::EnvFilter;

    use crate::config::{Configuration, Env};

    /// What is logged.
    #[derive(Debug)]
    pub struct LogFilter(EnvFilter);

    impl Configuration for LogFilter {
        fn read(env: &mut Env<'_>) -> Option<Self> {
            env.or("RUST_LOG", "what to log, such as info or warn,orders=debug", "info").map(Self)
        }
    }

    /// Starts logging.
    pub fn init(LogFilter(filter): LogFilter) {
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_target(false)
            .with_env_filter(filter)
            .init();
    }
}

/// An error and all its causes in one line: `a: b: c`.
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
