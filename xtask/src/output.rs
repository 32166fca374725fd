//! Everything that a task prints itself.
//!
//! `println!` panics when the reader of a pipe has gone, as in `make logs | head`.
//! `say!` and `complain!` are used instead; Clippy refuses the standard macros in
//! this crate. The signal SIGPIPE would end the process at once, and what a test
//! run had started would stay behind: so the stack is unwound, which stops it.

use std::{
    any::Any,
    fmt::Arguments,
    io::{ErrorKind, Write, stderr, stdout},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

use anyhow::Result;

/// The reader of standard output has gone.
struct ReaderGone;

/// How a task ended.
pub enum End {
    /// By itself.
    Finished(Result<()>),
    /// Before its end, because nobody reads what it prints.
    Unread,
}

/// Runs a task until it ends, or until its reader goes away.
pub fn until_unread(task: impl FnOnce() -> Result<()>) -> End {
    match catch_unwind(AssertUnwindSafe(task)) {
        Ok(result) => End::Finished(result),
        Err(cause) => ended_by(cause),
    }
}

fn ended_by(cause: Box<dyn Any + Send>) -> End {
    if cause.is::<ReaderGone>() { End::Unread } else { resume_unwind(cause) }
}

/// Prints to standard output; for `say!`.
pub fn write(text: Arguments<'_>) {
    let mut output = stdout().lock();
    match output.write_fmt(text).and_then(|()| output.flush()) {
        Ok(()) => {}
        // A second unwinding would abort the process in the middle of the first.
        Err(_) if thread::panicking() => {}
        // No panic hook runs, so this says nothing.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => resume_unwind(Box::new(ReaderGone)),
        Err(error) => {
            write_error(format_args!("standard output cannot be written: {error}\n"));
            resume_unwind(Box::new(error))
        }
    }
}

/// Prints to standard error; for `complain!`. Where that fails, nobody is left
/// who could be told.
pub fn write_error(text: Arguments<'_>) {
    stderr().lock().write_fmt(text).ok();
}

/// As `println!`.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($words)*))) };
}

/// As `eprintln!`.
#[macro_export]
macro_rules! complain {
    ($($words:tt)*) => { $crate::output::write_error(format_args!("{}\n", format_args!($($words)*))) };
}
