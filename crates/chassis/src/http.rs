//! The HTTP edge: the layer around every route of every service.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    extract::{FromRequestParts, MatchedPath, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use http::{HeaderValue, StatusCode, header, request::Parts};
use lambda_http::{LambdaEvent, lambda_runtime, request::RequestContext, service_fn};
use serde_json::value::RawValue;
use tokio::time::Instant;
use tower::ServiceExt;
use tracing::{Instrument, Span, field};

use crate::{
    caller::Authenticator,
    configuration, context_span,
    cors::Cors,
    deadline::Deadline,
    gateway::{self, Answer, InvalidEvent, Unroutable},
    invocation::{Invocation, RequestId},
    problem::{PendingProblem, Problem},
    telemetry,
    time_limits::{EDGE_ANSWER_RESERVE, ORDERS_FUNCTION},
    token::TokenConfig,
    trace::TraceContext,
};

/// The maximum size of a request body in bytes. An order of 50 lines is smaller
/// than 5 KiB.
pub const MAX_BODY: usize = 64 * 1024;

configuration! {
    /// The settings of every function that answers HTTP requests.
    #[derive(Clone, Debug)]
    pub struct HttpConfig {
        /// The settings for verifying ID tokens.
        pub tokens: TokenConfig,
        /// The web page that may call the function from a browser.
        pub cors: Cors,
    }
}

/// Serves `routes` as a Lambda function until Lambda ends the function's
/// environment.
///
/// # Errors
///
/// If Lambda's runtime fails.
pub async fn run(routes: Router) -> Result<(), lambda_http::Error> {
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let routes = routes.clone();
        async move { Ok::<_, lambda_http::Error>(answer(routes, event.payload.get(), event.context).await?) }
    }))
    .await
}

/// Handles one event of API Gateway, or of a function URL. Every HTTP request
/// gets a response, even if the request is invalid or its handler panics.
///
/// # Errors
///
/// If the event is not an HTTP request.
pub async fn answer(routes: Router, event: &str, context: lambda_http::Context) -> Result<Answer, InvalidEvent> {
    let (format, mut request) = gateway::read(event).inspect_err(|error| {
        tracing::error!(cause = telemetry::chain(error), "the event cannot be answered");
    })?;
    request.extensions_mut().insert(context);
    let response = routes.oneshot(request).await.unwrap_or_else(|never| match never {});
    Ok(Answer::of(response, format).await)
}

/// Puts the edge around a service's routes. The edge provides the caller's
/// identity, the deadline and the trace, responds to panics and errors with
/// problem documents, and writes one log line per request.
pub fn edge(routes: Router, authenticator: Authenticator) -> Router {
    routes
        .fallback(|| async { no_such_route() })
        .method_not_allowed_fallback(|| async { method_not_allowed() })
        .layer(middleware::from_fn_with_state(authenticator, at_the_edge))
}

impl<S: Send + Sync> FromRequestParts<S> for Invocation {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        set_by_the_edge(parts)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TraceContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        set_by_the_edge(parts)
    }
}

fn set_by_the_edge<T: Clone + Send + Sync + 'static>(parts: &Parts) -> Result<T, Problem> {
    parts.extensions.get().cloned().ok_or_else(|| Problem::internal("the route is not behind the HTTP edge"))
}

async fn at_the_edge(State(authenticator): State<Authenticator>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (invocation, remote) = (invocation(&request), trace(&request));
    let id = invocation.request_id.clone();
    // The route's pattern is logged, and not the path: by mistake, a client may
    // send an e-mail address or a name in the path.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let method = request.method().clone();
    let service = authenticator.service(&request);
    let caller = service.as_ref().ok().and_then(|service| Some(service.as_ref()?.role.to_string()));
    let span = context_span!(
        "request",
        parent = remote.as_ref().map(field::display),
        xray = xray(&request),
        request_id = id.as_str(),
        method = %method,
        route,
        caller,
        order_id = field::Empty,
        payment_id = field::Empty,
        status = field::Empty,
    );
    let trace = telemetry::context_of(&span).or(remote).unwrap_or_else(TraceContext::start);
    let end = invocation.deadline.earlier_by(EDGE_ANSWER_RESERVE);
    let repeatable = Repeatable::default();
    request.extensions_mut().insert(repeatable.clone());
    request.extensions_mut().insert(authenticator);
    request.extensions_mut().insert(invocation);
    request.extensions_mut().insert(trace);

    async {
        // A panic must fail only this request, and must not end the execution
        // environment.
        let handled = match (request.extensions().get::<Unroutable>(), service) {
            (Some(unroutable), _) => Ok(Ok(Problem::from(*unroutable).into_response())),
            (None, Err(problem)) => Ok(Ok(problem.into_response())),
            (None, Ok(service)) => {
                if let Some(service) = service {
                    request.extensions_mut().insert(service);
                }
                AssertUnwindSafe(end.run(next.run(request))).catch_unwind().await
            }
        };
        let response = match handled {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => refused(Problem::unavailable("no answer before the invocation's end"), &id),
            Err(_) => refused(Problem::internal("a panic"), &id),
        };
        let mut response = rendered(response, &id);
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(id.as_str()) {
            headers.insert("x-request-id", value);
        }
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        // `Retry-After` asks the client to repeat the request. A repeat of this
        // request could take effect twice.
        if !repeatable.is_granted() {
            headers.remove(header::RETRY_AFTER);
        }
        let status = response.status().as_u16();
        Span::current().record("status", status);
        let millis = started.elapsed().as_millis() as u64;
        tracing::info!(%method, route, status, millis, caller, "answered");
        response
    }
    .instrument(span)
    .await
}

fn rendered(mut response: Response, id: &RequestId) -> Response {
    match response.extensions_mut().remove::<PendingProblem>().and_then(|problem| problem.take()) {
        Some(problem) => refused(problem, id),
        None => response,
    }
}

fn refused(problem: Problem, id: &RequestId) -> Response {
    let code = problem.code();
    match problem.cause() {
        // A 4xx with a cause is contention (two requests write the same item).
        // That is normal, so it is not logged as an error.
        Some(cause) if problem.status().is_client_error() => {
            tracing::info!(code, cause = telemetry::chain(cause), "request refused");
        }
        Some(cause) => tracing::error!(code, cause = telemetry::chain(cause), "request failed"),
        None => tracing::info!(code, "request refused"),
    }
    problem.respond(id.as_str())
}

fn invocation(request: &Request) -> Invocation {
    let lambda = request.extensions().get::<lambda_http::Context>();
    let gateway_id = match request.extensions().get::<RequestContext>() {
        Some(RequestContext::ApiGatewayV1(context)) => context.request_id.clone(),
        Some(RequestContext::ApiGatewayV2(context)) => context.request_id.clone(),
        _ => None,
    };
    // The response has the id in a header. So an id with characters that a
    // header can't hold is not used.
    let is_usable = |id: &String| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
    let mut ids = gateway_id.into_iter().chain(lambda.map(|context| context.request_id.clone()));
    let id = ids.find(is_usable).unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    Invocation::new(&id, Deadline::of_invocation(lambda.map_or(0, |context| context.deadline), ORDERS_FUNCTION))
}

/// Returns the trace context that came with the request: in W3C's header, or in
/// X-Ray's.
fn trace(request: &Request) -> Option<TraceContext> {
    let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    traceparent.and_then(TraceContext::parse).or_else(|| TraceContext::from_xray(xray(request)?))
}

/// Returns the X-Ray header of the invocation, in which Lambda's segment is the
/// parent. Outside Lambda, returns the request's header.
fn xray(request: &Request) -> Option<&str> {
    let lambda = request.extensions().get::<lambda_http::Context>();
    let header = || request.headers().get("x-amzn-trace-id").and_then(|value| value.to_str().ok());
    lambda.and_then(|context| context.xray_trace_id.as_deref()).or_else(header)
}

/// Says whether a client may repeat a request whose outcome is unknown. Most
/// requests may be repeated. The exception is a request without an idempotency
/// key on a route that accepts such keys: its repeat could take effect twice,
/// so the code that reads the key calls `deny`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repeatable(Arc<AtomicBool>);

impl Repeatable {
    pub(crate) fn deny(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_granted(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

pub(crate) fn no_such_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no_such_route", "There is no such route.")
}

fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This route has no such method.")
}

impl From<Unroutable> for Problem {
    fn from(unroutable: Unroutable) -> Self {
        match unroutable {
            Unroutable::Method => method_not_allowed(),
            Unroutable::Target => Self::new(StatusCode::URI_TOO_LONG, "uri_too_long", "The address is too long."),
            Unroutable::Headers => Self::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers_too_large",
                "The request has too many headers.",
            ),
        }
    }
}
