//! `make token`: prints a new ID token and nothing else, so that users can write
//! `$(make -s token)` in a command.

use crate::{
    demo_users::{Passwords, Person},
    prelude::*,
};

pub fn run(project: &Project, who: Option<&str>) -> Result<()> {
    let person = match who {
        None => Person::CUSTOMER,
        Some("admin") => Person::ADMIN,
        Some(who) => bail!("there is no demo user `{who}`: leave WHO out for the customer, or say WHO=admin"),
    };
    let stack = Stack::running(project)?;
    say!("{}", Passwords::in_folder(&project.local()).sign_in(&stack, person)?);
    Ok(())
}
