//! Records the lines that the functions write. Each function writes by itself, as on
//! Lambda, where it is a process of its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use chassis::{
    config::Configuration,
    telemetry::{self, TelemetryConfig},
};
use serde_json::Value;
use tracing::Dispatch;

use super::{Cloud, lock};

#[derive(Default)]
pub(super) struct Lines {
    config: Mutex<Option<TelemetryConfig>>,
    written: Arc<Mutex<Vec<Value>>>,
    by_function: Mutex<HashMap<&'static str, Dispatch>>,
}

impl Lines {
    /// What takes the lines of a function; `None` if no lines are recorded.
    pub(super) fn of(&self, function: &'static str) -> Option<Dispatch> {
        let config = lock(&self.config).clone()?;
        let written = self.written.clone();
        let sink = move |line: &str| {
            let line = serde_json::from_str(line).unwrap_or_else(|_| panic!("the line is not JSON: {line}"));
            lock(&written).push(line);
        };
        let start = || telemetry::dispatch(function, config, sink);
        Some(lock(&self.by_function).entry(function).or_insert_with(start).clone())
    }
}

impl Cloud {
    /// Begins to record the lines of all functions, with these settings.
    pub fn record_lines(&self, settings: &[(&str, &str)]) {
        let value_of = |name: &str| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
        *lock(&self.0.lines.config) = Some(TelemetryConfig::from_variables(&value_of).expect("valid settings"));
    }

    /// The lines that functions have written since [`Self::record_lines`], oldest first.
    pub fn lines(&self) -> Vec<Value> {
        lock(&self.0.lines.written).clone()
    }
}
