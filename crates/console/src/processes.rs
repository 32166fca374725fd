//! The operating-system processes in which the functions run. The emulator starts them as
//! its children; no other process is ever touched.

use std::{net::SocketAddr, os::fd::OwnedFd, path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use procfs::{
    net::{TcpState, tcp, tcp6},
    process::{FDTarget, Process, all_processes},
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;

use crate::stack::{Stack, read};

/// The name of a function's program.
const PROGRAM: &str = "bootstrap";
/// How many generations lie between a function and the emulator at most.
const GENERATIONS: usize = 8;

/// What `make up` stores about the emulator.
#[derive(Deserialize)]
struct Record {
    process: Identity,
}

#[derive(Clone, Copy, Deserialize)]
struct Identity {
    pid: i32,
    since: u64,
}

/// Finds the processes of one stack's functions.
#[derive(Clone)]
pub struct Processes {
    emulator: Identity,
    stack: Arc<Stack>,
}

/// A process in which a function runs.
pub struct FunctionProcess {
    /// The function's short name.
    pub function: String,
    pid: i32,
    /// A pidfd: it refers to this process even if the system gives the process's id to
    /// another process.
    handle: OwnedFd,
}

impl Processes {
    /// Reads the emulator's process id, which is stored beside the description of the stack.
    pub fn of(stack: Arc<Stack>, folder: &Path) -> Result<Self> {
        let Record { process: emulator } = read(&folder.join("emulator.json"))
            .context("this stack runs on an emulator that `make up` has not started")?;
        ensure!(is_alive(emulator), "the emulator has stopped; `make up` starts it");
        Ok(Self { emulator, stack })
    }

    /// All function processes that run at this moment.
    pub fn running(&self) -> Vec<FunctionProcess> {
        let processes = all_processes().into_iter().flatten().flatten();
        processes.filter_map(|process| self.function_process(&process)).collect()
    }

    /// The function process that has opened a connection. The arguments are the two ends of
    /// the connection, as the process sees them.
    pub fn with_connection(&self, local: SocketAddr, remote: SocketAddr) -> Option<FunctionProcess> {
        let mut sockets = [tcp(), tcp6()].into_iter().flatten().flatten();
        let socket = sockets.find(|socket| {
            socket.state == TcpState::Established
                && socket.local_address.port() == local.port()
                && socket.remote_address.port() == remote.port()
        })?;
        self.running().into_iter().find(|process| {
            let files = Process::new(process.pid).and_then(|process| process.fd()).into_iter().flatten().flatten();
            files.into_iter().any(|file| matches!(file.target, FDTarget::Socket(inode) if inode == socket.inode))
        })
    }

    fn function_process(&self, process: &Process) -> Option<FunctionProcess> {
        // The handle is opened before the process is examined. If another process gets the
        // id in between, a kill through the handle fails.
        let handle = pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
        let stat = process.stat().ok()?;
        if stat.comm != PROGRAM || !self.is_below_emulator(stat.ppid) {
            return None;
        }
        let environment = process.environ().ok()?;
        let name = environment.iter().find(|(name, _)| *name == "AWS_LAMBDA_FUNCTION_NAME")?.1.to_str()?.to_owned();
        let (function, _) = self.stack.functions.iter().find(|(_, physical)| **physical == name)?;
        Some(FunctionProcess { function: function.clone(), pid: process.pid, handle })
    }

    fn is_below_emulator(&self, parent: i32) -> bool {
        let parent_of = |pid: &i32| Process::new(*pid).and_then(|process| process.stat()).ok().map(|stat| stat.ppid);
        let mut ancestors = std::iter::successors(Some(parent), parent_of).take(GENERATIONS);
        is_alive(self.emulator) && ancestors.any(|ancestor| ancestor == self.emulator.pid)
    }
}

impl FunctionProcess {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Kills the process at once. Returns `false` if it had already ended.
    pub fn kill(&self) -> bool {
        pidfd_send_signal(&self.handle, Signal::KILL).is_ok()
    }
}

fn is_alive(identity: Identity) -> bool {
    let stat = Process::new(identity.pid).and_then(|process| process.stat());
    stat.is_ok_and(|stat| stat.starttime == identity.since)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        process::{Child, Command},
    };

    use super::*;
    use crate::stack::sample;

    /// A child of this process, which ends when the value is dropped.
    struct Started(Child);

    impl Started {
        /// Starts `sleep` under another name, as a function of the stack `sample`.
        fn named(program: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("{}-{program}", std::process::id()));
            fs::create_dir_all(&folder).expect("a folder");
            let link = folder.join(program);
            symlink("/bin/sleep", &link).expect("a link");
            let started = Command::new(&link).arg("20").env("AWS_LAMBDA_FUNCTION_NAME", "shop-orders").spawn();
            fs::remove_dir_all(folder).expect("the folder is removed");
            Self(started.expect("a child"))
        }
    }

    impl Drop for Started {
        fn drop(&mut self) {
            self.0.kill().and_then(|()| self.0.wait()).expect("the child ends");
        }
    }

    fn identity(pid: u32) -> Identity {
        let pid = pid.cast_signed();
        let stat = Process::new(pid).and_then(|process| process.stat()).expect("a process");
        Identity { pid, since: stat.starttime }
    }

    fn found_below(emulator: Identity, child: &Started) -> Vec<String> {
        let processes = Processes { emulator, stack: Arc::new(sample()) };
        let own = processes.running().into_iter().filter(|process| process.pid == child.0.id().cast_signed());
        own.map(|process| process.function).collect()
    }

    #[test]
    fn a_function_is_found_only_below_its_own_emulator() {
        let this_process = identity(std::process::id());
        let (function, other) = (Started::named(PROGRAM), Started::named("other"));
        assert_eq!(found_below(this_process, &function), ["orders"]);
        assert_eq!(found_below(this_process, &other), [""; 0], "a program with another name");
        assert_eq!(found_below(identity(other.0.id()), &function), [""; 0], "a function of another emulator");
        let earlier = Identity { since: this_process.since - 1, ..this_process };
        assert_eq!(found_below(earlier, &function), [""; 0], "a process that has the id of an earlier emulator");
    }
}
