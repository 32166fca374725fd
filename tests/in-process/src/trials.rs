//! Generates trials, plays the trials, and sums up their reports. A trial is a
//! scenario with a plan of faults.
//!
//! The trials with one fault are generated from the report of a trial without
//! faults: each call that was made in that trial is a fault point. The trials
//! with two faults are generated from the reports of the trials with one fault,
//! because the first fault changes which calls are made afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, panic,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use orders::{
    domain::OrderState,
    saga::steps::{SAGAS, Saga},
};

use crate::{
    fault::{FaultKind, FaultPlan},
    scenario::{Report, Scenario, play},
};

/// The number of trials with violations after which the remaining trials are
/// skipped, and the number of violations that a summary shows.
const SHOWN: usize = 20;
/// Progress is reported each time this number of trials has been played.
const PROGRESS: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trial {
    pub scenario: Scenario,
    pub plan: FaultPlan,
}

/// Writes the trial in the form `Confirmed/1:12=ResponseLost`, which
/// [`Trial::from_str`] reads.
impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scenario, self.plan)
    }
}

impl std::str::FromStr for Trial {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scenario, plan) = text.split_once(':').ok_or("a trial is SCENARIO:CALL=FAULT,…")?;
        Ok(Self { scenario: scenario.parse()?, plan: plan.parse()? })
    }
}

impl Trial {
    pub fn without_faults(scenario: Scenario) -> Self {
        Self { scenario, plan: FaultPlan::none() }
    }

    /// Plays the trial on a clock of its own.
    pub fn play(&self) -> Report {
        self.play_with(SAGAS)
    }

    /// Plays the trial with these tables of saga steps instead of the service's
    /// own.
    pub fn play_with(&self, sagas: &'static [&'static Saga]) -> Report {
        // With the same seed, random values such as jitter are the same in each
        // run. Therefore a trial takes the same course when it is played again.
        fastrand::seed(7);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let played =
            panic::catch_unwind(panic::AssertUnwindSafe(|| runtime.block_on(play(self.scenario, &self.plan, sagas))));
        played.unwrap_or_else(|_| Report { violations: vec!["panicked".into()], ..Report::default() })
    }

    /// All trials that have the faults of this trial and one more fault at a
    /// later call. `report` is the report of this trial, which lists the calls.
    pub fn with_one_more_fault(&self, report: &Report) -> Vec<Self> {
        let first = self.plan.last_call().map_or(0, |last| last + 1);
        let later = report.points.iter().enumerate().skip(first);
        later
            .flat_map(|(call, point)| point.faults().iter().map(move |fault| (call, *fault)))
            .map(|(call, fault)| Self { scenario: self.scenario, plan: self.plan.and(call, fault) })
            .collect()
    }
}

/// The results of many trials.
#[derive(Debug, Default)]
pub struct Summary {
    /// The number of trials that were played.
    pub runs: usize,
    pub scenarios: BTreeSet<Scenario>,
    /// The labels of the fault points at which a fault was injected.
    pub points: BTreeSet<String>,
    /// The number of injected faults of each kind.
    pub faults: BTreeMap<FaultKind, usize>,
    /// The number of trials whose order ended in each state. `None` stands for
    /// trials in which no order was stored.
    pub final_states: BTreeMap<Option<OrderState>, usize>,
    /// The different sequences of states that orders had.
    pub paths: BTreeSet<Vec<OrderState>>,
    pub violations: Vec<(Trial, String)>,
}

impl Summary {
    fn add(&mut self, trial: &Trial, report: &Report) {
        self.runs += 1;
        self.scenarios.insert(trial.scenario);
        for (call, fault) in trial.plan.faults() {
            if let Some(point) = report.points.get(call) {
                self.points.insert(point.label.clone());
                *self.faults.entry(fault).or_default() += 1;
            }
        }
        *self.final_states.entry(report.final_state).or_default() += 1;
        self.paths.insert(report.states.clone());
        self.violations.extend(report.violations.iter().map(|violation| (trial.clone(), violation.clone())));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |state: &Option<OrderState>| state.map_or("no order", OrderState::name);
        writeln!(
            f,
            "{} runs, {} different points, {} violations",
            self.runs,
            self.points.len(),
            self.violations.len()
        )?;
        let faults: Vec<_> = self.faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
        writeln!(f, "  faults: {}", faults.join(", "))?;
        let states: Vec<_> =
            self.final_states.iter().map(|(state, count)| format!("{} {count}", name(state))).collect();
        writeln!(f, "  final states: {}", states.join(", "))?;
        write!(f, "  different sequences of states: {}", self.paths.len())?;
        for (trial, violation) in self.violations.iter().take(SHOWN) {
            write!(
                f,
                "\n  VIOLATION {trial}\n    {violation}\n    again: HOLDFAST_TRIAL='{trial}' cargo test -p in-process-tests --test faults one_trial -- --nocapture"
            )?;
        }
        Ok(())
    }
}

/// Plays all `trials` on as many threads as there are cores, and calls `seen`
/// with each report. Stops after [`SHOWN`] trials with violations: one bug can
/// violate guarantees in thousands of trials, and a person reads only a few
/// reports.
fn play_each(trials: &[Trial], seen: impl Fn(&Trial, Report) + Sync) {
    let (next, violated) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = trial.play();
                    if !report.violations.is_empty() && violated.fetch_add(1, Ordering::Relaxed) + 1 >= SHOWN {
                        next.store(trials.len(), Ordering::Relaxed);
                    }
                    seen(trial, report);
                }
            });
        }
    });
}

/// Plays all `trials`. Returns only the summary, because the reports of
/// hundreds of thousands of trials do not fit into memory. Each time
/// [`PROGRESS`] trials have been played, calls `progress` with the summary so
/// far.
pub fn summarise(trials: &[Trial], progress: impl Fn(&Summary) + Sync) -> Summary {
    let summary = Mutex::new(Summary::default());
    play_each(trials, |trial, report| {
        let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
        summary.add(trial, &report);
        if summary.runs.is_multiple_of(PROGRESS) {
            progress(&summary);
        }
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Plays all `trials`. Returns the summary, and each trial with its report.
pub fn play_all(trials: Vec<Trial>) -> (Summary, Vec<(Trial, Report)>) {
    let reports = Mutex::new(Vec::with_capacity(trials.len()));
    play_each(&trials, |trial, report| {
        reports.lock().unwrap_or_else(PoisonError::into_inner).push((trial.clone(), report));
    });
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut summary = Summary::default();
    for (trial, report) in &reports {
        summary.add(trial, report);
    }
    (summary, reports)
}
