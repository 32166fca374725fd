//! Every fault at every point: no order is lost, charged twice, or left half
//! done.
//!
//! A *point* is a call that leaves a function. A *trial* plays a scenario in
//! which some points go wrong, lets recovery work, and checks every promise.

use std::collections::BTreeSet;

use in_process_tests::{
    fault::Fault,
    scenario::Scenario,
    trials::{Summary, Trial, play_all},
};
use orders::domain::OrderState;

fn undisturbed() -> Vec<Trial> {
    Scenario::all().into_iter().map(Trial::undisturbed).collect()
}

/// The summary of runs that should have kept every promise, and that should
/// have tried what they claim to try.
#[track_caller]
fn expect_no_violation(what: &str, summary: &Summary) {
    println!("{what}: {summary}");
    assert!(summary.violations.is_empty(), "{what}: {summary}");
}

#[test]
fn every_single_fault_at_every_point_leaves_every_promise_kept() {
    let (summary, plain) = play_all(undisturbed());
    expect_no_violation("no fault", &summary);
    let trials = plain.iter().flat_map(|(trial, report)| trial.extensions(report)).collect();
    let (summary, _) = play_all(trials);
    expect_no_violation("single faults", &summary);

    // Not vacuous: every kind of fault happened, and both ends were reached.
    let happened: BTreeSet<_> = summary.faults.keys().copied().collect();
    assert_eq!(happened, BTreeSet::from(Fault::ALL));
    for end in [OrderState::Done, OrderState::Cancelled] {
        assert!(summary.ends.contains_key(&Some(end)), "{end} was never reached");
    }
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
