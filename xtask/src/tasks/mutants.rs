//! `make mutants`: breaks each rule on which the shop's guarantees depend, one rule at a
//! time, and expects a test to fail.
//!
//! Each patch in `xtask/mutants` breaks one rule. If no test fails, either the rule is
//! not needed, or a test is missing. Afterwards cargo-mutants, which knows no rules,
//! changes single lines of the same code. `docs/mutants.md` has the results.

use std::{path::PathBuf, process::Command};

use xshell::Shell;

use crate::{cargo_tools::CARGO_MUTANTS, prelude::*, project};

const PATCHES: &str = "xtask/mutants";
/// The copy of the sources to which the patches are applied.
const COPY: &str = "target/mutants";
/// A build folder for the copy alone. In a shared build folder, Cargo would confuse the
/// crates of the copy with those of the checkout, and use broken code for the checkout.
const BUILD: &str = "target/mutants-build";

/// The tests that run for each broken rule of the shop, as arguments of `cargo test`. At
/// least one of them must fail.
const SHOP_TESTS: &[&str] = &[
    "--package=in-process-tests",
    "--package=orders",
    "--test=saga",
    "--test=users",
    "--test=notifications",
    "--test=orders",
    "--test=products",
    "--test=tokens",
    "--test=internal_callers",
    "--test=pauses",
    "--test=support",
    "--test=concurrency",
    "--test=dependencies",
    "--test=api_document",
    "--test=telemetry",
    "--test=reconciliation",
    "--test=faults",
];

/// The folder of the console, and the tests that run for each broken rule of the console. It
/// uses the crate of the orders, so it would be compiled again for most rules of the shop.
const CONSOLE: &str = "crates/console/";
const CONSOLE_TESTS: &[&str] = &["--package=console", "--bin=console"];

/// The files whose changes the orders crate's own tests must notice. Without the AWS SDK,
/// which these tests do not need, the crate compiles in seconds.
const SAGA: [&str; 2] = ["functions/orders/src/saga/*.rs", "functions/orders/src/domain/*.rs"];
/// The files whose changes the tests of the whole shop must notice. They contain the
/// conditional writes, the tombstones, the claims and the idempotency keys.
const SHOP: [&str; 6] = [
    "functions/*/src/repository/dynamo.rs",
    "functions/notifications/src/service.rs",
    "functions/orders/src/service.rs",
    "functions/orders/src/worker.rs",
    "functions/payments/src/service.rs",
    "functions/products/src/service.rs",
];
/// The packages whose tests run for the files in `SHOP`.
const TEST_PACKAGES: [&str; 6] = ["in-process-tests", "orders", "products", "payments", "notifications", "users"];
/// The integration tests that run first, for each changed line in `SHOP`, together with
/// the unit tests. They take seconds.
const QUICK_TESTS: [&str; 5] = ["orders", "products", "payments", "notifications", "users"];
/// The slower tests that run for the changed lines that the quick tests miss.
const THOROUGH_TESTS: [&str; 3] = ["concurrency", "dependencies", "faults"];

/// Breaks each rule, then changes each line. `ONLY=lines` only changes lines. Any other
/// `ONLY` is a list of texts, such as `owner, released only`: the task then only breaks
/// the rules that contain one of these texts.
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
    /// The rule's sentence, which is the text before the diff.
    rule: String,
    patch: PathBuf,
    /// The tests of which one must fail.
    tests: &'static [&'static str],
}

impl Mutant {
    /// Reads all patches. The working directory of `shell` is the root of the checkout.
    fn read_all(shell: &Shell) -> Result<Vec<Self>> {
        let mut mutants = Vec::new();
        for patch in shell.read_dir(PATCHES)? {
            let text = shell.read_file(&patch)?;
            let (rule, diff) =
                text.split_once("\n--- a/").with_context(|| format!("{} has no diff", patch.display()))?;
            let rule = rule.split_whitespace().collect::<Vec<_>>().join(" ");
            mutants.push(Self {
                rule,
                patch,
                tests: if diff.starts_with(CONSOLE) { CONSOLE_TESTS } else { SHOP_TESTS },
            });
        }
        Ok(mutants)
    }
}

/// Breaks each rule in turn. Fails if no test notices a broken rule.
fn rules(tools: &Tools, only: &str) -> Result<()> {
    let mut mutants = Mutant::read_all(&tools.shell)?;
    mutants.retain(|mutant| only.split(',').any(|part| mutant.rule.contains(part.trim())));
    ensure!(!mutants.is_empty(), "no rule contains \"{only}\"");
    let step = Step::begin("The tests, before any rule is broken");
    copy_sources(tools)?;
    for tests in [CONSOLE_TESTS, SHOP_TESTS] {
        if mutants.iter().any(|mutant| mutant.tests == tests) {
            ensure!(failure(tools, tests)?.is_none(), "the tests fail although no rule is broken: repair that first");
        }
    }
    step.done("all tests pass");
    let mut unnoticed = Vec::new();
    for Mutant { rule, patch, tests } in &mutants {
        let step = Step::begin(format!("Broken: {rule}"));
        quiet(cmd!(tools, "git apply --directory={COPY} {patch}"))?;
        let failure = failure(tools, tests);
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
    say!("{} rules were broken, and the tests noticed {} of them", mutants.len(), mutants.len() - unnoticed.len());
    ensure!(unnoticed.is_empty(), "no test notices when these rules are broken: {}", unnoticed.join("; "));
    Ok(())
}

/// Runs tests on the copy. If a test fails, returns a line that describes the failure.
fn failure(tools: &Tools, tests: &[&str]) -> Result<Option<String>> {
    let tests = |more: &[&str]| {
        let manifest = format!("{COPY}/Cargo.toml");
        let command = cmd!(tools, "cargo test --manifest-path {manifest} --profile faults");
        command.args(tests).args(more).env("CARGO_TARGET_DIR", tools.root().join(BUILD))
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

/// Copies the files that Git tracks and the new files that Git does not ignore, with all
/// uncommitted changes.
fn copy_sources(tools: &Tools) -> Result<()> {
    project::remove(&tools.root().join(COPY))?;
    tools.shell.create_dir(COPY)?;
    let files = quiet(cmd!(tools, "git ls-files -z --cached --others --exclude-standard"))?;
    // Git still lists a file that was deleted without a commit.
    let files = files.split_terminator('\0').filter(|file| tools.root().join(file).is_file());
    quiet(cmd!(tools, "cp --parents --target-directory {COPY} {files...}"))?;
    Ok(())
}

/// Runs cargo-mutants, which changes one line at a time. Fails if the tests miss a change.
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
    // cargo-mutants itself would check the unchanged code only with the tests of the
    // changed packages, but `in-process-tests` must pass on the unchanged code, too.
    let check_unchanged = |arguments: &[String]| {
        let packages = &TEST_PACKAGES.map(|package| format!("--package={package}"));
        let profile = &arguments[0];
        // Without this, Cargo might use crates that an earlier run has compiled from
        // changed sources.
        quiet(cmd!(tools, "cargo clean {packages...} {profile}").env("CARGO_TARGET_DIR", &build))?;
        quiet(cmd!(tools, "cargo test {packages...} {arguments...}").env("CARGO_TARGET_DIR", &build))
            .context("the tests fail although no line is changed: repair that first")
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
        // The quick tests missed some changes, or ran into the timeout.
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

    use super::*;

    fn shell() -> Shell {
        let shell = Shell::new().expect("a shell");
        shell.change_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        shell
    }

    /// If a developer changes code that a patch changes, too, this test fails at once. The
    /// developer would notice it otherwise only hours after the start of `make mutants`.
    #[test]
    fn each_patch_applies() {
        let shell = shell();
        for Mutant { rule, patch, .. } in Mutant::read_all(&shell).expect("patches") {
            quiet(cmd!(shell, "git apply --check {patch}")).expect(&rule);
        }
    }

    #[test]
    fn the_document_lists_each_rule() {
        let document = include_str!("../../../docs/mutants.md");
        let listed = document.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
        let listed: BTreeSet<_> = listed.map(|(rule, _)| rule.to_owned()).skip(1).collect();
        let rules = Mutant::read_all(&shell()).expect("patches").into_iter().map(|mutant| mutant.rule);
        assert_eq!(rules.collect::<BTreeSet<_>>(), listed);
    }
}
