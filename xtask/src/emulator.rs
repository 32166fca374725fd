//! Starts, finds and stops the emulator. It runs in the background, as a process group.
//! A file in its folder contains its port and its process id, so that later tasks find
//! it.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Error;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::{
    http,
    ports::{check_port, local_url},
    prelude::*,
    process_groups::{ProcessIdentity, end_group},
    project,
};

const STARTS_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(10);
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// An emulator that keeps all its files in one folder. Emulators in different folders
/// do not disturb each other.
#[derive(Clone)]
pub struct Emulator {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Record {
    port: u16,
    process: ProcessIdentity,
    /// The task that stops the emulator when the task ends. `None` if the emulator runs
    /// until `make down`.
    owner: Option<ProcessIdentity>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// The emulator runs until `make down`.
    Background,
    /// The task that starts the emulator also stops it.
    Task,
}

impl Emulator {
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The emulator's port. Returns `None` unless the emulator runs and is ready.
    pub fn port(&self) -> Option<u16> {
        let record = self.record()?;
        (record.process.is_alive() && is_ready(record.port)).then_some(record.port)
    }

    /// Returns whether the emulator belongs to a task that still runs and will stop the
    /// emulator.
    pub fn has_living_owner(&self) -> bool {
        self.record().and_then(|record| record.owner).is_some_and(|owner| owner.is_alive())
    }

    /// Starts the emulator. Returns `false` if it was already running on this port.
    pub fn start(&self, tools: &Tools, port: u16, lifetime: Lifetime) -> Result<bool> {
        if self.port() == Some(port) {
            return Ok(false);
        }
        // The emulator may run on another port, may hang, or may have died and left
        // functions that still run.
        self.stop()?;
        check_port(port)?;
        let mut child = self.spawn(tools, port)?;
        let process = ProcessIdentity::of(child.id()).context("the emulator ended at once")?;
        let owner = match lifetime {
            Lifetime::Background => None,
            Lifetime::Task => ProcessIdentity::of(process::id()),
        };
        let record = Record { port, process, owner };
        let record = serde_json::to_vec_pretty(&record).context("the record cannot be written as JSON")?;
        write_file(&self.record_file(), record)?;

        let deadline = Instant::now() + STARTS_WITHIN;
        while !is_ready(port) {
            if let Some(status) = child.try_wait().context("cannot wait for the emulator")? {
                bail!("the emulator ended at its start ({status}).\n{}", self.end_of_log());
            }
            ensure!(Instant::now() < deadline, "the emulator does not become ready.\n{}", self.end_of_log());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(true)
    }

    fn spawn(&self, tools: &Tools, port: u16) -> Result<process::Child> {
        let (temporary, home) = (self.folder.join("tmp"), self.folder.join("home"));
        create_folder(&temporary)?;
        create_folder(&home)?;
        let log = File::create(self.log()).with_context(|| format!("cannot write {}", self.log().display()))?;
        // The functions inherit the emulator's environment. It must not contain
        // credentials or settings of the user, so it is cleared first.
        Command::new(tools.programs().join("python"))
            .arg(tools.root().join("xtask/python/start_emulator.py"))
            .env_clear()
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", tools.programs().display()))
            .env("HOME", &home)
            .env("TMPDIR", &temporary)
            .env("LANG", "C.UTF-8")
            // The emulator must have no AWS_ENDPOINT_URL: it would replace the value that the
            // template gives to the functions.
            .env("GATEWAY_PORT", port.to_string())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            // The emulator checks the permissions of the functions' roles, as AWS does.
            .env("AUTH", "true")
            // The emulator trusts every client whose access key is `test`, so only
            // clients on this machine may reach the emulator.
            .env("BIND_HOST", "127.0.0.1")
            .env("IOT_MTLS_ENABLED", "0")
            .env("SFTP_ENABLED", "0")
            // If the emulator found a Docker engine, it would remove containers of other
            // programs that it takes for its own.
            .env("DOCKER_HOST", format!("unix://{}", temporary.join("no-docker").display()))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("the log cannot be shared")?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("cannot start the emulator")
    }

    /// Stops the emulator and every function that the emulator has started. Returns
    /// `false` if no process was running.
    pub fn stop(&self) -> Result<bool> {
        let Some(record) = self.record() else { return Ok(false) };
        let group = record.process.group();
        if let Some(group) = group {
            end_group(group, Signal::TERM, ENDS_WITHIN)?;
        }
        project::remove(&self.record_file())?;
        project::remove(&self.folder.join("tmp"))?;
        Ok(group.is_some())
    }

    /// If the emulator has died, adds the last lines of its log to the error.
    pub fn explain(&self, error: Error) -> Error {
        match self.record() {
            Some(record) if !record.process.is_alive() => {
                error.context(format!("the emulator has died.\n{}\nThe first error", self.end_of_log()))
            }
            _ => error,
        }
    }

    fn end_of_log(&self) -> String {
        const LINES: usize = 20;
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LINES)..].join("\n  ");
        format!("The end of {}:\n  {end}", self.log().display())
    }

    fn log(&self) -> PathBuf {
        self.folder.join("emulator.log")
    }

    fn record_file(&self) -> PathBuf {
        self.folder.join("emulator.json")
    }

    fn record(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.record_file()).ok()?).ok()
    }
}

fn is_ready(port: u16) -> bool {
    http::get(&format!("{}/_ministack/ready", local_url(port)), READY_TIMEOUT)
        .is_ok_and(|response| response.status == 200)
}
