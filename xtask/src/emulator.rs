//! The emulator's life: one process group, begun in the background, known by a
//! record in its folder, and ended as a whole.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use crate::{
    project::{self, wanted},
    shop::Http,
    tools::Tools,
};

const STARTS_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// An emulator that lives in a folder: its record, its log, its temporary
/// files. Two in two folders know nothing of each other.
#[derive(Clone)]
pub struct Emulator {
    folder: PathBuf,
}

/// Which process it is. Process ids are used again; together with the time
/// since which it runs, and of which boot of the machine, one is unique.
#[derive(Serialize, Deserialize)]
struct Record {
    port: u16,
    process: Identity,
    /// Who stops it when done; nobody, if it is to stay in the background.
    owner: Option<Identity>,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    pid: i32,
    since: u64,
    boot: String,
}

/// Whether a running emulator outlives the task that starts it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    Background,
    Task,
}

impl Emulator {
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("emulator.log")
    }

    /// The port of the running one, if there is one.
    pub fn port(&self) -> Option<u16> {
        let record = self.record()?;
        let url = local_url(record.port);
        (record.process.is_alive() && is_ready(&url)).then_some(record.port)
    }

    /// Whether the task that started it still looks after it.
    pub fn is_attended(&self) -> bool {
        self.record().and_then(|record| record.owner).is_some_and(|owner| owner.is_alive())
    }

    /// Starts it. `false` if it was running already.
    pub fn start(&self, tools: &Tools, port: u16, lifetime: Lifetime) -> Result<bool> {
        if self.port() == Some(port) {
            return Ok(false);
        }
        // One on another port, one that hangs, or what one left behind.
        self.stop()?;
        check_port(port)?;

        let temporary = self.folder.join("tmp");
        let home = self.folder.join("home");
        for folder in [&temporary, &home] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let log = File::create(self.log()).with_context(|| format!("cannot write {}", self.log().display()))?;

        // A clean environment, because the functions inherit it: nothing of the
        // user's may leak into them, neither credentials nor settings.
        let mut child = Command::new(tools.program("ministack"))
            .env_clear()
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", tools.programs().display()))
            .env("HOME", &home)
            .env("TMPDIR", &temporary)
            .env("LANG", "C.UTF-8")
            .env("GATEWAY_PORT", port.to_string())
            .env("AWS_ENDPOINT_URL", local_url(port))
            .env("AWS_EC2_METADATA_DISABLED", "true")
            // Roles are enforced, as on AWS.
            .env("AUTH", "true")
            // It trusts anybody who says `test`: nobody but this machine, then.
            .env("BIND_HOST", "127.0.0.1")
            .env("IOT_MTLS_ENABLED", "0")
            .env("SFTP_ENABLED", "0")
            // It would clear away containers that it takes for its own.
            .env("DOCKER_HOST", format!("unix://{}", temporary.join("no-docker").display()))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share the log")?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("cannot start the emulator")?;

        let process = Identity::of(child.id().cast_signed()).context("the emulator ended at once")?;
        let owner = match lifetime {
            Lifetime::Background => None,
            Lifetime::Task => Identity::of(process::id().cast_signed()),
        };
        self.write(&Record { port, process, owner })?;

        let deadline = Instant::now() + STARTS_WITHIN;
        while !is_ready(&local_url(port)) {
            if let Some(status) = child.try_wait().context("lost sight of the emulator")? {
                bail!("the emulator ended at its start ({status}).\n{}", self.tail());
            }
            ensure!(Instant::now() < deadline, "the emulator does not get ready.\n{}", self.tail());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(true)
    }

    /// Stops it and every function that it has started. `false` if nothing was
    /// running.
    pub fn stop(&self) -> Result<bool> {
        let Some(record) = self.record() else { return Ok(false) };
        let mut stopped = false;
        if let Some(group) = record.process.group() {
            stopped = true;
            let leader = Pid::from_raw(group).context("its record names no process")?;
            let deadline = Instant::now() + ENDS_WITHIN;
            // A group that is gone when the signal arrives is what we want.
            kill_process_group(leader, Signal::TERM).ok();
            while !members(group).is_empty() {
                if Instant::now() > deadline {
                    kill_process_group(leader, Signal::KILL).ok();
                }
                ensure!(Instant::now() < deadline + ENDS_WITHIN, "process group {group} cannot be ended");
                thread::sleep(Duration::from_millis(20));
            }
        }
        project::remove(&self.record_file())?;
        project::remove(&self.folder.join("tmp"))?;
        Ok(stopped)
    }

    /// What went wrong, with the emulator's part in it.
    pub fn explain(&self, error: Error) -> Error {
        match self.record() {
            Some(record) if !record.process.is_alive() => {
                error.context(format!("the emulator has died.\n{}\nBefore that", self.tail()))
            }
            _ => error,
        }
    }

    /// The log's end.
    fn tail(&self) -> String {
        const LINES: usize = 20;
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LINES)..].join("\n  ");
        format!("The end of {}:\n  {end}", self.log().display())
    }

    fn record_file(&self) -> PathBuf {
        self.folder.join("emulator.json")
    }

    fn record(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.record_file()).ok()?).ok()
    }

    fn write(&self, record: &Record) -> Result<()> {
        let file = self.record_file();
        let text = serde_json::to_vec_pretty(record).context("cannot render the record")?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

impl Identity {
    fn of(pid: i32) -> Option<Self> {
        let since = Process::read(pid)?.since;
        Some(Self { pid, since, boot: boot()? })
    }

    fn is_alive(&self) -> bool {
        let this_boot = boot().is_some_and(|boot| boot == self.boot);
        this_boot && Process::read(self.pid).is_some_and(|found| found.since == self.since && !found.is_zombie)
    }

    /// The id of the process group that it led, if any of it is left, whether
    /// or not the leader is. While a group is left, nobody else gets its id.
    fn group(&self) -> Option<i32> {
        let this_boot = boot().is_some_and(|boot| boot == self.boot);
        let another = Process::read(self.pid).is_some_and(|found| found.since != self.since);
        (this_boot && !another && !members(self.pid).is_empty()).then_some(self.pid)
    }
}

/// A line of the kernel's process table.
struct Process {
    group: i32,
    since: u64,
    is_zombie: bool,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// `pid (name) state parent group … since …`; the name may hold anything.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            is_zombie: *fields.first()? == "Z",
            group: fields.get(2)?.parse().ok()?,
            since: fields.get(19)?.parse().ok()?,
        })
    }
}

/// The processes of a group that still run. Those that have ended and wait for
/// someone to notice (in a container, nobody may) don't count.
fn members(group: i32) -> Vec<i32> {
    let running = |pid: &i32| Process::read(*pid).is_some_and(|found| found.group == group && !found.is_zombie);
    process_ids().filter(running).collect()
}

fn process_ids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn boot() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

fn is_ready(url: &str) -> bool {
    Http::impatient().get(&format!("{url}/_ministack/ready")).is_ok_and(|answer| answer.status == 200)
}

/// That nobody else listens on a port.
pub fn check_port(port: u16) -> Result<()> {
    let taken = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].into_iter().find_map(|address| {
        let error = TcpListener::bind((address, port)).err()?;
        // Other errors are those of a machine that doesn't have both.
        matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied).then_some(error)
    });
    match taken {
        None => Ok(()),
        Some(error) => {
            let who = listener(port).unwrap_or_else(|| "another program".to_owned());
            bail!("port {port} is taken by {who} ({error}). Stop that, or take another port, such as PORT={}", port + 4)
        }
    }
}

/// The address of what listens on `port` of this machine, as clients, functions
/// and the template name it.
pub fn local_url(port: u16) -> String {
    format!("http://localhost:{port}")
}

/// The port that the user asked for: `make up PORT=4570`.
pub fn wanted_port() -> Result<Option<u16>> {
    let parse = |port: String| port.parse().with_context(|| format!("PORT={port} is no port"));
    wanted("PORT").map(parse).transpose()
}

/// A port that nobody uses.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port is free")?;
    Ok(listener.local_addr().context("no port is free")?.port())
}

/// The name of the program that listens on a port, if it is one of this user's.
fn listener(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let socket = tables.iter().flat_map(|table| table.lines()).find_map(|line| listening_socket(line, port))?;
    let socket = PathBuf::from(format!("socket:[{socket}]"));
    let pid = process_ids().find(|pid| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| target == socket)
    })?;
    let name = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm")).ok()?;
    Some(format!("`{}` (process {pid})", name.trim()))
}

/// The socket's number in a line of /proc/net/tcp, if it listens on `port`.
fn listening_socket(line: &str, port: u16) -> Option<&str> {
    const LISTENS: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local) = fields.get(1)?.rsplit_once(':')?;
    let here = u16::from_str_radix(local, 16) == Ok(port) && *fields.get(3)? == LISTENS;
    here.then_some(*fields.get(9)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let line = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1";
        let process = Process::parse(line).expect("a process");
        assert_eq!((process.group, process.since, process.is_zombie), (42, 98765, false));
    }

    #[test]
    fn this_process_is_alive_and_in_a_group() {
        let own = Identity::of(process::id().cast_signed()).expect("an identity");
        assert!(own.is_alive());
        let reused = Identity { since: own.since + 1, ..own };
        assert!(!reused.is_alive() && reused.group().is_none());
    }

    #[test]
    fn who_listens_on_a_port_is_named() {
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let Ok(listener) = TcpListener::bind((address, 0)) else { continue };
            let port = listener.local_addr().expect("an address").port();
            let error = check_port(port).expect_err("a taken port").to_string();
            assert!(error.contains(&format!("process {}", process::id())), "{error}");
        }
    }
}
