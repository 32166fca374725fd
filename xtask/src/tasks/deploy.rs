//! `make deploy`: deploys all services of an environment of samconfig.toml, or one
//! service.
//!
//! All services are deployed by `sam build` and `sam deploy` with `--config-env`. To
//! deploy one service, the task reads the template that is deployed, replaces the code of
//! the service in it, and runs `sam deploy` with the deployed parameters. CloudFormation
//! therefore changes only this service. It publishes a version of each function, and
//! shifts the alias to the version as gradually as the environment's parameters say. The
//! code is not uploaded by `aws lambda update-function-code`, because CloudFormation would
//! not know of that change.

use std::io::{IsTerminal, stdin};

use crate::{
    cors_preflights,
    deployment_environment::{DeploymentEnvironment, wanted_name},
    function_build::{Profile, build_all, check_program, compile, sam_build},
    prelude::*,
    template_parameters::{Parameters, arguments, wanted_parameters},
    tools::{CloudTools, architecture},
};

/// The environment whose stack this task protects against deletion.
const PROTECTED: &str = "prod";

pub fn run(project: &Project) -> Result<()> {
    let name = wanted_name(
        "make deploy ENV=dev [SERVICE=users] [ENDPOINT=http://localhost:4566 [PARAMETERS=\"SenderExists=true\"]]",
    )?;
    let endpoint = make_variable("ENDPOINT");
    let tools = Tools::install(project)?;
    let environment = DeploymentEnvironment::read(&tools, &name)?;
    let parameters = wanted_parameters(&tools)?;
    if endpoint.is_none() {
        ensure!(
            parameters.is_empty(),
            "PARAMETERS needs an ENDPOINT: on AWS, samconfig.toml has the values for {name}"
        );
        environment.check_for_aws()?;
    }
    let deployment = Deployment { tools: &tools, endpoint: endpoint.as_deref(), environment: &environment };
    match make_variable("SERVICE") {
        None => deployment.all_services(parameters),
        Some(_) if !parameters.is_empty() => {
            bail!("SERVICE keeps the deployed parameters: leave PARAMETERS out, or deploy all services")
        }
        Some(service) => deployment.one_service(&service),
    }
}

struct Deployment<'a> {
    tools: &'a Tools,
    /// The emulator's URL. `None` for a deployment to AWS.
    endpoint: Option<&'a str>,
    environment: &'a DeploymentEnvironment,
}

impl<'a> Deployment<'a> {
    fn all_services(&self, wanted: Parameters) -> Result<()> {
        let environment = self.environment;
        let architecture = self.endpoint.map_or(environment.architecture.as_str(), |_| architecture());
        build_all(self.tools, &environment.name, architecture)?;

        let step = Step::begin(format!("Stack {}: sam deploy", environment.stack));
        let mut deploy = self.sam_deploy();
        if let Some(url) = self.endpoint {
            // `--parameter-overrides` on the command line replaces the list of samconfig.toml,
            // so it must contain the parameters of samconfig.toml, too.
            let mut parameters = environment.parameters.clone();
            parameters.extend(wanted);
            parameters.insert("Architecture".to_owned(), architecture.to_owned());
            parameters.insert("LocalEndpoint".to_owned(), url.to_owned());
            deploy = deploy.arg("--parameter-overrides").args(arguments(&parameters));
        }
        show(deploy)?;
        self.complete_preflights()?;
        if environment.name == PROTECTED {
            // Neither the template nor samconfig.toml can switch this protection on.
            let protect = self.cloudformation("update-termination-protection");
            quiet(protect.arg("--enable-termination-protection"))
                .context("the stack is deployed, but not protected against deletion")?;
            step.note("protected against deletion");
        }
        step.done("deployed");
        Ok(())
    }

    fn one_service(&self, service: &str) -> Result<()> {
        let (tools, environment) = (self.tools, self.environment);
        let Some(functions) = environment.services.get(service) else {
            let services: Vec<_> = environment.services.keys().map(String::as_str).collect();
            bail!("there is no service `{service}`; there are {}", services.join(", "));
        };
        let architecture = self.deployed_architecture()?;
        let template = self.cloudformation("get-template").args(["--template-stage", "Original", "--output", "json"]);
        let template = quiet(template)?;
        let versions = self.live_versions(functions)?;

        compile(tools, &[service], &architecture, Profile::Release)?;
        let step = Step::begin("Functions: package");
        let build = tools.root().join(".aws-sam");
        let mut replacements = Vec::new();
        for function in functions {
            // `sam build` empties its folder first, so each function gets a folder of its own.
            let folder = build.join(function);
            let package = sam_build(tools, &environment.name, &architecture, Profile::Release);
            quiet(package.arg("--build-dir").arg(&folder).arg(function))?;
            check_program(&folder.join(function), &architecture)?;
            replacements.push(format!("{function}={}", folder.join(function).display()));
        }
        step.done(functions.join(" and "));

        let step = Step::begin(format!("Stack {}: sam deploy of {service} alone", environment.stack));
        let replace = cmd!(tools.offline(), "python xtask/python/replace_function_code.py {replacements...}");
        let file = build.join(format!("{service}.yaml"));
        write_file(&file, quiet(replace.stdin(template)).context("the deployed template cannot be changed")?)?;
        // Without `--config-file`, SAM would look for samconfig.toml in the template's folder.
        let deploy = self.sam_deploy().arg("--template-file").arg(&file);
        let deploy = deploy.arg("--config-file").arg(tools.root().join("samconfig.toml"));
        // `--parameter-overrides` replaces the parameters of samconfig.toml. CloudFormation
        // keeps the deployed value of every parameter that is not listed here.
        show(deploy.args(["--parameter-overrides", &format!("Architecture={architecture}")]))?;
        self.complete_preflights()?;
        for ((function, before), after) in functions.iter().zip(versions).zip(self.live_versions(functions)?) {
            step.note(if before == after {
                format!("{function}: still version {after}, because its code has not changed")
            } else {
                format!("{function}: version {before} → {after}")
            });
        }
        step.done("deployed");
        Ok(())
    }

    fn cloud(&self) -> CloudTools<'a, 'a> {
        self.tools.cloud(self.endpoint)
    }

    fn complete_preflights(&self) -> Result<()> {
        self.endpoint.map_or(Ok(()), |_| cors_preflights::complete(&self.cloud(), &self.environment.stack))
    }

    fn sam_deploy(&self) -> Cmd<'a> {
        let name = &self.environment.name;
        // Without a terminal, no user can confirm the changes.
        let unattended = (!stdin().is_terminal()).then_some("--no-confirm-changeset");
        cmd!(self.cloud(), "sam deploy --config-env {name} {unattended...}")
    }

    fn cloudformation(&self, action: &str) -> Cmd<'a> {
        let stack = &self.environment.stack;
        cmd!(self.cloud(), "aws cloudformation {action} --stack-name {stack}")
    }

    fn deployed_architecture(&self) -> Result<String> {
        let query = "Stacks[0].Parameters[?ParameterKey=='Architecture'].ParameterValue";
        let describe = self.cloudformation("describe-stacks").args(["--output", "text", "--query", query]);
        let found = quiet(describe)
            .with_context(|| format!("deploy all services first: make deploy ENV={}", self.environment.name))?;
        ensure!(!found.trim().is_empty(), "the stack {} is not a stack of this project", self.environment.stack);
        Ok(found.trim().to_owned())
    }

    /// For each function, returns the version to which its alias `live` points.
    fn live_versions(&self, functions: &[String]) -> Result<Vec<String>> {
        let version = |function: &String| {
            let describe = self.cloudformation("describe-stack-resource").args(["--logical-resource-id", function]);
            let query = ["--output", "text", "--query", "StackResourceDetail.PhysicalResourceId"];
            let name = quiet(describe.args(query))?;
            let name = name.trim();
            let alias = cmd!(self.cloud(), "aws lambda get-alias --name live --function-name {name}");
            let version = quiet(alias.args(["--output", "text", "--query", "FunctionVersion"]))?;
            Ok(version.trim().to_owned())
        };
        functions.iter().map(version).collect()
    }
}
