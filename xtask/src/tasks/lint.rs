//! `make lint`: checks the format, the template, the code and the dependencies, without
//! running the shop.

use crate::{
    cargo_tools::CARGO_DENY,
    prelude::*,
    tools::{REGION, virtual_environment},
};

/// The environments whose template is checked, with parameters that differ from
/// samconfig.toml. The second `prod` sets the parameters that samconfig.toml leaves empty,
/// so that the resources that depend on these parameters are checked, too.
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

pub fn run(project: &Project) -> Result<()> {
    let tools = Tools::install(project)?;

    let step = Step::begin("Format");
    quiet(cmd!(tools, "cargo fmt --all --check")).context("`cargo fmt --all` formats the code")?;
    step.done("rustfmt has no objection");

    template(&tools)?;

    let step = Step::begin("Clippy");
    show(cmd!(tools, "cargo clippy --workspace --all-targets -- --deny warnings"))?;
    step.done("no objection");

    let step = Step::begin("Dependencies: licences, sources, unwanted crates");
    let cargo_deny = CARGO_DENY.install(&tools, &step)?;
    quiet(cmd!(tools, "{cargo_deny} check bans licenses sources"))?;
    step.done("as deny.toml allows");

    let step = Step::begin("Dependencies: known vulnerabilities");
    // The database can be fetched only from GitHub, which may be unreachable.
    if quiet(cmd!(tools, "{cargo_deny} fetch db")).is_ok() {
        quiet(cmd!(tools, "{cargo_deny} check advisories"))?;
        step.done("none");
    } else {
        step.note("NOT CHECKED: the RustSec database cannot be fetched from GitHub");
    }
    Ok(())
}

/// Checks the template as it is written, and the template that SAM's transform makes of
/// it. Some mistakes, such as a circular dependency through a route, are visible only
/// after the transform.
fn template(tools: &Tools) -> Result<()> {
    let step = Step::begin("Template");
    let offline = tools.offline();
    quiet(cmd!(offline, "sam validate --lint --region {REGION}"))?;
    quiet(cmd!(offline, "cfn-lint template.yaml .github/deploy-role.yaml"))?;
    let folder = tools.project.local().join("lint");
    create_folder(&folder)?;
    let mut prod = Vec::new();
    for (environment, parameters) in ENVIRONMENTS {
        let program = "xtask/python/expand_template.py";
        let expanded = quiet(cmd!(offline, "python {program} template.yaml {environment} {parameters...}"))?;
        let file = folder.join(format!("{environment}-{}.yaml", parameters.len()));
        write_file(&file, expanded)?;
        // Not W2001, the check for unused parameters: the conditions are evaluated and
        // gone, so a parameter that only conditions used would be reported.
        quiet(cmd!(offline, "cfn-lint --ignore-checks W2001 --template {file}"))
            .with_context(|| format!("the template for {environment} {}", parameters.join(" ")))?;
        if environment == "prod" {
            prod.push(file);
        }
    }
    step.done("valid, and cfn-lint has no objection: as written, and as expanded for local, dev and prod");

    let step = Step::begin("Tools: checkov");
    let checkov = virtual_environment(&tools.project, step, "checkov", "requirements-checkov.txt")?;
    let checkov = checkov.join("bin/checkov");
    let step = Step::begin("Template: security of prod");
    quiet(cmd!(tools, "{checkov} --file {prod...}"))?;
    step.done("checkov has no objection besides the exceptions in .checkov.yaml and in the template");
    Ok(())
}
