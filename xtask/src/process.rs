//! Running other programs.

use std::{
    io::{BufRead, BufReader, IsTerminal, Write, stdout},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

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
                print!("\r\x1b[2K    {}", said.trim_end());
                stdout().flush()?;
            }
        }
    }
    if screen {
        print!("\r\x1b[2K");
        stdout().flush()?;
    }
    let status = child.wait().with_context(|| format!("lost sight of `{}`", line(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", line(command));
    Ok(())
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", line(command))
}

/// The command as one would type it, without the folder it lives in.
fn line(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
