//! The weather that is active, and what the proxy does to a request because of it.

pub mod control;
pub mod kinds;
pub mod poison;
pub mod redelivery;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::sync::watch;

use self::kinds::Kind;
use crate::call::{Call, Target};

/// The delay of each request to the payments service.
const SLOW: Duration = Duration::from_secs(3);
/// How many ended entries are listed.
const LISTED: usize = 10;
/// Weather may be ordered for this long at most.
const LONGEST: u64 = 600;

#[derive(Clone, Debug, Serialize)]
pub struct Active {
    pub id: String,
    pub kind: Kind,
    pub title: &'static str,
    pub target: String,
    pub target_name: &'static str,
    pub began_at: Timestamp,
    pub ends_at: Timestamp,
    pub hits: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How many writes each process has made since the weather began.
    #[serde(skip)]
    writes: HashMap<i32, u32>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Forecast {
    pub active: Vec<Active>,
    /// What has ended, the newest first.
    pub last: Vec<Active>,
}

/// What happens to a request before it is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    Pass,
    Delay(Duration),
    /// The service is dead.
    Dead,
    /// The table is throttled.
    Throttle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this kind of weather has no such target")]
    UnknownTarget,
    #[error("weather lasts from 1 to {LONGEST} seconds")]
    BadDuration,
    #[error("this weather is active already")]
    ActiveAlready,
}

#[derive(Clone)]
pub struct Weather {
    forecast: Arc<Mutex<Forecast>>,
    changed: watch::Sender<u64>,
}

impl Default for Weather {
    fn default() -> Self {
        Self { forecast: Arc::default(), changed: watch::Sender::new(0) }
    }
}

impl Weather {
    fn forecast(&self) -> MutexGuard<'_, Forecast> {
        self.forecast.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a number at each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn announce(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// The active weather, and what has ended lately.
    pub fn now(&self) -> Forecast {
        self.expire();
        self.forecast().clone()
    }

    pub fn is_calm(&self) -> bool {
        self.expire();
        self.forecast().active.is_empty()
    }

    /// Begins weather. The seconds are those of the kind if there are none.
    pub fn begin(&self, kind: Kind, target: &str, seconds: Option<u64>) -> Result<Active, Refused> {
        let target_name = kind.target_name(target).ok_or(Refused::UnknownTarget)?;
        let seconds = seconds.unwrap_or(kind.seconds());
        if kind.seconds() > 0 && !(1..=LONGEST).contains(&seconds) {
            return Err(Refused::BadDuration);
        }
        self.expire();
        let mut forecast = self.forecast();
        if forecast.active.iter().any(|active| active.kind == kind && active.target == target) {
            return Err(Refused::ActiveAlready);
        }
        let began_at = Timestamp::now();
        let lasts = SignedDuration::from_secs(seconds.cast_signed());
        let active = Active {
            id: uuid::Uuid::new_v4().to_string(),
            kind,
            title: kind.title(),
            target: target.to_owned(),
            target_name,
            began_at,
            ends_at: began_at.checked_add(lasts).unwrap_or(began_at),
            hits: 0,
            note: None,
            writes: HashMap::new(),
        };
        forecast.active.push(active.clone());
        drop(forecast);
        self.announce();
        Ok(active)
    }

    /// Records that weather has acted, and what it has done.
    pub fn hit(&self, id: &str, count: u64, note: Option<String>) {
        if let Some(active) = self.forecast().active.iter_mut().find(|active| active.id == id) {
            active.hits += count;
            active.note = note.or(active.note.take());
        }
        self.announce();
    }

    /// Ends weather. Returns what has ended.
    pub fn end(&self, is_ended: impl Fn(&Active) -> bool) -> Vec<Active> {
        let mut forecast = self.forecast();
        let (ended, active) = std::mem::take(&mut forecast.active).into_iter().partition(|active| is_ended(active));
        forecast.active = active;
        let ended: Vec<Active> = ended;
        for active in &ended {
            forecast.last.insert(0, active.clone());
        }
        forecast.last.truncate(LISTED);
        drop(forecast);
        if !ended.is_empty() {
            self.announce();
        }
        ended
    }

    /// Ends the weather whose time is over.
    pub fn expire(&self) -> Vec<Active> {
        let now = Timestamp::now();
        // A momentary kind is ended by whoever carries it out.
        self.end(|active| active.ends_at <= now && active.kind.seconds() > 0)
    }

    /// Returns what happens to a request before it is passed on.
    pub fn before(&self, call: &Call) -> Before {
        let (mut result, mut hit) = (Before::Pass, None);
        for active in &self.current() {
            let what = match (active.kind, &call.target) {
                (Kind::PaymentsDead, Target::Service(name)) if name == "payments" => Before::Dead,
                (Kind::PaymentsSlow, Target::Service(name)) if name == "payments" => Before::Delay(SLOW),
                (Kind::ThrottleTable, Target::Table(name)) if *name == active.target && fastrand::u8(..3) < 2 => {
                    Before::Throttle
                }
                _ => continue,
            };
            if result == Before::Pass || what == Before::Dead {
                (result, hit) = (what, Some(active.id.clone()));
            }
        }
        if let Some(id) = hit {
            self.hit(&id, 1, None);
        }
        result
    }

    /// Returns whether the answer to a request that was carried out is lost.
    pub fn loses(&self, call: &Call) -> bool {
        for active in &self.current() {
            let is_lost = match active.kind {
                Kind::PaymentsForgetful => call.is_write && call.target == Target::Table("sandbox_ledger".to_owned()),
                Kind::LoseAnswer => {
                    let target = match &call.target {
                        Target::Table(name) => format!("table:{name}"),
                        Target::Service(name) => format!("service:{name}"),
                        _ => continue,
                    };
                    call.is_write && target == active.target
                }
                _ => false,
            };
            if is_lost {
                self.hit(&active.id, 1, None);
                if active.kind == Kind::LoseAnswer {
                    self.end(|it| it.id == active.id);
                }
                return true;
            }
        }
        false
    }

    /// Returns whether an event is to be sent a second time.
    pub fn doubles(&self, call: &Call) -> bool {
        let active = self.current().into_iter().find(|active| active.kind == Kind::DeliverTwice);
        let Some(active) = active.filter(|_| call.sends_order_event()) else { return false };
        self.hit(&active.id, 1, None);
        true
    }

    /// Returns whether some request is to be killed half-way, so that the callers of writes
    /// must be found.
    pub fn hunts(&self) -> bool {
        self.current().iter().any(|active| active.kind == Kind::KillHalfway)
    }

    /// Counts a write of a process. Returns the id of the weather that kills the process now,
    /// before it learns that the write has succeeded.
    pub fn counts(&self, function: &str, process: i32) -> Option<String> {
        let mut forecast = self.forecast();
        let mut hunting = forecast.active.iter_mut().filter(|active| active.kind == Kind::KillHalfway);
        let active = hunting.find(|active| active.target == function)?;
        let writes = active.writes.entry(process).or_default();
        *writes += 1;
        (*writes >= deadly_write(function)).then(|| active.id.clone())
    }

    fn current(&self) -> Vec<Active> {
        let now = Timestamp::now();
        let forecast = self.forecast();
        forecast.active.iter().filter(|active| active.ends_at > now).cloned().collect()
    }
}

/// The write after which a request is killed: the one at which the most is at stake.
fn deadly_write(function: &str) -> u32 {
    match function {
        // The order is stored, the customer is known, the stock is reserved and the payment is
        // authorised, but the order is not confirmed.
        "orders" => 4,
        // The intent is stored and the provider has done it, but the service has not recorded it.
        "payments" => 2,
        // The products service has reserved the stock, the worker has had the payment captured,
        // the notifier has claimed the message. (After the sending, a kill would send the message
        // twice, which docs/guarantees.md names as the exception.)
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(target: Target, is_write: bool) -> Call {
        Call { target, is_write, trace: None, step: None }
    }

    fn table(name: &str) -> Target {
        Target::Table(name.to_owned())
    }

    #[test]
    fn dead_payments_refuse_each_request_to_payments_and_no_other() {
        let weather = Weather::default();
        weather.begin(Kind::PaymentsDead, "payments", None).expect("weather");
        assert_eq!(weather.before(&call(Target::Service("payments".into()), true)), Before::Dead);
        assert_eq!(weather.before(&call(Target::Service("products".into()), true)), Before::Pass);
        assert_eq!(weather.now().active[0].hits, 1);
        weather.end(|_| true);
        assert_eq!(weather.before(&call(Target::Service("payments".into()), true)), Before::Pass);
    }

    #[test]
    fn one_answer_of_the_target_is_lost_and_then_the_weather_is_over() {
        let weather = Weather::default();
        weather.begin(Kind::LoseAnswer, "table:orders", None).expect("weather");
        assert!(!weather.loses(&call(table("orders"), false)) && !weather.loses(&call(table("payments"), true)));
        assert!(weather.loses(&call(table("orders"), true)));
        assert!(weather.is_calm() && !weather.loses(&call(table("orders"), true)));
        assert_eq!(weather.now().last[0].hits, 1);
    }

    #[test]
    fn a_payment_is_killed_after_the_provider_has_acted_and_before_the_service_records_it() {
        let weather = Weather::default();
        weather.begin(Kind::KillHalfway, "payments", None).expect("weather");
        assert!(weather.hunts());
        assert_eq!(weather.counts("orders", 1), None);
        assert_eq!(weather.counts("payments", 2), None);
        assert!(weather.counts("payments", 2).is_some());
    }

    #[test]
    fn two_of_three_requests_to_a_throttled_table_are_refused() {
        let weather = Weather::default();
        weather.begin(Kind::ThrottleTable, "products", None).expect("weather");
        let refused = (0..300).filter(|_| weather.before(&call(table("products"), false)) == Before::Throttle).count();
        assert!((120..280).contains(&refused), "{refused}");
        assert_eq!(weather.before(&call(table("orders"), true)), Before::Pass);
    }

    #[test]
    fn unknown_targets_bad_durations_and_the_same_weather_twice_are_refused() {
        let weather = Weather::default();
        let begin = |target, seconds| weather.begin(Kind::PaymentsSlow, target, seconds).map(|_| ());
        assert_eq!(begin("users", None), Err(Refused::UnknownTarget));
        assert_eq!(begin("payments", Some(0)), Err(Refused::BadDuration));
        assert_eq!(begin("payments", Some(LONGEST + 1)), Err(Refused::BadDuration));
        assert_eq!(begin("payments", Some(9)), Ok(()));
        assert_eq!(begin("payments", None), Err(Refused::ActiveAlready));
    }

    #[test]
    fn each_kind_has_targets_and_says_what_it_does_and_what_should_happen() {
        for kind in Kind::all() {
            let document = kind.document(None);
            assert!(!document.targets.is_empty() && document.what_it_does.ends_with('.'), "{document:?}");
            assert!(document.what_should_happen.ends_with('.') && !document.title.is_empty(), "{document:?}");
        }
    }
}
