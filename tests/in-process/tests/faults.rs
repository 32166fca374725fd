//! The fault harness. It tests that, whichever fault occurs at whichever call,
//! no order is lost, charged twice, or left unfinished.
//!
//! - A **fault point** is a call that a function makes: to DynamoDB, the queue,
//!   SES, SNS, or another service.
//! - A **fault** is one way in which a call can fail: for example, its connection
//!   is refused, its response is lost, or its caller crashes. [`FaultKind`] lists
//!   all faults.
//! - A **scenario** is what happens to one customer's order: for example, it is
//!   confirmed, the card is declined, or the customer cancels. [`ScenarioKind`]
//!   lists all scenarios.
//! - A **trial** plays a scenario with a plan of faults (none, one or several),
//!   lets the system recover, and checks every guarantee
//!   ([`in_process_tests::scenario`] lists the steps and the checks).
//!
//! The first test below plays all trials without a fault and with one fault,
//! and samples of the trials with two and with three faults. Each violation is
//! printed with the command that plays its trial again.

use std::{collections::BTreeSet, io::Write, sync::LazyLock, time::Instant};

use in_process_tests::{
    fault::FaultKind,
    scenario::{Scenario, ScenarioKind},
    trials::{Summary, Trial, play_all, summarise},
};
use mimalloc::MiMalloc;
use orders::{
    domain::OrderState,
    saga::steps::{PLACE_ORDER, Saga},
};
use strum::VariantArray;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The default number of trials with two faults (pairs) in a sample, and of
/// trials with three faults (triples).
const SAMPLE: usize = 1000;

fn trials_without_faults() -> Vec<Trial> {
    Scenario::all().into_iter().map(Trial::without_faults).collect()
}

/// Prints the summary, and asserts that every guarantee held in every trial.
#[track_caller]
fn expect_no_violation(what: &str, summary: &Summary) {
    print_progress(&format!("{what}: {summary}"));
    assert!(summary.violations.is_empty(), "{what}: {summary}");
}

/// Prints to standard error directly. The test runner shows the output of
/// `println!` only for failing tests, but the numbers of trials matter for
/// passing tests, too.
fn print_progress(what: &str) {
    writeln!(std::io::stderr(), "  {what}").expect("standard error can be written to");
}

/// Asserts that every scenario was played, that every kind of fault occurred,
/// that both final states were reached, and that every expected sequence of
/// states occurred.
#[track_caller]
fn expect_not_vacuous(summary: &Summary) {
    assert_eq!(summary.scenarios, Scenario::all().into_iter().collect());
    let occurred: BTreeSet<_> = summary.faults.keys().copied().collect();
    assert_eq!(occurred, FaultKind::VARIANTS.iter().copied().collect());
    for state in [OrderState::Done, OrderState::Cancelled] {
        assert!(summary.final_states.contains_key(&Some(state)), "{state} was never reached");
    }
    for path in ScenarioKind::VARIANTS.iter().map(|kind| kind.expected().states.to_vec()) {
        assert!(summary.paths.contains(&path), "no order had the states {path:?}");
    }
}

/// Asserts that faults also occurred during recovery: in the sweep's query, and
/// in the calls that the worker makes.
#[track_caller]
fn expect_faults_in_recovery(summary: &Summary) {
    for call in ["Query OrdersTable", "POST payments capture", "POST payments cancel", "sqs"] {
        let point = format!("order-worker → {call}");
        assert!(summary.points.contains(&point), "no fault occurred at {point}: {:?}", summary.points);
    }
}

/// The number in an environment variable; `default` if the variable is not set
/// or its value is `all`.
fn setting(name: &str, default: usize) -> usize {
    let text = std::env::var(name).ok().filter(|text| text != "all");
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// Plays all trials without a fault and with one fault, then a sample of the
/// trials with two faults and a sample of the trials with three faults.
/// `HOLDFAST_SEED` seeds the samples. With `HOLDFAST_PAIRS=all`, all trials
/// with two faults are played.
///
/// This is one test, because the trials with one more fault are generated from
/// the reports of the trials before them: each fault changes which calls are
/// made afterwards.
#[test]
fn every_fault_at_every_point_alone_and_combined_leaves_every_guarantee_intact() {
    let seed = setting("HOLDFAST_SEED", 1) as u64;
    let mut random = fastrand::Rng::with_seed(seed);

    let (summary, plain) = play_all(trials_without_faults());
    expect_no_violation("no fault", &summary);

    let singles = plain.iter().flat_map(|(trial, report)| trial.with_one_more_fault(report)).collect();
    let (summary, singles) = play_all(singles);
    expect_no_violation("single faults", &summary);
    expect_not_vacuous(&summary);

    let mut pairs: Vec<_> = singles.iter().flat_map(|(trial, report)| trial.with_one_more_fault(report)).collect();
    let possible = pairs.len();
    random.shuffle(&mut pairs);
    if std::env::var("HOLDFAST_PAIRS").as_deref() == Ok("all") {
        let began = Instant::now();
        let progress = |so_far: &Summary| {
            let (played, broken) = (so_far.runs, so_far.violations.len());
            print_progress(&format!(
                "{played} of {possible} pairs, {broken} violations, {} s",
                began.elapsed().as_secs()
            ));
        };
        let summary = summarise(&pairs, progress);
        expect_no_violation(&format!("all {possible} pairs"), &summary);
        assert_eq!(summary.runs, possible);
    }
    pairs.truncate(setting("HOLDFAST_PAIRS", SAMPLE));
    let what = format!("pairs ({} of {possible}, seed {seed})", pairs.len());
    let (summary, pairs) = play_all(pairs);
    expect_no_violation(&what, &summary);
    expect_not_vacuous(&summary);
    expect_faults_in_recovery(&summary);

    let triples = (0..setting("HOLDFAST_TRIPLES", SAMPLE)).filter_map(|_| {
        let (trial, report) = &pairs[random.usize(..pairs.len())];
        random.choice(trial.with_one_more_fault(report))
    });
    let triples: Vec<_> = triples.collect();
    let what = format!("triples ({}, seed {seed})", triples.len());
    let (summary, _) = play_all(triples);
    expect_no_violation(&what, &summary);
    expect_not_vacuous(&summary);
}

/// To add a step, a developer changes only the table of saga steps, and nothing
/// in the harness.
#[test]
fn a_step_that_is_added_to_the_table_meets_all_faults_without_a_change_to_the_harness() {
    static WITH_ONE_MORE: LazyLock<Saga> = LazyLock::new(|| Saga {
        version: PLACE_ORDER.version + 1,
        before_the_pivot: PLACE_ORDER.before_the_pivot,
        after_the_pivot: [&[&PLACE_ORDER.before_the_pivot[0][..1]], PLACE_ORDER.after_the_pivot].concat().leak(),
        after_compensation: PLACE_ORDER.after_compensation,
    });
    static SAGAS: LazyLock<[&Saga; 2]> = LazyLock::new(|| [&PLACE_ORDER, &WITH_ONE_MORE]);
    let added = "order-worker → POST users validate";
    let trial = Trial::without_faults(Scenario { kind: ScenarioKind::Confirmed, lines: 1 });
    let play = |trial: &Trial| trial.play_with(&*SAGAS);
    assert!(!trial.play().points.iter().any(|point| point.label == added));
    let report = play(&trial);
    assert_eq!(report.violations, Vec::<String>::new());
    let mut injected = BTreeSet::new();
    for trial in trial.with_one_more_fault(&report) {
        let report = play(&trial);
        assert_eq!(report.violations, Vec::<String>::new(), "{trial}");
        injected.extend(
            trial.plan.faults().filter(|(call, _)| report.points[*call].label == added).map(|(_, fault)| fault),
        );
    }
    assert_eq!(injected.len(), 9, "{injected:?}");
}

/// Plays the trial that `HOLDFAST_TRIAL` names, and prints its fault points.
#[test]
fn one_trial_can_be_played_again() {
    let trial = std::env::var("HOLDFAST_TRIAL").unwrap_or_else(|_| "Confirmed/1:".into());
    let trial: Trial = trial.parse().unwrap();
    let report = trial.play();
    for (call, point) in report.points.iter().enumerate() {
        println!("{call:3} {} {}", point.label, trial.plan.at(call).map_or(String::new(), |fault| fault.to_string()));
    }
    println!("{:?}", report.states);
    assert!(report.violations.is_empty(), "{:?}", report.violations);
}
