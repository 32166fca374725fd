//! Measurements in virtual time.

use std::{future::Future, time::Duration};

use tokio::time::Instant;

use crate::log_counter;

/// Runs `work` on one thread with a paused clock: the clock moves only while all tasks
/// sleep, so the time of the machine's own work is not measured.
///
/// # Panics
///
/// If the runtime cannot be built.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    log_counter::install();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O can always be built").block_on(work)
}

/// The result of `work`, and the virtual time that `work` has taken.
pub async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let result = work.await;
    (result, began.elapsed())
}
