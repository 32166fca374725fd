//! `make test`: everything that proves the project.

use std::{
    fs, process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    deploy::deploy,
    emulator::{Emulator, Lifetime, free_port},
    functions,
    process::show,
    progress::{Step, seconds},
    project::Project,
    tools::Tools,
};

/// The crate of the tests that need a deployed stack.
const STACK_TESTS: &str = "stack-tests";

/// What needs no emulator.
pub fn without_emulator(project: &Project) -> Result<()> {
    let tools = Tools::install(project)?;
    in_process(&tools)?;
    Ok(())
}

/// Every pair of faults in every scenario, which takes too long for each day.
pub fn every_pair_of_faults(project: &Project) -> Result<()> {
    let tools = Tools::install(project)?;
    let mut tests = tools.cargo();
    tests.args(["test", "--profile", "faults", "--package", "in-process-tests", "--test", "faults"]);
    tests.arg("every_fault").env("HOLDFAST_PAIRS", "all");
    show(&mut tests)
}

/// All of it, on a stack of its own: whatever `make up` has running is neither
/// used nor disturbed.
pub fn all(project: &Project) -> Result<()> {
    let folder = project.local().join("test");
    let emulator = Emulator::in_folder(folder.clone());
    ensure!(!emulator.is_attended(), "the tests run already, in another window");
    // What a run that was killed has left.
    emulator.stop()?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;

    let tools = Tools::install(project)?;
    let in_process = in_process(&tools)?;

    let began = Instant::now();
    functions::build(&tools)?;
    let build = began.elapsed();

    let began = Instant::now();
    let emulator = StoppedAtTheEnd::new(emulator)?;
    let port = free_port()?;
    emulator.0.start(&tools, port, Lifetime::Task)?;
    deploy(&tools, port).and_then(|stack| stack.write(&folder)).map_err(|error| emulator.0.explain(error))?;
    let stack = began.elapsed();

    println!(
        "▸ So far: tests without an emulator {}, functions {}, a stack for the tests {}",
        seconds(in_process),
        seconds(build),
        seconds(stack)
    );
    println!("▸ Tests on the stack");
    // Cargo's own summary comes last, so that nobody has to look for it.
    let mut tests = tools.cargo();
    tests.args(["test", "--package", STACK_TESTS]).env("HOLDFAST_STACK", folder.join("stack.json"));
    show(&mut tests).map_err(|error| emulator.0.explain(error))
}

fn in_process(tools: &Tools) -> Result<Duration> {
    let step = Step::begin("Tests without an emulator");
    show(tools.cargo().args(["test", "--workspace", "--exclude", STACK_TESTS]))?;
    Ok(step.done("passed"))
}

/// Stops its emulator however the tests end: well, badly, or by a signal.
struct StoppedAtTheEnd(Emulator);

impl StoppedAtTheEnd {
    fn new(emulator: Emulator) -> Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals cannot be watched")?;
        let same = emulator.clone();
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                stop(&same);
                process::exit(128 + signal);
            }
        });
        Ok(Self(emulator))
    }
}

impl Drop for StoppedAtTheEnd {
    fn drop(&mut self) {
        stop(&self.0);
    }
}

fn stop(emulator: &Emulator) {
    if let Err(error) = emulator.stop() {
        eprintln!("the tests' emulator could not be stopped: {error:#}");
    }
}
