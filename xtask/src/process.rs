//! Running other programs.

use std::{
    io::{BufRead, BufReader, IsTerminal, stdout},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    flag,
};

use crate::output;

/// Runs a program whose output the user should see as it comes.
pub fn show(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    ensure!(status.success(), "`{}` failed ({status})", line(command));
    Ok(())
}

/// Runs a program for its standard output. What else it said is shown only
/// when it fails.
pub fn quiet(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_start(command))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let complained = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}):\n{}\n{}", line(command), output.status, said.trim(), complained.trim());
    }
    Ok(said)
}

/// Runs a talkative program, its latest line in place of the one before: the
/// user sees that it goes on, and keeps the screen.
pub fn ticking(command: &mut Command) -> Result<()> {
    const WIDTH: usize = 90;
    let screen = stdout().is_terminal();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| cannot_start(command))?;
    if let Some(output) = child.stdout.take() {
        for said in BufReader::new(output).lines() {
            let said: String = said.context("its output cannot be read")?.chars().take(WIDTH).collect();
            if screen {
                output::write(format_args!("\r\x1b[2K    {}", said.trim_end()));
            }
        }
    }
    if screen {
        output::write(format_args!("\r\x1b[2K"));
    }
    let status = child.wait().with_context(|| format!("lost sight of `{}`", line(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", line(command));
    Ok(())
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", line(command))
}

/// Runs a program until it ends, or until the user has had enough of it: then
/// it gets the time to clean up.
pub fn attended(command: &mut Command) -> Result<()> {
    let asked_to_end = Arc::new(AtomicBool::new(false));
    // Of these, the terminal tells the program, too.
    for signal in [SIGINT, SIGQUIT] {
        flag::register(signal, asked_to_end.clone()).context("signals cannot be watched")?;
    }
    let told_alone = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP] {
        flag::register(signal, told_alone.clone()).context("signals cannot be watched")?;
    }
    let mut child = command.spawn().with_context(|| cannot_start(command))?;
    loop {
        if told_alone.swap(false, Ordering::Relaxed) {
            asked_to_end.store(true, Ordering::Relaxed);
            if let Some(child) = Pid::from_raw(child.id().cast_signed()) {
                kill_process(child, Signal::INT).with_context(|| format!("`{}` cannot be ended", line(command)))?;
            }
        }
        if let Some(status) = child.try_wait().with_context(|| format!("lost sight of `{}`", line(command)))? {
            let well = status.success() || asked_to_end.load(Ordering::Relaxed);
            ensure!(well, "`{}` failed ({status})", line(command));
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The command as one would type it, without the folder it lives in.
pub fn line(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
