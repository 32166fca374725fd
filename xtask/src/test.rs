//! `make test`: everything that proves the project.

use std::{
    fs,
    path::PathBuf,
    process::{self, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    contract,
    demo::stock_the_shop,
    deploy::deploy,
    emulator::{Emulator, Lifetime, free_port},
    functions,
    people::{self, Passwords},
    process::show,
    progress::{Step, seconds},
    project::Project,
    stack::Stack,
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

/// All of it.
pub fn all(project: &Project) -> Result<()> {
    let ground = Ground::clear(project)?;
    let in_process = in_process(&ground.tools)?;
    let stack = ground.deploy()?;
    println!(
        "▸ So far: tests without an emulator {}, functions {}, a stack for the tests {}",
        seconds(in_process),
        seconds(stack.build),
        seconds(stack.deployment)
    );
    contract::test(project, &ground.tools, &stack.deployed, &stack.furnish(&ground)?)?;
    println!("▸ Tests on the stack");
    stack.test(&mut ground.stack_tests())
}

/// `make chaos`: hundreds of orders while functions are killed.
pub fn chaos(project: &Project) -> Result<()> {
    let ground = Ground::clear(project)?;
    let stack = ground.deploy()?;
    println!("▸ Chaos: orders, kills and duplicates for a minute or two, then recovery");
    let mut tests = ground.stack_tests();
    tests.args(["--test", "chaos", "--", "--nocapture"]).env("HOLDFAST_CHAOS", "long");
    stack.test(&mut tests)
}

/// Where the tests have a stack of their own: whatever `make up` has running is
/// neither used nor disturbed.
struct Ground {
    tools: Tools,
    folder: PathBuf,
    emulator: Emulator,
}

impl Ground {
    /// Without what a run that was killed has left.
    fn clear(project: &Project) -> Result<Self> {
        let folder = project.local().join("test");
        let emulator = Emulator::in_folder(folder.clone());
        ensure!(!emulator.is_attended(), "the tests run already, in another window");
        emulator.stop()?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { tools: Tools::install(project)?, folder, emulator })
    }

    fn deploy(&self) -> Result<OwnStack> {
        let began = Instant::now();
        functions::build(&self.tools)?;
        let build = began.elapsed();

        let began = Instant::now();
        let emulator = StoppedAtTheEnd::new(self.emulator.clone())?;
        let port = free_port()?;
        self.emulator.start(&self.tools, port, Lifetime::Task)?;
        let deployed =
            deploy(&self.tools, &Emulator::url(port)).and_then(|stack| stack.write(&self.folder).map(|()| stack));
        let deployed = deployed.map_err(|error| self.emulator.explain(error))?;
        Ok(OwnStack { deployed, emulator, build, deployment: began.elapsed() })
    }

    fn stack_tests(&self) -> Command {
        let mut tests = self.tools.cargo();
        tests.args(["test", "--package", STACK_TESTS]).env("HOLDFAST_STACK", self.folder.join("stack.json"));
        tests
    }
}

/// What has been deployed for the tests, and how long that took.
struct OwnStack {
    deployed: Stack,
    emulator: StoppedAtTheEnd,
    build: Duration,
    deployment: Duration,
}

impl OwnStack {
    /// People who can sign in, and something for sale.
    fn furnish(&self, ground: &Ground) -> Result<Passwords> {
        let passwords = people::welcome(&ground.tools, &self.deployed, &ground.folder)?;
        stock_the_shop(&self.deployed, &passwords)?;
        Ok(passwords)
    }

    /// Cargo's own summary comes last, so that nobody has to look for it.
    fn test(&self, tests: &mut Command) -> Result<()> {
        show(tests).map_err(|error| self.emulator.0.explain(error))
    }
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
