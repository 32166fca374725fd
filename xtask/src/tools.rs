//! The Python tools of the project: the emulator, SAM, the AWS CLI and
//! cargo-lambda, installed into `.local/venv` as requirements.txt pins them.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use xshell::Shell;

use crate::{commands::show_latest_line, prelude::*, project};

/// The region of every stack on an emulator.
pub const REGION: &str = "us-east-1";

pub struct Tools {
    pub project: Project,
    shell: Shell,
}

/// Tools that speak to a cloud: to AWS as the user has configured it, or to an
/// emulator.
pub struct CloudTools<'a, 'e> {
    tools: &'a Tools,
    endpoint: Option<&'e str>,
}

impl Tools {
    /// Installs the tools, unless the pinned versions are installed already.
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

    /// The folder of the installed programs.
    pub fn programs(&self) -> PathBuf {
        self.project.local().join("venv/bin")
    }

    pub fn root(&self) -> &Path {
        self.project.root()
    }

    /// A program that runs in the root of the checkout; the installed tools are
    /// on its PATH. For `cmd!`.
    pub fn cmd(&self, program: impl AsRef<Path>) -> Cmd<'_> {
        // `cargo run` has described this package in variables. Some build scripts
        // read them and would run again.
        let own_variables = env::vars_os().map(|(name, _)| name).filter(|name| {
            name.to_str().is_some_and(|name| {
                name.starts_with("CARGO_PKG_")
                    || name.starts_with("CARGO_MANIFEST_")
                    || ["CARGO", "CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"].contains(&name)
            })
        });
        own_variables.fold(self.shell.cmd(program), Cmd::env_remove)
    }

    /// Tools for the cloud at `endpoint`, or for AWS if that is `None`.
    pub fn cloud<'a, 'e>(&'a self, endpoint: Option<&'e str>) -> CloudTools<'a, 'e> {
        CloudTools { tools: self, endpoint }
    }

    /// Tools for work that needs no cloud at all.
    pub fn offline(&self) -> CloudTools<'_, 'static> {
        self.cloud(Some("http://localhost:9"))
    }
}

impl<'a> CloudTools<'a, '_> {
    /// A program that speaks to the cloud. For an emulator, the program cannot
    /// reach AWS: it knows nothing of the user's profiles, and sends no statistics.
    /// For `cmd!`.
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
            // An emulator needs tenths of the seconds that AWS needs.
            .env("SAM_CLI_POLL_DELAY", "0.2");
        ["AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"]
            .into_iter()
            .fold(command, Cmd::env_remove)
    }
}

/// Installs the Python programs that a requirements file pins into a folder of
/// `.local`, unless they are installed already. Returns the folder.
pub fn virtual_environment(project: &Project, step: Step, name: &str, requirements: &str) -> Result<PathBuf> {
    let folder = project.local().join(name);
    let pins = project.root().join(requirements);
    let wanted = fs::read_to_string(&pins).with_context(|| format!("cannot read {}", pins.display()))?;
    // The installed scripts contain the path of the folder, so a checkout that
    // has moved needs a new installation.
    let wanted = format!("# {}\n{wanted}", folder.display());
    let installed = folder.join("installed");
    if fs::read_to_string(&installed).is_ok_and(|present| present == wanted) {
        step.done("as pinned");
        return Ok(folder);
    }
    step.note(format!("installs into .local/{name}; again only when {requirements} has changed"));
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
    let Ok(answer) = quiet(cmd!(shell, "python3 -c {program}")) else { bail!("{NEEDS}") };
    match answer.trim().split_once(' ') {
        Some(("True", _)) => Ok(()),
        Some((_, version)) => bail!("{NEEDS}; `python3` here is {version}"),
        None => bail!("{NEEDS}; `python3` here answers {}", answer.trim()),
    }
}

/// The architecture of the functions on an emulator, which can run only programs
/// for its own machine.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}
