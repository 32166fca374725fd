//! Answers the programs' calls to AWS at an address on the loopback.
//!
//! The [`Cloud`] of the in-process tests executes the calls: DynamoDB is a real database,
//! and SQS, SES and SNS are stand-ins. A program calls all services at the same address,
//! so this module finds out which service a call is for.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use aws_smithy_runtime_api::client::{http::HttpConnector, orchestrator::HttpRequest};
use aws_smithy_types::body::SdkBody;
use axum::{
    Router,
    body::{self, Body},
    extract::{Request, State},
    response::Response,
    serve::ListenerExt,
};
use http::{HeaderMap, StatusCode};
use in_process_tests::cloud::Cloud;
use tokio::{net::TcpListener, task::JoinHandle};

const MAX_REQUEST: usize = 16 * 1024 * 1024;

/// A server in front of a [`Cloud`].
pub struct EmulatedAws {
    address: SocketAddr,
    work: Arc<AtomicU64>,
    calls: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Front {
    cloud: Cloud,
    /// The time for which the server has worked, in nanoseconds.
    work: Arc<AtomicU64>,
    calls: Arc<AtomicU64>,
}

impl EmulatedAws {
    /// Serves `cloud` until the value is dropped.
    ///
    /// # Errors
    ///
    /// If no port is free.
    pub async fn serve(cloud: Cloud) -> Result<Self> {
        let work = Arc::<AtomicU64>::default();
        let calls = Arc::<AtomicU64>::default();
        let front = Front { cloud, work: work.clone(), calls: calls.clone() };
        let (address, server) = serve(Router::new().fallback(answer).with_state(front)).await?;
        Ok(Self { address, work, calls, server })
    }

    /// The value of the variable `AWS_ENDPOINT_URL` of a program that calls this server.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The time for which the server has worked on its answers until now.
    pub fn work(&self) -> Duration {
        Duration::from_nanos(self.work.load(Ordering::Relaxed))
    }

    /// The number of calls until now, without the reads of switches.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Drop for EmulatedAws {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Serves `routes` at a free port of the loopback.
pub(super) async fn serve(routes: Router) -> Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port is free")?;
    let address = listener.local_addr()?;
    // Without this option the kernel delays a part of the answers by 40 ms.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            eprintln!("a connection stays slow: {error}");
        }
    });
    let server = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            eprintln!("the server at {address} has ended: {error}");
        }
    });
    Ok((address, server))
}

async fn answer(State(front): State<Front>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = body::to_bytes(body, MAX_REQUEST).await;
    // A function reads its switch once in five seconds, however many invocations there are.
    let reads_switch = body.as_ref().is_ok_and(|body| String::from_utf8_lossy(body).contains(r#"{"S":"PAUSE"}"#));
    front.calls.fetch_add(u64::from(!reads_switch), Ordering::Relaxed);
    let began = Instant::now();
    let answer = match body {
        Ok(body) => forward(&front.cloud, parts, &body).await,
        Err(error) => Err(error.into()),
    };
    let answer = answer.unwrap_or_else(|error| {
        let mut refused = Response::new(Body::from(error.to_string()));
        *refused.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        refused
    });
    front.work.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
    answer
}

async fn forward(cloud: &Cloud, mut parts: http::request::Parts, body: &[u8]) -> Result<Response> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = format!("https://{}.us-east-1.amazonaws.com{path}", service(&parts.headers, path)).parse()?;
    let request = HttpRequest::try_from(http::Request::from_parts(parts, SdkBody::from(body)))?;
    let answer = cloud.call(request).await?.try_into_http1x()?;
    let (parts, body) = answer.into_parts();
    let bytes = body.bytes().map(<[u8]>::to_vec).unwrap_or_default();
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

/// The first label of the host name that AWS's service has.
fn service(headers: &HeaderMap, path: &str) -> &'static str {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    match target.split(['.', '_']).next() {
        Some("DynamoDB") => "dynamodb",
        Some("AmazonSQS") => "sqs",
        _ if path.starts_with("/v2/email/") => "email",
        _ => "sns",
    }
}
