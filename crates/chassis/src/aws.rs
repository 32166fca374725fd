//! The configuration of the AWS SDK, and the HTTP connector that all requests
//! of a process share.

use std::{
    collections::HashMap,
    error::Error,
    fmt, io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_config::{
    BehaviorVersion, Region, SdkConfig,
    environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider},
    meta::region::ProvideRegion,
    retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_async::rt::sleep::default_async_sleep;
use aws_smithy_http_client::{
    Connector,
    tls::{self, TlsContext, TrustStore},
};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector, http_client_fn},
    orchestrator::HttpRequest,
    result::SdkError,
};
use jiff::Timestamp;
use tracing::{Instrument, field};

use crate::{
    clock::{Clock, is_within},
    config::BaseUrl,
    detail_span, telemetry,
    time_limits::{AWS_ATTEMPT_TIMEOUT, AWS_CONNECT_TIMEOUT},
    trust,
};

const MAX_ATTEMPTS: u32 = 3;
/// A connection that was idle for longer than this is not used again. Load
/// balancers close idle connections after 60 seconds or more. While Lambda
/// freezes the execution environment, the environment doesn't notice that a
/// connection was closed.
const MAX_IDLE: Duration = Duration::from_secs(50);

/// The SDK's configuration and the HTTP connector underneath it.
///
/// All clients of a process share the connector, including the clients for
/// other services. So the process has one connection pool and one TLS
/// configuration, and a test can intercept all requests in one place.
#[derive(Clone, Debug)]
pub struct Aws {
    /// The configuration for SDK clients.
    pub config: SdkConfig,
    /// The connector that sends every request.
    pub connector: SharedHttpConnector,
}

impl Aws {
    /// Configures the SDK from the environment variables that Lambda sets: the
    /// region and the credentials. All requests go to AWS, or to an emulator at
    /// `endpoint`.
    ///
    /// The SDK can also read its settings from files, and get credentials from
    /// other services. Lambda provides neither, and without this code a function
    /// is smaller.
    pub async fn from_env(endpoint: Option<&BaseUrl>) -> Self {
        let connector = trust::connector(|roots| {
            SharedHttpConnector::new(FreshConnections::new(move || connector(roots.clone()), Clock::System))
        });
        let region = EnvironmentVariableRegionProvider::new().region().await;
        Self::new(region, endpoint, EnvironmentVariableCredentialsProvider::new(), connector)
    }

    /// Configures the SDK. All requests go through `connector`.
    pub fn new(
        region: Option<Region>,
        endpoint: Option<&BaseUrl>,
        credentials: impl ProvideCredentials + 'static,
        connector: SharedHttpConnector,
    ) -> Self {
        let shared = SharedHttpConnector::new(SdkCalls(connector.clone()));
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region)
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(http_client_fn(move |_, _| shared.clone()))
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(AWS_ATTEMPT_TIMEOUT).build())
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(MAX_ATTEMPTS)
                    .with_initial_backoff(Duration::from_millis(50))
                    .with_max_backoff(Duration::from_millis(500)),
            );
        config.set_sleep_impl(default_async_sleep()).set_endpoint_url(endpoint.map(|url| url.as_str().to_owned()));
        Self { config: config.build(), connector }
    }
}

/// Sends the SDK's requests, each within a span. The SDK repeats a request that failed;
/// each attempt has a span of its own.
#[derive(Debug)]
struct SdkCalls(SharedHttpConnector);

impl HttpConnector for SdkCalls {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let span = detail_span!(
            "aws",
            operation = field::Empty,
            attempt = request.headers().get("amz-sdk-request"),
            status = field::Empty
        );
        if span.is_disabled() {
            return self.0.call(request);
        }
        span.record("operation", operation(&request));
        let call = span.in_scope(|| self.0.call(request));
        HttpConnectorFuture::new(async move {
            let result = call.instrument(span.clone()).await;
            let outcome = result.as_ref().map_err(ToString::to_string).and_then(|response| {
                span.record("status", response.status().as_u16());
                // The response's text may quote the request, and so personal data.
                if response.status().is_success() { Ok(()) } else { Err("refused".to_owned()) }
            });
            telemetry::record_outcome(&span, &outcome);
            result
        })
    }
}

/// Returns the name of the operation that a request of the SDK calls, such as
/// `DynamoDB_20120810.GetItem`, `Action=Publish`, or the path of a REST API.
fn operation(request: &HttpRequest) -> String {
    if let Some(target) = request.headers().get("x-amz-target") {
        return target.to_owned();
    }
    let body = request.body().bytes().unwrap_or_default();
    let is_query = body.starts_with(b"Action=");
    let action = body.split(|byte| *byte == b'&').next().filter(|_| is_query);
    match action {
        Some(action) => String::from_utf8_lossy(action).into_owned(),
        None => request.uri().parse::<http::Uri>().map_or_else(|_| String::new(), |uri| uri.path().to_owned()),
    }
}

/// Returns a connector that trusts `roots`.
pub(crate) fn connector(roots: TrustStore) -> SharedHttpConnector {
    // Building the context cannot fail: it only stores the roots.
    let tls = TlsContext::builder().with_trust_store(roots).build().unwrap_or_default();
    let connector = Connector::builder()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .tls_context(tls)
        .connector_settings(HttpConnectorSettings::builder().connect_timeout(AWS_CONNECT_TIMEOUT).build());
    SharedHttpConnector::new(connector.build())
}

/// Sends requests, but never over a connection that was idle for longer than
/// [`MAX_IDLE`].
///
/// The HTTP client has an idle limit of its own, but measures the idle time
/// with a clock that stands still while Lambda freezes the environment. This
/// connector measures the idle time of each host with the wall clock.
///
/// A request over a connection that the host has closed would wait for a
/// response that never comes. Therefore, if the connections of one host may be
/// closed, the connector drops its pool and opens new connections to all hosts.
struct FreshConnections {
    connect: Box<dyn Fn() -> SharedHttpConnector + Send + Sync>,
    clock: Clock,
    pool: Mutex<Pool>,
}

struct Pool {
    connector: SharedHttpConnector,
    used: HashMap<String, Timestamp>,
}

impl FreshConnections {
    fn new(connect: impl Fn() -> SharedHttpConnector + Send + Sync + 'static, clock: Clock) -> Self {
        let pool = Mutex::new(Pool { connector: connect(), used: HashMap::new() });
        Self { connect: Box::new(connect), clock, pool }
    }

    /// Returns the connector for a request to `host`.
    fn connector(&self, host: &str) -> SharedHttpConnector {
        let now = self.clock.now();
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.used.get(host).is_some_and(|used| !is_within(MAX_IDLE, *used, now)) {
            *pool = Pool { connector: (self.connect)(), used: HashMap::new() };
        }
        pool.used.insert(host.to_owned(), now);
        pool.connector.clone()
    }
}

impl fmt::Debug for FreshConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreshConnections")
    }
}

impl HttpConnector for FreshConnections {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let uri: Option<http::Uri> = request.uri().parse().ok();
        let host = uri.as_ref().and_then(http::Uri::host).unwrap_or_default();
        self.connector(host).call(request)
    }
}

/// Returns whether a request failed because no connection could be opened. Such
/// a request was never sent, so a repeat can't take effect twice.
pub fn was_never_sent<E, R>(error: &SdkError<E, R>) -> bool {
    let SdkError::DispatchFailure(failure) = error else { return false };
    let mut cause = failure.as_connector_error().and_then(Error::source);
    while let Some(error) = cause {
        let no_connection = error
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect);
        // This error occurs only while a connection is opened, never after a
        // request was sent.
        let refused = error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if no_connection || refused {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use aws_smithy_http_client::tls::TrustStore;
    use aws_smithy_runtime_api::client::{
        http::SharedHttpConnector,
        result::{ConnectorError, SdkError},
    };
    use jiff::Timestamp;

    use super::{FreshConnections, MAX_IDLE, connector, was_never_sent};
    use crate::clock::Clock;

    static MADE: AtomicUsize = AtomicUsize::new(0);

    fn counted() -> SharedHttpConnector {
        MADE.fetch_add(1, Ordering::Relaxed);
        connector(TrustStore::empty())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_idle_for_long_by_the_wall_clock_is_not_used_again() {
        let connections = FreshConnections::new(counted, Clock::tokio(Timestamp::UNIX_EPOCH));
        let made = || MADE.load(Ordering::Relaxed);
        assert_eq!(made(), 1);
        for _ in 0..4 {
            connections.connector("mail.example");
            connections.connector("table.example");
            tokio::time::advance(MAX_IDLE - Duration::from_secs(1)).await;
        }
        assert_eq!(made(), 1);
        // Requests to `table.example` don't keep the connections to
        // `mail.example` in use.
        connections.connector("table.example");
        tokio::time::advance(Duration::from_secs(2)).await;
        connections.connector("table.example");
        assert_eq!(made(), 1);
        connections.connector("mail.example");
        assert_eq!(made(), 2);
        connections.connector("table.example");
        assert_eq!(made(), 2);
    }

    #[tokio::test]
    async fn a_request_counts_as_never_sent_only_if_no_connection_was_opened() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hangs_up = tokio::spawn(async move { drop(listener.accept().await) });
        let call = async |port: u16| {
            let request = http::Request::get(format!("http://127.0.0.1:{port}/")).body("".into()).unwrap();
            let request = aws_smithy_runtime_api::http::Request::try_from(request).unwrap();
            let error =
                aws_smithy_runtime_api::client::http::HttpConnector::call(&connector(TrustStore::empty()), request)
                    .await;
            SdkError::<io::Error, ()>::dispatch_failure(error.unwrap_err())
        };
        assert!(!was_never_sent(&call(port).await));
        hangs_up.await.unwrap();
        assert!(was_never_sent(&call(port).await));
        let timeout = SdkError::<io::Error, ()>::timeout_error("too late");
        assert!(!was_never_sent(&timeout));
        let broken = ConnectorError::io(io::Error::from(io::ErrorKind::BrokenPipe).into());
        assert!(!was_never_sent(&SdkError::<io::Error, ()>::dispatch_failure(broken)));
    }
}
