//! What can go wrong with a call, and where.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// What happens to one call instead of a plain answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// The connection is refused: no effect.
    Refused,
    /// The effect is there, the answer is lost.
    ReplyLost,
    /// No effect and no answer, ever: the caller waits until it gives up.
    Silence,
    /// The call arrives twice.
    Twice,
    /// The caller waits in vain; the call arrives after everything else.
    Late,
    /// The calling function dies before the call leaves it.
    CrashBefore,
    /// The calling function dies when the call has had its effect.
    CrashAfter,
    /// Everything that runs dies at this moment.
    Blackout,
    /// DynamoDB reports a conflict with another transaction.
    Conflict,
    /// The connection is refused, and so is every repeat for as long as the
    /// calling invocation lasts: retries don't help.
    Outage,
    /// DynamoDB reports a conflict, and so it does to every repeat for as long
    /// as the calling invocation lasts: others are always faster.
    Contention,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Refused,
        Self::ReplyLost,
        Self::Silence,
        Self::Twice,
        Self::Late,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::Blackout,
        Self::Conflict,
        Self::Outage,
        Self::Contention,
    ];

    /// Whether it strikes every repeat of the call, too, while the calling
    /// invocation lasts.
    pub fn lasts(self) -> bool {
        matches!(self, Self::Outage | Self::Contention)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let fault = Self::ALL.into_iter().find(|fault| fault.to_string() == name);
        fault.ok_or_else(|| format!("{name} is no fault"))
    }
}

/// What a call does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It only reads.
    Read,
    /// It reads what somebody else's transaction may have in hand.
    SettledRead,
    /// It changes something.
    Change,
    /// It changes a table, and may meet somebody else's transaction.
    Write,
}

/// A call that was made: a place where something can go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Who calls whom, and what for.
    pub label: String,
    /// What it does.
    pub effect: Effect,
}

impl Point {
    /// The faults that make a difference here. A read that is repeated, or
    /// comes late, changes nothing; a lost answer of a read is as good as none.
    pub fn faults(&self) -> &'static [Fault] {
        use Fault::*;
        match self.effect {
            Effect::Read => &[Refused, Silence, CrashBefore, Blackout, Outage],
            Effect::SettledRead => &[Refused, Silence, CrashBefore, Blackout, Conflict, Outage, Contention],
            Effect::Change => &[Refused, ReplyLost, Silence, Twice, Late, CrashBefore, CrashAfter, Blackout, Outage],
            Effect::Write => &Fault::ALL,
        }
    }
}

/// Which calls of a run go wrong, by their number, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Script(BTreeMap<usize, Fault>);

impl Script {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// The same, and one more fault.
    #[must_use]
    pub fn and(&self, call: usize, fault: Fault) -> Self {
        let mut script = self.clone();
        script.0.insert(call, fault);
        script
    }

    /// What happens to the call of this number.
    pub fn at(&self, call: usize) -> Option<Fault> {
        self.0.get(&call).copied()
    }

    /// Whether nothing goes wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last call that goes wrong.
    pub fn last(&self) -> Option<usize> {
        self.0.keys().next_back().copied()
    }

    /// Its faults.
    pub fn faults(&self) -> impl Iterator<Item = (usize, Fault)> {
        self.0.iter().map(|(call, fault)| (*call, *fault))
    }
}

/// `12=ReplyLost,20=Silence`.
impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (call, fault)) in self.faults().enumerate() {
            write!(f, "{}{call}={fault}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut script = Self::none();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (call, fault) = part.split_once('=').ok_or_else(|| format!("{part}: not CALL=FAULT"))?;
            script = script.and(call.parse().map_err(|_| format!("{call}: no number"))?, fault.parse()?);
        }
        Ok(script)
    }
}
