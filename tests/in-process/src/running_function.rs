//! A running function: one invocation of a Lambda function, which a test can
//! kill midway.
//!
//! Each invocation runs as a task of its own. Therefore the invocation
//! continues when its caller gives up, as on Lambda.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tracing::{Dispatch, instrument::WithSubscriber};

tokio::task_local! {
    static CURRENT: RunningFunction;
}

/// A handle on one invocation of a function.
#[derive(Clone, Debug)]
pub struct RunningFunction {
    pub name: &'static str,
    killed: Arc<Notify>,
    log: InvocationLog,
    /// Takes the lines that the invocation writes.
    lines: Option<Dispatch>,
}

/// An invocation that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedInvocation {
    pub function: &'static str,
    /// The time that the invocation has taken, by Tokio's clock.
    pub duration: Duration,
}

/// All invocations that have ended, in the order in which they ended, and the lines
/// of metrics that invocations have written.
#[derive(Clone, Debug, Default)]
pub struct InvocationLog(Arc<Mutex<Vec<EndedInvocation>>>, Arc<Mutex<Vec<MetricLine>>>);

/// A line of metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricLine {
    /// The function that has written the line.
    pub function: &'static str,
    /// The time by Tokio's clock. The line itself has the time of the wall clock.
    pub at: Instant,
    pub text: String,
}

impl InvocationLog {
    pub fn ended(&self) -> Vec<EndedInvocation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn metric_lines(&self) -> Vec<MetricLine> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, invocation: EndedInvocation) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(invocation);
    }
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
    /// A handle on an invocation that is about to start. When the invocation has
    /// ended, it is added to `log`. Its lines go to `lines`.
    pub fn new(name: &'static str, log: InvocationLog, lines: Option<Dispatch>) -> Self {
        Self { name, killed: Arc::default(), log, lines }
    }

    pub fn kill_switch(&self) -> KillSwitch {
        KillSwitch(Arc::downgrade(&self.killed))
    }

    /// The invocation in which the calling code runs; `None` if the code runs
    /// in no invocation.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Keeps a line of metrics that the current invocation writes.
    pub fn keep_metrics(line: &str) {
        if let Some(Self { name, log, .. }) = Self::current() {
            let line = MetricLine { function: name, at: Instant::now(), text: line.to_owned() };
            log.1.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }

    /// Returns whether `other` is a handle on the same invocation.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.killed, &other.killed)
    }

    /// Runs `work` on behalf of this invocation, also in another task.
    pub async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
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
        let (killed, log, function) = (self.killed.clone(), self.log.clone(), self.name);
        let lines = self.lines.clone();
        let began = Instant::now();
        let task = CURRENT.scope(self, async move {
            tokio::select! {
                biased;
                () = killed.notified() => Err(FunctionKilled),
                answer = work => Ok(answer),
            }
        });
        // On Lambda, each function is a process of its own, and so are its spans.
        let ended = match lines {
            Some(lines) => tokio::spawn(task.with_subscriber(lines)).await,
            None => tokio::spawn(task).await,
        };
        log.add(EndedInvocation { function, duration: began.elapsed() });
        match ended {
            Ok(result) => result,
            Err(failure) => std::panic::resume_unwind(failure.into_panic()),
        }
    }
}
