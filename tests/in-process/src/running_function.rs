//! A running function: one invocation of a Lambda function, which a test can
//! kill midway.
//!
//! Each invocation runs as a task of its own. Therefore the invocation
//! continues when its caller gives up, as on Lambda.

use std::{
    future::Future,
    sync::{Arc, Weak},
};

use tokio::sync::Notify;

tokio::task_local! {
    static CURRENT: RunningFunction;
}

/// A handle on one invocation of a function.
#[derive(Clone, Debug)]
pub struct RunningFunction {
    pub name: &'static str,
    killed: Arc<Notify>,
}

/// The error of an invocation that was killed before it had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionKilled;

/// A handle that can kill an invocation and can do nothing else. The handle may
/// outlive the invocation.
#[derive(Clone, Debug)]
pub struct KillSwitch(Weak<Notify>);

impl KillSwitch {
    /// Kills the invocation. Returns whether it was still running.
    pub fn kill(&self) -> bool {
        self.0.upgrade().map(|killed| killed.notify_one()).is_some()
    }
}

impl RunningFunction {
    /// A handle on an invocation that is about to start.
    pub fn new(name: &'static str) -> Self {
        Self { name, killed: Arc::default() }
    }

    pub fn kill_switch(&self) -> KillSwitch {
        KillSwitch(Arc::downgrade(&self.killed))
    }

    /// The invocation in which the calling code runs; `None` if the code runs
    /// in no invocation.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Returns whether `other` is a handle on the same invocation.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.killed, &other.killed)
    }

    /// Kills the invocation. None of its code runs after that.
    pub fn kill(&self) {
        self.killed.notify_one();
    }

    /// Runs `work` until it has ended or the invocation is killed.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, FunctionKilled> {
        let killed = self.killed.clone();
        let task = CURRENT.scope(self, async move {
            tokio::select! {
                biased;
                () = killed.notified() => Err(FunctionKilled),
                answer = work => Ok(answer),
            }
        });
        match tokio::spawn(task).await {
            Ok(result) => result,
            Err(failure) => std::panic::resume_unwind(failure.into_panic()),
        }
    }
}
