//! `make watch`: runs `cargo lambda watch`. The functions use the tables and queues of the
//! running stack.

use std::{
    net::{Ipv6Addr, TcpListener, ToSocketAddrs},
    path::Path,
};

use crate::{
    function_environment::FunctionEnvironment,
    ports::{check_port, local_url, wanted_port},
    prelude::*,
    service_health,
};

/// The default port of `cargo lambda watch` and of `cargo lambda invoke`.
const PORT: u16 = 9000;

pub fn run(project: &Project) -> Result<()> {
    let stack = Stack::running(project)?;
    let port = wanted_port()?.unwrap_or(PORT);
    check_port(port)?;
    let tools = Tools::install(project)?;
    let step = Step::begin("Environment: tables, queues and user pool of the running stack");
    let watch = command(&tools, &stack, Path::new(".local/watch.env"), port)?;
    step.done("in .local/watch.env");
    service_health::serve(watch, &local_url(port))
}

/// Builds the command `cargo lambda watch`. Writes the functions' environment variables
/// into `env_file`.
pub fn command<'a>(tools: &'a Tools, stack: &Stack, env_file: &Path, port: u16) -> Result<Cmd<'a>> {
    FunctionEnvironment::of(tools, stack, &local_url(port))?.write_env_file(env_file)?;
    let port = (port != PORT).then(|| format!("--invoke-port={port}"));
    // The server must listen only on the loopback address, because no gateway checks who
    // calls the internal routes.
    let address = loopback();
    let watch = cmd!(tools, "cargo lambda watch --env-file {env_file} --invoke-address {address} {port...}");
    // The functions must not use the user's own AWS profile or session.
    Ok(watch.env_remove("AWS_PROFILE").env_remove("AWS_SESSION_TOKEN"))
}

/// Returns the loopback address that `cargo lambda invoke` calls: `::1`, or `127.0.0.1` if
/// `localhost` has no IPv6 address on this machine.
fn loopback() -> &'static str {
    let has_ipv6 = ("localhost", 0).to_socket_addrs().is_ok_and(|mut all| all.any(|address| address.is_ipv6()));
    if has_ipv6 && TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() { "::1" } else { "127.0.0.1" }
}
