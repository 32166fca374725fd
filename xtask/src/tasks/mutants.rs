//! `make mutants`: breaks each rule on which the promise rests, one at a time, and
//! expects a test to fail.
//!
//! Each patch in `xtask/mutants` breaks one rule. If no test fails, then the rule is
//! not needed, or not proved. Afterwards cargo-mutants, which knows no rules, changes
//! single lines of the code that keeps the promise. `docs/mutants.md` has the results.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{cargo_tools::CARGO_MUTANTS, prelude::*, project};

const PATCHES: &str = "xtask/mutants";
/// The copy of the sources to which the patches are applied.
const COPY: &str = "target/mutants";
/// A build folder for the copy. Cargo takes the copy and the checkout for one
/// workspace, and would use what it built from the copy for the checkout, too.
const BUILD: &str = "target/mutants-build";

/// The tests that must notice a broken rule: the fault harness, the saga's own
/// tests, and the tests of rules that no fault can break.
const RULE_TESTS: [&str; 10] = [
    "--package=orders",
    "--test=saga",
    "--test=users",
    "--test=notifications",
    "--test=orders",
    "--test=tokens",
    "--test=concurrency",
    "--test=dependencies",
    "--test=api_document",
    "--test=faults",
];

/// The files for which the saga's own tests suffice. These need no SDK and so
/// compile in seconds.
const SAGA: [&str; 2] = ["functions/orders/src/saga/*.rs", "functions/orders/src/domain/*.rs"];
/// The files that need the tests of the whole shop: conditions, tombstones, claims
/// and keys.
const SHOP: [&str; 6] = [
    "functions/*/src/repository/dynamo.rs",
    "functions/notifications/src/service.rs",
    "functions/orders/src/service.rs",
    "functions/orders/src/worker.rs",
    "functions/payments/src/service.rs",
    "functions/products/src/service.rs",
];
/// The packages whose tests must notice a changed line of the shop.
const TEST_PACKAGES: [&str; 6] = ["in-process-tests", "orders", "products", "payments", "notifications", "users"];
/// The tests that run first, in seconds: each service's own, besides unit tests.
const QUICK_TESTS: [&str; 5] = ["orders", "products", "payments", "notifications", "users"];
/// The tests that must notice the changes that the quick tests miss.
const THOROUGH_TESTS: [&str; 3] = ["concurrency", "dependencies", "faults"];

/// Breaks each rule, then changes each line. `ONLY` chooses the rules whose text
/// contains one of its parts (`owner, released only`), or the lines (`lines`).
pub fn run(project: &Project) -> Result<()> {
    let only = make_variable("ONLY").unwrap_or_default();
    let tools = Tools::install(project)?;
    if only != "lines" {
        rules(&tools, &only)?;
    }
    if only.is_empty() || only == "lines" {
        lines(&tools)?;
    }
    Ok(())
}

/// A rule, and the patch that breaks it.
struct Mutant {
    /// The text before the diff.
    rule: String,
    patch: PathBuf,
}

impl Mutant {
    fn read_all(root: &Path) -> Result<Vec<Self>> {
        let mut mutants = Vec::new();
        for entry in fs::read_dir(root.join(PATCHES)).with_context(|| format!("cannot list {PATCHES}"))? {
            let patch = entry.with_context(|| format!("cannot list {PATCHES}"))?.path();
            let text = fs::read_to_string(&patch).with_context(|| format!("cannot read {}", patch.display()))?;
            let (rule, _) = text.split_once("\n--- a/").with_context(|| format!("{} has no diff", patch.display()))?;
            mutants.push(Self { rule: rule.split_whitespace().collect::<Vec<_>>().join(" "), patch });
        }
        mutants.sort_by(|one, other| one.patch.cmp(&other.patch));
        Ok(mutants)
    }
}

/// Breaks each rule in turn. Fails if no test notices a broken rule.
fn rules(tools: &Tools, only: &str) -> Result<()> {
    let mut mutants = Mutant::read_all(tools.root())?;
    mutants.retain(|mutant| only.split(',').any(|part| mutant.rule.contains(part.trim())));
    ensure!(!mutants.is_empty(), "no rule contains \"{only}\"");
    let step = Step::begin("No rule is broken");
    copy_sources(tools)?;
    ensure!(failure(tools)?.is_none(), "the tests fail without a broken rule: mend that first");
    step.done("all tests pass");
    let mut unnoticed = Vec::new();
    for Mutant { rule, patch } in &mutants {
        let step = Step::begin(format!("Broken: {rule}"));
        quiet(cmd!(tools, "git apply --directory={COPY} {patch}"))?;
        let failure = failure(tools);
        quiet(cmd!(tools, "git apply --reverse --directory={COPY} {patch}"))?;
        match failure? {
            Some(failure) => {
                step.note(failure);
                step.done("noticed");
            }
            None => {
                unnoticed.push(rule.as_str());
                step.done("NOT NOTICED");
            }
        }
    }
    say!("{} rules broken, {} breaches noticed", mutants.len(), mutants.len() - unnoticed.len());
    ensure!(unnoticed.is_empty(), "no test notices when these rules are broken: {}", unnoticed.join("; "));
    Ok(())
}

/// Runs the tests on the copy. Returns a line that describes a failure.
fn failure(tools: &Tools) -> Result<Option<String>> {
    let tests = |more: &[&str]| {
        let manifest = format!("{COPY}/Cargo.toml");
        let tests = cmd!(tools, "cargo test --manifest-path {manifest} --profile faults --package in-process-tests");
        tests.args(RULE_TESTS).args(more).env("CARGO_TARGET_DIR", tools.root().join(BUILD))
    };
    quiet(tests(&["--no-run"])).context("a mutant that does not compile proves nothing")?;
    let output = tests(&[]).ignore_status().output()?;
    if output.status.success() {
        return Ok(None);
    }
    let output = String::from_utf8_lossy(&output.stdout);
    let mut lines = output.lines();
    let violation = lines.find(|line| line.trim_start().starts_with("VIOLATION")).and_then(|_| lines.next());
    let failed_test = || output.lines().find(|line| line.starts_with("test ") && line.ends_with("FAILED"));
    Ok(Some(violation.or_else(failed_test).unwrap_or("a test failed").trim().to_owned()))
}

/// Copies all files that Git knows or would add, with uncommitted changes.
fn copy_sources(tools: &Tools) -> Result<()> {
    let copy = tools.root().join(COPY);
    project::remove(&copy)?;
    let files = quiet(cmd!(tools, "git ls-files -z --cached --others --exclude-standard"))?;
    for path in files.split_terminator('\0') {
        let (source, target) = (tools.root().join(path), copy.join(path));
        if let (true, Some(folder)) = (source.is_file(), target.parent()) {
            create_folder(folder)?;
            fs::copy(&source, &target).with_context(|| format!("cannot copy {path}"))?;
        }
    }
    Ok(())
}

/// Lets cargo-mutants change one line at a time. Fails if no test notices a change.
fn lines(tools: &Tools) -> Result<()> {
    let step = Step::begin("Lines: cargo-mutants");
    let program = CARGO_MUTANTS.install(tools, &step)?;
    step.done("as pinned");
    let build = tools.root().join(BUILD);
    let mutants = |files: &[&str], output: &str| -> Cmd<'_> {
        let (output, files) = (format!(".local/{output}"), files.iter().map(|file| format!("--file={file}")));
        cmd!(tools, "{program} mutants --colors=never --output {output} {files...}").env("CARGO_TARGET_DIR", &build)
    };

    let step = Step::begin("Lines: the saga and an order's domain");
    show(mutants(&SAGA, "mutants-saga").args(["--package=orders", "--no-default-features"]))?;
    step.done("each change noticed");

    let step = Step::begin("Lines: conditions, tombstones, claims and keys");
    let test_arguments = |profile: &str, unit_tests: Option<&str>, tests: &[&str]| -> Vec<String> {
        let arguments = [format!("--profile={profile}")].into_iter().chain(unit_tests.map(str::to_owned));
        arguments.chain(tests.iter().map(|test| format!("--test={test}"))).collect()
    };
    // cargo-mutants would first run the tests of the packages that it changes, and
    // these are other tests.
    let check_unchanged = |arguments: &[String]| {
        let packages = &TEST_PACKAGES.map(|package| format!("--package={package}"));
        let profile = &arguments[0];
        // Cargo would use what an earlier run has built from changed sources.
        quiet(cmd!(tools, "cargo clean {packages...} {profile}").env("CARGO_TARGET_DIR", &build))?;
        quiet(cmd!(tools, "cargo test {packages...} {arguments...}").env("CARGO_TARGET_DIR", &build))
            .context("the tests fail without a changed line: mend that first")
    };
    let shop = |arguments: &[String]| {
        let packages = format!("--test-package={}", TEST_PACKAGES.join(","));
        let arguments = arguments.iter().map(|argument| format!("--cargo-arg={argument}"));
        mutants(&SHOP, "mutants-shop").args(["--baseline=skip", &packages]).args(arguments)
    };
    let quick = test_arguments("dev", Some("--lib"), &QUICK_TESTS);
    check_unchanged(&quick)?;
    match Command::from(shop(&quick).arg("--timeout=90")).status().context("cargo-mutants cannot be run")?.code() {
        Some(0) => {}
        // The quick tests missed some changes, or did not end.
        Some(2 | 3) => {
            let thorough = test_arguments("faults", None, &THOROUGH_TESTS);
            check_unchanged(&thorough)?;
            show(shop(&thorough).args(["--iterate", "--timeout=900"]))?;
        }
        _ => bail!("cargo-mutants failed"),
    }
    step.done("each change noticed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use xshell::Shell;

    use super::*;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
    }

    /// A developer who changes the code under a patch learns it here, rather than
    /// hours into `make mutants`.
    #[test]
    fn each_patch_applies() {
        let shell = Shell::new().expect("a shell");
        shell.change_dir(root());
        for Mutant { rule, patch } in Mutant::read_all(root()).expect("patches") {
            quiet(cmd!(shell, "git apply --check {patch}")).expect(&rule);
        }
    }

    #[test]
    fn the_document_lists_each_rule() {
        let document = include_str!("../../../docs/mutants.md");
        let listed = document.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
        let listed: BTreeSet<_> = listed.map(|(rule, _)| rule.to_owned()).skip(1).collect();
        let rules = Mutant::read_all(root()).expect("patches").into_iter().map(|mutant| mutant.rule);
        assert_eq!(rules.collect::<BTreeSet<_>>(), listed);
    }
}
