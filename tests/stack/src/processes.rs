//! The operating-system processes in which the deployed functions run. The
//! emulator starts them as its children.

use std::{fs, os::fd::OwnedFd, path::Path};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use crate::{Stack, stack_file};

/// Finds the processes of one stack's functions, and no other processes.
pub struct Processes {
    /// The emulator's process id.
    emulator: i32,
    /// The physical and the short name of each function.
    functions: Vec<(String, String)>,
}

/// A process in which a function runs.
pub struct Process {
    /// The function's short name.
    pub function: String,
    /// A pidfd: it refers to this process even if the system gives the process's id
    /// to another process.
    handle: OwnedFd,
}

impl Processes {
    /// Reads the emulator's process id from `emulator.json`, which is in the same
    /// folder as the file that describes the stack.
    pub fn of(stack: &Stack) -> Self {
        let file = Path::new(&stack_file()).with_file_name("emulator.json");
        let text = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let record: Value = serde_json::from_slice(&text).expect("the emulator's record");
        let process = &record["process"];
        let emulator = process["pid"].as_i64().and_then(|pid| pid.try_into().ok()).expect("the emulator's process id");
        let since = stat(emulator).map(|(_, since)| since);
        assert!(since.is_some() && since == process["since"].as_u64(), "the emulator has stopped");
        let functions = stack.functions.iter().map(|(short, physical)| (physical.clone(), short.clone())).collect();
        Self { emulator, functions }
    }

    /// All function processes that run at this moment.
    pub fn running(&self) -> Vec<Process> {
        let entries = fs::read_dir("/proc").expect("the process table").flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter_map(|id| self.function_process(id)).collect()
    }

    fn function_process(&self, id: i32) -> Option<Process> {
        // The handle is opened before the process is examined. If another process gets
        // the id in between, the handle still refers to the old process, and a kill
        // through the handle fails.
        let handle = pidfd_open(Pid::from_raw(id)?, PidfdFlags::empty()).ok()?;
        if fs::read_to_string(format!("/proc/{id}/comm")).ok()?.trim() != "bootstrap" || !self.is_below_emulator(id) {
            return None;
        }
        let environment = fs::read_to_string(format!("/proc/{id}/environ")).ok()?;
        let name = environment.split('\0').find_map(|variable| variable.strip_prefix("AWS_LAMBDA_FUNCTION_NAME="))?;
        let (_, function) = self.functions.iter().find(|(physical, _)| physical == name)?;
        Some(Process { function: function.clone(), handle })
    }

    fn is_below_emulator(&self, id: i32) -> bool {
        let parents = std::iter::successors(Some(id), |id| stat(*id).map(|(parent, _)| parent));
        parents.skip(1).any(|parent| parent == self.emulator)
    }
}

impl Process {
    /// Kills the process at once. Returns `false` if it had already ended.
    pub fn kill(&self) -> bool {
        pidfd_send_signal(&self.handle, Signal::KILL).is_ok()
    }
}

/// The id of a process's parent, and the time at which the process started, in the
/// kernel's clock ticks.
fn stat(id: i32) -> Option<(i32, u64)> {
    let line = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The line is `pid (name) state parent … start time …`. The name may contain
    // spaces and parentheses.
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}
