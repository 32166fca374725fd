//! `make mutants`: breaks each rule that the promise rests on, one at a time,
//! and expects the fault harness to notice.
//!
//! A rule whose breach goes unnoticed is either not needed or not proved. Then
//! cargo-mutants, which breaks lines without knowing what they are for, does
//! so where the promise is kept. What came of both is in `docs/mutants.md`.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    cargo_tools::CARGO_MUTANTS,
    process::{quiet, show},
    progress::Step,
    project::{self, Project, wanted},
    say,
    tools::Tools,
};

/// One rule, and how to break it.
struct Mutant {
    rule: &'static str,
    file: &'static str,
    /// What stands there, once.
    from: &'static str,
    /// What it becomes.
    to: &'static str,
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        rule: "a release of nothing leaves a tombstone",
        file: "functions/products/src/service.rs",
        from: "None => self.repository.bury(order, now).await?,",
        to: "None => Saved::Done,",
    },
    Mutant {
        rule: "a cancellation of no payment leaves a tombstone",
        file: "functions/payments/src/service.rs",
        from: "match self.repository.create(&tombstone).await? {",
        to: "match Saved::Done {",
    },
    Mutant {
        rule: "a move is conditional on the state it leaves",
        file: "functions/orders/src/repository/dynamo.rs",
        from: ".condition_expression(\"#state = :from AND (",
        to: ".condition_expression(\"(attribute_exists(#state) OR #state = :from) AND (",
    },
    Mutant {
        rule: "the answer is in the same write as the decision",
        file: "functions/orders/src/saga/engine.rs",
        from: "        match self.repository.transition(from, &next).await? {\n            Moved::Done => {\n",
        to: "        let bare = Order { answer: None, ..next.clone() };\n        \
             match self.repository.transition(from, &bare).await? {\n            Moved::Done => {\n                \
             if self.repository.transition(next.state, &next).await? == Moved::Stale { return Ok(None) }\n",
    },
    Mutant {
        rule: "the first answer stays",
        file: "functions/orders/src/saga/engine.rs",
        from: "        if undecided {\n            next.answer",
        to: "        if undecided || true {\n            next.answer",
    },
    Mutant {
        rule: "an intent whose outcome is unknown is resolved before it is cancelled",
        file: "functions/payments/src/service.rs",
        from: "State::Intent { .. } => self.resolve(payment, deadline).await?,",
        to: "State::Intent { .. } => self.record(payment, payment.declined(\"not asked\".into(), self.clock.now())?).await?,",
    },
    Mutant {
        rule: "the intent is recorded before the provider is asked",
        file: "functions/payments/src/service.rs",
        from: "        let intent = Standing::from(intent);\n",
        to: "        self.ask_to_authorise(&intent, invocation.deadline).await?;\n        let intent = Standing::from(intent);\n",
    },
    Mutant {
        rule: "a payment moves only from the state it was read in",
        file: "functions/payments/src/repository/dynamo.rs",
        from: ".condition_expression(\"#status = :left\")",
        to: ".condition_expression(\"#status = :left OR attribute_exists(pk)\")",
    },
    Mutant {
        rule: "a capture is acknowledged only when its event is out",
        file: "functions/payments/src/service.rs",
        from: "        self.publish(\"PaymentCaptured\", &after, deadline).await?;\n        self.record(payment, after).await",
        to: "        let recorded = self.record(payment, after.clone()).await;\n        \
             self.publish(\"PaymentCaptured\", &after, deadline).await?;\n        recorded",
    },
    Mutant {
        rule: "stock moves in the transaction that records the reservation",
        file: "functions/products/src/repository/dynamo.rs",
        from: "        Ok(match self.table.transact(reservation, lines).await? {\n",
        to: "        for line in lines {\n            \
             if let Write::Refused(_) = self.table.send(line).await? { return Ok(Saved::Stale) }\n        \
             }\n        Ok(match self.table.transact(reservation, []).await? {\n",
    },
    Mutant {
        rule: "stock is never plainly counted down",
        file: "functions/products/src/repository/dynamo.rs",
        from: "        Ok(match self.table.transact(reservation, lines).await? {\n",
        to: "        for line in &quote.lines {\n            \
             let plain = self.table.update(&product_key(line.product_id))\n                \
             .update_expression(\"SET available = available - :quantity, reserved = reserved + :quantity\")\n                \
             .condition_expression(\"available >= :quantity\")\n                \
             .expression_attribute_values(\":quantity\", number(line.quantity.get()));\n            \
             if let Write::Refused(_) = self.table.send(plain).await? { return Ok(Saved::Stale) }\n        \
             }\n        Ok(match self.table.transact(reservation, lines.take(0)).await? {\n",
    },
    Mutant {
        rule: "no more is reserved than there is",
        file: "functions/products/src/repository/dynamo.rs",
        from: ".condition_expression(\"version = :version AND available >= :quantity\")",
        to: ".condition_expression(\"version = :version AND (available >= :quantity OR attribute_exists(pk))\")",
    },
    Mutant {
        rule: "a reservation is released once",
        file: "functions/products/src/repository/dynamo.rs",
        from: ".condition_expression(\"#status = :held\")",
        to: ".condition_expression(\"#status = :held OR attribute_exists(pk)\")",
    },
    Mutant {
        rule: "a claim to send a message has an owner",
        file: "functions/notifications/src/repository/dynamo.rs",
        from: "State::Claimed if before.owner == attempt.owner => return Ok(Claim::Granted { perhaps_sent: false }),",
        to: "State::Claimed => return Ok(Claim::Granted { perhaps_sent: false }),\n            \
             #[allow(unreachable_patterns)]",
    },
    Mutant {
        rule: "a message is sent only under a claim",
        file: "functions/notifications/src/repository/dynamo.rs",
        from: "self.table.put(claimed)?.condition_expression(\"attribute_not_exists(pk)\")",
        to: "self.table.put(claimed)?.condition_expression(\"attribute_not_exists(nothing)\")",
    },
    Mutant {
        rule: "the key and the order are recorded together",
        file: "functions/orders/src/repository/dynamo.rs",
        from: "        let earlier = match self.table.transact(use_key, [place_order]).await? {\n",
        to: "        let _ = (place_order, self.begin_without_key(order).await?);\n        \
             let earlier = match self.table.transact(use_key, []).await? {\n",
    },
    Mutant {
        rule: "the order stays open until its event is out",
        file: "functions/orders/src/saga/steps.rs",
        from: "        &[  step(\"publish OrderCreated\",    publish_order_created, None) ],\n    ],\n    // ── or",
        to: "    ],\n    // ── or",
    },
    Mutant {
        rule: "what is undone gives its stock back",
        file: "functions/orders/src/saga/steps.rs",
        from: "Some(release_stock)",
        to: "None",
    },
    Mutant {
        rule: "what is undone gives its money back",
        file: "functions/orders/src/saga/engine.rs",
        from: "            let compensated = self.side_by_side(saga.compensations(), order, invocation);",
        to: "            let first = saga.compensations().take(1);\n            \
             let compensated = self.side_by_side(first, order, invocation);",
    },
    Mutant {
        rule: "only when all have acknowledged is an order cancelled",
        file: "functions/orders/src/saga/engine.rs",
        from: "            compensated?;",
        to: "            compensated.ok();",
    },
    Mutant {
        rule: "a missing answer is not a refusal",
        file: "functions/orders/src/saga/engine.rs",
        from: "                    Stop::Unfinished(Unfinished::Step { step: name, reason })",
        to: "                    Stop::Refused(Refusal::TimedOut)",
    },
    Mutant {
        rule: "whoever is overtaken reads again",
        file: "functions/orders/src/saga/engine.rs",
        from: "            Some(next) => Ok(next),\n            None => self.reread(&order).await,",
        to: "            Some(next) => Ok(next),\n            None => Ok(order),",
    },
    Mutant {
        rule: "an open order stays in sight of the sweep",
        file: "functions/orders/src/repository/dynamo.rs",
        from: "            check_shard: open.then(|| shard.to_string()),",
        to: "            check_shard: (open && order.state == OrderState::Pending).then(|| shard.to_string()),",
    },
    Mutant {
        rule: "each member of an order is in its fingerprint",
        file: "functions/orders/src/service.rs",
        from: "            payment_method: &'a Option<PaymentMethod>,\n            // A request without it",
        to: "            #[serde(skip)]\n            payment_method: &'a Option<PaymentMethod>,\n            // A request without it",
    },
    Mutant {
        rule: "each member of a payment is in its fingerprint",
        file: "functions/payments/src/domain.rs",
        from: "\\n{method}\\n{at_once}\");",
        to: "\\n{at_once}\");\n        let _ = method;",
    },
    Mutant {
        rule: "who postpones an order still has its lease",
        file: "functions/orders/src/repository/dynamo.rs",
        from: ".condition_expression(\"#lease.#owner = :owner AND attribute_exists(next_check)\")",
        to: ".condition_expression(\"(#lease.#owner = :owner OR attribute_exists(pk)) AND attribute_exists(next_check)\")",
    },
    Mutant {
        rule: "contention opens no circuit breaker",
        file: "crates/chassis/src/service_client.rs",
        from: "            self.breaker.record(!matches!(result, Err(CallError::Unavailable { .. })));",
        to: "            self.breaker.record(!matches!(result, Err(CallError::Unavailable { .. } | CallError::Busy { .. })));",
    },
    Mutant {
        rule: "contention is told from a store that does not answer",
        file: "crates/chassis/src/problem.rs",
        from: "            StoreError::Contended { .. } => Self::contended(error),",
        to: "            StoreError::Contended { .. } => Self::unavailable(error),",
    },
    Mutant {
        rule: "the worker counts no failure where somebody was busy",
        file: "functions/orders/src/worker.rs",
        from: "            return self.engine.repository.postpone(order, Postponed::Busy { next_check }).await;",
        to: "            return self.engine.repository.postpone(order, Postponed::Failed { next_check }).await;",
    },
    Mutant {
        rule: "what an older token says never replaces what a newer one said",
        file: "functions/users/src/domain.rs",
        from: "        if heard.as_of < self.contact.as_of {",
        to: "        if false {",
    },
    Mutant {
        rule: "an address moves only to a person with a newer token",
        file: "functions/users/src/repository/dynamo.rs",
        from: "        if theirs.contact.as_of >= ours.contact.as_of {",
        to: "        if false {",
    },
    Mutant {
        rule: "a refusal for good ends there",
        file: "functions/notifications/src/channels.rs",
        from: "            if refusals_for_good.contains(&code.as_str()) {",
        to: "            if false {",
    },
    Mutant {
        rule: "nobody who was erased is written to",
        file: "functions/notifications/src/service.rs",
        from: "        if is_erased.map_err(|_| Untold::NoTime)?? {",
        to: "        if is_erased.map_err(|_| Untold::NoTime)?? && false {",
    },
    Mutant {
        rule: "what was erased in an order is not written again",
        file: "functions/orders/src/repository/dynamo.rs",
        from: "OR is_erased = :is_erased)",
        to: "OR is_erased = :is_erased OR attribute_exists(pk))",
    },
    Mutant {
        rule: "a refusal is told by a message unless the answer told it",
        file: "functions/orders/src/saga/engine.rs",
        from: "            order.is_customer_told |= is_told;",
        to: "            order.is_customer_told |= is_told || true;",
    },
    Mutant {
        rule: "what is shown is what is paid",
        file: "functions/orders/src/domain.rs",
        from: "            Some(shown) if !shown.agree_with(&quote) => Err(Refusal::PriceChanged { quote }),",
        to: "            Some(shown) if !shown.agree_with(&quote) && false => Err(Refusal::PriceChanged { quote }),",
    },
    Mutant {
        rule: "nobody is told of a payment that was not captured",
        file: "functions/orders/src/clients.rs",
        from: "            paid: order.state == OrderState::Confirmed,",
        to: "            paid: true,",
    },
];

/// The harness, the saga's own tests, those of services that are slow, dead or
/// busy, and those of the rules that no fault can break.
const JUDGES: [&str; 9] = [
    "--package=orders",
    "--test=saga",
    "--test=users",
    "--test=notifications",
    "--test=orders",
    "--test=concurrency",
    "--test=dependencies",
    "--test=api_document",
    "--test=faults",
];

/// What cargo-mutants changes with the saga's own tests as judges, which need
/// no SDK and so are ready in seconds.
const SAGA: [&str; 2] = ["functions/orders/src/saga/*.rs", "functions/orders/src/domain.rs"];
/// What it changes with the whole shop as judge: conditions, tombstones, claims
/// and keys.
const SHOP: [&str; 6] = [
    "functions/*/src/repository/dynamo.rs",
    "functions/notifications/src/service.rs",
    "functions/orders/src/service.rs",
    "functions/orders/src/worker.rs",
    "functions/payments/src/service.rs",
    "functions/products/src/service.rs",
];
/// Whose tests judge.
const JUDGING: [&str; 6] = ["in-process-tests", "orders", "products", "payments", "notifications", "users"];
/// Who judges first, in seconds: each service's own tests, besides those of its
/// modules.
const QUICK_JUDGES: [&str; 5] = ["orders", "products", "payments", "notifications", "users"];
/// What those don't notice, these must.
const THOROUGH_JUDGES: [&str; 3] = ["concurrency", "dependencies", "faults"];

/// Breaks each rule, then each line. With `ONLY` just the rules whose words
/// include some of it (`owner, released once`), or just the lines (`lines`).
pub fn run(project: &Project) -> Result<()> {
    let only = wanted("ONLY").unwrap_or_default();
    let tools = Tools::install(project)?;
    if only != "lines" {
        rules(project, &tools, &only)?;
    }
    if only.is_empty() || only == "lines" {
        lines(project, &tools)?;
    }
    Ok(())
}

/// Has cargo-mutants change one line at a time. Fails if one isn't noticed.
fn lines(project: &Project, tools: &Tools) -> Result<()> {
    let step = Step::begin("Lines: cargo-mutants");
    let cargo_mutants = CARGO_MUTANTS.install(project, tools, &step)?;
    step.done("as pinned");
    let command = |files: &[&str], output: &str| {
        let mut command = tools.at_root(&cargo_mutants);
        command.args(["mutants", "--colors=never", "--output"]).arg(project.local().join(output));
        command.args(files.iter().map(|file| format!("--file={file}")));
        command.env("CARGO_TARGET_DIR", project.root().join("target/mutants-build"));
        command
    };

    let step = Step::begin("Lines: the saga and an order's domain");
    show(command(&SAGA, "mutants-saga").args(["--package=orders", "--no-default-features"]))?;
    step.done("each change noticed");

    let step = Step::begin("Lines: conditions, tombstones, claims and keys");
    let judges = |profile: &str, more: &[&str], tests: &[&str]| -> Vec<String> {
        let tests = tests.iter().map(|test| format!("--test={test}"));
        [format!("--profile={profile}")]
            .into_iter()
            .chain(more.iter().map(|&flag| flag.to_owned()))
            .chain(tests)
            .collect()
    };
    // By its own means cargo-mutants would first try the tests of the packages
    // that it changes, which are not these.
    let unchanged = |judges: &[String]| {
        let cargo = |task: &str, arguments: &[String]| {
            let mut cargo = tools.cargo();
            cargo.arg(task).args(JUDGING.map(|package| format!("--package={package}"))).args(arguments);
            cargo.env("CARGO_TARGET_DIR", project.root().join("target/mutants-build"));
            quiet(&mut cargo)
        };
        // What an earlier run built of broken sources would pass for these.
        cargo("clean", &judges[..1])?;
        cargo("test", judges).context("the tests fail as it is: mend that first")
    };
    let shop = |judges: &[String]| {
        let mut command = command(&SHOP, "mutants-shop");
        command.args(["--baseline=skip", &format!("--test-package={}", JUDGING.join(","))]);
        command.args(judges.iter().map(|argument| format!("--cargo-arg={argument}")));
        command
    };
    let quick = judges("dev", &["--lib"], &QUICK_JUDGES);
    unchanged(&quick)?;
    match shop(&quick).arg("--timeout=90").status().context("cargo-mutants cannot be run")?.code() {
        Some(0) => {}
        // Some were missed, or hung, so far.
        Some(2 | 3) => {
            let thorough = judges("faults", &[], &THOROUGH_JUDGES);
            unchanged(&thorough)?;
            show(shop(&thorough).args(["--iterate", "--timeout=900"]))?;
        }
        _ => bail!("cargo-mutants failed"),
    }
    step.done("each change noticed");
    Ok(())
}

/// Breaks each rule in turn, on a copy of the sources. Fails if a breach isn't
/// noticed.
fn rules(project: &Project, tools: &Tools, only: &str) -> Result<()> {
    let mutants: Vec<_> =
        MUTANTS.iter().filter(|mutant| only.split(',').any(|words| mutant.rule.contains(words.trim()))).collect();
    ensure!(!mutants.is_empty(), "no rule speaks of \"{only}\"");
    let copy = project.root().join("target/mutants");
    let step = Step::begin("Nothing broken");
    copy_sources(project.root(), &copy)?;
    ensure!(judge(tools, project, &copy)? == Judgement::Kept, "the tests fail as it is: mend that first");
    step.done("all promises kept");
    let mut unnoticed = Vec::new();
    for mutant in &mutants {
        let step = Step::begin(format!("Broken: {}", mutant.rule));
        let whole = mutant.apply(&copy)?;
        let judgement = judge(tools, project, &copy);
        fs::write(copy.join(mutant.file), whole).with_context(|| format!("cannot mend {}", mutant.file))?;
        match judgement? {
            Judgement::Kept => {
                unnoticed.push(mutant.rule);
                step.done("NOT NOTICED");
            }
            Judgement::Broken(how) => {
                step.note(how);
                step.done("noticed");
            }
        }
    }
    say!("{} rules broken, {} breaches noticed", mutants.len(), mutants.len() - unnoticed.len());
    ensure!(unnoticed.is_empty(), "nobody notices when these rules are broken: {}", unnoticed.join("; "));
    Ok(())
}

/// What the tests say.
#[derive(PartialEq, Eq)]
enum Judgement {
    /// Every promise was kept.
    Kept,
    /// One was not; a line that says which.
    Broken(String),
}

fn judge(tools: &Tools, project: &Project, copy: &Path) -> Result<Judgement> {
    let cargo = |more: &[&str]| {
        let mut cargo = tools.cargo();
        cargo.current_dir(copy).args(["test", "--profile", "faults", "--package", "in-process-tests"]);
        cargo.args(JUDGES).args(more);
        // Not the checkout's own: to Cargo the two are one workspace, and what
        // was built from broken sources would pass for the checkout's.
        cargo.env("CARGO_TARGET_DIR", project.root().join("target/mutants-build"));
        cargo
    };
    quiet(&mut cargo(&["--no-run"])).context("a breach that does not compile proves nothing")?;
    let output = cargo(&[]).output().context("cargo cannot be run")?;
    if output.status.success() {
        return Ok(Judgement::Kept);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let mut lines = said.lines();
    let how = lines.by_ref().find(|line| line.trim_start().starts_with("VIOLATION")).and_then(|_| lines.next());
    let how = how.or_else(|| said.lines().find(|line| line.starts_with("test ") && line.ends_with("FAILED")));
    Ok(Judgement::Broken(how.unwrap_or("a test failed").trim().to_owned()))
}

impl Mutant {
    /// Breaks the rule in the copy; returns the file as it was.
    fn apply(&self, copy: &Path) -> Result<String> {
        let file = copy.join(self.file);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        fs::write(&file, self.broken(&text)?).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(text)
    }

    /// The file's `text` with the rule broken.
    fn broken(&self, text: &str) -> Result<String> {
        let found = text.matches(self.from).count();
        ensure!(found == 1, "{}: the code of \"{}\" is there {found} times, not once", self.file, self.rule);
        Ok(text.replace(self.from, self.to))
    }
}

/// Copies what git knows of, as it is now.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    project::remove(to)?;
    let mut listing = Command::new("git");
    listing.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(from);
    for path in quiet(&mut listing)?.split('\0').filter(|path| !path.is_empty()) {
        let (source, target) = (from.join(path), to.join(path));
        if !source.is_file() {
            continue;
        }
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::copy(&source, &target).with_context(|| format!("cannot copy {path}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever changes what a rule breaks learns of it here, and not hours into
    /// `make mutants`.
    #[test]
    fn what_each_rule_breaks_is_there_once() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        for mutant in MUTANTS {
            let text = fs::read_to_string(root.join(mutant.file)).expect("a source file");
            let broken = mutant.broken(&text).expect("code that can be broken");
            assert_ne!(broken, text, "{}", mutant.rule);
        }
    }
}
