//! Reads the stack at a short period while somebody looks, and tells those who look.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::Value;
use tokio::{sync::watch, time::sleep};

use crate::{
    books::{Books, Records},
    emulator::Emulator,
    stored_order::is_order,
};

const PERIOD: Duration = Duration::from_millis(400);
/// The books need four tables, so they are read less often.
const BOOKS_PERIOD: Duration = Duration::from_millis(1500);
/// The emulator must have time for the functions, too: a reading is followed by a pause of
/// this many times its own duration.
const PAUSE: u32 = 3;

/// What was read last.
#[derive(Clone)]
pub struct Watch {
    emulator: Emulator,
    watchers: Arc<AtomicUsize>,
    orders: watch::Sender<Arc<Vec<Value>>>,
    books: watch::Sender<Option<Books>>,
}

/// Somebody who looks. Nothing is read while there is none.
pub struct Watcher(Arc<AtomicUsize>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Watch {
    pub fn of(emulator: Emulator) -> Self {
        let (orders, books) = (watch::Sender::new(Arc::default()), watch::Sender::new(None));
        Self { emulator, watchers: Arc::default(), orders, books }
    }

    /// Keeps the reading going until the value is dropped.
    pub fn look(&self) -> Watcher {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watcher(self.watchers.clone())
    }

    pub fn orders(&self) -> watch::Receiver<Arc<Vec<Value>>> {
        self.orders.subscribe()
    }

    pub fn books(&self) -> watch::Receiver<Option<Books>> {
        self.books.subscribe()
    }

    /// Reads for ever.
    pub async fn run(self) {
        let mut books_at: Option<Instant> = None;
        loop {
            let began = Instant::now();
            if self.watchers.load(Ordering::Relaxed) > 0 {
                let is_due = books_at.is_none_or(|at| at.elapsed() > BOOKS_PERIOD);
                let read = if is_due { self.read_books().await } else { self.read_orders().await };
                if is_due {
                    books_at = Some(Instant::now());
                }
                // The next reading may succeed. Meanwhile the page shows what was read last.
                if let Err(error) = read {
                    eprintln!("console: {error:#}");
                }
            }
            sleep(PERIOD.max(began.elapsed() * PAUSE)).await;
        }
    }

    async fn read_orders(&self) -> Result<()> {
        self.tell_orders(self.emulator.scan("orders").await?);
        Ok(())
    }

    async fn read_books(&self) -> Result<()> {
        let records = Records::read(&self.emulator).await?;
        let books = Some(Books::of(&records));
        self.books.send_if_modified(|last| {
            let is_new = *last != books;
            *last = books;
            is_new
        });
        self.tell_orders(records.orders);
        Ok(())
    }

    fn tell_orders(&self, mut items: Vec<Value>) {
        items.retain(is_order);
        // An order's id begins with the time at which it was placed.
        items.sort_by(|a, b| b["pk"].as_str().cmp(&a["pk"].as_str()));
        self.orders.send_if_modified(|last| {
            let is_new = **last != items;
            if is_new {
                *last = Arc::new(items);
            }
            is_new
        });
    }
}
