//! `make mutants`: breaks each rule that the promise rests on, one at a time,
//! and expects the trials to notice.
//!
//! A rule whose breach no test notices is either not needed or not proved.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

use crate::{progress::Step, project::Project, tools::Tools};

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
        file: "functions/payments/src/repository/dynamo.rs",
        from: "        let put = self.table.put(&Record::of(standing))?.condition_expression(\"attribute_not_exists(pk)\");",
        to: "        if matches!(standing, Standing::Tombstone(_)) { return Ok(Saved::Done) }\n\
             \x20       let put = self.table.put(&Record::of(standing))?.condition_expression(\"attribute_not_exists(pk)\");",
    },
    Mutant {
        rule: "a move is conditional on the state it leaves",
        file: "functions/orders/src/repository/dynamo.rs",
        from: ".condition_expression(\"#state = :from\")",
        to: ".condition_expression(\"attribute_exists(#state) OR #state = :from\")",
    },
    Mutant {
        rule: "the answer is in the same write as the decision",
        file: "functions/orders/src/saga/engine.rs",
        from: "        next.answer = Some((self.write_answer)(&next, Decision::Confirmed, request_id));",
        to: "        (self.write_answer)(&next, Decision::Confirmed, request_id);",
    },
    Mutant {
        rule: "an intent whose outcome is unknown is resolved before it is cancelled",
        file: "functions/payments/src/service.rs",
        from: "State::Intent { .. } => self.resolve_and_void(payment, deadline).await?,",
        to: "State::Intent { .. } => self.record(payment, payment.moved(State::Voided, self.clock.now())?).await?,",
    },
    Mutant {
        rule: "stock is reserved in the transaction that records the reservation",
        file: "functions/products/src/repository/dynamo.rs",
        from: "        let mut writes = vec![self.put_new(&ReservationRecord::held(order, quote, now))?];",
        to: "        let put = self.table.put(&ReservationRecord::held(order, quote, now))?;\n\
             \x20       if let Write::Refused(_) = self.table.send_put(put).await? { return Ok(Saved::Stale) }\n\
             \x20       let mut writes = vec![];",
    },
    Mutant {
        rule: "no more is reserved than there is",
        file: "functions/products/src/repository/dynamo.rs",
        from: ".condition_expression(\"version = :version AND available >= :quantity\")",
        to: ".condition_expression(\"version = :version\")",
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
        from: "self.table.put(claimed)?.condition_expression(\"attribute_not_exists(pk)\")",
        to: "self.table.put(claimed)?.condition_expression(\"attribute_not_exists(nothing)\")",
    },
    Mutant {
        rule: "the key and the order are recorded together",
        file: "functions/orders/src/repository/dynamo.rs",
        from: "        let Some(key) = key else { return self.begin_without_key(order).await };",
        to: "        let Some(key) = key.filter(|_| false) else { return self.begin_without_key(order).await };",
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
        from: "            self.side_by_side(self.saga.compensations(), &mut order, invocation).await?;",
        to: "            let first = self.saga.compensations().take(1);\n\
             \x20           self.side_by_side(first, &mut order, invocation).await?;",
    },
    Mutant {
        rule: "a missing answer is not a refusal",
        file: "functions/orders/src/saga/engine.rs",
        from: "                    Stop::Unfinished(Unfinished::Step { step: name, reason })",
        to: "                    Stop::Refused(Refusal::TimedOut)",
    },
];

/// The tests that must notice.
const JUDGES: [&str; 3] = ["--test=faults", "--test=concurrency", "--test=orders"];

/// Tries every mutant on a copy of the sources; fails if one survives.
pub fn run(project: &Project) -> Result<()> {
    let tools = Tools::install(project)?;
    let copy = project.root().join("target/mutants");
    let mut survivors = Vec::new();
    for mutant in MUTANTS {
        let step = Step::begin(mutant.rule);
        copy_sources(project.root(), &copy)?;
        mutant.apply(&copy)?;
        let mut tests = tools.cargo();
        tests.current_dir(&copy).args(["test", "--quiet", "--package", "in-process-tests"]).args(JUDGES);
        // The same target folder, so that nothing but the project's own crates
        // is compiled again.
        tests.env("CARGO_TARGET_DIR", project.root().join("target"));
        let output = tests.output().context("cargo cannot be run")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.contains("running "), "did not compile: {}", String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            survivors.push(mutant.rule);
            step.done("NOT NOTICED");
        } else {
            step.done("noticed");
        }
    }
    println!("{} mutants, {} noticed", MUTANTS.len(), MUTANTS.len() - survivors.len());
    if !survivors.is_empty() {
        bail!("nobody notices when these rules are broken: {}", survivors.join("; "));
    }
    Ok(())
}

impl Mutant {
    fn apply(&self, root: &Path) -> Result<()> {
        let file = root.join(self.file);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let found = text.matches(self.from).count();
        ensure!(found == 1, "{}: the code of \"{}\" is there {found} times, not once", self.file, self.rule);
        fs::write(&file, text.replace(self.from, self.to)).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Copies what git knows of, as it is now.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    let listing = Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(from).output();
    let listing = listing.context("git cannot be run")?;
    for path in String::from_utf8_lossy(&listing.stdout).split('\0').filter(|path| !path.is_empty()) {
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
