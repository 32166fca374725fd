//! The other ways to run the shop, for the tests: started over the stack that
//! is deployed for them, each at a port that nobody uses.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{
    emulator::{free_port, local_url},
    process::line,
    progress::Step,
    sam_local, shop,
    stack::Stack,
    tools::Tools,
    watch,
};

const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// What has been started. A clone is the same.
#[derive(Clone, Default)]
pub struct Ways(Arc<Mutex<Vec<Way>>>);

struct Way {
    /// The variable in which the tests look for its address.
    variable: &'static str,
    url: String,
    child: Child,
}

/// Whether `sam local` can be tried here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SamLocal {
    Runs,
    IsMissing,
}

impl Ways {
    /// Starts what can be started, and waits until it answers.
    pub fn start(&self, tools: &Tools, stack: &Stack, folder: &Path) -> Result<SamLocal> {
        let step = Step::begin("cargo lambda watch");
        let port = free_port()?;
        let mut command = watch::prepare(tools, stack, &folder.join("watch.env"), port)?;
        // Nobody edits anything here; a test that writes a file has it start over.
        command.arg("--ignore-changes");
        self.open("HOLDFAST_WATCH_URL", &local_url(port), &mut command, folder.join("watch.log"))?;
        step.done("answers");

        let step = Step::begin("sam local start-api");
        if let Err(error) = sam_local::ensure_engine() {
            step.note(format!("NOT TRIED, and its tests are left out: {error:#}"));
            return Ok(SamLocal::IsMissing);
        }
        let port = free_port()?;
        let mut command = sam_local::prepare(tools, stack, &folder.join("sam-local.json"), port)?;
        self.open("HOLDFAST_SAM_LOCAL_URL", &local_url(port), &mut command, folder.join("sam-local.log"))?;
        step.done("answers");
        Ok(SamLocal::Runs)
    }

    fn open(&self, variable: &'static str, url: &str, command: &mut Command, log: PathBuf) -> Result<()> {
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let command = command.stdin(Stdio::null()).stdout(output.try_clone().context("cannot share the log")?);
        let child = command.stderr(output).process_group(0).spawn();
        let child = child.with_context(|| format!("cannot start `{}`", line(command)))?;
        self.lock().push(Way { variable, url: url.to_owned(), child });
        let address = url.to_owned();
        let opening = thread::spawn(move || shop::wait_until_open(&address));
        while !opening.is_finished() {
            let ended = self.lock().last_mut().and_then(|way| way.child.try_wait().ok().flatten());
            if let Some(status) = ended {
                bail!("`{}` ended at its start ({status}); see {}", line(command), log.display());
            }
            thread::sleep(Duration::from_millis(50));
        }
        let opened = opening.join().unwrap_or_else(|_| bail!("waiting for it failed"));
        opened.with_context(|| format!("`{}` does not answer; see {}", line(command), log.display()))
    }

    /// Tells the tests where they are.
    pub fn tell(&self, tests: &mut Command) {
        for way in self.lock().iter() {
            tests.env(way.variable, &way.url);
        }
    }

    /// Ends them all, with everything that they have started.
    pub fn stop(&self) -> Result<()> {
        self.lock().drain(..).try_for_each(Way::stop)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Way>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    fn stop(mut self) -> Result<()> {
        let Some(group) = Pid::from_raw(self.child.id().cast_signed()) else { return Ok(()) };
        // As if by Ctrl-C, at which both clear away what they have started.
        kill_process_group(group, Signal::INT).ok();
        let deadline = Instant::now() + ENDS_WITHIN;
        while self.child.try_wait().with_context(|| format!("lost sight of {}", self.url))?.is_none() {
            if Instant::now() > deadline {
                kill_process_group(group, Signal::KILL).ok();
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}
