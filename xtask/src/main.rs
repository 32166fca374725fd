//! The project's tasks. The Makefile lists them; whatever needs a decision, a
//! wait or an error message is here.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod cargo_tools;
mod contract;
mod demo;
mod deploy;
mod emulator;
mod environment;
mod functions;
mod fuzz;
mod inbox;
mod lint;
mod logs;
mod mutants;
mod openapi;
mod output;
mod parameters;
mod people;
mod preflight;
mod process;
mod progress;
mod project;
mod record;
mod redrive;
mod relay;
mod release;
mod sam_local;
mod shop;
mod stack;
mod test;
mod tools;
mod up;
mod watch;
mod ways;

use std::{env, process::ExitCode};

use anyhow::{Result, bail};

use crate::{
    emulator::Emulator,
    output::{End, until_unread},
    people::{Passwords, Person},
    project::Project,
    stack::Stack,
};

/// The tasks that only tell something. The others have work to do, which is
/// unfinished when their reader goes away.
const TELLS: [&str; 3] = ["token", "logs", "demo"];
/// What a shell reports of a program that wrote into a closed pipe.
const UNREAD: u8 = 141;

fn main() -> ExitCode {
    match until_unread(run) {
        End::Finished(Ok(())) => ExitCode::SUCCESS,
        // Who reads only the beginning of a log or of an order wants no more.
        End::Unread if env::args().nth(1).is_some_and(|task| TELLS.contains(&task.as_str())) => ExitCode::SUCCESS,
        End::Unread => ExitCode::from(UNREAD),
        End::Finished(Err(error)) => {
            complain!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let project = Project::find()?;
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["up"] => up::up(&project),
        ["build"] => release::build(&project),
        ["deploy"] => release::deploy(&project),
        ["demo"] => demo::demo(&project),
        ["token"] => token(&project, Person::CUSTOMER),
        ["token", "admin"] => token(&project, Person::ADMIN),
        ["token", who] => bail!("there is no demo user `{who}`: leave WHO out for the customer, or say WHO=admin"),
        ["logs"] => logs::follow(&project),
        ["watch"] => watch::watch(&project),
        ["sam-local"] => sam_local::sam_local(&project),
        ["redrive"] => redrive::redrive(&project),
        ["down"] => down(&project),
        ["clean"] => clean(&project),
        ["test"] => test::all(&project),
        ["test-fast"] => test::without_emulator(&project),
        ["fuzz"] => fuzz::run(&project),
        ["faults"] => test::every_pair_of_faults(&project),
        ["mutants"] => mutants::run(&project),
        ["chaos"] => test::chaos(&project),
        ["openapi"] => openapi::write(&project),
        ["record"] => record::write(&project),
        ["lint"] => lint::lint(&project),
        _ => bail!("no such task; `make help` lists them"),
    }
}

/// Prints a fresh token and nothing else, so that `$(make -s token)` is one.
fn token(project: &Project, person: Person) -> Result<()> {
    let stack = Stack::running(project)?;
    say!("{}", Passwords::in_folder(&project.local()).sign_in(&stack, person)?);
    Ok(())
}

fn down(project: &Project) -> Result<()> {
    let mut stopped = Emulator::in_folder(project.local()).stop()?;
    // What a test run left behind that was itself killed; not one at work.
    let of_tests = Emulator::in_folder(project.local().join("test"));
    if !of_tests.is_attended() {
        stopped |= of_tests.stop()?;
    }
    let elsewhere = (!stopped).then(|| Stack::running(project).ok()).flatten();
    Stack::forget(&project.local())?;
    say!(
        "{}",
        match elsewhere {
            _ if stopped => "Stopped, and all that it had started.".to_owned(),
            Some(stack) =>
                format!("Left the stack at {} as it is: what is there was not started here.", stack.emulator_url),
            None => "Nothing was running.".to_owned(),
        }
    );
    Ok(())
}

fn clean(project: &Project) -> Result<()> {
    down(project)?;
    for folder in [project.local(), project.root().join(".aws-sam")] {
        project::remove(&folder)?;
    }
    say!("Removed .local and .aws-sam; what Cargo built is in target, for `cargo clean`.");
    Ok(())
}
