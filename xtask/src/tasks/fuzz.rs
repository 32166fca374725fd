//! `make fuzz`: runs the fuzz targets, which look for input that breaks a parser.

use crate::{cargo_tools::CARGO_FUZZ, prelude::*};

/// The files in `fuzz/fuzz_targets`.
const TARGETS: [&str; 6] = ["order_request", "cursor", "event", "gateway_event", "idempotency_key", "token"];
/// The time for each target, unless `SECONDS` says otherwise.
const SECONDS: &str = "180";

/// Runs all targets, or the target that `ONLY` names. Fails at the first finding,
/// whose bytes are then in `fuzz/artifacts`.
pub fn run(project: &Project) -> Result<()> {
    let only = make_variable("ONLY").unwrap_or_default();
    let seconds = make_variable("SECONDS").unwrap_or_else(|| SECONDS.into());
    ensure!(seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0), "SECONDS={seconds} is no number of seconds");
    let targets: Vec<_> = TARGETS.into_iter().filter(|target| only.is_empty() || *target == only).collect();
    ensure!(!targets.is_empty(), "there is no target `{only}`: {}", TARGETS.join(", "));

    let tools = Tools::install(project)?;
    let step = Step::begin("Fuzzing: cargo-fuzz");
    let cargo_fuzz = CARGO_FUZZ.install(&tools, &step)?;
    step.done("as pinned");
    for target in targets {
        let step = Step::begin(format!("Fuzzing: {target}, {seconds} s"));
        let findings = project.root().join("fuzz/corpus").join(target);
        create_folder(&findings)?;
        // A sanitizer needs an unstable compiler, and there is no unsafe code to check.
        // libFuzzer writes to the first folder, and only reads the examples.
        let fuzz = cmd!(
            tools,
            "{cargo_fuzz} fuzz run --sanitizer none {target} {findings} tests/parsers/examples/{target} --
             -print_final_stats=1 -print_funcs=0 -verbosity=0 -timeout=5 -max_total_time={seconds}"
        );
        show(fuzz).with_context(|| {
            format!("{target} breaks a promise: put the bytes of fuzz/artifacts/{target} among tests/parsers/examples")
        })?;
        step.done("no finding");
    }
    Ok(())
}
