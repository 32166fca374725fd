//! The project's tasks. The Makefile lists the tasks; the folder `tasks` has their
//! code. The other files contain code that several tasks use:
//!
//! | subject | files |
//! |---|---|
//! | printing to the terminal | `output`, `progress` |
//! | the checkout, and programs that run in the checkout | `project`, `commands`, `tools`, `cargo_tools` |
//! | building and configuring the functions | `function_build`, `template_parameters`, `deployment_environment` |
//! | running an emulator, and deploying to it | `emulator`, `process_groups`, `ports`, `emulator_deployment`, `cors_preflights`, `emulator_api`, `inbox` |
//! | the deployed shop | `stack`, `log_reader`, `order_heading`, `spans`, `otlp`, `http`, `service_health`, `demo_users`, `catalogue` |
//! | the page in the browser | `console_program` |
//! | functions that run outside the emulator | `function_environment`, `container_relay`, `local_servers` |
//! | the tests | `test_stack`, `openapi_clients` |
//!
//! The folder `xtask/python` has Python programs that use SAM's own library.
//! `xtask/mutants` has the patches for `make mutants`.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod cargo_tools;
mod catalogue;
mod commands;
mod console_program;
mod container_relay;
mod cors_preflights;
mod demo_users;
mod deployment_environment;
mod emulator;
mod emulator_api;
mod emulator_deployment;
mod function_build;
mod function_environment;
mod http;
mod inbox;
mod local_servers;
mod log_reader;
mod openapi_clients;
mod order_heading;
mod otlp;
mod output;
mod ports;
mod prelude;
mod process_groups;
mod progress;
mod project;
mod service_health;
mod spans;
mod stack;
mod template_parameters;
mod test_stack;
mod tools;

mod tasks {
    pub mod bench;
    pub mod build;
    pub mod console;
    pub mod demo;
    pub mod deploy;
    pub mod down;
    pub mod fuzz;
    pub mod generated_files;
    pub mod lint;
    pub mod logs;
    pub mod mutants;
    pub mod reconcile;
    pub mod redrive;
    pub mod sam_local;
    pub mod test;
    pub mod token;
    pub mod trace;
    pub mod up;
    pub mod watch;
}

use std::{env, process::ExitCode};

use anyhow::{Result, bail};

use crate::{output::run_until_reader_is_gone, project::Project, tasks::*};

/// The tasks that only print. If the reader of their output goes away, they have
/// succeeded. Every other task has failed then, because its work is unfinished.
const PRINTING_TASKS: [&str; 4] = ["token", "logs", "trace", "demo"];
/// The exit code that a shell reports for a program that wrote into a closed pipe.
const BROKEN_PIPE: u8 = 141;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run_until_reader_is_gone(|| run(&arguments)) {
        Some(Ok(())) => ExitCode::SUCCESS,
        // `make logs | head` is no error.
        None if arguments.first().is_some_and(|task| PRINTING_TASKS.contains(task)) => ExitCode::SUCCESS,
        None => ExitCode::from(BROKEN_PIPE),
        Some(Err(error)) => {
            complain!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    let project = &Project::find()?;
    match arguments {
        ["up"] => up::run(project),
        ["build"] => build::run(project),
        ["deploy"] => deploy::run(project),
        ["console"] => console::run(project),
        ["demo"] => demo::run(project),
        ["token"] => token::run(project, None),
        ["token", who] => token::run(project, Some(who)),
        ["watch"] => watch::run(project),
        ["sam-local"] => sam_local::run(project),
        ["logs"] => logs::run(project),
        ["trace"] => trace::run(project),
        ["reconcile"] => reconcile::run(project),
        ["redrive"] => redrive::run(project),
        ["down"] => down::run(project),
        ["clean"] => down::clean(project),
        ["test"] => test::run(project),
        ["test-fast"] => test::fast(project),
        ["chaos"] => test::chaos(project),
        ["faults"] => test::faults(project),
        ["bench"] => bench::run(project),
        ["fuzz"] => fuzz::run(project),
        ["mutants"] => mutants::run(project),
        ["openapi"] => generated_files::openapi(project),
        ["asyncapi"] => generated_files::asyncapi(project),
        ["record"] => generated_files::recorded_version(project),
        ["lint"] => lint::run(project),
        _ => bail!("no such task; `make help` lists them"),
    }
}
