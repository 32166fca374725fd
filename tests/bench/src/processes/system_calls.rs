//! Counts the system calls of a process with strace.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use super::runtime_api::{Observer, Process, Start};

/// Why system calls are not counted.
pub const MISSING: &str = "Not measured, because strace is not installed, or must not trace processes";
/// How often, and after which pauses, the file of strace is read. strace writes its sums
/// after the process has ended.
const READS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(40);

/// Returns whether strace is installed, and may trace a process.
pub fn can_be_counted() -> bool {
    let traced = Command::new("strace").arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    traced.is_ok_and(|status| status.success())
}

/// The system calls of a process from its start to its first request for an event.
///
/// # Errors
///
/// If the process fails, or strace writes no sum.
pub async fn count(program: &str, function: &str) -> Result<u64> {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench")).join(format!("{program}.calls"));
    if file.exists() {
        fs::remove_file(&file)?;
    }
    // With -D the process is a child of this process, and not of strace.
    let arguments = ["-D", "-f", "-c", "-o"].map(Into::into).into_iter().chain([file.display().to_string()]).collect();
    let start = Start { endpoint: None, observer: Some(Observer { program: "strace", arguments }) };
    Process::start(program, function, &start).await?.end().await?;
    for _ in 0..READS {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if let Some(sum) = text.lines().rev().find_map(|line| line.trim_end().strip_suffix(" total")) {
            // The columns are: % time, seconds, usecs/call, calls, and errors if there are any.
            let calls = sum.split_whitespace().nth(3).context("strace has written no sum")?;
            return Ok(calls.parse()?);
        }
        tokio::time::sleep(PAUSE).await;
    }
    anyhow::bail!("strace has written no sum into {}", file.display())
}
