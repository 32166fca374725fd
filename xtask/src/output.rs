//! The macros `say!` and `complain!`, with which a task prints.
//!
//! `println!` panics when the reader of a pipe has gone, as in `make logs | head`,
//! and Clippy refuses the standard macros in this crate. The signal SIGPIPE would
//! end the process at once, and the processes that a test run has started would
//! keep running. `say!` therefore unwinds the stack, and the destructors stop them.

use std::{
    fmt::Arguments,
    io::{ErrorKind, Write, stderr, stdout},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

use anyhow::Result;

/// The panic's value when the reader of standard output has gone.
struct ReaderGone;

pub enum End {
    Finished(Result<()>),
    /// The task stopped early because nobody reads its output any more.
    Unread,
}

/// Runs a task until it ends or until the reader of its output goes away.
pub fn until_unread(task: impl FnOnce() -> Result<()>) -> End {
    match catch_unwind(AssertUnwindSafe(task)) {
        Ok(result) => End::Finished(result),
        Err(cause) if cause.is::<ReaderGone>() => End::Unread,
        Err(cause) => resume_unwind(cause),
    }
}

pub fn write(text: Arguments<'_>) {
    let mut output = stdout().lock();
    match output.write_fmt(text).and_then(|()| output.flush()) {
        Ok(()) => {}
        // A second unwinding would abort the process in the middle of the first.
        Err(_) if thread::panicking() => {}
        // `resume_unwind` runs no panic hook, so it prints nothing.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => resume_unwind(Box::new(ReaderGone)),
        Err(error) => {
            write_error(format_args!("standard output cannot be written: {error}\n"));
            resume_unwind(Box::new(error))
        }
    }
}

/// Ignores failures: there is no other place to report them.
pub fn write_error(text: Arguments<'_>) {
    stderr().lock().write_fmt(text).ok();
}

/// Prints a line like `println!`.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($words)*))) };
}

/// Prints a line like `eprintln!`.
#[macro_export]
macro_rules! complain {
    ($($words:tt)*) => { $crate::output::write_error(format_args!("{}\n", format_args!($($words)*))) };
}
