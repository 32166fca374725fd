//! The start of each function's program, its memory, and its size.

use std::{collections::BTreeMap, fs::File, io, time::Duration};

use anyhow::{Context, Result};
use flate2::{Compression, write::DeflateEncoder};

use super::{
    block_on,
    emulated_aws::EmulatedAws,
    fixture::{Fixture, Operation},
    instructions, limits,
    programs::{self, HELLO_WORLD, SDK_CLIENTS},
    runtime_api::{Process, Start},
    statistics::{median, millis},
    system_calls,
};
use crate::report::{BarSeries, Chart, ChartContent, Figure, Section, Table};

pub const NAME: &str = "cold-start";
/// How often each program is started. The programs take turns, so that a busy moment of
/// the machine affects all programs.
const STARTS: usize = 41;
/// The number of invocations after which the memory is read.
const INVOCATIONS: usize = 200;
/// The level at which SAM compresses zips.
const ZIP_LEVEL: u32 = 6;
/// The bytes of a zip with one file named `bootstrap`, without the file's content.
const ZIP_HEADERS: u64 = 22 + 46 + 30 + 2 * "bootstrap".len() as u64;
const MEGABYTE: f64 = 1e6;

pub fn measure() -> Result<Section> {
    block_on(async {
        let functions = programs::measured_functions()?;
        let all: Vec<_> = [HELLO_WORLD, SDK_CLIENTS].into_iter().chain(functions.iter().copied()).collect();
        let mut section = Section::new(NAME, "Cold start");
        let counts = init_instructions(&all).await?;
        let times = init_times(&all).await?;
        let compared = &all[1..];

        for program in compared.iter().filter(|program| counts.contains_key(*program)) {
            let figure = Figure::new(format!("init of {program}, instructions"), counts[program] / 1e6, "million")
                .compared_with(HELLO_WORLD, counts[HELLO_WORLD] / 1e6);
            let is_function = functions.contains(program);
            section.figures.push(if is_function {
                figure.aiming_at(limits::INIT_INSTRUCTIONS_TARGET).within(limits::INIT_INSTRUCTIONS)
            } else {
                figure
            });
        }
        if let Some(hello) = counts.get(HELLO_WORLD) {
            let figure = Figure::new("telemetry's share of an init, instructions", telemetry()? / 1e6, "million");
            section.figures.push(figure.compared_with(HELLO_WORLD, hello / 1e6).within(limits::TELEMETRY_INIT));
        }
        for program in compared {
            let figure = Figure::new(format!("init of {program}, time"), millis(times[program]), "ms")
                .compared_with(HELLO_WORLD, millis(times[HELLO_WORLD]));
            let is_function = functions.contains(program);
            section.figures.push(if is_function {
                figure.aiming_at(limits::INIT_TIME_TARGET).within(limits::INIT_TIME)
            } else {
                figure
            });
        }

        let calls = init_system_calls(&all).await?;
        for program in compared.iter().filter(|program| calls.contains_key(*program)) {
            let figure = Figure::new(format!("init of {program}, system calls"), calls[program] as f64, "calls");
            section.figures.push(figure.compared_with(HELLO_WORLD, calls[HELLO_WORLD] as f64));
        }

        let fixture = Fixture::start().await?;
        let aws = EmulatedAws::serve(fixture.world.cloud.clone()).await?;
        let hello = in_use(HELLO_WORLD, &aws, &vec!["{}".to_owned(); INVOCATIONS]).await?;
        let mut used = Vec::new();
        for function in &functions {
            let events = fixture.events(Operation::of_function(function), INVOCATIONS);
            used.push((function, in_use(function, &aws, &events).await?));
        }
        for (function, InUse { first, .. }) in &used {
            let figure = Figure::new(format!("first invocation of {function}"), millis(*first), "ms");
            section.figures.push(figure.compared_with(HELLO_WORLD, millis(hello.first)));
        }
        for (function, InUse { memory, .. }) in &used {
            let name = format!("memory of {function} after {INVOCATIONS} invocations");
            let figure = Figure::new(name, *memory, "MB").compared_with(HELLO_WORLD, hello.memory);
            section.figures.push(figure.within(limits::MEMORY));
        }
        let hello = size(HELLO_WORLD)?;
        for function in &functions {
            let figure = Figure::new(format!("program of {function}"), size(function)?.program, "MB");
            section.figures.push(figure.compared_with(HELLO_WORLD, hello.program));
        }
        for function in &functions {
            let figure = Figure::new(format!("zip of {function}"), size(function)?.zip, "MB");
            let figure = figure.compared_with(HELLO_WORLD, hello.zip);
            section.figures.push(figure.aiming_at(limits::ZIP_TARGET).within(limits::ZIP));
        }

        let missing = [
            (counts.is_empty(), instructions::MISSING, "instructions"),
            (calls.is_empty(), system_calls::MISSING, "system calls"),
        ];
        for (_, why, what) in missing.into_iter().filter(|(is_missing, ..)| *is_missing) {
            section.tables.push(Table {
                title: why.into(),
                columns: vec!["figure".into()],
                rows: compared.iter().map(|program| vec![format!("init of {program}, {what}")]).collect(),
            });
        }
        section.charts.push(chart(&all, &counts, &times));
        Ok(section)
    })
}

/// The time and the instructions of each program's init, over those of hello-world.
fn chart(all: &[&str], counts: &BTreeMap<&str, f64>, times: &BTreeMap<&str, Duration>) -> Chart {
    let mut series = Vec::new();
    if let Some(hello) = counts.get(HELLO_WORLD) {
        let values = all.iter().map(|program| counts[program] / hello).collect();
        series.push(BarSeries { name: "instructions".into(), values });
    }
    let hello = millis(times[HELLO_WORLD]);
    let values = all.iter().map(|program| millis(times[program]) / hello).collect();
    series.push(BarSeries { name: "time".into(), values });
    Chart {
        file: NAME.into(),
        title: "From the start of the process to its first request for an event".into(),
        content: ChartContent::Bars {
            value_label: "over hello-world".into(),
            stacked: false,
            groups: all.iter().map(ToString::to_string).collect(),
            series,
        },
    }
}

/// The instructions until the first request for an event; nothing if they cannot be
/// counted.
async fn init_instructions<'a>(all: &[&'a str]) -> Result<BTreeMap<&'a str, f64>> {
    let mut counts = BTreeMap::new();
    if instructions::can_be_counted() {
        for program in all {
            counts.insert(*program, instructions::count(program, function_of(program), None, &[]).await? as f64);
        }
    }
    Ok(counts)
}

/// The instructions that telemetry adds to an init.
fn telemetry() -> Result<f64> {
    let [with, without] =
        ["off", "none"].map(|mode| instructions::count_program(programs::TELEMETRY_COST, &[mode, "0"]));
    Ok(with? as f64 - without? as f64)
}

/// The system calls until the first request for an event; nothing if they cannot be
/// counted.
async fn init_system_calls<'a>(all: &[&'a str]) -> Result<BTreeMap<&'a str, u64>> {
    let mut calls = BTreeMap::new();
    if system_calls::can_be_counted() {
        for program in all {
            calls.insert(*program, system_calls::count(program, function_of(program)).await?);
        }
    }
    Ok(calls)
}

/// The median time until the first request for an event.
async fn init_times<'a>(all: &[&'a str]) -> Result<BTreeMap<&'a str, Duration>> {
    let mut times = BTreeMap::<_, Vec<_>>::new();
    for _ in 0..STARTS {
        for program in all {
            // No address of an emulator is set, so a program prepares for AWS's own
            // addresses. It calls nothing before its first event.
            let process = Process::start(program, function_of(program), &Start::default()).await?;
            times.entry(*program).or_default().push(process.init);
            process.end().await?;
        }
    }
    Ok(times.into_iter().map(|(program, times)| (program, median(&times))).collect())
}

/// The function whose environment a program gets.
fn function_of(program: &str) -> &str {
    if programs::FUNCTIONS.contains(&program) { program } else { "users" }
}

/// A process in use.
struct InUse {
    /// The time of the first invocation.
    first: Duration,
    /// The peak of the resident memory after all invocations, in MB.
    memory: f64,
}

async fn in_use(program: &str, aws: &EmulatedAws, events: &[String]) -> Result<InUse> {
    let start = Start { endpoint: Some(aws.url()), observer: None };
    let mut process = Process::start(program, function_of(program), &start).await?;
    let mut first = None;
    for event in events {
        let time = process.invoke(event).await?;
        first.get_or_insert(time);
    }
    let memory = process.peak_memory()? as f64 / MEGABYTE;
    process.end().await?;
    Ok(InUse { first: first.context("there is no event")?, memory })
}

/// The size of a program's file, and of a zip that contains it, in MB.
struct Size {
    program: f64,
    zip: f64,
}

fn size(program: &str) -> Result<Size> {
    let mut file = File::open(programs::file(program)?)?;
    let mut zip = DeflateEncoder::new(Counter(0), Compression::new(ZIP_LEVEL));
    let length = io::copy(&mut file, &mut zip)?;
    let Counter(compressed) = zip.finish()?;
    Ok(Size { program: length as f64 / MEGABYTE, zip: (compressed + ZIP_HEADERS) as f64 / MEGABYTE })
}

/// Counts the bytes that are written.
struct Counter(u64);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
