//! Building the functions.

use std::{fs, io::Read, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    process::{quiet, show},
    progress::Step,
    tools::{Tools, architecture},
};

/// The crates with functions in them.
const CRATES: [&str; 5] = ["users", "products", "orders", "payments", "notifications"];

/// Where SAM puts what it has built.
pub const BUILT: &str = ".aws-sam/build";

/// All functions, for an emulator on this machine.
pub fn build(tools: &Tools) -> Result<()> {
    build_for(tools, "local", architecture())
}

/// All functions, for an environment of samconfig.toml.
pub fn build_for(tools: &Tools, environment: &str, architecture: &str) -> Result<()> {
    compile(tools, &CRATES, architecture)?;
    let step = Step::begin("Functions: package");
    quiet(&mut sam_build(tools, environment, architecture)).context("SAM could not package the functions")?;
    let mut programs = 0;
    for entry in fs::read_dir(tools.root().join(BUILT)).with_context(|| format!("cannot list {BUILT}"))? {
        let folder = entry.with_context(|| format!("cannot list {BUILT}"))?.path();
        if folder.is_dir() {
            is_program_for(&folder, architecture)?;
            programs += 1;
        }
    }
    ensure!(programs >= CRATES.len(), "SAM has built {programs} functions, which are not all");
    step.done(format!("in {BUILT}: {programs} programs for {architecture}"));
    Ok(())
}

/// Compiles functions at once, for SAM to collect.
///
/// SAM would compile them by itself, one after the other, and say nothing for
/// minutes. This way Cargo's own progress is on the screen, and SAM finds each
/// function ready. That holds as long as the functions want the same features
/// of what they share; where one differs, SAM's turn takes longer.
pub fn compile(tools: &Tools, crates: &[&str], architecture: &str) -> Result<()> {
    can_compile_for(tools, architecture)?;
    let step = Step::begin(format!("Functions: compile for Lambda on {architecture} (minutes the first time)"));
    let mut compile = tools.cargo();
    compile.args(["lambda", "build", "--release"]);
    if architecture == "arm64" {
        compile.arg("--arm64");
    }
    for name in crates {
        compile.args(["--package", name]);
    }
    show(&mut compile)?;
    step.done("compiled");
    Ok(())
}

/// That what SAM has built of a function, in this folder, is a program for the
/// processor. Lambda takes any file as code, and says of the wrong one only that
/// it ended, once somebody calls it.
pub fn is_program_for(folder: &Path, architecture: &str) -> Result<()> {
    let file = folder.join("bootstrap");
    let mut header = [0; 20];
    let mut program = fs::File::open(&file).with_context(|| format!("cannot open {}", file.display()))?;
    program.read_exact(&mut header).with_context(|| format!("{} is no program", file.display()))?;
    let found = machine(&header).with_context(|| format!("{} is no ELF program of 64 bits", file.display()))?;
    ensure!(found == architecture, "{} is a program for {found}, not for {architecture}", file.display());
    Ok(())
}

/// The processor that an ELF header names, in the template's words. The header
/// begins with its magic number, the class (2: 64 bits) and the byte order (1:
/// little endian); the machine is its tenth number of 16 bits.
fn machine(header: &[u8; 20]) -> Option<&'static str> {
    let [0x7F, b'E', b'L', b'F', 2, 1, .., low, high] = header else { return None };
    match u16::from_le_bytes([*low, *high]) {
        0x3E => Some("x86_64"),
        0xB7 => Some("arm64"),
        _ => Some("another processor"),
    }
}

/// SAM's turn, for all functions or for what is added.
pub fn sam_build(tools: &Tools, environment: &str, architecture: &str) -> Command {
    let mut package = tools.offline("sam");
    package.args(["build", "--config-env", environment, "--parameter-overrides"]);
    package.arg(format!("Architecture={architecture}"));
    package
}

/// That the toolchain has the standard library of the processor. cargo-lambda
/// would have rustup fetch it, which without a network takes minutes to say
/// nothing.
fn can_compile_for(tools: &Tools, architecture: &str) -> Result<()> {
    let target = match architecture {
        "arm64" => "aarch64-unknown-linux-gnu",
        _ => "x86_64-unknown-linux-gnu",
    };
    let libraries = quiet(tools.at_root("rustc").args(["--print", "target-libdir", "--target", target]))?;
    ensure!(
        Path::new(libraries.trim()).exists(),
        "this toolchain cannot compile for {architecture}. Once: rustup target add {target}\n\
         Or deploy for x86_64: the parameter Architecture, in samconfig.toml"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::machine;

    fn header(machine: u16) -> [u8; 20] {
        let mut header = [0; 20];
        header[..6].copy_from_slice(&[0x7F, b'E', b'L', b'F', 2, 1]);
        header[18..].copy_from_slice(&machine.to_le_bytes());
        header
    }

    #[test]
    fn a_program_says_which_processor_it_is_for() {
        assert_eq!(machine(&header(0xB7)), Some("arm64"));
        assert_eq!(machine(&header(0x3E)), Some("x86_64"));
        assert_eq!(machine(&header(0x28)), Some("another processor"));
        assert_eq!(machine(b"#!/bin/sh\nexec true\n"), None);
    }
}
