//! `make build`: builds the functions for an environment of samconfig.toml, without
//! deploying them.

use crate::{
    deployment_environment::{DeploymentEnvironment, wanted_name},
    function_build::build_all,
    prelude::*,
};

pub fn run(project: &Project) -> Result<()> {
    let name = wanted_name("make build ENV=dev")?;
    let tools = Tools::install(project)?;
    let environment = DeploymentEnvironment::read(&tools, &name)?;
    build_all(&tools, &environment.name, &environment.architecture)?;
    Ok(())
}
