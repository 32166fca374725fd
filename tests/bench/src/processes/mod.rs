//! Measures the functions' programs as they are shipped: each program runs as a process
//! of its own, below a Runtime API as on Lambda.
//!
//! - [`runtime_api`]: starts a program, invokes it, and measures it from outside
//! - [`emulated_aws`]: answers the programs' calls to AWS
//! - [`fixture`]: a shop with data, and the events of each measured operation
//! - [`instructions`]: counts the instructions of a process with valgrind
//! - [`system_calls`]: counts the system calls of a process with strace
//! - [`cold_start`] and [`warm_invocation`]: the two sections of the report
//! - [`limits`]: the limits of their figures

pub mod cold_start;
pub mod emulated_aws;
pub mod fixture;
pub mod instructions;
pub mod limits;
pub mod programs;
pub mod runtime_api;
pub mod statistics;
pub mod system_calls;
pub mod warm_invocation;

use anyhow::Result;

/// Runs `work` on one thread. The other cores are left to the process that is measured.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
