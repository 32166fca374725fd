//! Counts the instructions of a process with callgrind, a tool of valgrind. The counts
//! differ by less than a hundredth from run to run, on a busy machine, too.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{
    programs,
    runtime_api::{Observer, Process, Start},
};

/// Why instructions are not counted.
pub const MISSING: &str = "Not measured, because valgrind is not installed";

/// Returns whether valgrind is installed.
pub fn can_be_counted() -> bool {
    let version = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// The instructions of a process from its start until it has handled all `events` and
/// asks for another event.
///
/// # Errors
///
/// If the process fails.
pub async fn count(program: &str, function: &str, endpoint: Option<&str>, events: &[String]) -> Result<u64> {
    let counts = counts_file(program);
    let observer = Observer { program: "valgrind", arguments: callgrind(&counts) };
    let how = Start { endpoint: endpoint.map(Into::into), observer: Some(observer) };
    let mut process = Process::start(program, function, &how).await?;
    for event in events {
        process.invoke(event).await?;
    }
    process.end().await?;
    total(&counts)
}

/// The instructions of a program that is no function, from its start to its end.
///
/// # Errors
///
/// If the program fails.
pub fn count_program(program: &str, arguments: &[&str]) -> Result<u64> {
    let counts = counts_file(program);
    let mut command = Command::new("valgrind");
    command.args(callgrind(&counts)).arg(programs::file(program)?).args(arguments);
    let status = command.status().context("valgrind does not start")?;
    ensure!(status.success(), "{program} has failed below valgrind: {status}");
    total(&counts)
}

/// The file into which callgrind writes the counts of a program.
fn counts_file(program: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench")).join(format!("{program}.counts"))
}

/// The arguments with which valgrind counts a program's instructions.
fn callgrind(counts: &Path) -> Vec<String> {
    vec![
        "--tool=callgrind".into(),
        format!("--callgrind-out-file={}", counts.display()),
        format!("--log-file={}.log", counts.display()),
    ]
}

/// The sum in a file of callgrind.
fn total(file: &PathBuf) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("valgrind has not written {}", file.display()))?;
    let sum = text.lines().rev().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    let sum = sum.and_then(|sum| sum.split_whitespace().next()).context("valgrind has counted nothing")?;
    let sum = sum.parse()?;
    ensure!(sum > 0, "valgrind has counted nothing");
    Ok(sum)
}
