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
    complain, contract,
    demo::stock_the_shop,
    deploy::deploy,
    emulator::{Emulator, Lifetime, free_port, local_url},
    functions,
    parameters::Parameters,
    people::{self, Passwords},
    process::show,
    progress::{Step, seconds},
    project::Project,
    say,
    stack::Stack,
    tools::Tools,
    ways::{SamLocal, Ways},
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
    say!(
        "▸ So far: tests without an emulator {}, functions {}, a stack for the tests {}",
        seconds(in_process),
        seconds(stack.build),
        seconds(stack.deployment)
    );
    contract::test(project, &ground.tools, &stack.deployed, &stack.furnish(&ground)?, &ground.folder)?;
    let sam_local = stack.kept.ways.start(&ground.tools, &stack.deployed, &ground.folder)?;
    say!("▸ Tests on the stack");
    let mut tests = ground.stack_tests(&all_stack_tests(project)?);
    stack.kept.ways.tell(&mut tests);
    if sam_local == SamLocal::IsMissing {
        tests.args(["--", "--skip", "sam_local"]);
    }
    stack.test(&mut tests)
}

/// The names of the tests that need a deployed stack.
fn all_stack_tests(project: &Project) -> Result<Vec<String>> {
    let folder = project.root().join("tests/stack/tests");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
    }
    names.sort();
    ensure!(!names.is_empty(), "{} has no tests", folder.display());
    Ok(names)
}

/// `make chaos`: hundreds of orders while functions are killed.
pub fn chaos(project: &Project) -> Result<()> {
    let ground = Ground::clear(project)?;
    let stack = ground.deploy()?;
    say!("▸ Chaos: orders, kills and duplicates for a minute or two, then recovery");
    let mut tests = ground.stack_tests(&["chaos".to_owned()]);
    tests.args(["--", "--nocapture"]).env("HOLDFAST_CHAOS", "long");
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
        let kept = StoppedAtTheEnd::new(self.emulator.clone())?;
        let port = free_port()?;
        self.emulator.start(&self.tools, port, Lifetime::Task)?;
        let deployed = deploy(&self.tools, &local_url(port), &Parameters::new())
            .and_then(|stack| stack.write(&self.folder).map(|()| stack));
        let deployed = deployed.map_err(|error| self.emulator.explain(error))?;
        Ok(OwnStack { deployed, kept, build, deployment: began.elapsed() })
    }

    /// Of the whole workspace, although all are of one package: so Cargo takes
    /// the libraries that the other tests, and `cargo lambda watch`, have had
    /// compiled. Alone, the package would want them with fewer features.
    fn stack_tests(&self, names: &[String]) -> Command {
        let mut tests = self.tools.cargo();
        tests.args(["test", "--workspace"]).env("HOLDFAST_STACK", self.folder.join("stack.json"));
        for name in names {
            tests.args(["--test", name]);
        }
        tests
    }
}

/// What has been deployed for the tests, and how long that took.
struct OwnStack {
    deployed: Stack,
    kept: StoppedAtTheEnd,
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
        show(tests).map_err(|error| self.kept.emulator.explain(error))
    }
}

fn in_process(tools: &Tools) -> Result<Duration> {
    let step = Step::begin("Tests without an emulator");
    show(tools.cargo().args(["test", "--workspace", "--exclude", STACK_TESTS]))?;
    Ok(step.done("passed"))
}

/// Stops what was started for the tests however they end: well, badly, or by a
/// signal.
struct StoppedAtTheEnd {
    emulator: Emulator,
    ways: Ways,
}

impl StoppedAtTheEnd {
    fn new(emulator: Emulator) -> Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals cannot be watched")?;
        let ways = Ways::default();
        let same = (emulator.clone(), ways.clone());
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                stop(&same.0, &same.1);
                process::exit(128 + signal);
            }
        });
        Ok(Self { emulator, ways })
    }
}

impl Drop for StoppedAtTheEnd {
    fn drop(&mut self) {
        stop(&self.emulator, &self.ways);
    }
}

fn stop(emulator: &Emulator, ways: &Ways) {
    if let Err(error) = ways.stop() {
        complain!("what the tests had started could not be stopped: {error:#}");
    }
    if let Err(error) = emulator.stop() {
        complain!("the tests' emulator could not be stopped: {error:#}");
    }
}
