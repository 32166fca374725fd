//! The tools that the project brings along: in `.local/venv`, as pinned by
//! requirements.txt, whatever else the machine has.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    process::{quiet, ticking},
    progress::Step,
    project::{self, Project},
};

/// Wherever the emulator is asked where it is, it says this.
pub const REGION: &str = "us-east-1";

/// Where stacks live.
pub enum Cloud {
    /// The account that the user's AWS configuration names.
    Aws,
    /// Whatever answers like AWS at an address.
    Endpoint(String),
}

/// The installed tools.
pub struct Tools {
    root: PathBuf,
    local: PathBuf,
    venv: PathBuf,
    path: OsString,
}

impl Tools {
    /// Installs the tools, unless these same ones are there already.
    pub fn install(project: &Project) -> Result<Self> {
        ensure!(
            cfg!(target_os = "linux"),
            "the emulator runs the functions, which are Linux programs, as processes of this machine: \
             this needs Linux (or WSL 2, or a Linux virtual machine)"
        );
        let step = Step::begin("Tools: the emulator, AWS SAM, AWS CLI, cargo-lambda");
        let venv = virtual_environment(project, step, "venv", "requirements.txt")?;

        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([venv.join("bin")].into_iter().chain(env::split_paths(&path)))
            .context("PATH cannot be extended")?;
        Ok(Self { root: project.root().to_path_buf(), local: project.local(), venv, path })
    }

    /// One of the tools, as a program of its own.
    pub fn program(&self, name: &str) -> PathBuf {
        self.venv.join("bin").join(name)
    }

    /// The folder of the programs.
    pub fn programs(&self) -> PathBuf {
        self.venv.join("bin")
    }

    /// The checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A program, as if typed at the checkout's root. What `cargo run` told
    /// *this* program about itself would otherwise reach the build scripts, some
    /// of which then start over.
    pub fn at_root(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("PATH", &self.path);
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(is_about_own_package) {
                command.env_remove(name);
            }
        }
        command
    }

    pub fn cargo(&self) -> Command {
        self.at_root("cargo")
    }

    /// A tool of the venv at work that needs no cloud at all.
    pub fn offline(&self, name: &str) -> Command {
        self.aws(name, "http://localhost:9")
    }

    /// A tool of the venv that deals with a cloud.
    pub fn on(&self, cloud: &Cloud, name: &str) -> Command {
        match cloud {
            Cloud::Endpoint(url) => self.aws(name, url),
            Cloud::Aws => {
                let mut command = self.at_root(self.program(name));
                command.env("AWS_PAGER", "").env("SAM_CLI_CHECK_VERSION", "0");
                command
            }
        }
    }

    /// A tool of the venv that deals with AWS, kept from AWS: it knows only the
    /// emulator at `endpoint`, nothing of the user's profiles, and sends no
    /// statistics.
    pub fn aws(&self, name: &str, endpoint: &str) -> Command {
        let mut command = self.at_root(self.program(name));
        command
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_PAGER", "")
            .env("NO_PROXY", "localhost,127.0.0.1")
            .env("__SAM_CLI_APP_DIR", self.local.join("sam"))
            .env("SAM_CLI_TELEMETRY", "0")
            .env("SAM_CLI_CHECK_VERSION", "0")
            // An emulator is done in tenths of the seconds that AWS takes.
            .env("SAM_CLI_POLL_DELAY", "0.2");
        for name in ["AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"] {
            command.env_remove(name);
        }
        command
    }
}

/// A folder of Python programs in `.local`, with exactly what a requirements
/// file pins. Installed unless it is there already.
pub fn virtual_environment(project: &Project, step: Step, name: &str, requirements: &str) -> Result<PathBuf> {
    let folder = project.local().join(name);
    let pins = project.root().join(requirements);
    let wanted = fs::read_to_string(&pins).with_context(|| format!("cannot read {}", pins.display()))?;
    // Its scripts name the folder that they were installed in, so a moved
    // checkout has to install them anew.
    let wanted = format!("# {}\n{wanted}", folder.display());
    let installed = folder.join("installed");
    if fs::read_to_string(&installed).is_ok_and(|there| there == wanted) {
        step.done("as pinned");
        return Ok(folder);
    }
    step.note(format!("into .local/{name}; only when {requirements} has changed"));
    check_python()?;
    project::remove(&folder)?;
    quiet(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    ticking(
        Command::new(folder.join("bin/python"))
            .args(["-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off"])
            .args(["--no-deps", "--require-hashes", "--requirement"])
            .arg(&pins),
    )
    .with_context(|| format!("what {requirements} pins could not be installed"))?;
    fs::write(&installed, wanted).with_context(|| format!("cannot write {}", installed.display()))?;
    step.done("installed");
    Ok(folder)
}

fn check_python() -> Result<()> {
    const NEEDS: &str = "Python 3.10 or newer is needed, with its `venv` module (on Debian and Ubuntu: \
                         apt install python3 python3-venv)";
    let asked = "import sys, venv, ensurepip; print(sys.version_info >= (3, 10), sys.version.split()[0])";
    let Ok(answer) = quiet(Command::new("python3").args(["-c", asked])) else { bail!("{NEEDS}") };
    match answer.trim().split_once(' ') {
        Some(("True", _)) => Ok(()),
        Some((_, version)) => bail!("{NEEDS}; `python3` here is {version}"),
        None => bail!("{NEEDS}; `python3` here answers {}", answer.trim()),
    }
}

fn is_about_own_package(variable: &str) -> bool {
    variable.starts_with("CARGO_PKG_")
        || variable.starts_with("CARGO_MANIFEST_")
        || ["CARGO", "CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"].contains(&variable)
}

/// What the functions are built for: an emulator can run only what its machine
/// can.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}
