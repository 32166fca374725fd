//! Recognises and ends process groups that an earlier task has started. `procfs` reads
//! the kernel's process table; no library identifies a process across tasks.

use std::{
    thread,
    time::{Duration, Instant},
};

use procfs::{
    process::{Process, Stat, all_processes},
    sys::kernel::random::boot_id,
};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use crate::prelude::*;

/// Identifies a process. The kernel assigns the process id of an ended process again,
/// so the id is unique only together with the start time of the process and the boot
/// of the machine.
#[derive(Serialize, Deserialize)]
pub struct ProcessIdentity {
    pid: i32,
    since: u64,
    boot: String,
}

impl ProcessIdentity {
    pub fn of(pid: u32) -> Option<Self> {
        let pid = pid.cast_signed();
        Some(Self { pid, since: stat(pid)?.starttime, boot: boot_id().ok()? })
    }

    pub fn is_alive(&self) -> bool {
        self.is_of_this_boot() && stat(self.pid).is_some_and(|stat| stat.starttime == self.since && runs(&stat))
    }

    /// The id of the process group that this process leads, if any process of the
    /// group still runs. The kernel does not assign the id again while the group exists.
    pub fn group(&self) -> Option<i32> {
        let is_reused = stat(self.pid).is_some_and(|stat| stat.starttime != self.since);
        (self.is_of_this_boot() && !is_reused && has_members(self.pid)).then_some(self.pid)
    }

    fn is_of_this_boot(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot)
    }
}

/// Sends a signal to all processes of a group and waits until they have ended.
/// Kills the processes that are left after `patience`.
pub fn end_group(group: i32, signal: Signal, patience: Duration) -> Result<()> {
    let leader = Pid::from_raw(group).context("0 is no process group")?;
    let deadline = Instant::now() + patience;
    // Sending a signal fails if the group has ended already.
    kill_process_group(leader, signal).ok();
    while has_members(group) {
        if Instant::now() > deadline {
            kill_process_group(leader, Signal::KILL).ok();
        }
        ensure!(Instant::now() < deadline + patience, "process group {group} cannot be ended");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Returns whether any process of the group runs. A zombie does not count as running:
/// in a container, the zombie may remain for ever, because no process waits for it.
fn has_members(group: i32) -> bool {
    let processes = all_processes().into_iter().flatten().flatten();
    processes.filter_map(|process| process.stat().ok()).any(|stat| stat.pgrp == group && runs(&stat))
}

fn stat(pid: i32) -> Option<Stat> {
    Process::new(pid).ok()?.stat().ok()
}

fn runs(stat: &Stat) -> bool {
    stat.state != 'Z'
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    #[test]
    fn a_process_with_a_reused_id_is_not_the_same_process() {
        let own = ProcessIdentity::of(process::id()).expect("an identity");
        assert!(own.is_alive());
        let reused = ProcessIdentity { since: own.since + 1, ..own };
        assert!(!reused.is_alive() && reused.group().is_none());
    }
}
