//! The picture of an order's saga: each row of the orders service's own table of steps, with
//! what has happened to it. Pure: it needs the stored order, and the attempts that were seen.

use jiff::Timestamp;
use orders::saga::steps::{Saga, Stage};
use serde::Serialize;
use serde_json::Value;

/// One try of a step or a compensation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub step: String,
    /// Microseconds since 1970.
    pub begin: i64,
    /// `None` while the attempt runs.
    pub end: Option<i64>,
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Before,
    Pivot,
    After,
    WayBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    Waiting,
    Running,
    Done,
    Failed,
    /// The step was done, and its compensation was done afterwards.
    Undone,
    /// The order did not need the step.
    NotNeeded,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    pub name: String,
    pub title: String,
    pub phase: Phase,
    /// Steps of one phase and stage run side by side.
    pub stage: usize,
    /// The steps that a compensation undoes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub undoes: Vec<String>,
    pub state: StepState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    pub attempts: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Picture {
    pub steps: Vec<Step>,
    pub pivot: Step,
    pub compensation: Vec<Step>,
}

/// What the picture needs of a stored order.
pub struct Progress {
    pub state: String,
    pub confirmed_at: Option<Timestamp>,
    pub cancelling_at: Option<Timestamp>,
    pub done_at: Option<Timestamp>,
}

impl Progress {
    /// Reads the state and the history of a stored order.
    pub fn of(item: &Value) -> Self {
        let entry = |status: &str| {
            let history = item["history"].as_array()?;
            history.iter().find(|entry| entry["status"] == status)?["at"].as_str()?.parse().ok()
        };
        Self {
            state: item["state"].as_str().unwrap_or_default().to_owned(),
            confirmed_at: entry("CONFIRMED"),
            cancelling_at: entry("CANCELLING"),
            done_at: entry("DONE"),
        }
    }

    fn is_open(&self) -> bool {
        !["DONE", "CANCELLED"].contains(&self.state.as_str())
    }
}

pub fn picture(saga: &Saga, progress: &Progress, attempts: &[Attempt]) -> Picture {
    // A step and a stage after a compensation may have the same name. The beginning of the
    // cancellation separates their attempts.
    let turn = progress.cancelling_at.map_or(i64::MAX, Timestamp::as_microsecond);
    let forth: Vec<_> = attempts.iter().filter(|attempt| attempt.begin < turn).collect();
    let back: Vec<_> = attempts.iter().filter(|attempt| attempt.begin >= turn).collect();
    let is_open = progress.is_open();

    let compensations = saga.compensations().map(|compensation| {
        let steps = all(saga).filter(|step| step.compensation.is_some_and(|it| it.name == compensation.name));
        let undoes = steps.map(|step| step.name.to_owned()).collect();
        let row = Row { phase: Phase::WayBack, stage: 0, is_passed: progress.state == "CANCELLED" };
        Step { undoes, ..row.of(compensation.name, &back, is_open) }
    });
    let mut compensation: Vec<Step> = compensations.collect();
    let after = Row { phase: Phase::WayBack, stage: 1, is_passed: progress.state == "CANCELLED" };
    compensation.extend(after.of_stages(saga.after_compensation, &back, is_open));

    let before = Row { phase: Phase::Before, stage: 0, is_passed: progress.confirmed_at.is_some() };
    let after = Row { phase: Phase::After, stage: 0, is_passed: progress.done_at.is_some() };
    let mut steps = before.of_stages(saga.before_the_pivot, &forth, is_open);
    steps.extend(after.of_stages(saga.after_the_pivot, &forth, is_open));
    for step in &mut steps {
        let is_undone = compensation.iter().any(|it| it.undoes.contains(&step.name) && it.state == StepState::Done);
        if step.state == StepState::Done && is_undone {
            step.state = StepState::Undone;
        } else if step.state == StepState::Running && progress.cancelling_at.is_some() {
            // The order was cancelled before the step had an outcome.
            step.state = StepState::Failed;
        }
    }
    Picture { pivot: pivot(progress), steps, compensation }
}

fn pivot(progress: &Progress) -> Step {
    let state = if progress.confirmed_at.is_some() { StepState::Done } else { StepState::Waiting };
    Step {
        name: "pivot".to_owned(),
        title: "Confirm the order".to_owned(),
        phase: Phase::Pivot,
        stage: 0,
        undoes: Vec::new(),
        state,
        started_at: progress.confirmed_at,
        ended_at: progress.confirmed_at,
        attempts: usize::from(state != StepState::Waiting),
        error: None,
    }
}

/// The steps of the way forth.
fn all(saga: &Saga) -> impl Iterator<Item = &'static orders::saga::steps::Step> {
    saga.before_the_pivot.iter().chain(saga.after_the_pivot).copied().flatten()
}

#[derive(Clone, Copy)]
struct Row {
    phase: Phase,
    stage: usize,
    /// The order's state shows that all steps of the phase have succeeded.
    is_passed: bool,
}

impl Row {
    fn of_stages(self, stages: &'static [Stage], attempts: &[&Attempt], is_open: bool) -> Vec<Step> {
        let stages = stages.iter().enumerate();
        let rows = stages.flat_map(|(number, stage)| stage.iter().map(move |step| (number, step)));
        rows.map(|(number, step)| {
            let mut row = Self { stage: self.stage + number, ..self }.of(step.name, attempts, is_open);
            // Old orders have no lines any more, so nothing is known about them.
            if row.state == StepState::Done && row.attempts == 0 && step.is_conditional() && !attempts.is_empty() {
                row.state = StepState::NotNeeded;
            }
            row
        })
        .collect()
    }

    fn of(self, name: &str, attempts: &[&Attempt], is_open: bool) -> Step {
        let mut own: Vec<_> = attempts.iter().filter(|attempt| attempt.step == name).collect();
        own.sort_by_key(|attempt| attempt.begin);
        let success = own.iter().find(|attempt| attempt.end.is_some() && attempt.error.is_none());
        let last = success.or(own.last());
        let state = match last {
            _ if success.is_some() || self.is_passed => StepState::Done,
            None => StepState::Waiting,
            Some(attempt) if attempt.end.is_none() && attempt.error.is_none() && is_open => StepState::Running,
            Some(_) => StepState::Failed,
        };
        let at = |micros: i64| Timestamp::from_microsecond(micros).ok();
        let unfinished = (state == StepState::Failed).then(|| "never ended: the function was stopped".to_owned());
        Step {
            title: title(name),
            name: name.to_owned(),
            phase: self.phase,
            stage: self.stage,
            undoes: Vec::new(),
            state,
            started_at: own.first().and_then(|attempt| at(attempt.begin)),
            ended_at: last.and_then(|attempt| at(attempt.end?)),
            attempts: own.len(),
            error: match state {
                StepState::Failed => last.and_then(|attempt| attempt.error.clone()).or(unfinished),
                _ => None,
            },
        }
    }
}

/// The name with a capital letter.
fn title(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use orders::saga::steps::PLACE_ORDER;
    use serde_json::json;

    use super::*;

    fn order(states: &[(&str, i64)]) -> Progress {
        let at = |second: i64| Timestamp::from_second(second).expect("a time").to_string();
        let history: Vec<_> = states.iter().map(|(state, at_)| json!({ "status": state, "at": at(*at_) })).collect();
        Progress::of(&json!({ "state": states.last().expect("a state").0, "history": history }))
    }

    fn attempt(step: &str, second: i64, end: Option<i64>, error: Option<&str>) -> Attempt {
        let micros = |second: i64| second * 1_000_000;
        Attempt { step: step.into(), begin: micros(second), end: end.map(micros), error: error.map(str::to_owned) }
    }

    fn state_of(picture: &Picture, name: &str, phase: Phase) -> StepState {
        let mut rows = picture.steps.iter().chain(&picture.compensation);
        rows.find(|step| step.name == name && step.phase == phase).expect("a row").state
    }

    #[test]
    fn the_picture_has_each_row_of_the_table_once_and_in_its_sequence() {
        let picture = picture(&PLACE_ORDER, &order(&[("PENDING", 0)]), &[]);
        let names: Vec<_> = picture.steps.iter().map(|step| step.name.as_str()).collect();
        let table: Vec<_> = all(&PLACE_ORDER).map(|step| step.name).collect();
        assert_eq!(names, table);
        assert!(picture.steps.iter().all(|step| step.state == StepState::Waiting));
        let stages: Vec<_> = picture.steps.iter().map(|step| step.stage).collect();
        assert_eq!(stages, [0, 0, 1, 0, 1]);
        assert_eq!(picture.compensation[1].undoes, ["authorise payment", "capture payment"]);
    }

    #[test]
    fn a_step_that_has_begun_is_running_and_a_confirmed_order_has_passed_all_steps_before_the_pivot() {
        let running = [attempt("reserve stock", 1, None, None)];
        let now = picture(&PLACE_ORDER, &order(&[("PENDING", 0)]), &running);
        assert_eq!(state_of(&now, "reserve stock", Phase::Before), StepState::Running);
        assert_eq!(state_of(&now, "authorise payment", Phase::Before), StepState::Waiting);
        let later = picture(&PLACE_ORDER, &order(&[("PENDING", 0), ("CONFIRMED", 2)]), &running);
        assert_eq!(state_of(&later, "reserve stock", Phase::Before), StepState::Done);
        assert_eq!(later.pivot.state, StepState::Done);
        assert_eq!(state_of(&later, "capture payment", Phase::After), StepState::Waiting);
    }

    #[test]
    fn a_later_success_hides_an_earlier_failure() {
        let attempts =
            [attempt("capture payment", 3, Some(4), Some("no answer")), attempt("capture payment", 60, Some(61), None)];
        let order = order(&[("PENDING", 0), ("CONFIRMED", 2)]);
        let failed = picture(&PLACE_ORDER, &order, &attempts[..1]);
        assert_eq!(state_of(&failed, "capture payment", Phase::After), StepState::Failed);
        let done = picture(&PLACE_ORDER, &order, &attempts);
        let step = done.steps.iter().find(|step| step.name == "capture payment").expect("a row");
        assert_eq!((step.state, step.attempts, step.error.as_deref()), (StepState::Done, 2, None));
    }

    #[test]
    fn a_cancelled_order_has_undone_what_was_done_and_the_way_back_is_separate_from_the_way_forth() {
        let order = order(&[("PENDING", 0), ("CANCELLING", 5), ("CANCELLED", 9)]);
        let attempts = [
            attempt("reserve stock", 1, Some(2), None),
            attempt("authorise payment", 2, Some(3), Some("refused: payment_declined")),
            attempt("release stock", 6, Some(7), None),
            attempt("cancel payment", 6, Some(7), None),
            attempt("publish OrderCancelled", 8, Some(8), None),
        ];
        let picture = picture(&PLACE_ORDER, &order, &attempts);
        assert_eq!(state_of(&picture, "reserve stock", Phase::Before), StepState::Undone);
        assert_eq!(state_of(&picture, "authorise payment", Phase::Before), StepState::Failed);
        assert_eq!(state_of(&picture, "publish OrderCreated", Phase::After), StepState::Waiting);
        assert_eq!(state_of(&picture, "publish OrderCreated", Phase::WayBack), StepState::NotNeeded);
        assert_eq!(state_of(&picture, "publish OrderCancelled", Phase::WayBack), StepState::Done);
        assert_eq!(picture.pivot.state, StepState::Waiting);
    }
}
