//! Every fault at every point: no order is lost, charged twice, or left half
//! done.
//!
//! A *point* is a call that leaves a function. A *trial* plays a scenario in
//! which some points go wrong, lets recovery work, and checks every promise.

use std::{collections::BTreeSet, io::Write, sync::LazyLock, time::Instant};

use in_process_tests::{
    fault::Fault,
    scenario::{Plot, Scenario},
    trials::{Summary, Trial, play_all, summarise},
};
use mimalloc::MiMalloc;
use orders::{
    domain::OrderState,
    saga::steps::{PLACE_ORDER, Saga},
};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How many pairs, and how many triples, are played where not all are.
const SAMPLE: usize = 1000;

fn undisturbed() -> Vec<Trial> {
    Scenario::all().into_iter().map(Trial::undisturbed).collect()
}

/// The summary of runs that should have kept every promise, and that should
/// have tried what they claim to try.
#[track_caller]
fn expect_no_violation(what: &str, summary: &Summary) {
    say(&format!("{what}: {summary}"));
    assert!(summary.violations.is_empty(), "{what}: {summary}");
}

/// Past the test runner, which shows only what failing tests print: that
/// nothing was violated is worth reading, too.
fn say(what: &str) {
    writeln!(std::io::stderr(), "  {what}").expect("somewhere to write to");
}

/// Every scenario was played, every kind of fault happened, both ends were
/// reached, and an order went every way that it can.
#[track_caller]
fn expect_not_vacuous(summary: &Summary) {
    assert_eq!(summary.scenarios, Scenario::all().into_iter().collect());
    let happened: BTreeSet<_> = summary.faults.keys().copied().collect();
    assert_eq!(happened, BTreeSet::from(Fault::ALL));
    for end in [OrderState::Done, OrderState::Cancelled] {
        assert!(summary.ends.contains_key(&Some(end)), "{end} was never reached");
    }
    for way in Plot::ALL.map(|plot| plot.course().0.to_vec()) {
        assert!(summary.ways.contains(&way), "no order went {way:?}");
    }
}

/// Recovery went wrong, too: the sweep itself, and what it does.
#[track_caller]
fn expect_recovery_disturbed(summary: &Summary) {
    for call in ["Query OrdersTable", "POST payments capture", "POST payments cancel", "sqs"] {
        let point = format!("order-worker → {call}");
        assert!(summary.points.contains(&point), "nothing went wrong at {point}: {:?}", summary.points);
    }
}

/// A number from the environment.
fn setting(name: &str, default: usize) -> usize {
    let text = std::env::var(name).ok().filter(|text| text != "all");
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: no number")))
}

/// All single faults; then pairs, and triples: a sample of them, drawn with
/// `HOLDFAST_SEED`, or all pairs if `HOLDFAST_PAIRS` is `all`.
///
/// One test, since each stage draws on the runs of the one before: which
/// second fault can occur depends on what the first one changed.
#[test]
fn every_fault_at_every_point_alone_and_together_leaves_every_promise_kept() {
    let seed = setting("HOLDFAST_SEED", 1) as u64;
    let mut chance = fastrand::Rng::with_seed(seed);

    let (summary, plain) = play_all(undisturbed());
    expect_no_violation("no fault", &summary);

    let singles = plain.iter().flat_map(|(trial, report)| trial.extensions(report)).collect();
    let (summary, singles) = play_all(singles);
    expect_no_violation("single faults", &summary);
    expect_not_vacuous(&summary);

    let mut pairs: Vec<_> = singles.iter().flat_map(|(trial, report)| trial.extensions(report)).collect();
    let possible = pairs.len();
    chance.shuffle(&mut pairs);
    if std::env::var("HOLDFAST_PAIRS").as_deref() == Ok("all") {
        let began = Instant::now();
        let progress = |so_far: &Summary| {
            let (played, broken) = (so_far.runs, so_far.violations.len());
            say(&format!("{played} of {possible} pairs, {broken} violations, {} s", began.elapsed().as_secs()));
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
    expect_recovery_disturbed(&summary);

    let triples = (0..setting("HOLDFAST_TRIPLES", SAMPLE)).filter_map(|_| {
        let (trial, report) = &pairs[chance.usize(..pairs.len())];
        chance.choice(trial.extensions(report))
    });
    let triples: Vec<_> = triples.collect();
    let what = format!("triples ({}, seed {seed})", triples.len());
    let (summary, _) = play_all(triples);
    expect_no_violation(&what, &summary);
    expect_not_vacuous(&summary);
}

/// Whoever adds a step adds a line to the table, and nothing here.
#[test]
fn a_step_that_is_added_to_the_table_goes_wrong_in_every_way_without_being_told() {
    static WITH_ONE_MORE: LazyLock<Saga> = LazyLock::new(|| Saga {
        version: PLACE_ORDER.version + 1,
        before_the_pivot: PLACE_ORDER.before_the_pivot,
        after_the_pivot: [&[&PLACE_ORDER.before_the_pivot[0][..1]], PLACE_ORDER.after_the_pivot].concat().leak(),
        after_compensation: PLACE_ORDER.after_compensation,
    });
    static SAGAS: LazyLock<[&Saga; 2]> = LazyLock::new(|| [&PLACE_ORDER, &WITH_ONE_MORE]);
    let added = "order-worker → POST users validate";
    let trial = Trial::undisturbed(Scenario { plot: Plot::Confirmed, lines: 1 });
    let play = |trial: &Trial| trial.play_with(&*SAGAS);
    assert!(!trial.play().points.iter().any(|point| point.label == added));
    let report = play(&trial);
    assert_eq!(report.violations, Vec::<String>::new());
    let mut tried = BTreeSet::new();
    for trial in trial.extensions(&report) {
        let report = play(&trial);
        assert_eq!(report.violations, Vec::<String>::new(), "{trial}");
        tried.extend(
            trial.script.faults().filter(|(call, _)| report.points[*call].label == added).map(|(_, fault)| fault),
        );
    }
    assert_eq!(tried.len(), 9, "{tried:?}");
}

/// Plays the one trial that `HOLDFAST_TRIAL` names, and shows its points.
#[test]
fn one_trial_can_be_played_again() {
    let trial = std::env::var("HOLDFAST_TRIAL").unwrap_or_else(|_| "Confirmed/1:".into());
    let trial: Trial = trial.parse().unwrap();
    let report = trial.play();
    for (call, point) in report.points.iter().enumerate() {
        println!("{call:3} {} {}", point.label, trial.script.at(call).map_or(String::new(), |fault| fault.to_string()));
    }
    println!("{:?}", report.states);
    assert!(report.violations.is_empty(), "{:?}", report.violations);
}
