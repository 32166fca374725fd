//! `make fuzz`: runs the fuzz targets, which look for input that breaks a parser.

use crate::{cargo_tools::CARGO_FUZZ, prelude::*};

/// The files in `fuzz/fuzz_targets`.
const TARGETS: [&str; 6] = ["order_request", "cursor", "event", "gateway_event", "idempotency_key", "token"];
/// The time for each target, unless `SECONDS` says otherwise.
const SECONDS: &str = "180";

/// Runs all targets, or only the target in `ONLY`. Fails when a target finds input that
/// breaks its parser. The input is then in `fuzz/artifacts`.
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
        // No sanitizer: it would need a nightly compiler, and the code has no `unsafe` that
        // it could check. libFuzzer writes new inputs into the first folder (`findings`),
        // and only reads the folder of examples.
        let fuzz = cmd!(
            tools,
            "{cargo_fuzz} fuzz run --sanitizer none {target} {findings} tests/parsers/examples/{target} --
             -print_final_stats=1 -print_funcs=0 -verbosity=0 -timeout=5 -max_total_time={seconds}"
        );
        show(fuzz).with_context(|| {
            format!("{target} fails: copy the input from fuzz/artifacts/{target} into tests/parsers/examples/{target}")
        })?;
        step.done("no finding");
    }
    Ok(())
}
