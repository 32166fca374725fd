//! The functions' processes, which the emulator starts as its children.

use std::{fs, os::fd::OwnedFd, path::Path};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use crate::{Stack, stack_file};

/// The processes of the stack's functions, and no others.
pub struct Processes {
    emulator: i32,
    /// Physical and short names.
    functions: Vec<(String, String)>,
}

/// A function's process.
pub struct Process {
    /// The function's short name.
    pub function: String,
    /// Stands for this process alone, also when its number is used again.
    handle: OwnedFd,
}

impl Processes {
    /// Those of the emulator whose record lies beside the stack's file.
    pub fn of(stack: &Stack) -> Self {
        let file = Path::new(&stack_file()).with_file_name("emulator.json");
        let text = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let record: Value = serde_json::from_slice(&text).expect("the emulator's record");
        let process = &record["process"];
        let emulator = process["pid"].as_i64().and_then(|pid| pid.try_into().ok()).expect("the emulator's process id");
        let since = stat(emulator).map(|(_, since)| since);
        assert!(since.is_some() && since == process["since"].as_u64(), "the emulator runs no more");
        let functions = stack.functions.iter().map(|(short, physical)| (physical.clone(), short.clone())).collect();
        Self { emulator, functions }
    }

    /// All that run at this moment.
    pub fn running(&self) -> Vec<Process> {
        let entries = fs::read_dir("/proc").expect("the process table").flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter_map(|id| self.function_process(id)).collect()
    }

    fn function_process(&self, id: i32) -> Option<Process> {
        // Opened before anything is read of it: what is killed later is what
        // was looked at, or nothing.
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
    /// Ends it at once, whatever it is doing. `false`: it had ended already.
    pub fn kill(&self) -> bool {
        pidfd_send_signal(&self.handle, Signal::KILL).is_ok()
    }
}

/// A process's parent, and the time since which it runs, in the kernel's ticks.
fn stat(id: i32) -> Option<(i32, u64)> {
    let line = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // `pid (name) state parent … since …`; the name may hold anything.
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}
