//! `make watch`: `cargo lambda watch` over the running stack.

use std::{
    net::{Ipv6Addr, TcpListener, ToSocketAddrs},
    path::Path,
    process::Command,
};

use anyhow::Result;

use crate::{
    emulator::{check_port, local_url, wanted_port},
    environment::Environment,
    progress::Step,
    project::Project,
    shop,
    stack::Stack,
    tools::Tools,
};

/// Where `cargo lambda watch` listens, and `cargo lambda invoke` asks.
const PORT: u16 = 9000;

pub fn watch(project: &Project) -> Result<()> {
    let stack = Stack::running(project)?;
    let port = wanted_port()?.unwrap_or(PORT);
    check_port(port)?;
    let tools = Tools::install(project)?;
    let step = Step::begin("Environment: tables, queues and pool of the running stack");
    let mut watch = prepare(&tools, &stack, Path::new(".local/watch.env"), port)?;
    step.done("in .local/watch.env");
    shop::keep_open(&mut watch, &local_url(port))
}

/// The command as the README has it, and its environment in `env_file`.
pub fn prepare(tools: &Tools, stack: &Stack, env_file: &Path, port: u16) -> Result<Command> {
    Environment::of(tools, stack, &local_url(port))?.write_env_file(env_file)?;
    let mut watch = tools.cargo();
    watch.args(["lambda", "watch", "--env-file"]).arg(env_file);
    // Not from elsewhere: here nobody checks who calls the internal routes.
    watch.args(["--invoke-address", loopback()]);
    if port != PORT {
        watch.args(["--invoke-port", &port.to_string()]);
    }
    // What the user's shell knows of AWS is not meant for the emulator.
    for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN"] {
        watch.env_remove(name);
    }
    Ok(watch)
}

/// Where `cargo lambda invoke` looks; unless that isn't what this machine calls
/// localhost, where all others look.
fn loopback() -> &'static str {
    let has_ipv6 = ("localhost", 0).to_socket_addrs().is_ok_and(|mut all| all.any(|address| address.is_ipv6()));
    if has_ipv6 && TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() { "::1" } else { "127.0.0.1" }
}
