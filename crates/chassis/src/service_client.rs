//! Calls to another service. A call is signed and bounded in time. After a
//! failure it is tried once more, and after several failures the service is not
//! called for a while (see [`breaker`](crate::breaker)). If the service reports
//! contention, the call is repeated for a longer time.

use std::{error::Error, time::Duration};

use aws_config::{Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use aws_smithy_runtime_api::{
    client::{
        connection::CaptureSmithyConnection,
        http::{HttpConnector, SharedHttpConnector},
        identity::Identity,
    },
    http::Request as HttpRequest,
};
use aws_smithy_types::body::SdkBody;
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::{Serialize, de::DeserializeOwned};
use tracing::Instrument;

use crate::{
    aws::Aws,
    breaker::Breaker,
    clock::Clock,
    config::BaseUrl,
    deadline::Deadline,
    detail_span,
    metric::{Labelled, Unit},
    problem::{CONTENDED, RemoteProblem, THROTTLED},
    telemetry::{self, xray_header},
    time_limits::CONTENTION_PATIENCE,
    trace::TraceContext,
};

/// The maximum size of a response in bytes. No service sends larger responses.
/// The limit protects the memory, in case something else than the service
/// responds.
const MAX_RESPONSE: usize = 1024 * 1024;
/// After a failure, a call is tried once more (each time within the attempt's
/// timeout).
const RETRIES: usize = 1;
/// The service name in signatures for function URLs.
const SIGNING_NAME: &str = "lambda";

/// The reasons why a call to another service has no usable result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The service refused the request. The call is not repeated, because the
    /// service would refuse it again.
    #[error("{service} refused with {status} {}: {}", problem.code, problem.detail)]
    Refused {
        /// The service that refused.
        service: &'static str,
        /// The status, which is 4xx.
        status: StatusCode,
        /// The problem document.
        problem: RemoteProblem,
    },
    /// The service works, but concurrent requests kept this request from
    /// succeeding: they wrote the same items, or used up the service's
    /// capacity. This is neither a refusal nor a failure.
    #[error("{service} reports contention: {reason}")]
    Contended {
        /// The service that reported contention.
        service: &'static str,
        /// The code of the problem document in the response, or a text in its
        /// place, for the log.
        reason: String,
    },
    /// There is no response, or the response cannot be interpreted. It is
    /// unknown whether the request took effect.
    #[error("{service} is unavailable")]
    Unavailable {
        /// The service that was called.
        service: &'static str,
        /// The reason why there is no usable response.
        source: Box<dyn Error + Send + Sync>,
    },
}

crate::metrics! {
    /// What went wrong in one call of another service.
    pub struct CallTrouble {
        /// Repeats of calls to the service, after a failure or after contention.
        retries: Option<Labelled<1>> = "CallRetries", Count, ["Stack", "Dependency"];
        /// Responses in which the service reported contention: concurrent requests wrote the same items.
        contentions: Option<Labelled<1>> = "CallContentions", Count, ["Stack", "Dependency"];
        /// Circuit breakers that opened, each in one execution environment.
        breaker_openings: Option<Labelled<1>> = "BreakerOpenings", Count, ["Stack", "Dependency"];
    }
}

impl CallError {
    /// What the span of a call or an attempt shows of the error.
    fn outcome(&self) -> String {
        match self {
            Self::Refused { problem, .. } => format!("refused: {}", problem.code),
            Self::Contended { reason, .. } => format!("contention: {reason}"),
            Self::Unavailable { source, .. } => format!("no usable response: {}", telemetry::chain(source.as_ref())),
        }
    }
}

/// A client for one service.
#[derive(Debug)]
pub struct ServiceClient {
    service: &'static str,
    base: BaseUrl,
    attempt_timeout: Duration,
    connector: SharedHttpConnector,
    signer: Signer,
    breaker: Breaker,
}

impl ServiceClient {
    /// Returns a client for the service `name` at `base`. Each attempt may take
    /// `attempt_timeout`.
    pub fn new(name: &'static str, base: BaseUrl, attempt_timeout: Duration, aws: &Aws, clock: Clock) -> Self {
        Self {
            service: name,
            base,
            attempt_timeout,
            connector: aws.connector.clone(),
            signer: Signer::new(&aws.config),
            breaker: Breaker::new(clock),
        }
    }

    /// Sends GET `path`.
    pub async fn get<A: DeserializeOwned>(
        &self,
        path: &str,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<A, CallError> {
        self.call(Method::GET, path, Bytes::new(), trace, deadline).await
    }

    /// Sends POST `path` with `body`. The request must be safe to repeat.
    pub async fn post<B: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<A, CallError> {
        let body = serde_json::to_vec(body).map_err(|error| self.unavailable(error))?;
        self.call(Method::POST, path, body.into(), trace, deadline).await
    }

    /// Finds out whether the service answers this function, by one POST of an empty
    /// object to `path`. The route must need more than that, so that the request has
    /// no effect: the service's refusal shows that the service runs, and that this
    /// function's role may call the route.
    ///
    /// The breaker neither prevents this request nor learns from it: who asks wants to
    /// know about the service, and must not change how other requests are handled.
    pub async fn probe(&self, path: &str, trace: &TraceContext, deadline: Deadline) -> Result<(), CallError> {
        let mut request = self.request(&Method::POST, path, &Bytes::from_static(b"{}"), trace);
        let response = async {
            self.signer.sign(&mut request).await?;
            send(&self.connector, request, deadline.min(Deadline::after(self.attempt_timeout))).await
        };
        let response = response.await.map_err(|error| self.unavailable(error))?;
        match self.interpret(response) {
            Ok(_) | Err(CallError::Refused { .. } | CallError::Contended { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns the name of the service.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// Returns whether this execution environment does not call the service for a while,
    /// because calls have failed.
    pub fn is_breaker_open(&self) -> bool {
        self.breaker.is_open()
    }

    async fn call<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<A, CallError> {
        let span = detail_span!("call", to = self.service, %method, path);
        let response = Box::pin(self.repeated(&method, path, &body, trace, deadline)).instrument(span.clone()).await;
        let result = response.and_then(|body| serde_json::from_slice(&body).map_err(|error| self.unavailable(error)));
        telemetry::record_outcome(&span, &result.as_ref().map_err(CallError::outcome));
        result
    }

    async fn repeated(
        &self,
        method: &Method,
        path: &str,
        body: &Bytes,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<Bytes, CallError> {
        let mut trouble = Unit::<CallTrouble>::new();
        let patience = deadline.min(Deadline::after(CONTENTION_PATIENCE));
        let mut after_failures =
            backoff(Duration::from_millis(50), Duration::from_millis(250)).with_max_times(RETRIES).build();
        let mut while_contended =
            backoff(Duration::from_millis(50), Duration::from_secs(1)).without_max_times().build();
        let mut attempt: u32 = 1;
        loop {
            let span = detail_span!("attempt", to = self.service, attempt);
            let exchange = Box::pin(self.attempt(method, path, body, trace, deadline, &mut trouble));
            let result = exchange.instrument(span.clone()).await;
            telemetry::record_outcome(&span, &result.as_ref().map_err(CallError::outcome));
            let Err(error) = result else { return result };
            if let CallError::Contended { .. } = error {
                self.count(&mut trouble.contentions);
            }
            let (pause, end) = match &error {
                CallError::Refused { .. } => return Err(error),
                CallError::Contended { .. } => (while_contended.next(), patience),
                CallError::Unavailable { .. } => (after_failures.next(), deadline),
            };
            let Some(pause) = pause.filter(|pause| *pause < end.remaining()) else { return Err(error) };
            tracing::warn!(reason = telemetry::chain(&error), ?pause, "calling again");
            self.count(&mut trouble.retries);
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    fn count(&self, metric: &mut Option<Labelled<1>>) {
        let value = 1 + metric.map_or(0, |earlier| earlier.value);
        *metric = Some(Labelled { labels: [self.service], value });
    }

    async fn attempt(
        &self,
        method: &Method,
        path: &str,
        body: &Bytes,
        trace: &TraceContext,
        deadline: Deadline,
        trouble: &mut CallTrouble,
    ) -> Result<Bytes, CallError> {
        self.breaker.admit().map_err(|open| self.unavailable(open))?;
        let mut call = self.request(method, path, body, trace);
        let is_cut_short = deadline.remaining() < self.attempt_timeout;
        let deadline = deadline.min(Deadline::after(self.attempt_timeout));
        let result = async {
            self.signer.sign(&mut call).await?;
            send(&self.connector, call, deadline).await
        };
        let result = result.await;
        let is_conclusive = match &result {
            // If the caller had less time left than one attempt may take, a
            // timeout says nothing about the service.
            Err(ExchangeError::Timeout) => !is_cut_short,
            // Only a function URL sends a 429. It didn't invoke the function, so
            // its response says nothing about the service.
            Ok(response) => response.status != StatusCode::TOO_MANY_REQUESTS,
            Err(_) => true,
        };
        let result = result.map_err(|error| self.unavailable(error)).and_then(|response| self.interpret(response));
        if is_conclusive && self.breaker.record(!matches!(result, Err(CallError::Unavailable { .. }))) {
            self.count(&mut trouble.breaker_openings);
        }
        result
    }

    fn request(&self, method: &Method, path: &str, body: &Bytes, trace: &TraceContext) -> OutgoingRequest {
        let mut request = OutgoingRequest {
            method: method.clone(),
            url: self.base.join(path),
            headers: HeaderMap::new(),
            body: body.clone(),
        };
        // The called service's span becomes a child of the current span, which is an attempt.
        let trace_headers =
            [("traceparent", Some(trace.at_current_span().to_string().into())), ("x-amzn-trace-id", xray_header())];
        for (name, value) in trace_headers {
            if let Some(value) = value.and_then(|value: Box<str>| HeaderValue::from_str(&value).ok()) {
                request.headers.insert(name, value);
            }
        }
        if !body.is_empty() {
            request.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request
    }

    /// Interprets a response that arrived. Contention and throttling are
    /// recognised by the code of the problem document, or by the status 429.
    /// Any other 4xx with a problem document is a refusal.
    ///
    /// A function URL answers some calls itself: with 403 if the role may not
    /// use it, with 413 if the request is larger than Lambda's limit, with 502
    /// if the function crashes, and with 504 if the function runs out of time.
    /// The service answers with 403, too, if the role may not call the route.
    /// Such a response says nothing about the request, so a 403, and a 4xx
    /// without a problem document, count as no response.
    fn interpret(&self, response: Response) -> Result<Bytes, CallError> {
        if response.status.is_success() {
            return Ok(response.body);
        }
        let says_nothing =
            [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY];
        let contended = |reason: &str| CallError::Contended { service: self.service, reason: reason.to_owned() };
        let problem: Option<RemoteProblem> = serde_json::from_slice(&response.body).ok();
        match problem.filter(|problem| !problem.code.is_empty()) {
            Some(problem) if [CONTENDED, THROTTLED].contains(&problem.code.as_str()) => Err(contended(&problem.code)),
            _ if response.status == StatusCode::TOO_MANY_REQUESTS => Err(contended("too many requests")),
            Some(problem) if response.status.is_client_error() && !says_nothing.contains(&response.status) => {
                Err(CallError::Refused { service: self.service, status: response.status, problem })
            }
            _ => Err(self.unavailable(format!("status {}", response.status))),
        }
    }

    fn unavailable(&self, source: impl Into<Box<dyn Error + Send + Sync>>) -> CallError {
        CallError::Unavailable { service: self.service, source: source.into() }
    }
}

fn backoff(first: Duration, longest: Duration) -> ExponentialBuilder {
    ExponentialBuilder::default().with_min_delay(first).with_max_delay(longest).with_jitter()
}

/// Signs requests as this function's role (Signature Version 4).
#[derive(Debug)]
struct Signer {
    credentials: Option<SharedCredentialsProvider>,
    region: Option<Region>,
}

impl Signer {
    fn new(config: &SdkConfig) -> Self {
        Self { credentials: config.credentials_provider(), region: config.region().cloned() }
    }

    async fn sign(&self, call: &mut OutgoingRequest) -> Result<(), ExchangeError> {
        let (Some(credentials), Some(region)) = (&self.credentials, &self.region) else {
            return Err(ExchangeError::Signing("no credentials or no region".into()));
        };
        let identity: Identity =
            credentials.provide_credentials().await.map_err(|e| ExchangeError::Signing(e.into()))?.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(region.as_ref())
            .name(SIGNING_NAME)
            .time(std::time::SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|e| ExchangeError::Signing(e.into()))?
            .into();
        let headers = call.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let signable = SignableRequest::new(call.method.as_str(), &call.url, headers, SignableBody::Bytes(&call.body))
            .map_err(|e| ExchangeError::Signing(e.into()))?;
        let (instructions, _) = sign(signable, &params).map_err(|e| ExchangeError::Signing(e.into()))?.into_parts();
        let mut request = Request::new(());
        instructions.apply_to_request_http1x(&mut request);
        call.headers.extend(std::mem::take(request.headers_mut()));
        Ok(())
    }
}

/// A request that is ready to be sent.
#[derive(Debug)]
pub(crate) struct OutgoingRequest {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
}

impl OutgoingRequest {
    /// Returns the request GET `url`.
    pub(crate) fn get(url: String) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

/// A response with its complete body.
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// The reasons why a request got no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("the request cannot be signed")]
    Signing(#[source] Box<dyn Error + Send + Sync>),
    #[error("the request cannot be built")]
    Building(#[source] Box<dyn Error + Send + Sync>),
    #[error("no response")]
    NoResponse(#[source] Box<dyn Error + Send + Sync>),
    #[error("no response in time")]
    Timeout,
}

/// Sends one request and reads the response. Fails if the response is not
/// complete at `deadline`.
pub(crate) async fn send(
    connector: &SharedHttpConnector,
    call: OutgoingRequest,
    deadline: Deadline,
) -> Result<Response, ExchangeError> {
    let mut request = Request::new(SdkBody::from(call.body.to_vec()));
    *request.method_mut() = call.method;
    *request.uri_mut() = call.url.parse().map_err(|e: http::uri::InvalidUri| ExchangeError::Building(e.into()))?;
    *request.headers_mut() = call.headers;
    let mut request = HttpRequest::try_from(request).map_err(|e| ExchangeError::Building(e.into()))?;
    let connection = CaptureSmithyConnection::new();
    request.add_extension(connection.clone());
    let exchange = async {
        let response = connector.call(request).await.map_err(|e| ExchangeError::NoResponse(e.into()))?;
        let response = response.try_into_http1x().map_err(|e| ExchangeError::NoResponse(e.into()))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_RESPONSE).collect().await.map_err(ExchangeError::NoResponse)?;
        Ok(Response { status: parts.status, body: body.to_bytes() })
    };
    let response = deadline.run(exchange).await.unwrap_or(Err(ExchangeError::Timeout));
    // HTTP/2 sends all calls over one connection, which stays open if a call is
    // given up. If the network path is dead, TCP notices it only after a
    // quarter of an hour. So after a call without a response, the next call
    // gets a new connection. (The SDK does the same for its own calls.)
    if let (Err(ExchangeError::Timeout | ExchangeError::NoResponse(_)), Some(connection)) =
        (&response, connection.get())
    {
        connection.poison();
    }
    response
}
