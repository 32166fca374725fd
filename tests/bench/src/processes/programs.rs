//! The programs that are measured, and where their files are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail, ensure};

/// The shop's functions.
pub const FUNCTIONS: [&str; 6] = ["users", "products", "orders", "order-worker", "payments", "notifications"];
/// A function that answers each event with a constant.
pub const HELLO_WORLD: &str = "hello-world";
/// A function that builds clients of the SDK, and does nothing else.
pub const SDK_CLIENTS: &str = "sdk-clients";
/// A program that does what the telemetry of requests does. It is no function.
pub const TELEMETRY_COST: &str = "telemetry-cost";

/// The folder of the programs, if it is not `target/release`.
const FOLDER: &str = "BENCH_PROGRAMS";
/// The names of the functions to measure, separated by commas, if not all functions are
/// to be measured.
const ONLY: &str = "BENCH_FUNCTIONS";

/// The functions that are measured.
///
/// # Errors
///
/// If the variable `BENCH_FUNCTIONS` contains an unknown name.
pub fn measured_functions() -> Result<Vec<&'static str>> {
    let Ok(only) = env::var(ONLY) else { return Ok(FUNCTIONS.into()) };
    let only: Vec<_> = only.split(',').collect();
    if let Some(unknown) = only.iter().find(|name| !FUNCTIONS.contains(name)) {
        bail!("{ONLY} names {unknown}, which is no function");
    }
    Ok(FUNCTIONS.into_iter().filter(|name| only.contains(name)).collect())
}

/// The file of a program: `<folder>/<name>`, or `<folder>/<name>/bootstrap`, as
/// cargo-lambda writes it.
///
/// # Errors
///
/// If there is no such file.
pub fn file(program: &str) -> Result<PathBuf> {
    let built = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release"));
    let folder = env::var_os(FOLDER).map_or_else(|| built.to_path_buf(), PathBuf::from);
    let file = folder.join(program);
    let file = if file.is_dir() { file.join("bootstrap") } else { file };
    ensure!(file.is_file(), "there is no program {}; `make bench` builds it", file.display());
    Ok(file)
}
