//! Faults that tests inject into the calls of functions.
//!
//! A [`FaultPoint`] is one call that a function makes: to DynamoDB, SQS, SES,
//! SNS, or another service. A [`FaultKind`] is one way in which a call can
//! fail. A [`FaultPlan`] determines which calls of a trial fail, and how.

use std::{collections::BTreeMap, fmt, str::FromStr};

use strum::VariantArray;

/// A way in which a call can fail.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, strum::Display, strum::EnumString, strum::VariantArray,
)]
pub enum FaultKind {
    /// The connection is refused. The call has no effect.
    ConnectionRefused,
    /// The call takes effect, but its response is lost.
    ResponseLost,
    /// The call has no effect and gets no response. The caller waits until its
    /// timeout.
    NoResponse,
    /// The call is delivered twice.
    DeliveredTwice,
    /// The caller waits until its timeout. The call takes effect only after the
    /// system has recovered from the timeout.
    DeliveredLate,
    /// The calling function crashes before it sends the call.
    CrashBefore,
    /// The calling function crashes after the call has taken effect.
    CrashAfter,
    /// Every running function crashes before the call is sent.
    CrashAll,
    /// DynamoDB reports a conflict with another transaction once.
    Conflict,
    /// The connection is refused for the call and for each retry of the call
    /// within the same invocation.
    Outage,
    /// DynamoDB reports a conflict for the call and for each retry of the call
    /// within the same invocation.
    Contention,
}

impl FaultKind {
    /// Returns whether the fault also affects every retry of the call within
    /// the calling invocation.
    pub fn lasts(self) -> bool {
        matches!(self, Self::Outage | Self::Contention)
    }
}

/// The kind of a call, which determines the faults that are injected into the
/// call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// A read that cannot conflict with a transaction.
    Read,
    /// A transactional read of DynamoDB, which may conflict with another
    /// transaction.
    TransactionalRead,
    /// A call that changes something outside DynamoDB.
    ServiceWrite,
    /// A write to DynamoDB, which may conflict with another transaction.
    TableWrite,
}

/// A call that a function made, at which a fault can be injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultPoint {
    /// The calling function, the called service, and the operation.
    pub label: String,
    pub kind: CallKind,
}

impl FaultPoint {
    /// The faults that are injected into this call. A read changes nothing: it
    /// makes no difference whether a read is executed once, twice, late or not
    /// at all. Therefore reads are not delivered twice or late, their responses
    /// are not lost, and their callers do not crash after them. Only DynamoDB
    /// reports conflicts.
    pub fn faults(&self) -> &'static [FaultKind] {
        use FaultKind::*;
        match self.kind {
            CallKind::Read => &[ConnectionRefused, NoResponse, CrashBefore, CrashAll, Outage],
            CallKind::TransactionalRead => {
                &[ConnectionRefused, NoResponse, CrashBefore, CrashAll, Conflict, Outage, Contention]
            }
            CallKind::ServiceWrite => &[
                ConnectionRefused,
                ResponseLost,
                NoResponse,
                DeliveredTwice,
                DeliveredLate,
                CrashBefore,
                CrashAfter,
                CrashAll,
                Outage,
            ],
            CallKind::TableWrite => FaultKind::VARIANTS,
        }
    }
}

/// The faults of a trial, by the number of the call that each fault affects.
/// Calls are numbered from 0 in the order in which they are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultPlan(BTreeMap<usize, FaultKind>);

impl FaultPlan {
    /// A plan without faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// This plan with one more fault, at the call with this number.
    #[must_use]
    pub fn and(&self, call: usize, fault: FaultKind) -> Self {
        let mut plan = self.clone();
        plan.0.insert(call, fault);
        plan
    }

    /// The fault of the call with this number.
    pub fn at(&self, call: usize) -> Option<FaultKind> {
        self.0.get(&call).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of the last call that has a fault.
    pub fn last_call(&self) -> Option<usize> {
        self.0.keys().next_back().copied()
    }

    pub fn faults(&self) -> impl Iterator<Item = (usize, FaultKind)> {
        self.0.iter().map(|(call, fault)| (*call, *fault))
    }
}

/// Writes the plan in the form `12=ResponseLost,20=NoResponse`.
impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (call, fault)) in self.faults().enumerate() {
            write!(f, "{}{call}={fault}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for FaultPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut plan = Self::none();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (call, fault) = part.split_once('=').ok_or_else(|| format!("{part} is not CALL=FAULT"))?;
            let call = call.parse().map_err(|_| format!("{call} is not a number"))?;
            plan = plan.and(call, fault.parse().map_err(|_| format!("there is no fault {fault}"))?);
        }
        Ok(plan)
    }
}
