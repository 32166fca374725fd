//! `make deploy`: an environment of samconfig.toml, all of it or one service.
//!
//! All of it is `sam build --config-env ENV && sam deploy --config-env ENV`. One service is the
//! same, with the template and the parameters that are deployed already: only
//! the service's code is another. So CloudFormation finds nothing else to
//! change, publishes a version, and shifts the alias as gradually as the
//! environment has it; and the stack still knows all that it consists of, which
//! it would not if the code were put there behind its back.

use std::{
    collections::BTreeMap,
    fs,
    io::{IsTerminal, Write, stdin},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    functions::{self, sam_build},
    parameters::{Parameters, arguments, wanted_parameters},
    preflight,
    process::{quiet, show},
    progress::Step,
    project::{Project, wanted},
    tools::{Cloud, Tools, architecture},
};

/// The environment whose stack may not be deleted by mistake.
const PROTECTED: &str = "prod";
/// The domain that samconfig.toml has until somebody puts in their own.
const PLACEHOLDER: &str = "example.com";
/// What samconfig.toml calls what its environments have in common.
const NO_ENVIRONMENT: &str = "default";

/// What there is to know of an environment before it is deployed.
#[derive(Deserialize)]
struct Environment {
    #[serde(skip)]
    name: String,
    stack: String,
    /// The parameters that samconfig.toml gives values.
    given: BTreeMap<String, String>,
    architecture: String,
    /// The functions of each service, by the template's names.
    services: BTreeMap<String, Vec<String>>,
}

impl Environment {
    fn read(tools: &Tools, name: &str) -> Result<Self> {
        let known = quiet(tools.offline("python").args(["xtask/data/environment.py", name]))?;
        let environment: Self = serde_json::from_str(&known).context("environment.py says something else")?;
        Ok(Self { name: name.to_owned(), ..environment })
    }

    /// That it is for AWS, and for somebody in particular: nobody confirms that
    /// an example is theirs, and no customer would get an e-mail.
    fn suits_aws(&self) -> Result<()> {
        let Self { name, given, .. } = self;
        let value = |parameter| given.get(parameter).map_or("", String::as_str);
        ensure!(
            value("LocalEndpoint").is_empty(),
            "{name} is for an emulator: make deploy ENV={name} ENDPOINT={}",
            value("LocalEndpoint")
        );
        for (parameter, value) in given {
            ensure!(
                !is_within(value, PLACEHOLDER),
                "samconfig.toml still has {parameter}={value} for {name}: put in your own"
            );
        }
        let (sender, domain) = (value("EmailSender"), value("SenderDomain"));
        // The template's own is nobody's, either.
        ensure!(!sender.is_empty(), "samconfig.toml has no EmailSender for {name}: put in your own");
        ensure!(
            domain.is_empty() || is_within(sender, domain),
            "samconfig.toml has for {name} an EmailSender, {sender}, outside its SenderDomain, {domain}"
        );
        Ok(())
    }
}

/// Whether an address or a name is a domain's, or one's below it.
fn is_within(address: &str, domain: &str) -> bool {
    let (address, domain) = (address.to_lowercase(), domain.to_lowercase());
    let own = address.rsplit('@').next().unwrap_or_default();
    own.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// `make build`: an environment's functions, as they would be deployed.
pub fn build(project: &Project) -> Result<()> {
    let name = wanted("ENV").context("which environment? make build ENV=dev")?;
    ensure!(name != NO_ENVIRONMENT, "`{name}` is what environments have in common, and none itself");
    let tools = Tools::install(project)?;
    let environment = Environment::read(&tools, &name)?;
    functions::build_for(&tools, &environment.name, &environment.architecture)
}

pub fn deploy(project: &Project) -> Result<()> {
    const USAGE: &str =
        "make deploy ENV=dev [SERVICE=users] [ENDPOINT=http://localhost:4566 [PARAMETERS=\"SenderExists=true\"]]";
    let name = wanted("ENV").with_context(|| format!("which environment? {USAGE}"))?;
    ensure!(name != NO_ENVIRONMENT, "`{name}` is what environments have in common, and none itself. {USAGE}");
    let cloud = wanted("ENDPOINT").map_or(Cloud::Aws, Cloud::Endpoint);
    let tools = Tools::install(project)?;
    let environment = Environment::read(&tools, &name)?;
    let parameters = wanted_parameters(&tools)?;
    if matches!(cloud, Cloud::Aws) {
        ensure!(parameters.is_empty(), "PARAMETERS is for an ENDPOINT: on AWS, {name} is what samconfig.toml says");
        environment.suits_aws()?;
    }
    match wanted("SERVICE") {
        None => all(&tools, &cloud, &environment, parameters),
        Some(_) if !parameters.is_empty() => {
            bail!("one service is deployed with the PARAMETERS that are there already")
        }
        Some(service) => one(project, &tools, &cloud, &environment, &service),
    }
}

fn all(tools: &Tools, cloud: &Cloud, environment: &Environment, wanted: Parameters) -> Result<()> {
    let architecture = match cloud {
        Cloud::Aws => environment.architecture.as_str(),
        Cloud::Endpoint(_) => architecture(),
    };
    functions::build_for(tools, &environment.name, architecture)?;

    let step = Step::begin(format!("Stack {}: sam deploy", environment.stack));
    let mut deploy = sam_deploy(tools, cloud, environment);
    if let Cloud::Endpoint(url) = cloud {
        // On the command line these replace samconfig's.
        let mut parameters = environment.given.clone();
        parameters.extend(wanted);
        parameters.insert("Architecture".to_owned(), architecture.to_owned());
        parameters.insert("LocalEndpoint".to_owned(), url.clone());
        deploy.arg("--parameter-overrides");
        deploy.args(arguments(&parameters));
    }
    show(&mut deploy)?;
    if matches!(cloud, Cloud::Endpoint(_)) {
        preflight::complete(|| tools.on(cloud, "aws"), &environment.stack)?;
    }
    if environment.name == PROTECTED {
        // Not a property of the template, and no option of SAM's.
        let mut protect = tools.on(cloud, "aws");
        protect.args(["cloudformation", "update-termination-protection", "--enable-termination-protection"]);
        quiet(protect.args(["--stack-name", &environment.stack])).context("the stack is deployed, but unprotected")?;
        step.note("protected against deletion");
    }
    step.done("deployed");
    Ok(())
}

fn one(project: &Project, tools: &Tools, cloud: &Cloud, environment: &Environment, service: &str) -> Result<()> {
    let Some(names) = environment.services.get(service) else {
        let services: Vec<_> = environment.services.keys().map(String::as_str).collect();
        bail!("there is no service `{service}`, but {}", services.join(", "));
    };
    let architecture = deployed_architecture(tools, cloud, environment)?;
    let template = deployed_template(tools, cloud, environment)?;
    let before = live_versions(tools, cloud, environment, names)?;

    functions::compile(tools, &[service], &architecture)?;
    let step = Step::begin("Functions: package");
    let mut replacements = Vec::new();
    for name in names {
        // Apart from what a build of all leaves, each in a folder that is
        // emptied before.
        let folder = project.root().join(".aws-sam").join(name);
        let mut package = sam_build(tools, &environment.name, &architecture);
        quiet(package.arg("--build-dir").arg(&folder).arg(name))?;
        functions::is_program_for(&folder.join(name), &architecture)?;
        replacements.push(format!("{name}={}", folder.join(name).display()));
    }
    step.done(names.join(" and "));

    let step = Step::begin(format!("Stack {}: sam deploy, of {service} alone", environment.stack));
    let file = project.root().join(".aws-sam").join(format!("{service}.yaml"));
    let mut replace = tools.offline("python");
    replace.arg("xtask/data/one_service.py").args(&replacements);
    fs::write(&file, filter(&mut replace, &template)?).with_context(|| format!("cannot write {}", file.display()))?;
    let mut deploy = sam_deploy(tools, cloud, environment);
    deploy.arg("--template-file").arg(&file);
    // Which SAM otherwise looks for beside the template.
    deploy.arg("--config-file").arg(project.root().join("samconfig.toml"));
    // In place of samconfig's. What isn't named here stays as it is.
    show(deploy.arg("--parameter-overrides").arg(format!("Architecture={architecture}")))?;
    if matches!(cloud, Cloud::Endpoint(_)) {
        preflight::complete(|| tools.on(cloud, "aws"), &environment.stack)?;
    }
    let after = live_versions(tools, cloud, environment, names)?;
    for ((name, before), after) in names.iter().zip(before).zip(after) {
        step.note(if before == after {
            format!("{name}: still version {after}; its code is what was deployed")
        } else {
            format!("{name}: version {before} → {after}")
        });
    }
    step.done("deployed");
    Ok(())
}

fn sam_deploy(tools: &Tools, cloud: &Cloud, environment: &Environment) -> Command {
    let mut deploy = tools.on(cloud, "sam");
    deploy.args(["deploy", "--config-env", &environment.name]);
    if !stdin().is_terminal() {
        // Nobody is there to say yes.
        deploy.arg("--no-confirm-changeset");
    }
    deploy
}

fn cloudformation(tools: &Tools, cloud: &Cloud, environment: &Environment, action: &str) -> Command {
    let mut command = tools.on(cloud, "aws");
    command.args(["cloudformation", action, "--stack-name", &environment.stack]);
    command
}

fn deployed_architecture(tools: &Tools, cloud: &Cloud, environment: &Environment) -> Result<String> {
    let mut describe = cloudformation(tools, cloud, environment, "describe-stacks");
    describe.args(["--query", "Stacks[0].Parameters[?ParameterKey=='Architecture'].ParameterValue"]);
    let found = quiet(describe.args(["--output", "text"]))
        .with_context(|| format!("deploy all of it first: make deploy ENV={}", environment.name))?;
    ensure!(!found.trim().is_empty(), "the stack {} is none of this project's", environment.stack);
    Ok(found.trim().to_owned())
}

fn deployed_template(tools: &Tools, cloud: &Cloud, environment: &Environment) -> Result<String> {
    let mut get = cloudformation(tools, cloud, environment, "get-template");
    quiet(get.args(["--template-stage", "Original", "--output", "json"]))
}

/// Which version of each function its alias means.
fn live_versions(tools: &Tools, cloud: &Cloud, environment: &Environment, names: &[String]) -> Result<Vec<String>> {
    let version = |name: &String| {
        let mut describe = cloudformation(tools, cloud, environment, "describe-stack-resource");
        describe.args(["--logical-resource-id", name, "--query", "StackResourceDetail.PhysicalResourceId"]);
        let function = quiet(describe.args(["--output", "text"]))?;
        let mut alias = tools.on(cloud, "aws");
        alias.args(["lambda", "get-alias", "--name", "live", "--function-name", function.trim()]);
        let version = quiet(alias.args(["--query", "FunctionVersion", "--output", "text"]))?;
        Ok(version.trim().to_owned())
    };
    names.iter().map(version).collect()
}

/// What a program makes of an input.
fn filter(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    child.stdin.take().context("its input is closed")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the deployed template cannot be changed");
    String::from_utf8(output.stdout).context("the template is no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(given: &[(&str, &str)]) -> String {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let environment = Environment {
            name: "dev".to_owned(),
            stack: "holdfast-dev".to_owned(),
            given,
            architecture: "arm64".to_owned(),
            services: BTreeMap::new(),
        };
        environment.suits_aws().map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn an_environment_of_ones_own_goes_to_aws() {
        assert_eq!(refused(&[("EmailSender", "orders@holdfast.org")]), "");
        assert_eq!(refused(&[("EmailSender", "orders@notexample.com"), ("SenderDomain", "notexample.com")]), "");
        assert_eq!(refused(&[("EmailSender", "orders@mail.holdfast.org"), ("SenderDomain", "Holdfast.org")]), "");
    }

    #[test]
    fn an_emulators_environment_does_not() {
        let given = [("EmailSender", "orders@holdfast.org"), ("LocalEndpoint", "http://localhost:4566")];
        assert!(refused(&given).contains("ENDPOINT=http://localhost:4566"));
    }

    #[test]
    fn what_is_still_an_example_does_not() {
        assert!(refused(&[]).contains("no EmailSender"));
        assert!(refused(&[("EmailSender", "orders@example.com")]).contains("EmailSender=orders@example.com"));
        let given = [("EmailSender", "orders@holdfast.org"), ("CorsOrigin", "https://shop.example.com")];
        assert!(refused(&given).contains("CorsOrigin=https://shop.example.com"));
    }

    #[test]
    fn a_sender_outside_its_domain_does_not() {
        let given = |domain| [("EmailSender", "orders@holdfast.org"), ("SenderDomain", domain)];
        assert!(refused(&given("fast.org")).contains("outside its SenderDomain"));
        assert!(refused(&given("shop.holdfast.org")).contains("outside its SenderDomain"));
    }
}
