//! Imports that nearly every file needs.

pub use anyhow::{Context, Result, bail, ensure};
pub use xshell::{Cmd, cmd};

pub use crate::{
    commands::{quiet, show},
    complain,
    progress::{Step, seconds},
    project::{Project, create_folder, make_variable, write_file},
    say,
    stack::Stack,
    tools::Tools,
};
