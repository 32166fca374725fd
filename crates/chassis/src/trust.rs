//! The certificate authorities that the functions trust.
//!
//! The program holds the roots of AWS's endpoints. The system's roots are read only
//! if a server's certificate comes from none of AWS's roots: reading some hundred files
//! would take most of the time in which a function starts.

use std::{
    env,
    error::Error,
    fmt, fs, io,
    sync::{Arc, OnceLock},
};

use aws_smithy_http_client::tls::TrustStore;
use aws_smithy_runtime_api::client::{
    connection::CaptureSmithyConnection,
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector},
    orchestrator::HttpRequest,
    result::ConnectorError,
};
use rustls::CertificateError;

/// The roots of AWS's endpoints, which the build script writes.
const AMAZON_ROOTS: &str = include_str!(concat!(env!("OUT_DIR"), "/amazon_roots.pem"));
/// The variable with which AWS's tools name a file of other roots.
const AWS_CA_BUNDLE: &str = "AWS_CA_BUNDLE";
/// The variables with which the TLS library finds other roots in place of the system's.
const OTHER_ROOTS: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Returns the connector of a process. `connector` makes a connector that trusts the
/// given roots.
///
/// If the environment names other roots, the process trusts those and no others. As with
/// all settings, an empty variable counts as missing.
pub(crate) fn connector(connector: fn(TrustStore) -> SharedHttpConnector) -> SharedHttpConnector {
    let value = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(file) = value(AWS_CA_BUNDLE) {
        let trusted = fs::read(file).map(|pem| TrustStore::empty().with_pem_certificate(pem));
        return connector(trusted.unwrap_or_else(|error| {
            tracing::error!(cause = %error, "the file that AWS_CA_BUNDLE names cannot be read; no server is trusted");
            TrustStore::empty()
        }));
    }
    if OTHER_ROOTS.into_iter().any(|name| value(name).is_some()) {
        return connector(TrustStore::default());
    }
    let amazon = || TrustStore::empty().with_pem_certificate(AMAZON_ROOTS);
    SharedHttpConnector::new(SystemRootsIfNeeded::new(connector(amazon()), move || {
        connector(amazon().with_native_roots(true))
    }))
}

/// Sends requests with a connector that trusts few roots. After the first certificate
/// that comes from none of these roots, sends requests with a connector that also trusts the
/// system's roots.
///
/// So neither a new root of AWS nor a proxy that inspects TLS stops a function.
struct SystemRootsIfNeeded<F> {
    few: SharedHttpConnector,
    all: Arc<All<F>>,
}

/// The connector that also trusts the system's roots, and the function that makes it.
struct All<F> {
    make: F,
    made: OnceLock<SharedHttpConnector>,
}

impl<F: Fn() -> SharedHttpConnector> SystemRootsIfNeeded<F> {
    fn new(few: SharedHttpConnector, make: F) -> Self {
        Self { few, all: Arc::new(All { make, made: OnceLock::new() }) }
    }
}

impl<F> fmt::Debug for SystemRootsIfNeeded<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemRootsIfNeeded")
    }
}

impl<F: Fn() -> SharedHttpConnector + Send + Sync + 'static> HttpConnector for SystemRootsIfNeeded<F> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if let Some(all) = self.all.made.get() {
            return all.call(request);
        }
        // The copy shares the body's bytes. Only a stream can't be copied, and no request
        // of the functions is a stream.
        let again = copy(&request);
        let first = self.few.call(request);
        let all = Arc::clone(&self.all);
        HttpConnectorFuture::new(async move {
            match (first.await, again) {
                // The handshake failed, so the request was never sent.
                (Err(error), Some(again)) if has_unknown_root(&error) => {
                    tracing::info!("a certificate comes from none of AWS's roots; the system's roots are read");
                    all.made.get_or_init(&all.make).call(again).await
                }
                (result, _) => result,
            }
        })
    }
}

/// Copies a request, and with it the handle through which the caller closes the
/// request's connection.
fn copy(request: &HttpRequest) -> Option<HttpRequest> {
    let mut copy = request.try_clone()?;
    if let Some(connection) = request.extension::<CaptureSmithyConnection>() {
        copy.add_extension(connection.clone());
    }
    Some(copy)
}

/// Returns whether the server's certificate was refused because it comes from an unknown
/// root. More roots can mend no other fault of a certificate.
fn has_unknown_root(error: &ConnectorError) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) = error.downcast_ref() {
            return true;
        }
        // The source of an I/O error is the source of the error that it wraps, and not
        // that error itself.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|error| error as &(dyn Error + 'static)).or_else(|| error.source());
    }
    false
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use aws_smithy_http_client::tls::TrustStore;
    use aws_smithy_runtime_api::client::{
        http::{HttpConnector, SharedHttpConnector},
        orchestrator::HttpRequest,
        result::{ConnectorError, SdkError},
    };
    use rcgen::CertifiedKey;
    use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_rustls::TlsAcceptor;

    use super::{AMAZON_ROOTS, SystemRootsIfNeeded};
    use crate::aws::{connector, was_never_sent};

    /// A server whose certificate comes from a root of its own.
    struct Server {
        port: u16,
        root: String,
        connections: Arc<AtomicUsize>,
        requests: Arc<AtomicUsize>,
    }

    impl Server {
        async fn start() -> Self {
            let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
            let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
            let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![cert.der().clone()], key)
                .unwrap();
            let tls = TlsAcceptor::from(Arc::new(tls));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (connections, requests) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
            let server = Self { port, root: cert.pem(), connections: connections.clone(), requests: requests.clone() };
            tokio::spawn(async move {
                loop {
                    let (connection, _) = listener.accept().await.unwrap();
                    connections.fetch_add(1, Ordering::Relaxed);
                    let Ok(mut connection) = tls.accept(connection).await else { continue };
                    let requests = requests.clone();
                    tokio::spawn(async move {
                        while connection.read(&mut [0; 4096]).await.is_ok_and(|bytes| bytes > 0) {
                            requests.fetch_add(1, Ordering::Relaxed);
                            connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                        }
                    });
                }
            });
            server
        }

        async fn call(&self, connector: &impl HttpConnector) -> Result<u16, ConnectorError> {
            self.call_as("localhost", connector).await
        }

        async fn call_as(&self, host: &str, connector: &impl HttpConnector) -> Result<u16, ConnectorError> {
            let request = HttpRequest::get(format!("https://{host}:{}/", self.port)).unwrap();
            connector.call(request).await.map(|response| response.status().as_u16())
        }

        fn counts(&self) -> (usize, usize) {
            (self.connections.load(Ordering::Relaxed), self.requests.load(Ordering::Relaxed))
        }
    }

    fn roots(pem: &str) -> SharedHttpConnector {
        connector(TrustStore::empty().with_pem_certificate(pem))
    }

    #[tokio::test]
    async fn a_server_with_a_certificate_of_one_of_the_systems_roots_receives_each_request_once() {
        let server = Server::start().await;
        let system = server.root.clone();
        let trusted = SystemRootsIfNeeded::new(roots(AMAZON_ROOTS), move || roots(&system));
        assert_eq!(server.call(&trusted).await.unwrap(), 204);
        assert_eq!(server.counts(), (2, 1));
        // The process remembers that it needs the system's roots.
        assert_eq!(server.call(&trusted).await.unwrap(), 204);
        assert_eq!(server.counts(), (2, 2));
    }

    #[tokio::test]
    async fn a_server_with_a_certificate_of_an_unknown_root_receives_no_request() {
        let (server, other) = (Server::start().await, Server::start().await);
        let trusted = SystemRootsIfNeeded::new(roots(AMAZON_ROOTS), move || roots(&other.root));
        for _ in 0..2 {
            let error = server.call(&trusted).await.unwrap_err();
            assert!(was_never_sent(&SdkError::<io::Error, ()>::dispatch_failure(error)));
        }
        assert_eq!(server.counts().1, 0);
    }

    #[tokio::test]
    async fn only_a_certificate_of_an_unknown_root_makes_the_process_read_the_systems_roots() {
        let server = Server::start().await;
        let trusted =
            SystemRootsIfNeeded::new(roots(&server.root), || unreachable!("the certificate comes from a known root"));
        assert_eq!(server.call(&trusted).await.unwrap(), 204);
        // The certificate is for `localhost`.
        assert!(server.call_as("127.0.0.1", &trusted).await.is_err());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert!(Server { port, ..server }.call(&trusted).await.is_err());
    }
}
