//! What all functions have in common: a part of their environment, and how
//! they start.

use crate::{
    aws::{Aws, Endpoint},
    caller::{Authenticator, InternalAuth},
    clock::Clock,
    config::{ConfigError, Configuration, Env},
    http::HttpConfig,
    telemetry::{self, LogFilter},
    token::TokenVerifier,
};

/// Starts a function: reads its environment, begins to log, and sets up the SDK.
///
/// # Errors
///
/// If the environment is not what the function needs. The error names every
/// variable that is wrong.
pub async fn start<C: Configuration + AsRef<FunctionConfig>>() -> Result<(C, Aws), ConfigError> {
    let config = C::from_env()?;
    telemetry::init(&config.as_ref().log);
    Ok((config, Aws::from_env().await))
}

/// What every function reads.
#[derive(Debug)]
pub struct FunctionConfig {
    /// What is logged.
    pub log: LogFilter,
}

impl Configuration for FunctionConfig {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let (log, endpoint) = (LogFilter::read(env), Endpoint::read(env));
        endpoint?;
        Some(Self { log: log? })
    }
}

/// What every function reads that answers people and other services.
#[derive(Debug)]
pub struct ServiceConfig {
    /// As of every function.
    pub function: FunctionConfig,
    /// As of every function that answers requests.
    pub http: HttpConfig,
    /// How other services prove who they are.
    pub internal_auth: InternalAuth,
}

impl Configuration for ServiceConfig {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let (function, http) = (FunctionConfig::read(env), HttpConfig::read(env));
        let internal_auth = InternalAuth::read(env);
        Some(Self { function: function?, http: http?, internal_auth: internal_auth? })
    }
}

impl ServiceConfig {
    /// Tells who calls this service, people and other services alike.
    pub fn authenticator(&self, aws: &Aws, clock: Clock) -> Authenticator {
        Authenticator::new(
            TokenVerifier::new(self.http.tokens.clone(), aws.connector.clone(), clock),
            self.internal_auth,
        )
    }
}

impl HttpConfig {
    /// Tells who calls a service that has no routes for other services.
    pub fn public_authenticator(&self, aws: &Aws, clock: Clock) -> Authenticator {
        Authenticator::public_only(TokenVerifier::new(self.tokens.clone(), aws.connector.clone(), clock))
    }
}
