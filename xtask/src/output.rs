//! The macros `say!`, which prints to standard output, and `complain!`, which prints
//! to standard error.
//!
//! In `make logs | head`, the reader of standard output goes away early. `println!`
//! then panics with a message. With the default action of SIGPIPE, the process would
//! end at once, and an emulator that the task has started would keep running. `say!`
//! instead unwinds the stack without a message, so that destructors stop the emulator.
//! Clippy refuses `println!` and `eprintln!` in this crate.

use std::{
    fmt::Arguments,
    io::{ErrorKind, Write, stderr, stdout},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

use anyhow::Result;

/// The panic's value when the reader of standard output has gone.
struct ReaderGone;

/// Runs a task. Returns `None` if the task stopped early because the reader of its
/// output has gone.
pub fn run_until_reader_is_gone(task: impl FnOnce() -> Result<()>) -> Option<Result<()>> {
    match catch_unwind(AssertUnwindSafe(task)) {
        Ok(result) => Some(result),
        Err(cause) if cause.is::<ReaderGone>() => None,
        Err(cause) => resume_unwind(cause),
    }
}

pub fn write(text: Arguments<'_>) {
    let mut output = stdout().lock();
    match output.write_fmt(text).and_then(|()| output.flush()) {
        Ok(()) => {}
        // A destructor prints while the stack unwinds. A second panic would abort the
        // process before the other destructors have run.
        Err(_) if thread::panicking() => {}
        // `resume_unwind` runs no panic hook, so it prints nothing.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => resume_unwind(Box::new(ReaderGone)),
        Err(error) => {
            write_error(format_args!("standard output cannot be written: {error}\n"));
            resume_unwind(Box::new(error))
        }
    }
}

/// Writes to standard error. A failure to write is ignored, because there is no other
/// place to report it.
pub fn write_error(text: Arguments<'_>) {
    stderr().lock().write_fmt(text).ok();
}

/// Prints a line to standard output.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($words)*))) };
}

/// Prints a line to standard error.
#[macro_export]
macro_rules! complain {
    ($($words:tt)*) => { $crate::output::write_error(format_args!("{}\n", format_args!($($words)*))) };
}
