//! Deploys a stack for the tests. It has its own emulator, so the tests do not disturb
//! the stack of `make up`.

use std::{
    path::PathBuf,
    process, thread,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    catalogue::add_products,
    demo_users::{Passwords, create_users},
    emulator::{Emulator, Lifetime},
    emulator_deployment::deploy,
    function_build::build_for_own_emulator,
    local_servers::LocalServers,
    ports::{free_port, local_url},
    prelude::*,
    template_parameters::Parameters,
};

/// The folder of the test stack, and the emulator that keeps its files there.
pub struct TestFolder {
    folder: PathBuf,
    emulator: Emulator,
}

/// The deployed test stack, and how long its build and its deployment took. Dropping
/// this value stops the emulator and the local servers, and so do SIGINT, SIGTERM and
/// SIGHUP.
pub struct TestStack {
    pub stack: Stack,
    pub folder: PathBuf,
    pub build: Duration,
    pub deployment: Duration,
    running: Running,
}

impl TestFolder {
    pub fn of(project: &Project) -> Self {
        let folder = project.local().join("test");
        Self { emulator: Emulator::in_folder(folder.clone()), folder }
    }

    /// Stops the emulator of a test run that was killed. If a test run still uses the
    /// emulator, the emulator is not stopped. Returns whether an emulator was stopped.
    pub fn stop_abandoned_emulator(&self) -> Result<bool> {
        Ok(!self.emulator.has_living_owner() && self.emulator.stop()?)
    }

    /// Prepares the folder for a test run. Fails if another test run uses the folder.
    pub fn claim(self) -> Result<Self> {
        ensure!(!self.emulator.has_living_owner(), "another test run is using the test stack");
        self.emulator.stop()?;
        create_folder(&self.folder)?;
        Ok(self)
    }

    pub fn deploy(self, tools: &Tools) -> Result<TestStack> {
        let Self { folder, emulator } = self;
        let began = Instant::now();
        let template = build_for_own_emulator(tools)?;
        let build = began.elapsed();

        let began = Instant::now();
        let running = Running { emulator, local_servers: LocalServers::default() };
        running.stop_at_signal()?;
        let port = free_port()?;
        running.emulator.start(tools, port, Lifetime::Task)?;
        let stack = deploy(tools, &local_url(port), &template, &Parameters::new())
            .and_then(|stack| stack.write(&folder).map(|()| stack))
            .map_err(|error| running.emulator.explain(error))?;
        Ok(TestStack { stack, folder, build, deployment: began.elapsed(), running })
    }
}

impl TestStack {
    /// Creates the demo's users and products.
    pub fn add_users_and_products(&self) -> Result<Passwords> {
        let passwords = create_users(&self.stack, &self.folder)?;
        add_products(&self.stack, &passwords)?;
        Ok(passwords)
    }

    /// Starts the local servers. Returns `false` if no Docker engine can run `sam local`.
    pub fn start_local_servers(&self, tools: &Tools) -> Result<bool> {
        self.running.local_servers.start(tools, &self.stack, &self.folder)
    }

    /// Runs the tests `names` against the stack. `--workspace` makes Cargo reuse the
    /// libraries that are compiled for the other tests and for `cargo lambda watch`. With
    /// `--package`, Cargo would select fewer features and compile the libraries again.
    pub fn test(&self, tools: &Tools, names: &[String], configure: impl FnOnce(Cmd<'_>) -> Cmd<'_>) -> Result<()> {
        let names = names.iter().flat_map(|name| ["--test", name]);
        let tests = cmd!(tools, "cargo test --workspace {names...}")
            .env("HOLDFAST_STACK", self.folder.join("stack.json"))
            .envs(self.running.local_servers.variables());
        show(configure(tests)).map_err(|error| self.running.emulator.explain(error))
    }
}

/// The processes that run for the tests. Dropping this value stops them.
#[derive(Clone)]
struct Running {
    emulator: Emulator,
    local_servers: LocalServers,
}

impl Running {
    fn stop_at_signal(&self) -> Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals cannot be watched")?;
        let running = self.clone();
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                drop(running);
                process::exit(128 + signal);
            }
        });
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.local_servers.stop() {
            complain!("the servers that the tests had started could not be stopped: {error:#}");
        }
        if let Err(error) = self.emulator.stop() {
            complain!("the tests' emulator could not be stopped: {error:#}");
        }
    }
}
