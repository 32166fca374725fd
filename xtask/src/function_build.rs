//! Compiles the functions, and packages them for a deployment.
//!
//! There are two ways. For AWS and for containers, cargo-lambda compiles the functions, so
//! that they run with the C library of Lambda's Linux, and `sam build` packages them. The
//! project's own emulator runs the functions as processes of this machine, so Cargo alone
//! compiles them: the tests and `cargo lambda watch` then use the same compiled libraries.
//! `sam local` runs these programs, too, unless this machine's C library is too new.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use elf::{
    ElfBytes,
    abi::{EM_AARCH64, EM_X86_64},
    endian::AnyEndian,
};
use serde_json::Value;
use xshell::Shell;

use crate::{
    deployment_environment::DeploymentEnvironment,
    prelude::*,
    tools::{architecture, without_own_variables},
};

/// The crates that contain functions.
const CRATES: [&str; 5] = ["users", "products", "orders", "payments", "notifications"];
/// The folder in which SAM puts the packages.
const BUILT: &str = ".aws-sam/build";
/// The environment of samconfig.toml for emulators.
const LOCAL: &str = "local";
/// The version of the GNU C library in Amazon Linux 2023, on which Lambda runs functions.
/// <https://docs.aws.amazon.com/linux/al2023/ug/compare-with-al2.html>
const LAMBDA_C_LIBRARY: (u32, u32) = (2, 34);

/// The variable that tells the functions the commit from which they are built.
const COMMIT: &str = "HOLDFAST_COMMIT";
/// Everything that functions are compiled from, in Git's notation. No function uses the console.
const SOURCES: [&str; 7] = [
    "crates",
    ":(exclude)crates/console",
    "functions",
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
    ".cargo/config.toml",
];

/// Cargo's profile with which functions are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Compiles much faster than `Release`. The programs are large and slow, which is good
    /// enough on the machine of a developer.
    Dev,
    /// The profile of every program that is deployed to AWS.
    Release,
}

impl Profile {
    /// The profile for an emulator: `PROFILE=release` on make's command line, or `dev`.
    fn wanted() -> Result<Self> {
        match make_variable("PROFILE").as_deref() {
            None | Some("dev") => Ok(Self::Dev),
            Some("release") => Ok(Self::Release),
            Some(other) => bail!("PROFILE={other} is unknown: dev (the default) compiles fast, release as for AWS"),
        }
    }

    fn option(self) -> Option<&'static str> {
        (self == Self::Release).then_some("--release")
    }
}

/// Builds all functions for the project's own emulator. Returns the template in which each
/// function has its program.
pub fn build_for_own_emulator(tools: &Tools) -> Result<PathBuf> {
    Ok(build_for_this_machine(tools)?.0)
}

/// Builds all functions for `sam local`. Returns the template in which each function has
/// its program.
pub fn build_for_sam_local(tools: &Tools) -> Result<PathBuf> {
    let (template, programs) = build_for_this_machine(tools)?;
    for program in programs.values() {
        let content = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        if needed_c_library(&content)?.is_some_and(|needed| needed > LAMBDA_C_LIBRARY) {
            return build_for_containers(tools);
        }
    }
    Ok(template)
}

/// Builds all functions for this machine. Returns the template, and the path of each
/// program.
fn build_for_this_machine(tools: &Tools) -> Result<(PathBuf, BTreeMap<String, PathBuf>)> {
    let built = compile_for_this_machine(&tools.project)?;
    let template = package_for_own_emulator(tools, &built)?;
    Ok((template, built))
}

/// The template that [`package_for_own_emulator`] has written.
pub fn packaged_template(project: &Project) -> PathBuf {
    project.local().join("functions/template.yaml")
}

/// Packages the programs that [`compile_for_this_machine`] has compiled. Returns the
/// template in which each function has its program.
pub fn package_for_own_emulator(tools: &Tools, built: &BTreeMap<String, PathBuf>) -> Result<PathBuf> {
    let environment = DeploymentEnvironment::read(tools, LOCAL)?;
    let step = Step::begin("Functions: package");
    let folder = tools.project.local().join("functions");
    let mut programs = Vec::new();
    for (function, name) in &environment.programs {
        let program = built.get(name).with_context(|| format!("Cargo has built no program {name}"))?;
        programs.push(format!("{function}={}", program.display()));
    }
    quiet(cmd!(tools.offline(), "python xtask/python/package_programs.py {folder} {programs...}"))?;
    step.done(format!("in .local/functions: {} programs", built.len()));
    Ok(packaged_template(&tools.project))
}

/// Builds all functions for emulators that run functions in containers. Returns the template in which each function has its program.
pub fn build_for_containers(tools: &Tools) -> Result<PathBuf> {
    build(tools, LOCAL, architecture(), Profile::wanted()?)
}

/// Builds all functions for an environment of samconfig.toml. Returns the template in which
/// each function has its program.
pub fn build_all(tools: &Tools, environment: &str, architecture: &str) -> Result<PathBuf> {
    build(tools, environment, architecture, Profile::Release)
}

fn build(tools: &Tools, environment: &str, architecture: &str, profile: Profile) -> Result<PathBuf> {
    compile(tools, &CRATES, architecture, profile)?;
    let step = Step::begin("Functions: package");
    quiet(sam_build(tools, environment, architecture, profile)).context("SAM could not package the functions")?;
    let mut programs = 0;
    for folder in tools.shell.read_dir(BUILT)? {
        if folder.is_dir() {
            check_program(&folder, architecture)?;
            programs += 1;
        }
    }
    ensure!(programs >= CRATES.len(), "SAM has packaged only {programs} functions");
    step.done(format!("in {BUILT}: {programs} programs for {architecture}"));
    Ok(tools.root().join(BUILT).join("template.yaml"))
}

/// Compiles the programs of all functions for this machine. Returns the path of each
/// program by its name. Needs none of the Python tools.
pub fn compile_for_this_machine(project: &Project) -> Result<BTreeMap<String, PathBuf>> {
    let profile = Profile::wanted()?;
    let step = Step::begin("Functions: compile (minutes the first time)");
    let built = compile_programs(project, &names_of_programs(project)?, profile)?;
    step.done("the functions are compiled");
    Ok(built)
}

/// Compiles programs of the workspace for this machine. Returns the path of each program by
/// its name.
///
/// `--workspace` makes Cargo select the same features as for the tests. With `--package`,
/// Cargo would select fewer features and compile the libraries again.
pub fn compile_programs(project: &Project, names: &[String], profile: Profile) -> Result<BTreeMap<String, PathBuf>> {
    let names = names.iter().flat_map(|name| ["--bin", name]);
    let release = profile.option();
    let format = "--message-format=json-render-diagnostics";
    let shell = Shell::new()?;
    shell.change_dir(project.root());
    let command = without_own_variables(cmd!(shell, "cargo build --workspace {format} {release...} {names...}"));
    let command = command.env(COMMIT, source_commit(project.root()));
    let line = command.to_string();
    // Cargo writes its progress to standard error, which the user sees.
    let output = Command::from(command).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start `{line}`"))?;
    ensure!(output.status.success(), "`{line}` failed ({})", output.status);
    let mut built = BTreeMap::new();
    for message in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: Value = serde_json::from_slice(message).context("Cargo's messages cannot be read")?;
        if let (Some(name), Some(path)) = (message["target"]["name"].as_str(), message["executable"].as_str()) {
            built.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    Ok(built)
}

/// The names of the functions' programs: each file in a function's folder `src/bin` is a
/// program.
fn names_of_programs(project: &Project) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for function in CRATES {
        let folder = project.root().join("functions").join(function).join("src/bin");
        for file in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = file?.path();
            names.extend(path.file_stem().and_then(OsStr::to_str).map(str::to_owned));
        }
    }
    Ok(names)
}

/// Compiles several functions at once for Lambda's Linux, before `sam build` packages them.
///
/// `sam build` alone would compile the functions one after the other, and print nothing
/// for minutes. This function shows Cargo's progress. Afterwards `sam build` runs Cargo
/// again for each function, but Cargo has nothing to compile, as long as all functions
/// use the same features of their shared dependencies.
pub fn compile(tools: &Tools, crates: &[&str], architecture: &str, profile: Profile) -> Result<()> {
    check_standard_library(tools, architecture)?;
    let step = Step::begin(format!("Functions: compile for Lambda on {architecture} (minutes the first time)"));
    let arm = (architecture == "arm64").then_some("--arm64");
    let release = profile.option();
    let packages = crates.iter().flat_map(|name| ["--package", name]);
    let build = cmd!(tools, "cargo lambda build {release...} {arm...} {packages...}");
    show(build.env(COMMIT, source_commit(tools.root())))?;
    step.done("compiled");
    Ok(())
}

/// Builds the command `sam build`, which packages all functions.
pub fn sam_build<'a>(tools: &'a Tools, environment: &str, architecture: &str, profile: Profile) -> Cmd<'a> {
    let parameter = format!("Architecture={architecture}");
    let build = cmd!(tools.offline(), "sam build --config-env {environment} --parameter-overrides {parameter}");
    let build = build.env(COMMIT, source_commit(tools.root()));
    // SAM has no option for this.
    if profile == Profile::Dev { build.env("SAM_BUILD_MODE", "debug") } else { build }
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

/// The newest version of the GNU C library that an ELF program asks for. Returns `None` if
/// the program uses no symbol of that library.
fn needed_c_library(program: &[u8]) -> Result<Option<(u32, u32)>> {
    let file = ElfBytes::<AnyEndian>::minimal_parse(program)?;
    let (Some((symbols, _)), Some(versions)) = (file.dynamic_symbol_table()?, file.symbol_version_table()?) else {
        return Ok(None);
    };
    let mut newest = None;
    for index in 0..symbols.len() {
        let requirement = versions.get_requirement(index)?;
        let version = requirement.and_then(|requirement| c_library_version(requirement.name));
        newest = newest.max(version);
    }
    Ok(newest)
}

/// Parses a symbol version such as `GLIBC_2.34`, or `GLIBC_2.2.5` as 2.2.
fn c_library_version(name: &str) -> Option<(u32, u32)> {
    let mut parts = name.strip_prefix("GLIBC_")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
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

/// Returns the commit from which the functions are built: the value of `HOLDFAST_COMMIT`
/// if it is set, or else the last commit that changed a file from which functions are
/// compiled. So a commit that changes only documents or tests leaves the programs as they
/// are, byte for byte. The commit of changed files ends in `-modified`. The result is
/// `unknown` if this is no checkout of Git.
fn source_commit(root: &Path) -> String {
    make_variable(COMMIT).or_else(|| commit_of_sources(root)).unwrap_or_else(|| "unknown".to_owned())
}

fn commit_of_sources(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).arg("--").args(SOURCES).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["log", "-1", "--format=%h", "--abbrev=12"]).filter(|commit| !commit.is_empty())?;
    let is_modified = !git(&["status", "--porcelain"])?.is_empty();
    Some(if is_modified { format!("{commit}-modified") } else { commit })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::{architecture_of, c_library_version, commit_of_sources, needed_c_library};

    #[test]
    fn the_commit_of_the_functions_is_the_last_one_that_changed_what_they_are_compiled_from() {
        let folder = std::env::temp_dir().join(format!("holdfast-commit-{}", std::process::id()));
        let git = |arguments: &[&str]| {
            let own = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-C"];
            let output = Command::new("git").args(own).arg(&folder).args(arguments).output().expect("git");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("text").trim().to_owned()
        };
        let commit = |file: &str, text: &str| {
            let file = folder.join(file);
            fs::create_dir_all(file.parent().unwrap_or(Path::new("/"))).expect("a folder");
            fs::write(file, text).expect("a file");
            git(&["add", "."]);
            git(&["commit", "--quiet", "--message", "a change"]);
            git(&["rev-parse", "--short=12", "HEAD"])
        };
        fs::create_dir_all(&folder).expect("a folder");
        assert_eq!(commit_of_sources(&folder), None);
        git(&["init", "--quiet"]);
        let first = commit("functions/lib.rs", "1");
        assert_eq!(commit_of_sources(&folder), Some(first.clone()));
        commit("docs/a.md", "1");
        assert_eq!(commit_of_sources(&folder), Some(first));
        let second = commit("functions/lib.rs", "2");
        fs::write(folder.join("README.md"), "not committed").expect("a file");
        assert_eq!(commit_of_sources(&folder), Some(second.clone()));
        fs::write(folder.join("functions/new.rs"), "not committed").expect("a file");
        assert_eq!(commit_of_sources(&folder), Some(format!("{second}-modified")));
        fs::remove_dir_all(&folder).expect("the folder can be removed");
    }

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

    #[test]
    fn a_program_for_this_machine_asks_for_a_version_of_the_c_library() {
        let own = fs::read("/proc/self/exe").expect("this program");
        let needed = needed_c_library(&own).expect("an ELF program");
        assert!(needed.is_some_and(|needed| needed >= (2, 17)), "{needed:?}");
        assert!(needed_c_library(b"#!/bin/sh").is_err());
    }

    #[test]
    fn a_version_of_the_c_library_has_two_numbers() {
        assert_eq!(c_library_version("GLIBC_2.34"), Some((2, 34)));
        assert_eq!(c_library_version("GLIBC_2.2.5"), Some((2, 2)));
        assert_eq!(c_library_version("GLIBC_PRIVATE"), None);
        assert_eq!(c_library_version("GCC_3.0"), None);
    }
}
