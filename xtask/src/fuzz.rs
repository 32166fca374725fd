//! `make fuzz`: looks for bytes that make a parser break its promises.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::{
    cargo_tools::CARGO_FUZZ,
    process::show,
    progress::Step,
    project::{Project, wanted},
    tools::Tools,
};

/// The targets: what is in `fuzz/fuzz_targets`.
const TARGETS: [&str; 6] = ["order_request", "cursor", "event", "gateway_event", "idempotency_key", "token"];
/// For how long each is tried, unless `SECONDS` says otherwise.
const SECONDS: &str = "180";

/// Tries all targets, or the one that `ONLY` names. Fails at the first finding,
/// whose bytes are then in `fuzz/artifacts`.
pub fn run(project: &Project) -> Result<()> {
    let only = wanted("ONLY").unwrap_or_default();
    let seconds = wanted("SECONDS").unwrap_or_else(|| SECONDS.into());
    ensure!(seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0), "SECONDS={seconds} is no number of seconds");
    let targets: Vec<_> = TARGETS.into_iter().filter(|target| only.is_empty() || *target == only).collect();
    ensure!(!targets.is_empty(), "there is no target `{only}`: {}", TARGETS.join(", "));

    let tools = Tools::install(project)?;
    let step = Step::begin("Fuzzing: cargo-fuzz");
    let cargo_fuzz = CARGO_FUZZ.install(project, &tools, &step)?;
    step.done("as pinned");
    for target in targets {
        let step = Step::begin(format!("Fuzzing: {target}, {seconds} s"));
        let found = project.root().join("fuzz/corpus").join(target);
        fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
        let mut fuzz = tools.at_root(&cargo_fuzz);
        // No sanitizer: those need an unstable compiler, and there is no unsafe
        // code here for them to look at.
        fuzz.args(["fuzz", "run", "--sanitizer", "none", target]);
        // New finds go to the first folder, the examples are only read.
        fuzz.arg(found).arg(project.root().join("tests/parsers/examples").join(target));
        fuzz.args(["--", "-print_final_stats=1", "-print_funcs=0", "-verbosity=0", "-timeout=5"]);
        fuzz.arg(format!("-max_total_time={seconds}"));
        show(&mut fuzz).with_context(|| {
            format!("{target} breaks a promise: put the bytes of fuzz/artifacts/{target} among tests/parsers/examples")
        })?;
        step.done("no finding");
    }
    Ok(())
}
