//! `make down` stops the emulator. `make clean` also removes the folders that the tasks
//! have written.

use crate::{emulator::Emulator, prelude::*, project, test_stack::TestFolder};

pub fn run(project: &Project) -> Result<()> {
    let mut stopped = Emulator::in_folder(project.local()).stop()?;
    stopped |= TestFolder::of(project).stop_abandoned_emulator()?;
    let other = if stopped { None } else { Stack::running(project).ok() };
    Stack::forget(&project.local())?;
    say!(
        "{}",
        match other {
            _ if stopped => "Stopped the emulator and all functions.".to_owned(),
            Some(stack) =>
                format!("Left the stack at {} unchanged: its emulator was not started here.", stack.emulator_url),
            None => "Nothing was running.".to_owned(),
        }
    );
    Ok(())
}

pub fn clean(project: &Project) -> Result<()> {
    run(project)?;
    for folder in [project.local(), project.root().join(".aws-sam")] {
        project::remove(&folder)?;
    }
    say!("Removed .local and .aws-sam. `cargo clean` removes target.");
    Ok(())
}
