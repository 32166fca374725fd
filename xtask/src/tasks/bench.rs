//! `make bench`: measures speed, throughput and cost.

use xshell::Shell;

use crate::prelude::*;

/// The packages whose programs are measured. Together they are compiled with the same
/// features of their shared dependencies.
const MEASURED: [&str; 6] = ["baselines", "notifications", "orders", "payments", "products", "users"];
/// The sections that measure these programs.
const OF_PROGRAMS: [&str; 2] = ["cold-start", "warm-invocation"];

/// Runs all sections of the report, or only the section in `ONLY`.
pub fn run(project: &Project) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project.root());
    let only = make_variable("ONLY");
    // `BENCH_PROGRAMS` is a folder of programs that are compiled already.
    let is_needed = only.as_deref().is_none_or(|section| OF_PROGRAMS.contains(&section));
    if is_needed && std::env::var_os("BENCH_PROGRAMS").is_none() {
        let packages = MEASURED.iter().flat_map(|name| ["--package", name]);
        show(cmd!(shell, "cargo build --release {packages...}"))?;
    }
    // This section executes many thousands of orders. The program that executes them has
    // the optimised profile of `make faults`, which takes minutes to compile the first time.
    // `--workspace` makes Cargo reuse the libraries that are compiled for the tests.
    let has_many_orders = only.as_deref().is_none_or(|section| section == "throughput");
    let (profile, folder) = if has_many_orders { ("faults", "faults") } else { ("dev", "debug") };
    show(cmd!(shell, "cargo build --profile {profile} --workspace --bin bench"))?;
    show(cmd!(shell, "target/{folder}/bench {only...}"))
}
