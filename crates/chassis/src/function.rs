//! The start of a function, and the settings that all functions have in common.

use tracing::{Span, field};

use crate::{
    aws::Aws,
    caller::{Authenticator, InternalAuth},
    clock::Clock,
    config::{BaseUrl, ConfigError, Configuration, Env},
    configuration, context_span,
    http::HttpConfig,
    metric,
    telemetry::{self, TelemetryConfig},
    token::TokenVerifier,
    trace::TraceContext,
    version,
};

configuration! {
    /// The settings of every function.
    #[derive(Debug)]
    pub struct FunctionConfig {
        /// What the function writes about its work.
        pub telemetry: TelemetryConfig,
        /// The address that stands in for AWS's own addresses.
        pub endpoint: Option<BaseUrl> = optional("AWS_ENDPOINT_URL", "an emulator's address; missing on AWS"),
        /// The name of the stack, by which the metrics of two stacks are told apart.
        pub stack: String = default("STACK_NAME", "the name of the stack, which the metrics carry", "local"),
    }
}

configuration! {
    /// The settings of every service that has routes for other services.
    #[derive(Debug)]
    pub struct ServiceConfig {
        /// The settings of the service's routes.
        pub http: HttpConfig,
        /// The proof of identity that the service requires of other services.
        pub internal_auth: InternalAuth,
    }
}

/// Reads the settings that every function has, and then the settings `C` that
/// only one function has.
impl<C: Configuration> Configuration for (FunctionConfig, C) {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let (common, own) = (FunctionConfig::read(env), C::read(env));
        Some((common?, own?))
    }
}

/// Starts the function `name`: reads its environment, begins to log, and sets up the SDK.
/// `commit` is the commit that the function was built from, if the build knew it.
///
/// # Errors
///
/// If a variable is missing or invalid. The error names every such variable.
pub async fn start<C: Configuration>(
    name: &'static str,
    commit: Option<&'static str>,
) -> Result<(C, Aws), ConfigError> {
    version::remember_commit(commit);
    let (common, own) = <(FunctionConfig, C)>::from_env()?;
    telemetry::init(name, common.telemetry);
    metric::belong_to(&common.stack);
    metric::write(&metric::Start { cold_starts: 1 });
    Ok((own, Aws::from_env(common.endpoint.as_ref()).await))
}

/// Begins the span of an invocation that is not an HTTP request. `source` says what has
/// started the invocation.
pub fn invocation_span(source: &str, invocation: &lambda_http::Context) -> Span {
    let xray = invocation.xray_trace_id.as_deref();
    context_span!(
        "invocation",
        parent = xray.and_then(TraceContext::from_xray).map(field::display),
        xray,
        request_id = invocation.request_id,
        source,
        outcome = field::Empty
    )
}

impl ServiceConfig {
    /// Returns the authenticator of a service that people and other services call.
    pub fn authenticator(&self, aws: &Aws, clock: Clock) -> Authenticator {
        Authenticator::new(
            TokenVerifier::new(self.http.tokens.clone(), aws.connector.clone(), clock),
            self.internal_auth.clone(),
        )
    }
}

impl HttpConfig {
    /// Returns the authenticator of a service that only people call.
    pub fn public_authenticator(&self, aws: &Aws, clock: Clock) -> Authenticator {
        Authenticator::public_only(TokenVerifier::new(self.tokens.clone(), aws.connector.clone(), clock))
    }
}
