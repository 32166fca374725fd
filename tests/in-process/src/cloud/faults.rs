//! The faults that a test can inject into calls: a plan of faults for single
//! calls, the fault of a whole host, and latency.

use std::{sync::Mutex, time::Duration};

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::ConnectorError};

use super::{
    Cloud,
    call::{Call, calling_function},
    dynamodb, json_response, lock,
};
use crate::{
    fault::{FaultKind, FaultPlan, FaultPoint},
    running_function::{EndedInvocation, InvocationLog, KillSwitch, MetricLine, RunningFunction},
};

#[derive(Default)]
pub(super) struct Faults {
    trial: Mutex<Option<ActiveTrial>>,
    /// Each fault, with a text: the fault affects all hosts whose name contains
    /// the text.
    hosts: Mutex<Vec<(String, HostFault)>>,
    /// If the latency is `None`, calls take no time.
    latency: Mutex<Option<Latency>>,
    running: Mutex<Vec<KillSwitch>>,
    invocations: InvocationLog,
}

/// A fault that affects every call to a host until the fault is cleared.
#[derive(Clone, Debug)]
pub enum HostFault {
    /// Connections are refused.
    Down,
    /// Calls have no effect and get no response.
    Silent,
    /// Each call takes effect after this delay, even if its caller no longer
    /// waits for the response.
    Slow(Duration),
    /// The function URL answers every call itself, with this status and body, and
    /// does not invoke the function.
    Answered(u16, &'static str),
    /// About half of the calls fail. About half of the failed calls take effect
    /// nevertheless.
    Flapping(fastrand::Rng),
}

/// The effect of a [`HostFault`] on one call.
enum HostFaultEffect {
    ConnectionRefused,
    NoResponse,
    Delayed(Duration),
    ResponseLost,
    Answered(u16, &'static str),
}

impl HostFault {
    /// The effect on the next call; `None` if the fault does not affect the
    /// call.
    fn next_effect(&mut self) -> Option<HostFaultEffect> {
        match self {
            Self::Down => Some(HostFaultEffect::ConnectionRefused),
            Self::Silent => Some(HostFaultEffect::NoResponse),
            Self::Slow(delay) => Some(HostFaultEffect::Delayed(*delay)),
            Self::Answered(status, body) => Some(HostFaultEffect::Answered(*status, body)),
            Self::Flapping(random) => match random.u8(0..4) {
                0 => Some(HostFaultEffect::ConnectionRefused),
                1 => Some(HostFaultEffect::ResponseLost),
                _ => None,
            },
        }
    }
}

/// The time that calls take.
enum Latency {
    /// Each call takes a random time below 20 ms.
    Random(fastrand::Rng),
    /// Each call that this function makes takes this time. The calls of other
    /// functions take no time.
    OfFunction(&'static str, Duration),
}

impl Latency {
    fn next(&mut self) -> Duration {
        match self {
            Self::Random(random) => Duration::from_millis(random.u64(0..20)),
            Self::OfFunction(function, time) if calling_function() == *function => *time,
            Self::OfFunction(..) => Duration::ZERO,
        }
    }
}

/// A running trial: every call is recorded, and the planned calls fail.
#[derive(Default)]
struct ActiveTrial {
    plan: FaultPlan,
    points: Vec<FaultPoint>,
    /// The calls that [`FaultKind::DeliveredLate`] holds back.
    late: Vec<Call>,
    /// The faults that last as long as an invocation. Each fault affects the
    /// calls that have this label and are made by this invocation.
    lasting: Vec<(RunningFunction, String, FaultKind)>,
}

impl ActiveTrial {
    /// Records a call. Returns the fault that affects the call.
    fn record(&mut self, point: FaultPoint) -> Option<FaultKind> {
        let planned = self.plan.at(self.points.len());
        let lasting = RunningFunction::current().and_then(|caller| {
            if let Some(fault) = planned.filter(|fault| fault.lasts()) {
                self.lasting.push((caller.clone(), point.label.clone(), fault));
            }
            let found = self.lasting.iter().find(|(of, label, _)| of.is(&caller) && *label == point.label);
            found.map(|(_, _, fault)| *fault)
        });
        self.points.push(point);
        lasting.or(planned)
    }
}

impl Cloud {
    /// Starts a trial: records every call, and injects the faults of `plan`.
    pub fn begin_trial(&self, plan: FaultPlan) {
        *lock(&self.0.faults.trial) = Some(ActiveTrial { plan, ..ActiveTrial::default() });
    }

    /// Ends the trial: injects no more faults. Returns the recorded calls.
    pub fn end_trial(&self) -> Vec<FaultPoint> {
        let mut trial = lock(&self.0.faults.trial);
        let points = trial.as_mut().map(|trial| {
            trial.plan = FaultPlan::none();
            trial.lasting.clear();
            std::mem::take(&mut trial.points)
        });
        points.unwrap_or_default()
    }

    /// Delivers the calls that [`FaultKind::DeliveredLate`] has held back.
    /// Returns their number.
    pub async fn deliver_late_calls(&self) -> usize {
        let late = lock(&self.0.faults.trial).as_mut().map(|trial| std::mem::take(&mut trial.late)).unwrap_or_default();
        let count = late.len();
        for mut call in late {
            call.remove_request_token();
            // The caller no longer waits for the response.
            self.perform(call).await.ok();
        }
        count
    }

    /// Makes every later call take a random time. `seed` determines these
    /// times, and so the order in which the calls of several functions arrive.
    pub fn randomise_latency(&self, seed: u64) {
        *lock(&self.0.faults.latency) = Some(Latency::Random(fastrand::Rng::with_seed(seed)));
    }

    /// Makes every later call that `function` makes take `time`, and every call
    /// of another function take no time.
    pub fn set_latency(&self, function: &'static str, time: Duration) {
        *lock(&self.0.faults.latency) = Some(Latency::OfFunction(function, time));
    }

    /// Refuses connections to every host whose name contains `host`.
    pub fn take_down(&self, host: &str) {
        self.inject_fault(host, HostFault::Down);
    }

    /// Injects a fault into every later call to a host whose name contains
    /// `host`.
    pub fn inject_fault(&self, host: &str, fault: HostFault) {
        lock(&self.0.faults.hosts).push((host.to_owned(), fault));
    }

    /// Clears the faults of all hosts and items.
    pub fn bring_back(&self) {
        lock(&self.0.faults.hosts).clear();
        self.clear_item_faults();
    }

    /// A handle on a new invocation of a function, which [`Cloud::kill_all`]
    /// can kill.
    pub fn start_function(&self, name: &'static str) -> RunningFunction {
        let function = RunningFunction::new(name, self.0.faults.invocations.clone(), self.0.lines.of(name));
        lock(&self.0.faults.running).push(function.kill_switch());
        function
    }

    /// The invocations that have ended.
    pub fn ended_invocations(&self) -> Vec<EndedInvocation> {
        self.0.faults.invocations.ended()
    }

    /// The lines of metrics that functions have written, oldest first.
    pub fn metric_lines(&self) -> Vec<MetricLine> {
        self.0.faults.invocations.metric_lines()
    }

    /// Kills every running function.
    pub fn kill_all(&self) {
        for running in lock(&self.0.faults.running).drain(..) {
            running.kill();
        }
    }

    /// Records the call if a trial is running, and performs the call with the
    /// fault that the trial's plan has for the call.
    pub(super) async fn perform_in_trial(&self, call: Call) -> Result<HttpResponse, ConnectorError> {
        let fault = lock(&self.0.faults.trial).as_mut().and_then(|trial| trial.record(call.fault_point()));
        let Some(fault) = fault else { return self.perform(call).await };
        match fault {
            FaultKind::ConnectionRefused | FaultKind::Outage => Err(no_connection()),
            FaultKind::Conflict | FaultKind::Contention => {
                Ok(json_response(dynamodb::conflict(&call.operation, &call.body, None)))
            }
            FaultKind::NoResponse => std::future::pending().await,
            FaultKind::ResponseLost => {
                self.perform(call).await?;
                Err(no_connection())
            }
            FaultKind::DeliveredTwice => {
                self.perform(call.clone()).await?;
                self.perform(call).await
            }
            FaultKind::DeliveredLate => {
                if let Some(trial) = lock(&self.0.faults.trial).as_mut() {
                    trial.late.push(call);
                }
                std::future::pending().await
            }
            FaultKind::CrashBefore => crash().await,
            FaultKind::CrashAfter => {
                self.perform(call).await?;
                crash().await
            }
            FaultKind::CrashAll => {
                self.kill_all();
                std::future::pending().await
            }
        }
    }

    /// Performs the call after its latency and with the fault of its host.
    async fn perform(&self, call: Call) -> Result<HttpResponse, ConnectorError> {
        let latency = lock(&self.0.faults.latency).as_mut().map(Latency::next);
        if let Some(latency) = latency.filter(|latency| !latency.is_zero()) {
            tokio::time::sleep(latency).await;
        }
        let effect = {
            let mut hosts = lock(&self.0.faults.hosts);
            let fault = hosts.iter_mut().find(|(host, _)| call.host.contains(host.as_str()));
            fault.and_then(|(_, fault)| fault.next_effect())
        };
        match effect {
            None => self.execute(call).await,
            Some(HostFaultEffect::ConnectionRefused) => Err(no_connection()),
            Some(HostFaultEffect::NoResponse) => std::future::pending().await,
            Some(HostFaultEffect::Answered(status, body)) => Ok(json_response((status, body.to_owned()))),
            Some(HostFaultEffect::ResponseLost) => {
                self.execute(call).await?;
                Err(no_connection())
            }
            Some(HostFaultEffect::Delayed(delay)) => {
                let cloud = self.clone();
                let late = tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    cloud.execute(call).await
                });
                late.await.unwrap_or_else(|failure| std::panic::resume_unwind(failure.into_panic()))
            }
        }
    }
}

fn no_connection() -> ConnectorError {
    ConnectorError::io(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into())
}

/// Kills the function that makes the call.
async fn crash() -> Result<HttpResponse, ConnectorError> {
    if let Some(function) = RunningFunction::current() {
        function.kill();
    }
    std::future::pending().await
}
