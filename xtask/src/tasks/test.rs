//! `make test`, `make test-fast`, `make faults` and `make chaos`.

use std::time::Duration;

use crate::{
    console_program::Console,
    openapi_clients,
    ports::free_port,
    prelude::*,
    tasks::demo::{Detail, place_order},
    test_stack::TestFolder,
};

/// The tests of a deployed stack.
const STACK_TESTS: &str = "tests/stack/tests";
/// The tests of the console, in a browser.
const BROWSER_TESTS: &str = "tests/browser/tests";

/// `make test`: all tests.
pub fn run(project: &Project) -> Result<()> {
    let folder = TestFolder::of(project).claim()?;
    let tools = Tools::install(project)?;
    let fast_tests = without_emulator(&tools)?;
    let test_stack = folder.deploy(&tools)?;
    say!(
        "▸ So far: tests without an emulator {}, functions {}, a stack for the tests {}",
        seconds(fast_tests),
        seconds(test_stack.build),
        seconds(test_stack.deployment)
    );
    let passwords = test_stack.add_users_and_products()?;
    openapi_clients::test(&tools, &test_stack.stack, &passwords, &test_stack.folder)?;
    // schemathesis has tried every operation as the customer, so it has also deactivated her. As after
    // `make up`, she can order again.
    test_stack.add_users_and_products()?;
    place_order(&test_stack.stack, &passwords, Detail::Brief)?;
    let has_sam_local = test_stack.start_local_servers(&tools)?;
    say!("▸ Tests on the stack");
    let skipped: &[&str] = if has_sam_local { &[] } else { &["--", "--skip", "sam_local"] };
    test_stack.test(&tools, &tests_in(&tools, STACK_TESTS)?, |tests| tests.args(skipped))?;
    drop(test_stack);
    in_the_browser(&tools)
}

/// Runs the tests of the console. They come last and one after the other, because they kill
/// functions and disturb their calls. They have a stack of their own: the tests of the other stack
/// leave malformed messages in its queues, which would make the console's books red.
fn in_the_browser(tools: &Tools) -> Result<()> {
    say!("▸ Tests of the console, in a browser");
    let test_stack = TestFolder::of(&tools.project).claim()?.deploy(tools)?;
    test_stack.add_users_and_products()?;
    let console = Console::start(&tools.project, &test_stack.folder, free_port()?)?;
    console.lead_through_proxy(tools, &test_stack.stack)?;
    test_stack.test(tools, &tests_in(tools, BROWSER_TESTS)?, |tests| {
        tests.env("HOLDFAST_CONSOLE", console.url()).args(["--", "--test-threads=1"])
    })
}

/// `make test-fast`: the tests that need no emulator.
pub fn fast(project: &Project) -> Result<()> {
    without_emulator(&Tools::install(project)?)?;
    Ok(())
}

/// `make faults`: every pair of faults in every scenario.
pub fn faults(project: &Project) -> Result<()> {
    let tools = Tools::install(project)?;
    let tests = cmd!(tools, "cargo test --profile faults --package in-process-tests --test faults every_fault");
    show(tests.env("HOLDFAST_PAIRS", "all"))
}

/// `make chaos`: hundreds of orders while functions are killed.
pub fn chaos(project: &Project) -> Result<()> {
    let folder = TestFolder::of(project).claim()?;
    let tools = Tools::install(project)?;
    let test_stack = folder.deploy(&tools)?;
    say!("▸ Chaos: orders, kills and duplicates for a minute or two, then recovery");
    test_stack
        .test(&tools, &["chaos".to_owned()], |tests| tests.args(["--", "--nocapture"]).env("HOLDFAST_CHAOS", "long"))
}

fn without_emulator(tools: &Tools) -> Result<Duration> {
    let step = Step::begin("Tests without an emulator");
    show(cmd!(tools, "cargo test --workspace --exclude stack-tests --exclude browser-tests"))?;
    Ok(step.done("passed"))
}

/// Returns the names of the tests in a folder.
fn tests_in(tools: &Tools, folder: &str) -> Result<Vec<String>> {
    let paths = tools.shell.read_dir(folder)?;
    ensure!(!paths.is_empty(), "{folder} has no tests");
    Ok(paths.iter().filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect())
}
