//! `make up`: from a fresh checkout to an order whose e-mail has arrived.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{
    demo::{first_order, products, stock_the_shop},
    deploy::deploy,
    emulator::{self, Emulator, Lifetime},
    functions,
    inbox::Inbox,
    parameters::{Parameters, wanted_parameters},
    people,
    progress::{Step, seconds},
    project::{Project, wanted},
    say,
    shop::Http,
    stack::Stack,
    tools::Tools,
};

/// Where AWS clients expect an emulator.
const PORT: u16 = 4566;

pub fn up(project: &Project) -> Result<()> {
    match wanted("ENDPOINT") {
        None => on_own_emulator(project),
        Some(url) => elsewhere(project, url.trim_end_matches('/')),
    }
}

/// `make up ENDPOINT=…`: on an emulator that somebody else has started, of
/// whichever make.
fn elsewhere(project: &Project, url: &str) -> Result<()> {
    let began = Instant::now();
    ensure!(url.starts_with("http://"), "ENDPOINT={url} is no address such as http://localhost:4566");
    ensure!(wanted("PORT").is_none(), "either ENDPOINT, an emulator that is there, or PORT, one to start");
    // Now, rather than after the long build.
    Http::unhurried().get(url).with_context(|| format!("no emulator answers at {url}"))?;
    let own = Emulator::in_folder(project.local());
    ensure!(own.port().is_none(), "an emulator of this project is running: `make down` first");
    let tools = Tools::install(project)?;
    let parameters = wanted_parameters(&tools)?;
    functions::build(&tools)?;
    let stack = furnish(project, &tools, url, &parameters)?;
    say!("\nAll of it took {}. {}", seconds(began.elapsed()), farewell(&stack)?);
    Ok(())
}

fn on_own_emulator(project: &Project) -> Result<()> {
    let began = Instant::now();
    let emulator = Emulator::in_folder(project.local());
    let running = emulator.port();
    let port = emulator::wanted_port()?.or(running).unwrap_or(PORT);
    // Now, rather than after the long build.
    if running != Some(port) {
        emulator.stop()?;
        emulator::check_port(port)?;
    }

    let tools = Tools::install(project)?;
    let parameters = wanted_parameters(&tools)?;
    functions::build(&tools)?;

    let step = Step::begin(format!("Emulator: {}", emulator::local_url(port)));
    let started = emulator.start(&tools, port, Lifetime::Background)?;
    step.done(if started { "started; its log is .local/emulator.log" } else { "runs already" });

    let stack =
        furnish(project, &tools, &emulator::local_url(port), &parameters).map_err(|error| emulator.explain(error))?;
    let farewell = farewell(&stack)?;
    say!("\nAll of it took {}. {farewell}", seconds(began.elapsed()));
    Ok(())
}

/// Everything that happens inside the emulator.
fn furnish(project: &Project, tools: &Tools, url: &str, parameters: &Parameters) -> Result<Stack> {
    let stack = deploy(tools, url, parameters)?;
    stack.write(&project.local())?;
    let passwords = people::welcome(tools, &stack, &project.local())?;
    stock_the_shop(&stack, &passwords)?;
    first_order(&stack, &passwords)?;
    Ok(stack)
}

/// Commands to paste, with what is really there.
fn farewell(stack: &Stack) -> Result<String> {
    let products = products(stack)?;
    let product = products.last().context("nothing is for sale")?["id"].as_str().context("a product without an id")?;
    Ok(format!(
        r#"The shop is open at {url}

  API={url}
  curl -s $API/products
  curl -s $API/orders -H "Authorization: Bearer $(make -s token)" -H "Content-Type: application/json" \
    -d '{{"items":[{{"product_id":"{product}","quantity":2}}],"payment_method":"tok_accepted"}}'
  curl -s $API/orders -H "Authorization: Bearer $(make -s token)"
{inbox}

`make demo` shows one more order as it goes, `make logs` what the functions say, `make down` ends it."#,
        url = stack.api_url,
        inbox = match Inbox::of(stack)? {
            Some(inbox) => format!("  curl -s {}", inbox.url()),
            None => format!("E-mails cannot be read: {} has no inbox that is known here.", stack.emulator_url),
        },
    ))
}
