//! The Python tools of the project: the emulator, SAM, the AWS CLI and
//! cargo-lambda, installed into `.local/venv` as requirements.txt pins them.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use xshell::Shell;

use crate::{commands::show_latest_line, prelude::*, project};

/// The AWS region of each stack that is deployed to an emulator.
pub const REGION: &str = "us-east-1";

pub struct Tools {
    pub project: Project,
    pub shell: Shell,
}

/// The tools, configured for a cloud: for an emulator, or for AWS with the user's own
/// credentials and settings.
pub struct CloudTools<'a, 'e> {
    tools: &'a Tools,
    endpoint: Option<&'e str>,
}

impl Tools {
    /// Installs the tools if the pinned versions are not installed yet.
    pub fn install(project: &Project) -> Result<Self> {
        ensure!(
            cfg!(target_os = "linux"),
            "the emulator runs the functions as processes of this machine, and the functions are Linux programs: \
             Linux is needed (or WSL 2, or a Linux virtual machine)"
        );
        let step = Step::begin("Tools: the emulator, AWS SAM, AWS CLI, cargo-lambda");
        let venv = virtual_environment(project, step, "venv", "requirements.txt")?;
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([venv.join("bin")].into_iter().chain(env::split_paths(&path)))
            .context("PATH cannot be extended")?;
        let shell = Shell::new()?;
        shell.change_dir(project.root());
        shell.set_var("PATH", path);
        Ok(Self { project: project.clone(), shell })
    }

    /// The folder that contains the installed programs.
    pub fn programs(&self) -> PathBuf {
        self.project.local().join("venv/bin")
    }

    pub fn root(&self) -> &Path {
        self.project.root()
    }

    /// Builds a command that runs in the root of the checkout, with the installed tools
    /// on its PATH. The macro `cmd!` calls this method.
    pub fn cmd(&self, program: impl AsRef<Path>) -> Cmd<'_> {
        without_own_variables(self.shell.cmd(program))
    }

    /// Configures the tools for the emulator at `endpoint`, or for AWS if `endpoint` is
    /// `None`.
    pub fn cloud<'a, 'e>(&'a self, endpoint: Option<&'e str>) -> CloudTools<'a, 'e> {
        CloudTools { tools: self, endpoint }
    }

    /// Configures the tools for work that calls no cloud. Nothing listens at the
    /// endpoint, so a call by mistake fails and does not reach AWS.
    pub fn offline(&self) -> CloudTools<'_, 'static> {
        self.cloud(Some("http://localhost:9"))
    }
}

impl<'a> CloudTools<'a, '_> {
    /// Builds a command that calls the cloud. A command for an emulator gets neither the
    /// user's profiles nor credentials, so it cannot change anything on AWS, and it
    /// sends no usage statistics. The macro `cmd!` calls this method.
    pub fn cmd(&self, program: impl AsRef<Path>) -> Cmd<'a> {
        let command = self.tools.cmd(program).env("AWS_PAGER", "").env("SAM_CLI_CHECK_VERSION", "0");
        let Some(endpoint) = self.endpoint else { return command };
        let command = command
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("NO_PROXY", "localhost,127.0.0.1")
            .env("__SAM_CLI_APP_DIR", self.tools.project.local().join("sam"))
            .env("SAM_CLI_TELEMETRY", "0")
            // An emulator deploys in seconds, so SAM's pause between two polls is short.
            .env("SAM_CLI_POLL_DELAY", "0.2");
        ["AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"]
            .into_iter()
            .fold(command, Cmd::env_remove)
    }
}

/// Removes the variables that `cargo run` has set for this process, such as
/// `CARGO_MANIFEST_DIR`, from a command. Some build scripts read these variables, so a
/// Cargo that inherits them would compile their crates again.
pub fn without_own_variables(command: Cmd<'_>) -> Cmd<'_> {
    let own_variables = env::vars_os().map(|(name, _)| name).filter(|name| {
        name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || ["CARGO", "CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"].contains(&name)
        })
    });
    own_variables.fold(command, Cmd::env_remove)
}

/// Installs the Python programs of a requirements file into the folder `name` of
/// `.local`, if the pinned versions are not installed yet. Returns the folder.
pub fn virtual_environment(project: &Project, step: Step, name: &str, requirements: &str) -> Result<PathBuf> {
    let folder = project.local().join(name);
    let pins = project.root().join(requirements);
    let wanted = fs::read_to_string(&pins).with_context(|| format!("cannot read {}", pins.display()))?;
    // The installed scripts contain the path of this folder. After the checkout was
    // moved, the path differs, and the programs are installed again.
    let wanted = format!("# {}\n{wanted}", folder.display());
    let installed = folder.join("installed");
    if fs::read_to_string(&installed).is_ok_and(|present| present == wanted) {
        step.done("as pinned");
        return Ok(folder);
    }
    step.note(format!("installs into .local/{name}, once for each version of {requirements}"));
    let shell = Shell::new()?;
    check_python(&shell)?;
    project::remove(&folder)?;
    quiet(cmd!(shell, "python3 -m venv {folder}"))?;
    let python = folder.join("bin/python");
    let install = cmd!(shell, "{python} -m pip install --disable-pip-version-check --progress-bar=off");
    show_latest_line(install.args(["--no-deps", "--require-hashes", "--requirement"]).arg(&pins))
        .with_context(|| format!("the programs that {requirements} pins could not be installed"))?;
    project::write_file(&installed, wanted)?;
    step.done("installed");
    Ok(folder)
}

fn check_python(shell: &Shell) -> Result<()> {
    const NEEDS: &str = "Python 3.10 or newer is needed, with its `venv` module (on Debian and Ubuntu: \
                         apt install python3 python3-venv)";
    let program = "import sys, venv, ensurepip; print(sys.version_info >= (3, 10), sys.version.split()[0])";
    let Ok(output) = quiet(cmd!(shell, "python3 -c {program}")) else { bail!("{NEEDS}") };
    match output.trim().split_once(' ') {
        Some(("True", _)) => Ok(()),
        Some((_, version)) => bail!("{NEEDS}; `python3` here is {version}"),
        None => bail!("{NEEDS}; `python3` here prints {}", output.trim()),
    }
}

/// The processor architecture of this machine, by the template's name. An emulator
/// runs the functions as processes of this machine, so they must be compiled for it.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}
