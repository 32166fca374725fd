//! Metrics in CloudWatch's embedded metric format: a line in the log that
//! CloudWatch turns into metrics, without a call in the request's path.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
//!
//! A unit of work, such as the work of one invocation on one order, is a struct
//! whose fields are its metrics. [`metrics!`](crate::metrics) declares the
//! struct, and each metric's name, unit and dimensions. A unit is written as one
//! line when its [`Unit`] is dropped, so that no return and no `?` can forget
//! it. A unit in which nothing happened writes no line.
//!
//! `docs/metrics.md` lists all metrics; a test generates the list from the
//! declarations.

use std::{
    env, mem,
    ops::{Deref, DerefMut},
    sync::OnceLock,
};

use serde_json::{Map, Value, json};

/// The namespace of every metric of this project.
pub const NAMESPACE: &str = "Holdfast";

/// The dimension that every metric has, except those of a single function: the
/// name of the stack. Without it, CloudWatch would add up the metrics of two
/// stacks in one account.
pub const STACK: &str = "Stack";

/// The dimension of the metrics that describe one function and not the shop. The
/// name of a function contains the name of its stack.
pub const FUNCTION: &str = "FunctionName";

/// The value of [`STACK`] and of [`FUNCTION`] outside Lambda.
const LOCAL: &str = "local";

/// The unit of a metric's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricUnit {
    /// A number of something. A line does not name this unit, because that would
    /// cost bytes and change nothing.
    Count,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
}

impl MetricUnit {
    /// The name of the unit in CloudWatch; `None` for a number.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Count => None,
            Self::Milliseconds => Some("Milliseconds"),
            Self::Seconds => Some("Seconds"),
        }
    }
}

/// The declaration of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The metric's name.
    pub name: &'static str,
    /// The unit of its values.
    pub unit: MetricUnit,
    /// The names of its dimensions: [`STACK`] or [`FUNCTION`], and then those
    /// whose values the unit of work gives.
    pub dimensions: &'static [&'static str],
    /// What the metric says, in words.
    pub meaning: &'static str,
}

/// The value of a metric in one unit of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurement<'a> {
    /// The metric.
    pub metric: &'static Metric,
    /// The values of the metric's dimensions, without the first dimension.
    pub labels: &'a [&'static str],
    /// The metric's value.
    pub value: u64,
}

/// A unit of work whose fields are metrics. [`metrics!`](crate::metrics)
/// implements this trait.
pub trait Metrics: Default {
    /// The metrics that the unit may write.
    const ALL: &'static [Metric];

    /// Calls `each` for every metric that has a value.
    fn measure<'a>(&'a self, each: &mut dyn FnMut(Measurement<'a>));
}

/// The type of a metric's field.
pub trait Measured {
    /// The values of the dimensions and the metric's value; `None` if there is
    /// nothing to report.
    fn measured(&self) -> Option<(&[&'static str], u64)>;
}

/// Counts what happened. A count of zero is not reported.
impl Measured for u64 {
    fn measured(&self) -> Option<(&[&'static str], u64)> {
        (*self > 0).then_some((&[], *self))
    }
}

/// Measures something that may also be zero.
impl Measured for Option<u64> {
    fn measured(&self) -> Option<(&[&'static str], u64)> {
        self.map(|value| (&[] as &[_], value))
    }
}

/// A value with the values of its dimensions. All units of work together may
/// give a dimension only a small number of values, because each combination is a
/// metric that CloudWatch charges for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labelled<const N: usize> {
    /// The values of the dimensions.
    pub labels: [&'static str; N],
    /// The metric's value.
    pub value: u64,
}

impl<const N: usize> Measured for Option<Labelled<N>> {
    fn measured(&self) -> Option<(&[&'static str], u64)> {
        self.as_ref().map(|labelled| (labelled.labels.as_slice(), labelled.value))
    }
}

/// Declares a unit of work.
///
/// ```
/// chassis::metrics! {
///     /// One visit of the shop.
///     pub struct Visit {
///         /// Visits.
///         visits: u64 = "Visits", Count, ["Stack"];
///         /// How long a visit took.
///         time: Option<u64> = "VisitTime", Milliseconds, ["Stack"];
///     }
/// }
/// use chassis::metric::Metrics;
/// assert_eq!(Visit::ALL[1].name, "VisitTime");
/// ```
#[macro_export]
macro_rules! metrics {
    (
        $(#[$about:meta])*
        pub struct $unit:ident {
            $($(#[doc = $meaning:literal])+ $field:ident: $kind:ty = $name:literal, $of:ident, [$($dimension:literal),+];)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $unit {
            $($(#[doc = $meaning])+ pub $field: $kind,)+
        }

        impl $crate::metric::Metrics for $unit {
            const ALL: &'static [$crate::metric::Metric] = &[$($crate::metric::Metric {
                name: $name,
                unit: $crate::metric::MetricUnit::$of,
                dimensions: &[$($dimension),+],
                meaning: concat!($($meaning),+),
            }),+];

            fn measure<'a>(&'a self, each: &mut dyn FnMut($crate::metric::Measurement<'a>)) {
                let mut metrics = Self::ALL.iter();
                $(if let (Some(metric), Some((labels, value))) =
                    (metrics.next(), $crate::metric::Measured::measured(&self.$field))
                {
                    each($crate::metric::Measurement { metric, labels, value });
                })+
            }
        }
    };
}

crate::metrics! {
    /// The start of an execution environment.
    pub struct Start {
        /// Starts of the function's execution environments.
        cold_starts: u64 = "ColdStarts", Count, ["FunctionName"];
    }
}

/// Holds a unit of work, and writes its line when it is dropped.
#[derive(Debug, Default)]
pub struct Unit<M: Metrics>(M);

impl<M: Metrics> Unit<M> {
    /// Returns a unit in which nothing has happened yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<M: Metrics> Deref for Unit<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M: Metrics> DerefMut for Unit<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.0
    }
}

impl<M: Metrics> Drop for Unit<M> {
    fn drop(&mut self) {
        write(&mem::take(&mut self.0));
    }
}

/// The name of the stack, and the name of the function. Lambda itself sets the
/// variable that holds the latter, so no function declares it in its
/// configuration.
static SOURCE: OnceLock<(String, String)> = OnceLock::new();
static SINK: OnceLock<fn(&str)> = OnceLock::new();

/// Names the stack to which all metrics of this process belong. Only the first
/// call has an effect.
pub fn belong_to(stack: &str) {
    let function = env::var("AWS_LAMBDA_FUNCTION_NAME").ok();
    SOURCE.get_or_init(|| (stack.to_owned(), or_local(function)));
}

/// Makes `sink` receive all lines in place of the log. Only the first call has
/// an effect. The tests read the metrics of all functions in this way.
pub fn redirect(sink: fn(&str)) {
    SINK.get_or_init(|| sink);
}

/// Writes a unit of work as one line.
pub fn write<M: Metrics>(unit: &M) {
    let local = || (LOCAL.to_owned(), LOCAL.to_owned());
    let (stack, function) = SOURCE.get_or_init(local);
    if let Some(line) = line(unit, stack, function, jiff::Timestamp::now().as_millisecond()) {
        match SINK.get() {
            Some(sink) => sink(&line),
            None => println!("{line}"),
        }
    }
}

fn or_local(name: Option<String>) -> String {
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| LOCAL.to_owned())
}

/// The line of a unit; `None` if the unit has nothing to report.
fn line<M: Metrics>(unit: &M, stack: &str, function: &str, at_millis: i64) -> Option<String> {
    let mut directives: Vec<(&'static [&'static str], Vec<Value>)> = Vec::new();
    let mut members = Map::new();
    unit.measure(&mut |Measurement { metric, labels, value }| {
        let name = match metric.unit.name() {
            Some(unit) => json!({ "Name": metric.name, "Unit": unit }),
            None => json!({ "Name": metric.name }),
        };
        match directives.iter_mut().find(|(dimensions, _)| *dimensions == metric.dimensions) {
            Some((_, names)) => names.push(name),
            None => directives.push((metric.dimensions, vec![name])),
        }
        let first = if metric.dimensions.first() == Some(&FUNCTION) { function } else { stack };
        for (dimension, label) in metric.dimensions.iter().zip(std::iter::once(first).chain(labels.iter().copied())) {
            let earlier = members.insert((*dimension).to_owned(), label.into());
            // A line has one value of each dimension, for all its metrics.
            debug_assert!(earlier.is_none_or(|earlier| earlier == label), "{dimension} of {}", metric.name);
        }
        members.insert(metric.name.to_owned(), value.into());
    });
    if directives.is_empty() {
        return None;
    }
    let directives = directives
        .into_iter()
        .map(|(dimensions, names)| json!({ "Namespace": NAMESPACE, "Dimensions": [dimensions], "Metrics": names }));
    let about = json!({ "Timestamp": at_millis, "CloudWatchMetrics": directives.collect::<Vec<_>>() });
    members.insert("_aws".to_owned(), about);
    Some(Value::Object(members).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Labelled, Metrics, Unit};

    crate::metrics! {
        /// A visit.
        pub struct Visit {
            /// Visits.
            visits: u64 = "Visits", Count, ["Stack"];
            /// How long
            /// a visit took.
            time: Option<u64> = "VisitTime", Milliseconds, ["Stack"];
            /// Visits by door.
            door: Option<Labelled<1>> = "VisitsByDoor", Count, ["Stack", "Door"];
            /// Starts.
            starts: u64 = "Starts", Count, ["FunctionName"];
        }
    }

    fn line(unit: &Visit) -> Option<serde_json::Value> {
        super::line(unit, "shop", "worker", 7).map(|line| serde_json::from_str(&line).unwrap())
    }

    #[test]
    fn a_unit_is_one_line_with_a_directive_for_each_set_of_dimensions() {
        let door = Some(Labelled { labels: ["back"], value: 2 });
        let visit = Visit { visits: 1, time: Some(0), door, starts: 3 };
        assert_eq!(
            line(&visit).unwrap(),
            json!({
                "_aws": {
                    "Timestamp": 7,
                    "CloudWatchMetrics": [
                        {
                            "Namespace": "Holdfast",
                            "Dimensions": [["Stack"]],
                            "Metrics": [{ "Name": "Visits" }, { "Name": "VisitTime", "Unit": "Milliseconds" }],
                        },
                        {
                            "Namespace": "Holdfast",
                            "Dimensions": [["Stack", "Door"]],
                            "Metrics": [{ "Name": "VisitsByDoor" }],
                        },
                        {
                            "Namespace": "Holdfast",
                            "Dimensions": [["FunctionName"]],
                            "Metrics": [{ "Name": "Starts" }],
                        },
                    ],
                },
                "Stack": "shop",
                "Door": "back",
                "FunctionName": "worker",
                "Visits": 1,
                "VisitTime": 0,
                "VisitsByDoor": 2,
                "Starts": 3,
            })
        );
    }

    #[test]
    fn a_unit_in_which_nothing_happened_has_no_line_and_a_value_that_was_measured_as_zero_has_one() {
        assert_eq!(line(&Visit::default()), None);
        assert!(line(&Visit { time: Some(0), ..Visit::default() }).is_some());
    }

    #[test]
    fn a_metric_has_its_documentation_as_its_meaning() {
        assert_eq!(Visit::ALL[1].meaning, " How long a visit took.");
    }

    #[test]
    fn a_unit_starts_empty_and_is_changed_through_its_guard() {
        let mut unit = Unit::<Visit>::new();
        unit.visits += 1;
        assert_eq!(*unit, Visit { visits: 1, ..Visit::default() });
    }

    #[test]
    fn outside_lambda_the_name_of_a_function_is_local() {
        assert_eq!(super::or_local(None), "local");
        assert_eq!(super::or_local(Some(String::new())), "local");
        assert_eq!(super::or_local(Some("worker".to_owned())), "worker");
    }
}
