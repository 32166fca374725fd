//! Counts what the functions log.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use tracing_subscriber::EnvFilter;

static BYTES: AtomicU64 = AtomicU64::new(0);
static REFUSED_BY_BREAKER: AtomicU64 = AtomicU64::new(0);

/// Counts lines instead of writing them.
struct Counter;

impl io::Write for Counter {
    /// The subscriber writes each line with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        BYTES.fetch_add(line.len() as u64, Ordering::Relaxed);
        if String::from_utf8_lossy(line).contains("circuit open") {
            REFUSED_BY_BREAKER.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to count the lines that this process logs at the level `info`, in the format
/// that the functions use.
pub fn install() {
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_target(false)
        .with_env_filter(EnvFilter::new("info"))
        .with_writer(|| Counter);
    // The second call finds that the first call has installed the counter.
    subscriber.try_init().ok();
}

/// The bytes of all lines so far.
pub fn bytes() -> u64 {
    BYTES.load(Ordering::Relaxed)
}

/// The lines so far that report a call that an open circuit breaker refused.
pub fn refused_by_breaker() -> u64 {
    REFUSED_BY_BREAKER.load(Ordering::Relaxed)
}
