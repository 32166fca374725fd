//! After weather has ended, starts the worker's sweep every few seconds until no order is
//! open. The schedule starts it each minute; a person at the page would wait for that minute.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    stored_order::{is_open, is_order},
    weather::control::Control,
};

const LOOK: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(3);
/// An undecided order is cancelled after two minutes, so nothing is open for longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs for ever.
pub async fn run(control: Control) {
    let mut ended: Option<Instant> = None;
    let mut had_weather = false;
    loop {
        sleep(LOOK).await;
        let is_calm = control.weather.is_calm();
        if had_weather && is_calm {
            ended = Some(Instant::now());
        }
        had_weather = !is_calm;
        if !is_calm || ended.is_none_or(|at| at.elapsed() > PATIENCE) {
            continue;
        }
        let swept = async {
            let orders = control.emulator.scan("orders").await?;
            let is_any_open = orders.iter().any(|item| is_order(item) && is_open(item));
            if is_any_open {
                control.emulator.sweep().await?;
            }
            anyhow::Ok(is_any_open)
        };
        match swept.await {
            Ok(true) => sleep(PAUSE).await,
            Ok(false) => ended = None,
            Err(error) => eprintln!("console: {error:#}"),
        }
    }
}
