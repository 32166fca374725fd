//! `make lint`: what can be told without running anything.

use std::fs;

use anyhow::{Context, Result};

use crate::{
    cargo_tools::CARGO_DENY,
    process::{quiet, show},
    progress::Step,
    project::Project,
    tools::{REGION, Tools, virtual_environment},
};

/// What is checked: environments of samconfig.toml as they are, and the last
/// with all that it leaves switched off.
const ENVIRONMENTS: [(&str, &[&str]); 4] = [
    ("local", &[]),
    ("dev", &[]),
    ("prod", &[]),
    (
        "prod",
        &[
            "ApiCertificate=arn:aws:acm:us-east-1:123456789012:certificate/example",
            "ApiDomain=api.example.com",
            "CorsOrigin=https://shop.example.com",
            "OrdersConcurrency=50",
            "PoolUsesSes=true",
        ],
    ),
];

pub fn lint(project: &Project) -> Result<()> {
    let tools = Tools::install(project)?;

    let step = Step::begin("Format");
    quiet(tools.cargo().args(["fmt", "--all", "--check"])).context("`cargo fmt --all` puts it right")?;
    step.done("as rustfmt has it");

    template(project, &tools)?;

    let step = Step::begin("Clippy");
    show(tools.cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    step.done("no objection");

    let step = Step::begin("Dependencies: licences, sources, unwanted crates");
    let cargo_deny = CARGO_DENY.install(project, &tools, &step)?;
    let cargo_deny = || tools.at_root(&cargo_deny);
    quiet(cargo_deny().args(["check", "bans", "licenses", "sources"]))?;
    step.done("as deny.toml allows");

    let step = Step::begin("Dependencies: known vulnerabilities");
    // Their database is a Git repository on GitHub, and nowhere else.
    if quiet(cargo_deny().args(["fetch", "db"])).is_ok() {
        quiet(cargo_deny().args(["check", "advisories"]))?;
        step.done("none");
    } else {
        step.note("NOT CHECKED: the RustSec database cannot be fetched from GitHub");
    }
    Ok(())
}

/// The template as it is written, and as CloudFormation has it in the end:
/// some mistakes, such as a circular dependency through a route, are only in
/// what SAM makes of it.
fn template(project: &Project, tools: &Tools) -> Result<()> {
    let step = Step::begin("Template");
    quiet(tools.offline("sam").args(["validate", "--lint", "--region", REGION]))?;
    quiet(tools.offline("cfn-lint").args(["template.yaml", ".github/deploy-role.yaml"]))?;
    let folder = project.local().join("lint");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut of_prod = Vec::new();
    for (environment, parameters) in ENVIRONMENTS {
        let mut transform = tools.offline("python");
        transform.args(["xtask/data/transform.py", "template.yaml", environment]).args(parameters);
        let file = folder.join(format!("{environment}-{}.yaml", parameters.len()));
        fs::write(&file, quiet(&mut transform)?).with_context(|| format!("cannot write {}", file.display()))?;
        // What only conditions ask for is not asked for any more.
        quiet(tools.offline("cfn-lint").args(["--ignore-checks", "W2001", "--template"]).arg(&file))
            .with_context(|| format!("the template for {environment} {}", parameters.join(" ")))?;
        if environment == "prod" {
            of_prod.push(file);
        }
    }
    step.done("valid, and cfn-lint has no objection: as written, and as local, dev and prod have it in the end");

    let step = Step::begin("Tools: checkov");
    let checkov = virtual_environment(project, step, "checkov", "requirements-checkov.txt")?.join("bin/checkov");
    let step = Step::begin("Template: security of prod");
    quiet(tools.at_root(checkov).arg("--file").args(of_prod))?;
    step.done("checkov has no objection but those that .checkov.yaml and the template answer");
    Ok(())
}
