//! `make sam-local`: runs `sam local start-api`. The functions use the tables and queues of
//! the running stack.

use std::{net::ToSocketAddrs, path::Path};

use crate::{
    container_relay::{HOST, bridge, relay},
    function_build::build_for_sam_local,
    function_environment::FunctionEnvironment,
    ports::{check_port, local_url, wanted_port},
    prelude::*,
    service_health,
    tools::architecture,
};

/// The default port of `sam local start-api`.
const PORT: u16 = 3000;

pub fn run(project: &Project) -> Result<()> {
    let stack = Stack::running(project)?;
    let port = wanted_port()?.unwrap_or(PORT);
    check_port(port)?;
    let tools = Tools::install(project)?;
    check_engine(&tools)?;
    let template = build_for_sam_local(&tools)?;
    let step = Step::begin("Environment: tables, queues and user pool of the running stack");
    let start = command(&tools, &stack, &template, Path::new(".local/sam-local.json"), port)?;
    step.done("in .local/sam-local.json");
    service_health::serve(start, &local_url(port))
}

/// Checks that a Docker engine runs and has the image for the functions' containers. The
/// error says how to install a missing engine or image.
pub fn check_engine(tools: &Tools) -> Result<()> {
    let format = "{{.Server.Version}}";
    if let Err(error) = quiet(cmd!(tools, "docker version --format {format}")) {
        bail!(
            "`sam local` runs the functions in containers, and no Docker engine answers here.\n\
             Install Docker (https://docs.docker.com/engine/install/) and start it, or name another engine in \
             DOCKER_HOST. `make watch` and `make up` need none.\n{error}"
        );
    }
    let image = image();
    if quiet(cmd!(tools, "docker image inspect {image}")).is_err() {
        bail!("the image for functions is missing: docker pull {image}");
    }
    Ok(())
}

fn image() -> String {
    format!("public.ecr.aws/lambda/provided:al2023-{}", architecture())
}

/// Builds the command `sam local start-api` for a template with built functions. Writes the
/// functions' environment variables into `env_file`, and starts the relays through which
/// containers reach the emulator and each other. `sam local` knows no function URLs, so it
/// gets a copy of the template in which the routes between services are routes of the API.
pub fn command<'a>(tools: &'a Tools, stack: &Stack, template: &Path, env_file: &Path, port: u16) -> Result<Cmd<'a>> {
    let mut environment = FunctionEnvironment::of(tools, stack, &format!("http://{HOST}:{port}"))?;
    let mut relayed = vec![port];
    if let Some(emulator) = local_port(&stack.emulator_url)? {
        environment = environment.with_address(&stack.emulator_url, &format!("http://{HOST}:{emulator}"));
        relayed.push(emulator);
    }
    environment.write_json(env_file)?;
    // The template itself stays as it is, because it can be deployed.
    let with_routes = template.with_file_name("sam-local.yaml");
    quiet(cmd!(tools.offline(), "python xtask/python/add_internal_routes.py {template} {with_routes}"))
        .context("the routes between services cannot be added to the template")?;
    if let Some(bridge) = bridge(tools, &image())? {
        relayed.into_iter().try_for_each(|port| relay(bridge, port))?;
    }
    let (port, parameter) = (port.to_string(), format!("Architecture={}", architecture()));
    let start = cmd!(tools.cloud(Some(&stack.emulator_url)), "sam local start-api --port {port} --env-vars {env_file}");
    // samconfig.toml has the other options. Without `--config-file`, SAM would look for it in
    // the template's folder.
    let start = start.arg("--template-file").arg(with_routes);
    let start = start.arg("--config-file").arg(tools.root().join("samconfig.toml"));
    Ok(start.args(["--parameter-overrides", &parameter]))
}

/// Returns the port of a URL on this machine, or `None` if the URL is on another machine.
/// A container cannot use a URL with `localhost`, which is the container itself there.
fn local_port(url: &str) -> Result<Option<u16>> {
    let no_port = || format!("{url} is no address with a port");
    let (_, rest) = url.split_once("://").with_context(no_port)?;
    let (host, port) = rest.rsplit_once(':').with_context(no_port)?;
    let port = port.parse().with_context(no_port)?;
    let mut found = (host, port).to_socket_addrs().with_context(|| format!("{host} is not known here"))?;
    Ok(found.any(|address| address.ip().is_loopback()).then_some(port))
}

#[cfg(test)]
mod tests {
    use super::local_port;

    #[test]
    fn a_url_on_this_machine_is_recognised() {
        assert_eq!(local_port("http://localhost:4566").expect("an address"), Some(4566));
        assert_eq!(local_port("http://127.0.0.1:4570").expect("an address"), Some(4570));
        assert_eq!(local_port("http://192.0.2.1:4566").expect("an address"), None);
        assert!(local_port("http://localhost").is_err());
    }
}
