//! Invocations of processes that have handled invocations before.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{
    block_on,
    emulated_aws::EmulatedAws,
    fixture::{Fixture, LINES, Operation},
    instructions, limits, programs,
    runtime_api::{Process, Start},
    statistics::{median, millis, quantile},
};
use crate::{
    report::{BarSeries, Chart, ChartContent, Figure, Section, Table},
    table::number,
};

pub const NAME: &str = "warm-invocation";
/// How often each program is invoked before its invocations are timed.
const WARM_UP: usize = 20;
/// How many invocations of each program are timed. A function and its baseline take turns,
/// so that a busy moment of the machine affects both.
const TIMED: usize = 300;
/// The number of invocations in the shorter one of two runs under valgrind. It contains
/// everything that happens once.
const FEW: usize = 10;
/// By how many invocations the second run is longer.
const COUNTED: usize = 30;
/// The number of requests by which the second run of this program is longer.
const TELEMETRY_REQUESTS: usize = 1000;
/// What an operation of a function is compared with.
const BASELINE: &str = "bare handler";

fn operations() -> Vec<Operation> {
    let reserve = LINES.into_iter().map(Operation::Reserve);
    let before = [Operation::GetProduct, Operation::GetOrder, Operation::Validate];
    let after = [Operation::Authorise, Operation::SendMessages(1), Operation::SendMessages(10)];
    before.into_iter().chain(reserve).chain(after).collect()
}

pub fn measure() -> Result<Section> {
    block_on(async {
        let functions = programs::measured_functions()?;
        let mut operations = operations();
        operations.retain(|operation| functions.contains(&operation.function()));
        let mut section = Section::new(NAME, "Warm invocation");
        let fixture = Fixture::start().await?;
        let aws = EmulatedAws::serve(fixture.world.cloud.clone()).await?;

        let (mut counted, mut missing) = (Vec::new(), Vec::new());
        for operation in &operations {
            let name = format!("{}, instructions", operation.name());
            if !instructions::can_be_counted() {
                missing.push(vec![name]);
                continue;
            }
            let ours = instructions(operation.function(), *operation, &fixture, &aws).await?;
            let bare = instructions(operation.baseline(), *operation, &fixture, &aws).await?;
            let figure = Figure::new(name, ours / 1e3, "thousand").compared_with(BASELINE, bare / 1e3);
            let is_limited = *operation == Operation::GetProduct;
            section.figures.push(if is_limited { figure.within(limits::GET_PRODUCT) } else { figure });
            counted.push((operation.name(), ours / 1e3, bare / 1e3));
        }

        let get_product = counted.iter().find(|(name, ..)| *name == Operation::GetProduct.name());
        if let Some((name, ours, _)) = get_product {
            section.figures.extend(telemetry(name, *ours)?);
        }

        let mut rows = Vec::new();
        for operation in &operations {
            let [ours, bare] = times(*operation, &fixture, &aws).await?;
            let figure = Figure::new(format!("{}, time", operation.name()), millis(median(&ours.all)), "ms");
            section.figures.push(figure.compared_with(BASELINE, millis(median(&bare.all))));
            for (program, times) in [(operation.function(), ours), (BASELINE, bare)] {
                let calls = number(times.calls as f64 / TIMED as f64);
                let times = [median(&times.all), quantile(&times.all, 0.99), median(&times.own)];
                let times = times.map(|time| format!("{:.2}", millis(time)));
                rows.push([operation.name(), program.to_owned(), calls].into_iter().chain(times).collect());
            }
        }
        section.tables.push(Table {
            title: format!("Time of {TIMED} invocations in ms, from the event to the response"),
            columns: ["operation", "program", "calls to AWS", "p50", "p99", "p50 without the work of the emulated AWS"]
                .map(Into::into)
                .into(),
            rows,
        });
        if !missing.is_empty() {
            let columns = vec!["figure".into()];
            section.tables.push(Table { title: instructions::MISSING.into(), columns, rows: missing });
        }
        if !counted.is_empty() {
            section.charts.push(chart(&counted));
        }
        Ok(section)
    })
}

fn chart(counted: &[(String, f64, f64)]) -> Chart {
    let series = |name: &str, values: Vec<f64>| BarSeries { name: name.into(), values };
    Chart {
        file: NAME.into(),
        title: "Instructions of an invocation".into(),
        content: ChartContent::Bars {
            value_label: "thousand instructions".into(),
            stacked: false,
            groups: counted.iter().map(|(name, ..)| name.clone()).collect(),
            series: vec![
                series("Holdfast", counted.iter().map(|(_, ours, _)| *ours).collect()),
                series(BASELINE, counted.iter().map(|(.., bare)| *bare).collect()),
            ],
        },
    }
}

/// The instructions of one invocation: the difference of two runs, over the difference of
/// their numbers of invocations.
async fn instructions(program: &str, operation: Operation, fixture: &Fixture, aws: &EmulatedAws) -> Result<f64> {
    let (function, url) = (operation.function(), aws.url());
    let before = aws.calls();
    let few = instructions::count(program, function, Some(&url), &fixture.events(operation, FEW)).await?;
    let between = aws.calls();
    let many = instructions::count(program, function, Some(&url), &fixture.events(operation, FEW + COUNTED)).await?;
    // A process that repeats a call, because the machine was too busy to answer in time, has
    // more instructions.
    let (first, second) = (between - before, aws.calls() - between);
    ensure!(
        first * (FEW + COUNTED) as u64 == second * FEW as u64,
        "{program} has repeated calls to AWS; measure again when the machine is less busy"
    );
    Ok((many as f64 - few as f64) / COUNTED as f64)
}

/// What telemetry adds to an invocation of `operation`, which takes `invocation` thousand
/// instructions: without the lines of spans, as on AWS by default, and with them.
fn telemetry(operation: &str, invocation: f64) -> Result<[Figure; 2]> {
    let of_a_request = |mode: &str| -> Result<f64> {
        let few = instructions::count_program(programs::TELEMETRY_COST, &[mode, &FEW.to_string()])?;
        let many =
            instructions::count_program(programs::TELEMETRY_COST, &[mode, &(FEW + TELEMETRY_REQUESTS).to_string()])?;
        Ok((many as f64 - few as f64) / TELEMETRY_REQUESTS as f64)
    };
    // What the program does without a subscriber is no telemetry.
    let none = of_a_request("none")?;
    let figure = |name: &str, mode: &str| -> Result<Figure> {
        let thousands = (of_a_request(mode)? - none) / 1e3;
        Ok(Figure::new(name, thousands, "thousand").compared_with(operation, invocation))
    };
    Ok([
        figure("telemetry of a request, instructions", "off")?.within(limits::TELEMETRY),
        figure("telemetry of a request with the lines of spans, instructions", "log")?.within(limits::TELEMETRY),
    ])
}

/// The times of the timed invocations of one program.
#[derive(Default)]
struct Times {
    all: Vec<Duration>,
    /// The times without the time for which the emulated AWS has worked.
    own: Vec<Duration>,
    /// The number of calls to AWS.
    calls: u64,
}

/// The times of the function, and of its baseline.
async fn times(operation: Operation, fixture: &Fixture, aws: &EmulatedAws) -> Result<[Times; 2]> {
    let start = Start { endpoint: Some(aws.url()), observer: None };
    let mut times = [Times::default(), Times::default()];
    let mut processes = Vec::new();
    for program in [operation.function(), operation.baseline()] {
        processes.push(Process::start(program, operation.function(), &start).await?);
    }
    for n in 0..WARM_UP + TIMED {
        for (process, times) in processes.iter_mut().zip(&mut times) {
            for event in fixture.events(operation, 1) {
                let (before, calls) = (aws.work(), aws.calls());
                let time = process.invoke(&event).await?;
                if n >= WARM_UP {
                    times.all.push(time);
                    times.own.push(time.saturating_sub(aws.work() - before));
                    times.calls += aws.calls() - calls;
                }
            }
        }
    }
    for process in processes {
        process.end().await?;
    }
    Ok(times)
}
