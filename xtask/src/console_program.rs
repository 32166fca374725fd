//! The console, which runs over a stack: starts the program, and leads the functions'
//! requests to the emulator through the console's proxy.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use std::os::unix::process::CommandExt;

use crate::{
    emulator_deployment::deploy,
    function_build::{Profile, compile_programs, packaged_template},
    http,
    ports::{free_port, local_url},
    prelude::*,
    template_parameters::Parameters,
    tools::virtual_environment,
};

const NAME: &str = "console";
const STARTS_WITHIN: Duration = Duration::from_secs(20);
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// A running console. Dropping this value ends the program; [`Console::leave`] also leads the
/// functions' requests past the proxy again.
pub struct Console {
    program: Child,
    proxy: u16,
    url: String,
}

impl Console {
    /// Compiles and starts the console over the stack that `folder` describes.
    pub fn start(project: &Project, folder: &Path, port: u16) -> Result<Self> {
        let step = Step::begin("Console: compile (a minute the first time)");
        let built = compile_programs(project, &[NAME.to_owned()], Profile::Dev)?;
        let program = built.get(NAME).context("Cargo has built no console")?;
        step.done("compiled");
        let step = Step::begin("Tools: the viewer of the API");
        let viewer = virtual_environment(project, step, NAME, "requirements-console.txt")?;
        let proxy = free_port()?;
        let program = Command::new(program)
            .args([project.root(), folder, &viewer])
            .args([port.to_string(), proxy.to_string()])
            // The console ends when its standard input does, so also if this task is killed. At
            // Ctrl-C it must not end before the functions have left its proxy, so the terminal
            // does not reach it.
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut console = Self { program, proxy, url: local_url(port) };
        let deadline = Instant::now() + STARTS_WITHIN;
        while !http::get(&console.url, READY_TIMEOUT).is_ok_and(|answer| answer.is_success()) {
            ensure!(console.is_running()?, "the console ended at its start");
            ensure!(Instant::now() < deadline, "the console does not answer at {}", console.url);
            thread::sleep(Duration::from_millis(50));
        }
        Ok(console)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.program.try_wait().context("cannot wait for the console")?.is_none())
    }

    /// Deploys the stack again, so that its functions call the emulator through the proxy.
    pub fn lead_through_proxy(&self, tools: &Tools, stack: &Stack) -> Result<()> {
        say!("▸ The functions' requests go through the console's proxy, which makes the weather");
        redeploy(tools, stack, &local_url(self.proxy))
    }

    /// Deploys the stack again, so that its functions call the emulator directly, and ends the
    /// console.
    pub fn leave(self, tools: &Tools, stack: &Stack) -> Result<()> {
        say!("▸ The functions' requests go to the emulator directly again");
        redeploy(tools, stack, &stack.emulator_url)
            .context("the functions still call the proxy of the console, which has ended; `make up` mends that")
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Err(error) = self.program.kill().and_then(|()| self.program.wait()) {
            complain!("the console could not be ended: {error}");
        }
    }
}

/// The stack keeps all other parameters, because CloudFormation keeps the values that a
/// deployment does not name.
fn redeploy(tools: &Tools, stack: &Stack, endpoint: &str) -> Result<()> {
    let template = packaged_template(&tools.project);
    ensure!(template.exists(), "the functions are not packaged; `make up` packages them");
    let parameters = Parameters::from([("LocalEndpoint".to_owned(), endpoint.to_owned())]);
    deploy(tools, &stack.emulator_url, &template, &parameters)?;
    Ok(())
}
