//! Compiles the functions with cargo-lambda, and packages them with `sam build`.

use std::{fs, path::Path};

use elf::{
    ElfBytes,
    abi::{EM_AARCH64, EM_X86_64},
    endian::AnyEndian,
};

use crate::{prelude::*, tools::architecture};

/// The crates that contain functions.
const CRATES: [&str; 5] = ["users", "products", "orders", "payments", "notifications"];
/// The folder in which SAM puts the packages.
const BUILT: &str = ".aws-sam/build";

/// Builds all functions for an emulator on this machine.
pub fn build_for_emulator(tools: &Tools) -> Result<()> {
    build_all(tools, "local", architecture())
}

/// Builds all functions for an environment of samconfig.toml.
pub fn build_all(tools: &Tools, environment: &str, architecture: &str) -> Result<()> {
    compile(tools, &CRATES, architecture)?;
    let step = Step::begin("Functions: package");
    quiet(sam_build(tools, environment, architecture)).context("SAM could not package the functions")?;
    let mut programs = 0;
    for folder in tools.shell.read_dir(BUILT)? {
        if folder.is_dir() {
            check_program(&folder, architecture)?;
            programs += 1;
        }
    }
    ensure!(programs >= CRATES.len(), "SAM has packaged only {programs} functions");
    step.done(format!("in {BUILT}: {programs} programs for {architecture}"));
    Ok(())
}

/// Compiles several functions at once, before `sam build` packages them.
///
/// `sam build` alone would compile the functions one after the other, and print nothing
/// for minutes. This function shows Cargo's progress. Afterwards `sam build` runs Cargo
/// again for each function, but Cargo has nothing to compile, as long as all functions
/// use the same features of their shared dependencies.
pub fn compile(tools: &Tools, crates: &[&str], architecture: &str) -> Result<()> {
    check_standard_library(tools, architecture)?;
    let step = Step::begin(format!("Functions: compile for Lambda on {architecture} (minutes the first time)"));
    let arm = (architecture == "arm64").then_some("--arm64");
    let packages = crates.iter().flat_map(|name| ["--package", name]);
    show(cmd!(tools, "cargo lambda build --release {arm...} {packages...}"))?;
    step.done("compiled");
    Ok(())
}

/// Builds the command `sam build`, which packages all functions.
pub fn sam_build<'a>(tools: &'a Tools, environment: &str, architecture: &str) -> Cmd<'a> {
    let parameter = format!("Architecture={architecture}");
    cmd!(tools.offline(), "sam build --config-env {environment} --parameter-overrides {parameter}")
}

/// Checks that the packaged program in `folder` is compiled for `architecture`. Lambda
/// accepts any file as code, so a wrong program would fail only when it is invoked.
pub fn check_program(folder: &Path, architecture: &str) -> Result<()> {
    let file = folder.join("bootstrap");
    let program = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let found = architecture_of(&program).with_context(|| format!("{} is no ELF program", file.display()))?;
    ensure!(found == architecture, "{} is a program for {found}, not for {architecture}", file.display());
    Ok(())
}

/// The architecture of an ELF program, by the template's name. Returns `None` if the file
/// is no ELF program.
fn architecture_of(program: &[u8]) -> Option<&'static str> {
    match ElfBytes::<AnyEndian>::minimal_parse(program).ok()?.ehdr.e_machine {
        EM_X86_64 => Some("x86_64"),
        EM_AARCH64 => Some("arm64"),
        _ => Some("another processor"),
    }
}

/// Checks that the toolchain has the standard library for `architecture`. If it is
/// missing, cargo-lambda asks rustup to download it, which prints nothing for minutes
/// when there is no network.
fn check_standard_library(tools: &Tools, architecture: &str) -> Result<()> {
    let target = match architecture {
        "arm64" => "aarch64-unknown-linux-gnu",
        _ => "x86_64-unknown-linux-gnu",
    };
    let library = quiet(cmd!(tools, "rustc --print target-libdir --target {target}"))?;
    ensure!(
        Path::new(library.trim()).exists(),
        "this toolchain cannot compile for {architecture}. Once: rustup target add {target}\n\
         Or deploy for x86_64: set the parameter Architecture in samconfig.toml"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::architecture_of;

    fn program(machine: u16) -> [u8; 64] {
        let mut header = [0; 64];
        header[..7].copy_from_slice(&[0x7F, b'E', b'L', b'F', 2, 1, 1]);
        header[18..20].copy_from_slice(&machine.to_le_bytes());
        header
    }

    #[test]
    fn the_architecture_of_a_program_is_in_its_header() {
        assert_eq!(architecture_of(&program(0xB7)), Some("arm64"));
        assert_eq!(architecture_of(&program(0x3E)), Some("x86_64"));
        assert_eq!(architecture_of(&program(0x28)), Some("another processor"));
        assert_eq!(architecture_of(b"#!/bin/sh\nexec true\n"), None);
    }
}
