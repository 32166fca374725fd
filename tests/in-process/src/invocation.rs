//! Invocations: one run of one function, which can be killed midway.
//!
//! Each runs as a task of its own, so that it goes on when its caller goes
//! away, as it would on Lambda.

use std::{
    future::Future,
    sync::{Arc, Weak},
};

use tokio::sync::Notify;

tokio::task_local! {
    static CURRENT: Invocation;
}

/// A handle on a running invocation.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The function's name.
    pub function: &'static str,
    killed: Arc<Notify>,
}

/// The invocation was killed before it had an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed;

/// An invocation that may be over.
#[derive(Clone, Debug)]
pub struct Running(Weak<Notify>);

impl Running {
    /// Kills it, if it still runs; tells whether it did.
    pub fn kill(&self) -> bool {
        self.0.upgrade().map(|killed| killed.notify_one()).is_some()
    }
}

impl Invocation {
    /// A handle on one that is about to start.
    pub fn new(function: &'static str) -> Self {
        Self { function, killed: Arc::default() }
    }

    /// A handle that doesn't keep it running.
    pub fn running(&self) -> Running {
        Running(Arc::downgrade(&self.killed))
    }

    /// The one that this code runs in, if any.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Whether this is a handle on the same one.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.killed, &other.killed)
    }

    /// Kills it: nothing of it runs from here on.
    pub fn kill(&self) {
        self.killed.notify_one();
    }

    /// Runs `work` to its end, or until it is killed.
    pub async fn run<T: Send + 'static>(self, work: impl Future<Output = T> + Send + 'static) -> Result<T, Killed> {
        let killed = self.killed.clone();
        let task = CURRENT.scope(self, async move {
            tokio::select! {
                biased;
                () = killed.notified() => Err(Killed),
                answer = work => Ok(answer),
            }
        });
        match tokio::spawn(task).await {
            Ok(result) => result,
            Err(failure) => std::panic::resume_unwind(failure.into_panic()),
        }
    }
}
