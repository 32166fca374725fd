//! Many runs: every fault at every point, alone and together.

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
    fault::{Fault, Script},
    scenario::{Report, Scenario, play},
};

/// How many runs may go wrong before the rest are left out.
const SHOWN: usize = 20;
/// After how many runs progress is told.
const PROGRESS: usize = 10_000;

/// One run that is to be made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trial {
    /// What the customer does.
    pub scenario: Scenario,
    /// What goes wrong.
    pub script: Script,
}

/// `Confirmed/1:12=ReplyLost`, as [`Trial::from_str`] reads it.
impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scenario, self.script)
    }
}

impl std::str::FromStr for Trial {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scenario, script) = text.split_once(':').ok_or("SCENARIO:CALL=FAULT,…")?;
        Ok(Self { scenario: scenario.parse()?, script: script.parse()? })
    }
}

impl Trial {
    /// The scenario without any fault.
    pub fn undisturbed(scenario: Scenario) -> Self {
        Self { scenario, script: Script::none() }
    }

    /// Plays it, on a clock of its own.
    pub fn play(&self) -> Report {
        self.play_with(SAGAS)
    }

    /// As [`Trial::play`], with other step tables.
    pub fn play_with(&self, sagas: &'static [&'static Saga]) -> Report {
        // What is left to chance (jitter) is the same each time, so that a
        // run can be played again.
        fastrand::seed(7);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let played =
            panic::catch_unwind(panic::AssertUnwindSafe(|| runtime.block_on(play(self.scenario, &self.script, sagas))));
        played.unwrap_or_else(|_| Report { violations: vec!["panicked".into()], ..Report::default() })
    }

    /// The same with one more fault, later than all others: each that can
    /// occur in the run that `report` tells of.
    pub fn extensions(&self, report: &Report) -> Vec<Self> {
        let first = self.script.last().map_or(0, |last| last + 1);
        let later = report.points.iter().enumerate().skip(first);
        later
            .flat_map(|(call, point)| point.faults().iter().map(move |fault| (call, *fault)))
            .map(|(call, fault)| Self { scenario: self.scenario, script: self.script.and(call, fault) })
            .collect()
    }
}

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// How many runs were made.
    pub runs: usize,
    /// Of which scenarios.
    pub scenarios: BTreeSet<Scenario>,
    /// The points at which something went wrong, by their label.
    pub points: BTreeSet<String>,
    /// How often each fault occurred.
    pub faults: BTreeMap<Fault, usize>,
    /// In how many runs an order ended in each state.
    pub ends: BTreeMap<Option<OrderState>, usize>,
    /// The different ways that orders went.
    pub ways: BTreeSet<Vec<OrderState>>,
    /// The runs that broke a promise, and which.
    pub violations: Vec<(Trial, String)>,
}

impl Summary {
    fn add(&mut self, trial: &Trial, report: &Report) {
        self.runs += 1;
        self.scenarios.insert(trial.scenario);
        for (call, fault) in trial.script.faults() {
            if let Some(point) = report.points.get(call) {
                self.points.insert(point.label.clone());
                *self.faults.entry(fault).or_default() += 1;
            }
        }
        *self.ends.entry(report.end).or_default() += 1;
        self.ways.insert(report.states.clone());
        self.violations.extend(report.violations.iter().map(|violation| (trial.clone(), violation.clone())));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |state: &Option<OrderState>| state.map_or("no order", OrderState::name);
        writeln!(
            f,
            "{} runs, {} different points, {} violations",
            self.runs,
            self.points.len(),
            self.violations.len()
        )?;
        let faults: Vec<_> = self.faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
        writeln!(f, "  faults: {}", faults.join(", "))?;
        let ends: Vec<_> = self.ends.iter().map(|(end, count)| format!("{} {count}", named(end))).collect();
        writeln!(f, "  ends: {}", ends.join(", "))?;
        write!(f, "  different ways through the states: {}", self.ways.len())?;
        for (trial, violation) in self.violations.iter().take(SHOWN) {
            write!(
                f,
                "\n  VIOLATION {trial}\n    {violation}\n    again: HOLDFAST_TRIAL='{trial}' cargo test -p in-process-tests --test faults one_trial -- --nocapture"
            )?;
        }
        Ok(())
    }
}

/// Plays all `trials`, on as many threads as there are cores, and lets `seen`
/// look at each. Stops early when many have gone wrong: one broken rule breaks
/// thousands of runs, and a person reads a few.
fn play_each(trials: &[Trial], seen: impl Fn(&Trial, Report) + Sync) {
    let (next, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = trial.play();
                    if !report.violations.is_empty() && wrong.fetch_add(1, Ordering::Relaxed) + 1 >= SHOWN {
                        next.store(trials.len(), Ordering::Relaxed);
                    }
                    seen(trial, report);
                }
            });
        }
    });
}

/// Plays all `trials`. Returns the summary alone, which is what fits into
/// memory when there are hundreds of thousands; `at` is told now and then how
/// far it is.
pub fn summarise(trials: &[Trial], at: impl Fn(&Summary) + Sync) -> Summary {
    let summary = Mutex::new(Summary::default());
    play_each(trials, |trial, report| {
        let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
        summary.add(trial, &report);
        if summary.runs.is_multiple_of(PROGRESS) {
            at(&summary);
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
