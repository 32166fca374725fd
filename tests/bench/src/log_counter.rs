//! Counts what the functions log.

use std::sync::{
    Once,
    atomic::{AtomicU64, Ordering},
};

use chassis::{config::Configuration, telemetry};

static BYTES: AtomicU64 = AtomicU64::new(0);
static REFUSED_BY_BREAKER: AtomicU64 = AtomicU64::new(0);
static INSTALLED: Once = Once::new();

/// Begins to count the lines that this process logs, with the default settings of a function.
/// All functions are in this process, so each line has the longest of their names.
///
/// # Panics
///
/// If a shop was started before: it has installed a subscriber that logs nothing, so that no
/// line would be counted.
pub fn install() {
    INSTALLED.call_once(begin);
}

fn begin() {
    let config = Configuration::from_variables(&|_| None).unwrap_or_else(|error| panic!("{error}"));
    let counter = telemetry::dispatch("notifications", config, |line| {
        BYTES.fetch_add(line.len() as u64, Ordering::Relaxed);
        if line.contains("circuit open") {
            REFUSED_BY_BREAKER.fetch_add(1, Ordering::Relaxed);
        }
    });
    let installed = tracing::dispatcher::set_global_default(counter);
    installed.unwrap_or_else(|error| panic!("no line of a log would be counted: {error}"));
}

/// The bytes of all lines so far.
pub fn bytes() -> u64 {
    BYTES.load(Ordering::Relaxed)
}

/// The lines so far that report a call that an open circuit breaker refused.
pub fn refused_by_breaker() -> u64 {
    REFUSED_BY_BREAKER.load(Ordering::Relaxed)
}
