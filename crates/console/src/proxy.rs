//! The proxy between the functions and the emulator. It passes each request on as it is, so
//! that signatures stay valid; the weather delays, refuses, doubles or loses some of them.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use tokio::{net::TcpListener, time::sleep};

use crate::{
    call::Call,
    emulator::Emulator,
    live_calls::LiveCalls,
    processes::Processes,
    weather::{Before, Weather},
};

/// No request of a function is larger: SQS accepts 1 MiB, DynamoDB less than 5 MB.
const LARGEST: usize = 16 << 20;
/// The second event follows the first one after this time. If two notifiers got both at the
/// same moment, one of them would leave its event to a later delivery.
const SECOND_DELIVERY: Duration = Duration::from_secs(2);
/// Headers that concern one connection.
const HOP_BY_HOP: [HeaderName; 4] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::UPGRADE];

#[derive(Clone)]
pub struct Proxy {
    pub emulator: Emulator,
    pub weather: Weather,
    pub live: LiveCalls,
    pub processes: Option<Processes>,
    /// Where the functions connect to.
    pub address: SocketAddr,
}

/// A response of the emulator.
struct Passed {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

pub async fn serve(listener: TcpListener, proxy: Proxy) -> Result<()> {
    let router = Router::new().fallback(pass).with_state(proxy);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await.context("the proxy has ended")
}

async fn pass(State(proxy): State<Proxy>, ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let call = Call::of(&proxy.emulator.stack, &parts.method, parts.uri.path(), &parts.headers, &body);
    let number = call.trace.as_ref().zip(call.step).map(|(trace, step)| proxy.live.begin(trace, step));
    let (response, error) = proxy.answer(&call, peer, &parts, body).await;
    if let Some(number) = number {
        proxy.live.end(number, error);
    }
    response
}

impl Proxy {
    /// Returns the response, and why the step that the request belongs to has failed.
    async fn answer(&self, call: &Call, peer: SocketAddr, parts: &Parts, body: Bytes) -> (Response, Option<String>) {
        match self.weather.before(call) {
            Before::Pass => {}
            Before::Delay(time) => sleep(time).await,
            Before::Dead => return (dead(), Some("the service is dead".to_owned())),
            Before::Throttle => return (throttled(), None),
        }
        let passed = match self.forward(parts, body.clone()).await {
            Ok(passed) => passed,
            Err(error) => {
                complain(&error);
                return (StatusCode::BAD_GATEWAY.into_response(), Some("the emulator did not answer".to_owned()));
            }
        };
        if passed.status.is_success() && self.weather.doubles(call) {
            let (proxy, parts) = (self.clone(), parts.clone());
            // The copy's own outcome changes nothing for the sender.
            tokio::spawn(async move {
                sleep(SECOND_DELIVERY).await;
                if let Err(error) = proxy.forward(&parts, body).await {
                    complain(&error);
                }
            });
        }
        if call.is_write && self.weather.hunts() && self.kills_caller(peer).await {
            return (lost(), Some("the function was killed".to_owned()));
        }
        if self.weather.loses(call) {
            return (lost(), Some("the answer was lost".to_owned()));
        }
        let error = (!passed.status.is_success()).then(|| format!("answered with {}", passed.status.as_u16()));
        (passed.into_response(), error)
    }

    /// Sends a request to the emulator with its own headers, because its signature covers
    /// the header `Host`, too.
    async fn forward(&self, parts: &Parts, body: Bytes) -> Result<Passed> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("{}{path}", self.emulator.stack.emulator_url);
        let mut headers = parts.headers.clone();
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
        let request = self.emulator.http.request(parts.method.clone(), url).headers(headers).body(body);
        let response = request.send().await.context("the emulator did not answer a function")?;
        let (status, mut headers) = (response.status(), response.headers().clone());
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
        let body = response.bytes().await.context("the emulator's answer to a function is incomplete")?;
        Ok(Passed { status, headers, body })
    }

    /// Kills the process that has sent a write, if the weather says so.
    async fn kills_caller(&self, peer: SocketAddr) -> bool {
        let (Some(processes), weather, address) = (self.processes.clone(), self.weather.clone(), self.address) else {
            return false;
        };
        // The kernel's process table is read, which takes some milliseconds.
        let killed = tokio::task::spawn_blocking(move || {
            let caller = processes.with_connection(peer, address)?;
            let id = weather.counts(&caller.function, caller.pid())?;
            if !caller.kill() {
                return None;
            }
            weather.hit(&id, 1, Some(format!("a process of {} was killed after a write", caller.function)));
            weather.end(|active| active.id == id);
            Some(())
        });
        matches!(killed.await, Ok(Some(())))
    }
}

impl IntoResponse for Passed {
    fn into_response(self) -> Response {
        (self.status, self.headers, self.body).into_response()
    }
}

/// A response that breaks off: the caller learns nothing.
fn lost() -> Response {
    let broken = io::Error::new(io::ErrorKind::ConnectionReset, "the answer is lost on purpose");
    Response::new(Body::from_stream(stream::iter([Err::<Bytes, _>(broken)])))
}

fn dead() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::CONTENT_TYPE, "application/json")], r#"{"message":"dead on purpose"}"#)
        .into_response()
}

/// The refusal in DynamoDB's words.
fn throttled() -> Response {
    const REFUSAL: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"The level of configured provisioned throughput for the table was exceeded. Consider increasing your provisioning level with the UpdateTable API."}"#;
    (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "application/x-amz-json-1.0")], REFUSAL).into_response()
}

fn complain(error: &anyhow::Error) {
    eprintln!("console: {error:#}");
}
