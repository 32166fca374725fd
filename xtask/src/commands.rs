//! Four ways to run a program. `xshell` builds the command lines. It has no functions
//! for these four ways.

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

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    flag,
};

use crate::{output, prelude::*};

/// Runs a program that prints to the terminal and can read from it. `Cmd::run` would
/// close standard input, but `sam deploy` asks the user for a confirmation.
pub fn show(command: Cmd<'_>) -> Result<()> {
    let line = command.to_string();
    let status = Command::from(command).status().with_context(|| format!("cannot start `{line}`"))?;
    ensure!(status.success(), "`{line}` failed ({status})");
    Ok(())
}

/// Runs a program and returns its standard output. If the program fails, the error
/// contains standard output and standard error.
pub fn quiet(command: Cmd<'_>) -> Result<String> {
    let line = command.to_string();
    let output = command.ignore_status().output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("`{line}` failed ({}):\n{}\n{}", output.status, out.trim(), err.trim());
    }
    Ok(out.into_owned())
}

/// Runs a program that prints hundreds of lines. Each line replaces the previous line
/// on the screen: the user sees progress, and the output of earlier steps stays
/// visible.
pub fn show_latest_line(command: Cmd<'_>) -> Result<()> {
    const WIDTH: usize = 90;
    let screen = stdout().is_terminal();
    let line = command.to_string();
    let mut command = Command::from(command);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot start `{line}`"))?;
    for text in child.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines()) {
        let text: String = text.context("the program's output cannot be read")?.chars().take(WIDTH).collect();
        if screen {
            output::write(format_args!("\r\x1b[2K    {}", text.trim_end()));
        }
    }
    if screen {
        output::write(format_args!("\r\x1b[2K"));
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
    ensure!(status.success(), "`{line}` failed ({status})");
    Ok(())
}

/// Runs a program until it ends or until the user interrupts it. After an
/// interrupt, waits until the program has cleaned up and ended.
pub fn run_until_interrupted(command: Cmd<'_>) -> Result<()> {
    let line = command.to_string();
    let (interrupted, signalled_alone) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    // At Ctrl-C the terminal sends SIGINT to the program, too. SIGTERM and SIGHUP reach
    // only this process, which then interrupts the program.
    for (signal, flag) in
        [(SIGINT, &interrupted), (SIGQUIT, &interrupted), (SIGTERM, &signalled_alone), (SIGHUP, &signalled_alone)]
    {
        flag::register(signal, flag.clone()).context("signals cannot be watched")?;
    }
    let mut child = Command::from(command).spawn().with_context(|| format!("cannot start `{line}`"))?;
    loop {
        if signalled_alone.swap(false, Ordering::Relaxed) {
            interrupted.store(true, Ordering::Relaxed);
            let child = Pid::from_child(&child);
            kill_process(child, Signal::INT).with_context(|| format!("`{line}` cannot be ended"))?;
        }
        if let Some(status) = child.try_wait().with_context(|| format!("cannot wait for `{line}`"))? {
            ensure!(status.success() || interrupted.load(Ordering::Relaxed), "`{line}` failed ({status})");
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
}
