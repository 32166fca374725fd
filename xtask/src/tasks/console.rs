//! `make console`: a page in the browser over the running stack.

use std::{
    env,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    console_program::Console,
    emulator::Emulator,
    ports::{check_port, wanted_port},
    prelude::*,
};

const PORT: u16 = 4580;
const LOOK: Duration = Duration::from_millis(200);

pub fn run(project: &Project) -> Result<()> {
    let stack = Stack::running(project)?;
    let port = wanted_port()?.unwrap_or(PORT);
    check_port(port)?;
    let tools = Tools::install(project)?;
    let mut console = Console::start(project, &project.local(), port)?;
    // From here on, the functions are led back before this task ends.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals cannot be watched")?;
    let is_own = Emulator::in_folder(project.local()).port().is_some();
    let opened = if is_own {
        console.lead_through_proxy(&tools, &stack)
    } else {
        say!("  This emulator was not started by `make up`, so the console has no proxy and makes little weather.");
        Ok(())
    };
    let watched = opened.and_then(|()| {
        say!("\nThe console is open at {}   (Ctrl-C ends it)", console.url());
        open_browser(console.url());
        while signals.pending().next().is_none() {
            ensure!(console.is_running()?, "the console has ended");
            thread::sleep(LOOK);
        }
        Ok(())
    });
    let left = if is_own { console.leave(&tools, &stack) } else { Ok(()) };
    watched.and(left)
}

/// Opens the page if this machine has a screen. Without a browser, the printed address is
/// enough.
fn open_browser(url: &str) {
    let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| env::var_os(name).is_some());
    if !has_screen {
        return;
    }
    let mut browser = Command::new("xdg-open");
    browser.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if browser.spawn().is_err() {
        say!("Open this address in a browser.");
    }
}
