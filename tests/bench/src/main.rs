//! `bench [section…]` measures the named sections, or all sections.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use bench::{chart, document, log_counter, report::Report, sections::SECTIONS, table};

/// The checkout's folder.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn main() -> Result<()> {
    let wanted: Vec<String> = env::args().skip(1).collect();
    for name in &wanted {
        ensure!(SECTIONS.iter().any(|(known, _)| known == name), "there is no section {name}");
    }
    // Before the first section starts a shop.
    log_counter::install();
    let root = Path::new(ROOT);
    let stored = root.join("target/bench/bench.json");
    let mut report = Report::read(&stored)?;
    // A section that was renamed or removed since then has no region in the document.
    report.sections.retain(|section| SECTIONS.iter().any(|(known, _)| *known == section.name));
    let mut failures = Vec::new();
    for (name, measure) in SECTIONS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name)) {
        let section = measure().with_context(|| format!("the section {name} failed"))?;
        writeln!(io::stdout(), "\n{}", table::for_terminal(&section))?;
        failures.extend(section.failures().map(|figure| format!("{name}: {}", figure.name)));
        report.replace(section);
        report.write(&stored)?;
    }
    write_document(root, &report)?;
    writeln!(io::stdout(), "\nThe figures are in {}.", relative(root, &stored).display())?;
    if !failures.is_empty() {
        bail!("past the limit:\n  {}", failures.join("\n  "));
    }
    Ok(())
}

fn write_document(root: &Path, report: &Report) -> Result<()> {
    let pictures = root.join("docs/performance");
    fs::create_dir_all(&pictures)?;
    for chart in report.sections.iter().flat_map(|section| &section.charts) {
        fs::write(pictures.join(format!("{}.svg", chart.file)), chart::draw(chart)?)?;
    }
    let path = root.join("docs/performance.md");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(fs::write(&path, document::with_regions(&text, report)?)?)
}

fn relative(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_path_buf()
}
