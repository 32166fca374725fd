//! What of the environment functions have in common.

use crate::{
    aws::Endpoint,
    caller::InternalAuth,
    config::{Configuration, Env},
    http::HttpConfig,
    telemetry::LogFilter,
};

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
