//! Starts `cargo lambda watch` and `sam local start-api` for the tests. Both run the
//! functions over the tables and queues of the test stack, each on a free port.

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
    function_build::build_for_sam_local,
    ports::{free_port, local_url},
    prelude::*,
    process_groups::end_group,
    service_health::wait_until_all_respond,
    tasks::{sam_local, watch},
};

const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// The servers that run. Clones of this value refer to the same servers.
#[derive(Clone, Default)]
pub struct LocalServers(Arc<Mutex<Vec<LocalServer>>>);

struct LocalServer {
    /// The environment variable from which the tests read the server's address.
    variable: &'static str,
    url: String,
    child: Child,
}

impl LocalServers {
    /// Starts the servers and waits until all services respond. Returns `false` if no
    /// Docker engine can run `sam local`.
    pub fn start(&self, tools: &Tools, stack: &Stack, folder: &Path) -> Result<bool> {
        let step = Step::begin("cargo lambda watch");
        let port = free_port()?;
        // Tests write files. These changes must not restart the functions.
        let command = watch::command(tools, stack, &folder.join("watch.env"), port)?.arg("--ignore-changes");
        self.start_one("HOLDFAST_WATCH_URL", &local_url(port), command, folder.join("watch.log"))?;
        step.done("answers");

        let step = Step::begin("sam local start-api");
        if let Err(error) = sam_local::check_engine(tools) {
            step.note(format!("NOT TRIED, and its tests are skipped: {error:#}"));
            return Ok(false);
        }
        let template = build_for_sam_local(tools)?;
        let port = free_port()?;
        let command = sam_local::command(tools, stack, &template, &folder.join("sam-local.json"), port)?;
        self.start_one("HOLDFAST_SAM_LOCAL_URL", &local_url(port), command, folder.join("sam-local.log"))?;
        step.done("answers");
        Ok(true)
    }

    fn start_one(&self, variable: &'static str, url: &str, command: Cmd<'_>, log: PathBuf) -> Result<()> {
        let line = command.to_string();
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).stdout(output.try_clone().context("the log cannot be shared")?).stderr(output);
        let child = command.process_group(0).spawn().with_context(|| format!("cannot start `{line}`"))?;
        self.lock().push(LocalServer { variable, url: url.to_owned(), child });
        let address = url.to_owned();
        let waiting = thread::spawn(move || wait_until_all_respond(&address));
        while !waiting.is_finished() {
            let ended = self.lock().last_mut().and_then(|server| server.child.try_wait().ok().flatten());
            if let Some(status) = ended {
                bail!("`{line}` ended at its start ({status}); see {}", log.display());
            }
            thread::sleep(Duration::from_millis(50));
        }
        let responded = waiting.join().unwrap_or_else(|_| bail!("waiting for the services failed"));
        responded.with_context(|| format!("`{line}` does not respond; see {}", log.display()))
    }

    /// The environment variables from which the tests read the servers' addresses.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        self.lock().iter().map(|server| (server.variable, server.url.clone())).collect()
    }

    /// Stops the servers and all processes that the servers have started.
    pub fn stop(&self) -> Result<()> {
        self.lock().drain(..).try_for_each(|mut server| {
            // At SIGINT, as at Ctrl-C, `sam local` removes the containers that it has started.
            end_group(server.child.id().cast_signed(), Signal::INT, ENDS_WITHIN)?;
            server.child.wait().with_context(|| format!("cannot wait for the server at {}", server.url))?;
            Ok(())
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<LocalServer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
