//! The SDK, set up once per process.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::{Connector, tls};
use aws_smithy_runtime_api::client::http::{SharedHttpConnector, http_client_fn};

use crate::config::{BaseUrl, Configuration, Env};

/// Limits of a single call to an AWS service. DynamoDB and SQS answer in
/// milliseconds; whatever takes longer is better tried again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_ATTEMPTS: u32 = 3;

/// The SDK's configuration and the HTTP connector underneath it.
///
/// All clients of a process, the one for other services included, share this
/// connector: one pool, one TLS configuration, and one seam where a test can
/// stand between the code and the network.
#[derive(Clone, Debug)]
pub struct Aws {
    /// For building SDK clients.
    pub config: SdkConfig,
    /// What sends every request.
    pub connector: SharedHttpConnector,
}

/// What the SDK itself reads of the environment, besides what Lambda sets.
/// Read only to say at start what else would come out at the first call.
#[derive(Clone, Debug)]
pub struct Endpoint;

impl Configuration for Endpoint {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let endpoint = env.optional::<BaseUrl>("AWS_ENDPOINT_URL", "an emulator's address; missing on AWS");
        endpoint.map(|_| Self)
    }
}

impl Aws {
    /// From the process's environment, as Lambda sets it.
    pub async fn from_env() -> Self {
        let connector = Connector::builder()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
            .connector_settings(
                aws_smithy_runtime_api::client::http::HttpConnectorSettings::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .build(),
            )
            .build();
        Self::load(aws_config::defaults(BehaviorVersion::latest()), SharedHttpConnector::new(connector)).await
    }

    /// As [`Aws::from_env`], but with the given `loader` and with every
    /// request going through `connector`.
    pub async fn load(loader: aws_config::ConfigLoader, connector: SharedHttpConnector) -> Self {
        let shared = connector.clone();
        let config = loader
            .http_client(http_client_fn(move |_, _| shared.clone()))
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build())
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(MAX_ATTEMPTS)
                    .with_initial_backoff(Duration::from_millis(50))
                    .with_max_backoff(Duration::from_millis(500)),
            )
            .load()
            .await;
        Self { config, connector }
    }
}
