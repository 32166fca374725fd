//! `make sam-local`: `sam local start-api` over the running stack.

use std::{net::ToSocketAddrs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    emulator::{check_port, local_url, wanted_port},
    environment::Environment,
    process::quiet,
    progress::Step,
    project::Project,
    relay::{HOST, bridge, relay},
    shop,
    stack::Stack,
    tools::{Tools, architecture},
};

/// Where `sam local start-api` listens unless it is told otherwise.
const PORT: u16 = 3000;

pub fn sam_local(project: &Project) -> Result<()> {
    let stack = Stack::running(project)?;
    let port = wanted_port()?.unwrap_or(PORT);
    check_port(port)?;
    ensure_engine()?;
    let tools = Tools::install(project)?;
    ensure!(
        project.root().join(".aws-sam/build/template.yaml").exists(),
        "no function is built; `make up` or `sam build` does it"
    );
    let step = Step::begin("Environment: tables, queues and pool of the running stack");
    let mut start = prepare(&tools, &stack, Path::new(".local/sam-local.json"), port)?;
    step.done("in .local/sam-local.json");
    shop::keep_open(&mut start, &local_url(port))
}

/// That containers can be run here, and there is one to run; or how to get
/// there.
pub fn ensure_engine() -> Result<()> {
    let mut version = Command::new("docker");
    version.args(["version", "--format", "{{.Server.Version}}"]);
    if let Err(error) = quiet(&mut version) {
        bail!(
            "`sam local` runs the functions in containers, and no Docker engine answers here.\n\
             Install Docker (https://docs.docker.com/engine/install/) and start it, or name another engine in \
             DOCKER_HOST. `make watch` and `make up` need none.\n{error}"
        );
    }
    let image = image();
    if quiet(Command::new("docker").args(["image", "inspect", &image])).is_err() {
        bail!("the image that functions run in is missing: docker pull {image}");
    }
    Ok(())
}

fn image() -> String {
    format!("public.ecr.aws/lambda/provided:al2023-{}", architecture())
}

/// The command, with an environment in `env_file`, and a way for containers to
/// reach the emulator and each other.
pub fn prepare(tools: &Tools, stack: &Stack, env_file: &Path, port: u16) -> Result<Command> {
    let environment = Environment::of(tools, stack, &format!("http://{HOST}:{port}"))?;
    let mut behind_bridge = vec![port];
    match local_port(&stack.emulator_url)? {
        Some(emulator) => {
            let address = format!("http://{HOST}:{emulator}");
            environment.with_address(&stack.emulator_url, &address).write_json(env_file)?;
            behind_bridge.push(emulator);
        }
        None => environment.write_json(env_file)?,
    }
    if let Some(bridge) = bridge(&image())? {
        behind_bridge.into_iter().try_for_each(|port| relay(bridge, port))?;
    }
    let mut start = tools.aws("sam", &stack.emulator_url);
    start.args(["local", "start-api", "--port", &port.to_string(), "--env-vars"]).arg(env_file);
    // samconfig.toml has the rest.
    start.args(["--parameter-overrides", &format!("Architecture={}", architecture())]);
    Ok(start)
}

/// The port of an address that means this machine, by whichever name; to a
/// container, that would be itself.
fn local_port(url: &str) -> Result<Option<u16>> {
    let (host, port) = url
        .split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once(':'))
        .with_context(|| format!("{url} is no address with a port"))?;
    let port = port.parse().with_context(|| format!("{url} is no address with a port"))?;
    let mut found = (host, port).to_socket_addrs().with_context(|| format!("{host} is not known here"))?;
    Ok(found.any(|address| address.ip().is_loopback()).then_some(port))
}

#[cfg(test)]
mod tests {
    use super::local_port;

    #[test]
    fn an_address_of_this_machine_is_told_from_others() {
        assert_eq!(local_port("http://localhost:4566").expect("an address"), Some(4566));
        assert_eq!(local_port("http://127.0.0.1:4570").expect("an address"), Some(4570));
        assert_eq!(local_port("http://192.0.2.1:4566").expect("an address"), None);
        assert!(local_port("http://localhost").is_err());
    }
}
