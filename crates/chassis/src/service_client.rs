//! Calling another service: signed, bounded, tried twice, left alone for a while
//! when it keeps failing, and asked again for a while when it is only busy.

use std::{fmt, time::Duration};

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

use crate::{
    aws::Aws,
    breaker::{Breaker, Open},
    clock::Clock,
    config::BaseUrl,
    deadline::Deadline,
    problem::{CONTENDED, RemoteProblem, THROTTLED},
    telemetry,
    trace::TraceContext,
};

/// More than any answer of a service; a stray page must not fill the memory.
const MAX_ANSWER: usize = 1024 * 1024;
/// A first try and one more (each within the attempt's timeout).
const RETRIES: usize = 1;
/// For how long a busy service is asked again, if the deadline allows it. A rush
/// on one product usually takes less. A worker has several orders, and each only
/// for the time of a lease, so it can't wait much longer for one.
const PATIENCE: Duration = Duration::from_secs(10);
/// The name that API Gateway's execution endpoints are signed for.
const SIGNING_NAME: &str = "execute-api";

/// Why a call to another service has no answer to work with.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The service answered, and the answer is no. Not retried: it would be no
    /// again.
    #[error("{service} refused with {status} {}: {}", problem.code, problem.detail)]
    Refused {
        /// Who refused.
        service: &'static str,
        /// 4xx.
        status: StatusCode,
        /// The problem document.
        problem: RemoteProblem,
    },
    /// The service works, and concurrent requests kept this request from
    /// succeeding: they write the same items, or use up the service's capacity.
    /// This is neither a refusal nor a failure.
    #[error("{service} reports contention: {reason}")]
    Contended {
        /// The service that answered.
        service: &'static str,
        /// For the log.
        reason: String,
    },
    /// No answer, or none that means anything. What was asked for may or may
    /// not have happened.
    #[error("{service} is unavailable: {reason}")]
    Unavailable {
        /// Who didn't answer.
        service: &'static str,
        /// For the log.
        reason: String,
    },
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
    /// A client for the service `name` at `base`, each attempt of which may
    /// take `attempt_timeout`.
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

    /// GET `path`.
    pub async fn get<A: DeserializeOwned>(
        &self,
        path: &str,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<A, CallError> {
        self.call(Method::GET, path, Bytes::new(), trace, deadline).await
    }

    /// POST `body` to `path`. What is posted must be safe to repeat.
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

    async fn call<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<A, CallError> {
        let patience = deadline.min(Deadline::after(PATIENCE));
        let mut after_failures =
            backoff(Duration::from_millis(50), Duration::from_millis(250)).with_max_times(RETRIES).build();
        let mut while_contended =
            backoff(Duration::from_millis(50), Duration::from_secs(1)).without_max_times().build();
        loop {
            let error = match self.attempt(&method, path, &body, trace, deadline).await {
                Ok(answer) => return serde_json::from_slice(&answer).map_err(|error| self.unavailable(error)),
                Err(error) => error,
            };
            let (pause, end) = match &error {
                CallError::Refused { .. } => return Err(error),
                CallError::Contended { .. } => (while_contended.next(), patience),
                CallError::Unavailable { .. } => (after_failures.next(), deadline),
            };
            let Some(pause) = pause.filter(|pause| *pause < end.remaining()) else { return Err(error) };
            tracing::warn!(reason = telemetry::chain(&error), ?pause, "calling again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(
        &self,
        method: &Method,
        path: &str,
        body: &Bytes,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<Bytes, CallError> {
        self.breaker.admit().map_err(|open: Open| self.unavailable(open))?;
        let mut call = RawCall {
            method: method.clone(),
            url: self.base.join(path),
            headers: HeaderMap::new(),
            body: body.clone(),
        };
        if let Ok(value) = HeaderValue::from_str(&trace.to_string()) {
            call.headers.insert("traceparent", value);
        }
        if !body.is_empty() {
            call.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let is_cut_short = deadline.remaining() < self.attempt_timeout;
        let deadline = deadline.min(Deadline::after(self.attempt_timeout));
        let result = async {
            self.signer.sign(&mut call).await?;
            send(&self.connector, call, deadline).await
        };
        let result = result.await;
        let is_telling = match &result {
            // That the caller ran out of time says nothing about the service.
            Err(ExchangeError::Timeout) => !is_cut_short,
            // Nor does a gateway that let nothing through to it.
            Ok(answer) => answer.status != StatusCode::TOO_MANY_REQUESTS,
            Err(_) => true,
        };
        let result = result.map_err(|error| self.unavailable(error)).and_then(|answer| self.judge(answer));
        if is_telling {
            self.breaker.record(!matches!(result, Err(CallError::Unavailable { .. })));
        }
        result
    }

    /// A refusal is a 4xx with a problem document of the service's own. A 4xx
    /// without one, or one that only a gateway sends, says nothing about what
    /// was asked. The code of its problem says that a service is only busy.
    fn judge(&self, answer: Answer) -> Result<Bytes, CallError> {
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        let about_the_way =
            [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY];
        let contended = |reason: &str| CallError::Contended { service: self.service, reason: reason.to_owned() };
        let problem: Option<RemoteProblem> = serde_json::from_slice(&answer.body).ok();
        match problem.filter(|problem| !problem.code.is_empty()) {
            Some(problem) if [CONTENDED, THROTTLED].contains(&problem.code.as_str()) => Err(contended(&problem.code)),
            _ if answer.status == StatusCode::TOO_MANY_REQUESTS => Err(contended("too many requests")),
            Some(problem) if answer.status.is_client_error() && !about_the_way.contains(&answer.status) => {
                Err(CallError::Refused { service: self.service, status: answer.status, problem })
            }
            _ => Err(self.unavailable(format!("status {}", answer.status))),
        }
    }

    fn unavailable(&self, reason: impl fmt::Display) -> CallError {
        CallError::Unavailable { service: self.service, reason: reason.to_string() }
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

    async fn sign(&self, call: &mut RawCall) -> Result<(), ExchangeError> {
        let (Some(credentials), Some(region)) = (&self.credentials, &self.region) else {
            return Err(ExchangeError::Signing("no credentials or no region".into()));
        };
        let failed = |error: &dyn fmt::Display| ExchangeError::Signing(error.to_string());
        let identity: Identity = credentials.provide_credentials().await.map_err(|e| failed(&e))?.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(region.as_ref())
            .name(SIGNING_NAME)
            .time(std::time::SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|e| failed(&e))?
            .into();
        let headers = call.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let signable = SignableRequest::new(call.method.as_str(), &call.url, headers, SignableBody::Bytes(&call.body))
            .map_err(|e| failed(&e))?;
        let (instructions, _) = sign(signable, &params).map_err(|e| failed(&e))?.into_parts();
        let mut request = Request::new(());
        instructions.apply_to_request_http1x(&mut request);
        call.headers.extend(std::mem::take(request.headers_mut()));
        Ok(())
    }
}

/// A request as it goes out.
#[derive(Debug)]
pub(crate) struct RawCall {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
}

impl RawCall {
    /// GET `url`.
    pub(crate) fn get(url: String) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

/// An answer with its whole body.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("the request cannot be signed: {0}")]
    Signing(String),
    #[error("the request cannot be built: {0}")]
    Building(String),
    #[error("no answer: {0}")]
    NoAnswer(String),
    #[error("no answer in time")]
    Timeout,
}

/// Sends one request and reads the answer, both before `deadline`.
pub(crate) async fn send(
    connector: &SharedHttpConnector,
    call: RawCall,
    deadline: Deadline,
) -> Result<Answer, ExchangeError> {
    let mut request = Request::new(SdkBody::from(call.body.to_vec()));
    *request.method_mut() = call.method;
    *request.uri_mut() = call.url.parse().map_err(|e: http::uri::InvalidUri| ExchangeError::Building(e.to_string()))?;
    *request.headers_mut() = call.headers;
    let mut request = HttpRequest::try_from(request).map_err(|e| ExchangeError::Building(e.to_string()))?;
    let connection = CaptureSmithyConnection::new();
    request.add_extension(connection.clone());
    let exchange = async {
        let response = connector.call(request).await.map_err(|e| ExchangeError::NoAnswer(telemetry::chain(&e)))?;
        let response = response.try_into_http1x().map_err(|e| ExchangeError::NoAnswer(e.to_string()))?;
        let (parts, body) = response.into_parts();
        let body =
            Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| ExchangeError::NoAnswer(e.to_string()))?;
        Ok(Answer { status: parts.status, body: body.to_bytes() })
    };
    let answer = tokio::time::timeout_at(deadline.instant(), exchange).await.unwrap_or(Err(ExchangeError::Timeout));
    // HTTP/2 carries all calls in one connection, and giving a call up leaves
    // it open. If its path is dead, nothing says so for a quarter of an hour,
    // until TCP gives up; so the next call has a connection of its own. (The
    // SDK does the same for its calls.)
    if let (Err(ExchangeError::Timeout | ExchangeError::NoAnswer(_)), Some(connection)) = (&answer, connection.get()) {
        connection.poison();
    }
    answer
}
