//! `make up`: from a fresh checkout to an order whose e-mail has arrived.

use std::{env, time::Instant};

use anyhow::{Context, Result};

use crate::{
    demo::{first_order, products, stock_the_shop},
    deploy::deploy,
    emulator::{self, Emulator, Lifetime},
    functions, people,
    progress::{Step, seconds},
    project::Project,
    stack::Stack,
    tools::Tools,
};

/// Where AWS clients expect an emulator.
const PORT: u16 = 4566;

pub fn up(project: &Project) -> Result<()> {
    let began = Instant::now();
    let emulator = Emulator::in_folder(project.local());
    let running = emulator.port();
    let port = wanted_port()?.or(running).unwrap_or(PORT);
    // Now, rather than after the long build.
    if running != Some(port) {
        emulator.stop()?;
        emulator::check_port(port)?;
    }

    let tools = Tools::install(project)?;
    functions::build(&tools)?;

    let step = Step::begin(format!("Emulator: {}", Emulator::url(port)));
    let started = emulator.start(&tools, port, Lifetime::Background)?;
    step.done(if started { "started; its log is .local/emulator.log" } else { "runs already" });

    let stack = furnish(project, &tools, port).map_err(|error| emulator.explain(error))?;
    let farewell = farewell(&stack)?;
    println!("\nAll of it took {}. {farewell}", seconds(began.elapsed()));
    Ok(())
}

/// Everything that happens inside the emulator.
fn furnish(project: &Project, tools: &Tools, port: u16) -> Result<Stack> {
    let stack = deploy(tools, port)?;
    stack.write(&project.local())?;
    let passwords = people::welcome(tools, &stack, &project.local())?;
    stock_the_shop(&stack, &passwords)?;
    first_order(&stack, &passwords)?;
    Ok(stack)
}

/// The port that the user asked for: `make up PORT=4570`.
fn wanted_port() -> Result<Option<u16>> {
    match env::var("PORT") {
        Ok(port) if !port.is_empty() => Ok(Some(port.parse().with_context(|| format!("PORT={port} is no port"))?)),
        _ => Ok(None),
    }
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
  curl -s {emulator}/_ministack/ses/messages

`make demo` shows one more order as it goes, `make logs` what the functions say, `make down` ends it."#,
        url = stack.api_url,
        emulator = stack.emulator_url,
    ))
}
