//! `cargo lambda watch` and `sam local start-api`, started for the tests over the
//! stack that is deployed for them, each on a free port.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    ports::{free_port, local_url},
    prelude::*,
    process_groups::end_group,
    service_health::wait_until_all_answer,
    tasks::{sam_local, watch},
};

const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// The servers that run. Clones share them.
#[derive(Clone, Default)]
pub struct LocalServers(Arc<Mutex<Vec<LocalServer>>>);

struct LocalServer {
    /// The variable in which the tests look for the address.
    variable: &'static str,
    url: String,
    child: Child,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SamLocal {
    Runs,
    /// No Docker engine can run it.
    IsMissing,
}

impl LocalServers {
    /// Starts the servers and waits until all services answer.
    pub fn start(&self, tools: &Tools, stack: &Stack, folder: &Path) -> Result<SamLocal> {
        let step = Step::begin("cargo lambda watch");
        let port = free_port()?;
        // A test that writes a file must not restart the functions.
        let command = watch::command(tools, stack, &folder.join("watch.env"), port)?.arg("--ignore-changes");
        self.start_one("HOLDFAST_WATCH_URL", &local_url(port), command, folder.join("watch.log"))?;
        step.done("answers");

        let step = Step::begin("sam local start-api");
        if let Err(error) = sam_local::check_engine(tools) {
            step.note(format!("NOT TRIED, and its tests are skipped: {error:#}"));
            return Ok(SamLocal::IsMissing);
        }
        let port = free_port()?;
        let command = sam_local::command(tools, stack, &folder.join("sam-local.json"), port)?;
        self.start_one("HOLDFAST_SAM_LOCAL_URL", &local_url(port), command, folder.join("sam-local.log"))?;
        step.done("answers");
        Ok(SamLocal::Runs)
    }

    fn start_one(&self, variable: &'static str, url: &str, command: Cmd<'_>, log: PathBuf) -> Result<()> {
        let line = command.to_string();
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).stdout(output.try_clone().context("the log cannot be shared")?).stderr(output);
        let child = command.process_group(0).spawn().with_context(|| format!("cannot start `{line}`"))?;
        self.lock().push(LocalServer { variable, url: url.to_owned(), child });
        let address = url.to_owned();
        let waiting = thread::spawn(move || wait_until_all_answer(&address));
        while !waiting.is_finished() {
            let ended = self.lock().last_mut().and_then(|server| server.child.try_wait().ok().flatten());
            if let Some(status) = ended {
                bail!("`{line}` ended at its start ({status}); see {}", log.display());
            }
            thread::sleep(Duration::from_millis(50));
        }
        let answered = waiting.join().unwrap_or_else(|_| bail!("waiting for the services failed"));
        answered.with_context(|| format!("`{line}` does not answer; see {}", log.display()))
    }

    /// The variables from which the tests learn the addresses.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        self.lock().iter().map(|server| (server.variable, server.url.clone())).collect()
    }

    /// Stops the servers and all processes that they have started.
    pub fn stop(&self) -> Result<()> {
        self.lock().drain(..).try_for_each(|mut server| {
            // Like Ctrl-C: at SIGINT, each server removes what it has started.
            end_group(server.child.id().cast_signed(), Signal::INT, ENDS_WITHIN)?;
            server.child.wait().with_context(|| format!("cannot wait for the server at {}", server.url))?;
            Ok(())
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<LocalServer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
