//! The steps that the functions carry out at this moment, as the proxy sees them. The
//! functions' own lines appear only when an invocation ends, so without the proxy no step
//! is seen while it runs.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;

use crate::saga::Attempt;

/// How many calls are remembered.
const KEPT: usize = 5000;

#[derive(Clone, Default)]
pub struct LiveCalls(Arc<Mutex<Calls>>);

#[derive(Default)]
struct Calls {
    next: u64,
    sequence: VecDeque<u64>,
    calls: HashMap<u64, (String, Attempt)>,
}

impl LiveCalls {
    /// Records that a call of a trace begins. Returns its number.
    pub fn begin(&self, trace: &str, step: &str) -> u64 {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = calls.next;
        calls.next += 1;
        let begin = Timestamp::now().as_microsecond();
        let attempt = Attempt { step: step.to_owned(), begin, end: None, error: None };
        calls.calls.insert(number, (trace.to_owned(), attempt));
        calls.sequence.push_back(number);
        if calls.sequence.len() > KEPT
            && let Some(oldest) = calls.sequence.pop_front()
        {
            calls.calls.remove(&oldest);
        }
        number
    }

    pub fn end(&self, number: u64, error: Option<String>) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, attempt)) = calls.calls.get_mut(&number) {
            attempt.end = Some(Timestamp::now().as_microsecond());
            attempt.error = error;
        }
    }

    /// The calls of a trace, the earliest first.
    pub fn of(&self, trace: &str) -> Vec<Attempt> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = calls.calls.values().filter(|(of, _)| of == trace).map(|(_, attempt)| attempt.clone());
        let mut own: Vec<_> = own.collect();
        own.sort_by_key(|attempt| attempt.begin);
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_runs_from_its_beginning_to_its_end_and_old_calls_are_forgotten() {
        let calls = LiveCalls::default();
        let number = calls.begin("t", "reserve stock");
        assert!(calls.of("t")[0].end.is_none() && calls.of("u").is_empty());
        calls.end(number, Some("no answer".to_owned()));
        assert!(calls.of("t")[0].end.is_some());
        for _ in 0..KEPT {
            calls.begin("u", "reserve stock");
        }
        assert!(calls.of("t").is_empty());
        assert_eq!(calls.of("u").len(), KEPT);
    }
}
