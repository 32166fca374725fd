//! `make up`: builds the shop, starts an emulator, deploys the shop to the emulator, and
//! places an order.

use std::{panic::resume_unwind, path::Path, thread, time::Instant};

use crate::{
    catalogue::{add_products, products},
    demo_users::create_users,
    emulator::{Emulator, Lifetime},
    emulator_deployment::deploy,
    function_build::{build_for_containers, compile_for_this_machine, package_for_own_emulator},
    http,
    inbox::Inbox,
    ports::{check_port, local_url, wanted_port},
    prelude::*,
    service_health::EMULATOR_TIMEOUT,
    tasks::demo::{Detail, place_order},
    template_parameters::{Parameters, wanted_parameters},
};

/// The port on which AWS emulators usually listen.
const PORT: u16 = 4566;

pub fn run(project: &Project) -> Result<()> {
    match make_variable("ENDPOINT") {
        None => on_own_emulator(project),
        Some(url) => on_other_emulator(project, url.trim_end_matches('/')),
    }
}

/// `make up ENDPOINT=…`: deploys to an emulator that the user has started, such as
/// LocalStack.
fn on_other_emulator(project: &Project, url: &str) -> Result<()> {
    let began = Instant::now();
    ensure!(url.starts_with("http://"), "ENDPOINT={url} is no address such as http://localhost:4566");
    ensure!(make_variable("PORT").is_none(), "ENDPOINT names a running emulator, PORT starts one: use one of them");
    // A missing emulator is an error now, and not only after the long build.
    http::get(url, EMULATOR_TIMEOUT).with_context(|| format!("no emulator answers at {url}"))?;
    let own = Emulator::in_folder(project.local());
    ensure!(own.port().is_none(), "an emulator of this project is running: `make down` first");
    let tools = Tools::install(project)?;
    let parameters = wanted_parameters(&tools)?;
    // Other emulators run functions in containers.
    let template = build_for_containers(&tools)?;
    let stack = deploy_and_order(&tools, url, &template, &parameters)?;
    finish(&stack, began)
}

fn on_own_emulator(project: &Project) -> Result<()> {
    let began = Instant::now();
    let emulator = Emulator::in_folder(project.local());
    let running = emulator.port();
    let port = wanted_port()?.or(running).unwrap_or(PORT);
    // A port that another program uses is an error now, and not only after the long build.
    if running != Some(port) {
        emulator.stop()?;
        check_port(port)?;
    }
    // The first time, both take minutes. The tools wait for the network most of the time,
    // and the compiler does not.
    let (tools, programs) = thread::scope(|scope| {
        let programs = scope.spawn(|| compile_for_this_machine(project));
        let tools = Tools::install(project);
        (tools, programs.join())
    });
    let tools = tools?;
    let programs = programs.unwrap_or_else(|panic| resume_unwind(panic))?;
    let parameters = wanted_parameters(&tools)?;
    let template = package_for_own_emulator(&tools, &programs)?;

    let step = Step::begin(format!("Emulator: {}", local_url(port)));
    let started = emulator.start(&tools, port, Lifetime::Background)?;
    step.done(if started { "started; its log is .local/emulator.log" } else { "runs already" });

    let stack = deploy_and_order(&tools, &local_url(port), &template, &parameters);
    let stack = stack.map_err(|error| emulator.explain(error))?;
    finish(&stack, began)
}

fn deploy_and_order(tools: &Tools, url: &str, template: &Path, parameters: &Parameters) -> Result<Stack> {
    let folder = tools.project.local();
    let stack = deploy(tools, url, template, parameters)?;
    stack.write(&folder)?;
    let passwords = create_users(&stack, &folder)?;
    add_products(&stack, &passwords)?;
    place_order(&stack, &passwords, Detail::Brief)?;
    Ok(stack)
}

/// Prints commands for the user to copy. They contain the URLs and ids of this stack.
fn finish(stack: &Stack, began: Instant) -> Result<()> {
    let products = products(stack)?;
    let product = products.last().context("the shop has no products")?;
    let product = product["id"].as_str().context("a product has no id")?;
    say!(
        r#"
The whole task took {took}. The shop is open at {url}

  API={url}
  curl -s $API/products
  curl -s $API/orders -H "Authorization: Bearer $(make -s token)" -H "Content-Type: application/json" \
    -d '{{"items":[{{"product_id":"{product}","quantity":2}}],"payment_method":"tok_accepted"}}'
  curl -s $API/orders -H "Authorization: Bearer $(make -s token)"
{inbox}

`make demo` places one more order and shows each step, `make logs` shows the functions' logs, `make down` stops all."#,
        took = seconds(began.elapsed()),
        url = stack.api_url,
        inbox = match Inbox::of(stack)? {
            Some(inbox) => format!("  curl -s {}", inbox.url()),
            None => format!("E-mails cannot be read: the inbox of {} is unknown here.", stack.emulator_url),
        },
    );
    Ok(())
}
