//! Begins and clears weather, and carries out the kinds that act by themselves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{task::spawn_blocking, time::sleep};

use super::{
    Active, Refused, Weather,
    kinds::Kind,
    poison::{self, Place},
    redelivery,
};
use crate::{
    emulator::Emulator,
    processes::{FunctionProcess, Processes},
};

const NO_PROXY: &str = "The functions of this stack call the emulator directly, so nothing can stand between them. \
                        Start the console with `make console`, which leads their requests through its proxy.";
const NO_PROCESSES: &str = "This emulator was not started by `make up`, so its processes are unknown.";
/// How often the way of a poisonous message is looked at.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{0}")]
    Unavailable(&'static str),
    #[error("the stack did not do it")]
    Stack(#[from] anyhow::Error),
}

#[derive(Clone)]
pub struct Control {
    pub weather: Weather,
    pub emulator: Emulator,
    pub processes: Option<Processes>,
    /// The endpoint that functions have if their requests pass the proxy.
    pub proxy_url: Arc<str>,
    through_proxy: Arc<AtomicBool>,
}

impl Control {
    pub fn new(weather: Weather, emulator: Emulator, processes: Option<Processes>, proxy_url: &str) -> Self {
        let through_proxy = Arc::default();
        Self { weather, emulator, processes, proxy_url: proxy_url.into(), through_proxy }
    }

    /// Asks the stack whether the functions' requests pass the proxy.
    pub async fn look_at_endpoint(&self) -> Result<bool> {
        let is_through = self.emulator.endpoint_of("orders").await? == *self.proxy_url;
        self.through_proxy.store(is_through, Ordering::Relaxed);
        Ok(is_through)
    }

    /// Why a kind that needs the proxy cannot be used. `None` if it can.
    pub fn without_proxy(&self) -> Option<&'static str> {
        (!self.through_proxy.load(Ordering::Relaxed)).then_some(NO_PROXY)
    }

    /// Begins weather.
    ///
    /// # Errors
    ///
    /// If the request is wrong, if the kind cannot be used now, or if the stack fails.
    pub async fn begin(&self, kind: Kind, target: &str, seconds: Option<u64>) -> Result<Active, Failure> {
        if kind.needs_proxy() && !self.look_at_endpoint().await? {
            return Err(Failure::Unavailable(NO_PROXY));
        }
        match kind {
            Kind::KillNow => {
                let processes = self.processes.clone().ok_or(Failure::Unavailable(NO_PROCESSES))?;
                let active = self.weather.begin(kind, target, None)?;
                let function = target.to_owned();
                let killed = spawn_blocking(move || {
                    let running = processes.running().into_iter().filter(|process| process.function == function);
                    running.filter(FunctionProcess::kill).count()
                });
                let killed = killed.await.context("the processes could not be looked for")?;
                let note = match killed {
                    0 => "no process was running".to_owned(),
                    1 => "1 process killed".to_owned(),
                    _ => format!("{killed} processes killed"),
                };
                self.weather.hit(&active.id, killed as u64, Some(note));
                let ended = self.weather.end(|it| it.id == active.id);
                Ok(ended.into_iter().next().unwrap_or(active))
            }
            Kind::PoisonQueue => {
                let active = self.weather.begin(kind, target, seconds)?;
                if let Err(error) = poison::send(&self.emulator).await {
                    self.weather.end(|it| it.id == active.id);
                    return Err(error.into());
                }
                tokio::spawn(self.clone().follow_poison(active.id.clone()));
                Ok(active)
            }
            _ => Ok(self.weather.begin(kind, target, seconds)?),
        }
    }

    /// Ends all weather, and removes the letters that earlier weather has left.
    pub async fn clear_all(&self) -> Result<()> {
        self.clear(|_| true).await?;
        poison::remove(&self.emulator).await
    }

    /// Ends weather. Returns whether any was active.
    pub async fn clear(&self, is_meant: impl Fn(&Active) -> bool) -> Result<bool> {
        Ok(!self.weather.end(is_meant).is_empty())
    }

    /// Notes where the poisonous message is. When the weather has ended, removes the message.
    /// That takes up to a minute: a message that a consumer has just received can be removed
    /// only once it is in the dead-letter queue.
    async fn follow_poison(self, id: String) {
        let mut hits = 0;
        loop {
            sleep(LOOK).await;
            let is_active = self.weather.now().active.iter().any(|active| active.id == id);
            // If the emulator does not answer now, the next look is the same.
            let Ok(place) = poison::place(&self.emulator).await else { continue };
            if !is_active && !matches!(place, Place::Queue(_)) {
                if let Err(error) = self.remove_poison().await {
                    eprintln!("console: {error:#}");
                }
                return;
            }
            let (deliveries, note) = match place {
                Place::Queue(deliveries) => (deliveries, format!("{deliveries} of 5 deliveries have failed")),
                Place::DeadLetters => (5, "in the dead-letter queue".to_owned()),
                Place::Gone => (hits, "the message was removed".to_owned()),
            };
            if deliveries > hits || place == Place::DeadLetters {
                self.weather.hit(&id, deliveries.saturating_sub(hits), Some(note));
                hits = deliveries.max(hits);
            }
        }
    }

    async fn remove_poison(&self) -> Result<()> {
        poison::remove(&self.emulator).await?;
        redelivery::restore(&self.emulator).await
    }
}
