//! The SDK, set up once per process.

use std::{
    collections::HashMap,
    error::Error,
    fmt, io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::{Connector, tls};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector, http_client_fn},
    orchestrator::HttpRequest,
    result::SdkError,
};
use jiff::Timestamp;

use crate::{
    clock::{Clock, is_within},
    config::{BaseUrl, Configuration, Env},
};

/// Limits of a single call to an AWS service. DynamoDB and SQS answer in
/// milliseconds; whatever takes longer is better tried again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_ATTEMPTS: u32 = 3;
/// A connection over which nothing went for so long is not used again. Load
/// balancers close idle connections after 60 seconds or more, and a frozen
/// environment doesn't hear of it.
const IDLE_AT_MOST: Duration = Duration::from_secs(50);

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
        let connector = SharedHttpConnector::new(FreshConnections::new(connector, Clock::System));
        Self::load(aws_config::defaults(BehaviorVersion::latest()), connector).await
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

fn connector() -> SharedHttpConnector {
    let connector = Connector::builder()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .connector_settings(HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).build());
    SharedHttpConnector::new(connector.build())
}

/// Sends requests, and never over a connection that has been idle for long.
///
/// The HTTP client has a limit of its own, but measures it with a clock that
/// stands still while Lambda keeps the environment frozen. This one asks the
/// wall clock, host by host, and gives all connections up where a host's may be
/// dead: the first request after a long pause would otherwise wait for an
/// answer that never comes.
struct FreshConnections {
    connect: fn() -> SharedHttpConnector,
    clock: Clock,
    pool: Mutex<Pool>,
}

struct Pool {
    connector: SharedHttpConnector,
    used: HashMap<String, Timestamp>,
}

impl FreshConnections {
    fn new(connect: fn() -> SharedHttpConnector, clock: Clock) -> Self {
        Self { connect, clock, pool: Mutex::new(Pool { connector: connect(), used: HashMap::new() }) }
    }

    /// The connector for a request to `host`.
    fn connector(&self, host: &str) -> SharedHttpConnector {
        let now = self.clock.now();
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.used.get(host).is_some_and(|used| !is_within(IDLE_AT_MOST, *used, now)) {
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

/// Whether a request failed before anything of it was sent: there was no
/// connection. Sending it again can't have its effect twice.
pub fn never_left<E, R>(error: &SdkError<E, R>) -> bool {
    let SdkError::DispatchFailure(failure) = error else { return false };
    let mut cause = failure.as_connector_error().and_then(Error::source);
    while let Some(error) = cause {
        let no_connection = error
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect);
        // No request is refused so: only an attempt to connect is.
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

    use aws_smithy_runtime_api::client::{
        http::SharedHttpConnector,
        result::{ConnectorError, SdkError},
    };
    use jiff::Timestamp;

    use super::{FreshConnections, IDLE_AT_MOST, connector, never_left};
    use crate::clock::Clock;

    static MADE: AtomicUsize = AtomicUsize::new(0);

    fn counted() -> SharedHttpConnector {
        MADE.fetch_add(1, Ordering::Relaxed);
        connector()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_idle_for_long_by_the_wall_clock_is_not_used_again() {
        let connections = FreshConnections::new(counted, Clock::tokio(Timestamp::UNIX_EPOCH));
        let made = || MADE.load(Ordering::Relaxed);
        assert_eq!(made(), 1);
        for _ in 0..4 {
            connections.connector("mail.example");
            connections.connector("table.example");
            tokio::time::advance(IDLE_AT_MOST - Duration::from_secs(1)).await;
        }
        assert_eq!(made(), 1);
        // Another host's requests don't keep this host's connections alive.
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
    async fn a_request_without_a_connection_never_left_and_one_whose_answer_is_missing_may_have() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hangs_up = tokio::spawn(async move { drop(listener.accept().await) });
        let call = async |port: u16| {
            let request = http::Request::get(format!("http://127.0.0.1:{port}/")).body("".into()).unwrap();
            let request = aws_smithy_runtime_api::http::Request::try_from(request).unwrap();
            let error = aws_smithy_runtime_api::client::http::HttpConnector::call(&connector(), request).await;
            SdkError::<io::Error, ()>::dispatch_failure(error.unwrap_err())
        };
        assert!(!never_left(&call(port).await));
        hangs_up.await.unwrap();
        assert!(never_left(&call(port).await));
        let timeout = SdkError::<io::Error, ()>::timeout_error("too late");
        assert!(!never_left(&timeout));
        let broken = ConnectorError::io(io::Error::from(io::ErrorKind::BrokenPipe).into());
        assert!(!never_left(&SdkError::<io::Error, ()>::dispatch_failure(broken)));
    }
}
