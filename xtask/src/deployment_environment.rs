//! Reads and checks an environment of samconfig.toml, such as `dev` or `prod`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::prelude::*;

/// The domain that samconfig.toml contains until a user replaces it.
const PLACEHOLDER: &str = "example.com";
/// The section of samconfig.toml for settings that all environments share.
const SHARED: &str = "default";

#[derive(Deserialize)]
pub struct DeploymentEnvironment {
    #[serde(skip)]
    pub name: String,
    pub stack: String,
    /// The template parameters that samconfig.toml sets.
    pub parameters: BTreeMap<String, String>,
    pub architecture: String,
    /// The functions of each service. A function's name is its logical id in the template.
    pub services: BTreeMap<String, Vec<String>>,
    /// The program of each function.
    pub programs: BTreeMap<String, String>,
}

/// Reads the environment's name from `ENV` on make's command line. The error message
/// contains `usage`.
pub fn wanted_name(usage: &str) -> Result<String> {
    let name = make_variable("ENV").with_context(|| format!("which environment? {usage}"))?;
    ensure!(name != SHARED, "`{SHARED}` has the settings that environments share, and is no environment. {usage}");
    Ok(name)
}

impl DeploymentEnvironment {
    pub fn read(tools: &Tools, name: &str) -> Result<Self> {
        let output = quiet(cmd!(tools.offline(), "python xtask/python/read_environment.py {name}"))?;
        let environment: Self = serde_json::from_str(&output).context("read_environment.py prints no environment")?;
        Ok(Self { name: name.to_owned(), ..environment })
    }

    /// Checks that the environment is for AWS, and that its e-mail addresses and domains
    /// are not the examples. SES sends only from an address that its owner has verified,
    /// and nobody can verify an example, so customers would get no e-mail.
    pub fn check_for_aws(&self) -> Result<()> {
        let Self { name, parameters, .. } = self;
        let value = |parameter| parameters.get(parameter).map_or("", String::as_str);
        let emulator = value("LocalEndpoint");
        ensure!(emulator.is_empty(), "{name} is for an emulator: make deploy ENV={name} ENDPOINT={emulator}");
        for (parameter, value) in parameters {
            ensure!(
                !is_within(value, PLACEHOLDER),
                "samconfig.toml still has {parameter}={value} for {name}: replace it by your own"
            );
        }
        let (sender, domain) = (value("EmailSender"), value("SenderDomain"));
        // Without a value, the template's default would be used, which is an example.
        ensure!(!sender.is_empty(), "samconfig.toml has no EmailSender for {name}: add your own");
        ensure!(
            domain.is_empty() || is_within(sender, domain),
            "samconfig.toml has for {name} an EmailSender, {sender}, outside its SenderDomain, {domain}"
        );
        Ok(())
    }
}

/// Returns whether an e-mail address or a host name belongs to `domain` or to one of its
/// subdomains.
fn is_within(address: &str, domain: &str) -> bool {
    let (address, domain) = (address.to_lowercase(), domain.to_lowercase());
    let host = address.rsplit('@').next().unwrap_or_default();
    host.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(parameters: &[(&str, &str)]) -> String {
        let environment = DeploymentEnvironment {
            name: "dev".to_owned(),
            stack: "holdfast-dev".to_owned(),
            parameters: parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            architecture: "arm64".to_owned(),
            services: BTreeMap::new(),
            programs: BTreeMap::new(),
        };
        environment.check_for_aws().map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn an_environment_with_own_addresses_may_be_deployed_to_aws() {
        assert_eq!(refused(&[("EmailSender", "orders@holdfast.org")]), "");
        assert_eq!(refused(&[("EmailSender", "orders@notexample.com"), ("SenderDomain", "notexample.com")]), "");
        assert_eq!(refused(&[("EmailSender", "orders@mail.holdfast.org"), ("SenderDomain", "Holdfast.org")]), "");
    }

    #[test]
    fn an_environment_for_an_emulator_is_refused() {
        let parameters = [("EmailSender", "orders@holdfast.org"), ("LocalEndpoint", "http://localhost:4566")];
        assert!(refused(&parameters).contains("ENDPOINT=http://localhost:4566"));
    }

    #[test]
    fn an_environment_with_example_addresses_is_refused() {
        assert!(refused(&[]).contains("no EmailSender"));
        assert!(refused(&[("EmailSender", "orders@example.com")]).contains("EmailSender=orders@example.com"));
        let parameters = [("EmailSender", "orders@holdfast.org"), ("CorsOrigin", "https://shop.example.com")];
        assert!(refused(&parameters).contains("CorsOrigin=https://shop.example.com"));
    }

    #[test]
    fn a_sender_outside_its_domain_is_refused() {
        let parameters = |domain| [("EmailSender", "orders@holdfast.org"), ("SenderDomain", domain)];
        assert!(refused(&parameters("fast.org")).contains("outside its SenderDomain"));
        assert!(refused(&parameters("shop.holdfast.org")).contains("outside its SenderDomain"));
    }
}
