//! The HTTP edge: what every route of every service has around it.

use std::{
    convert::Infallible, fmt, marker::PhantomData, panic::AssertUnwindSafe, str::FromStr, sync::Arc, time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, FromRequest, FromRequestParts, MatchedPath, Path, Request, State, rejection::BytesRejection,
    },
    middleware::{self, Next},
    response::Response,
};
use futures::FutureExt;
use http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts};
use lambda_http::{
    Adapter, LambdaEvent, Service, lambda_runtime,
    request::{LambdaRequest, RequestContext},
    service_fn,
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeOwned, MapAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};
use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    caller::Authenticator,
    config::{Configuration, Env, On},
    cors::Cors,
    deadline::Deadline,
    openapi::Problems,
    problem::{Problem, Unrendered},
    telemetry,
    token::TokenConfig,
    trace::TraceContext,
};

/// No request body needs more; an order of 50 lines is below 5 KiB.
pub const MAX_BODY: usize = 64 * 1024;
/// How long a request may take where no Lambda says so.
const DEFAULT_TIME: Duration = Duration::from_secs(20);
/// Kept back at a request's end for writing the answer.
const ANSWER_RESERVE: Duration = Duration::from_millis(500);

/// The request's id, which every log line and problem document carries.
#[derive(Clone, Debug)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What of the environment every function reads that answers requests.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// For tokens that no gateway has checked.
    pub tokens: TokenConfig,
    /// Which web page may call.
    pub cors: Cors,
}

impl Configuration for HttpConfig {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        let (tokens, cors) = (TokenConfig::read(env), Cors::read(env));
        // Read by lambda_http, which without it puts the gateway's stage in
        // front of each path: no route would be found.
        let without_stage = env.required::<On>("AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH", "true");
        without_stage?;
        Some(Self { tokens: tokens?, cors: cors? })
    }
}

/// Serves `routes` as a Lambda function, for as long as its environment lives.
///
/// # Errors
///
/// What Lambda's runtime could not go on from.
pub async fn run(routes: Router) -> Result<(), lambda_http::Error> {
    lambda_runtime::run(service_fn(move |event| answer(routes.clone(), event))).await
}

/// Answers one event of API Gateway.
///
/// # Errors
///
/// None: whatever goes wrong is an answer, too.
pub fn answer(
    routes: Router,
    event: LambdaEvent<LambdaRequest>,
) -> impl Future<Output = Result<impl Serialize, Infallible>> + Send {
    let LambdaEvent { payload, context } = event;
    Adapter::from(routes).call(LambdaEvent::new(with_every_header(payload), context))
}

/// A REST API sends each header in two ways: with all its values, and with the
/// last one. lambda_http lets the latter win, so that nobody could see that a
/// header came twice, as an `Idempotency-Key` must not.
fn with_every_header(request: LambdaRequest) -> LambdaRequest {
    match request {
        LambdaRequest::ApiGatewayV1(mut request) if !request.multi_value_headers.is_empty() => {
            request.headers.clear();
            LambdaRequest::ApiGatewayV1(request)
        }
        other => other,
    }
}

/// Puts the edge around a service's routes: identity, deadline, trace, body
/// limit, panics and problems as documents, one log line a request.
pub fn edge(routes: Router, authenticator: Authenticator) -> Router {
    routes
        .fallback(|| async { no_such_route() })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This route has no such method.")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(authenticator, at_the_edge))
}

/// What of the edge a handler may ask for.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The request's id.
    pub request_id: RequestId,
    /// When the answer must be on its way.
    pub deadline: Deadline,
    /// The trace this request belongs to.
    pub trace: TraceContext,
}

impl<S: Send + Sync> FromRequestParts<S> for Invocation {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let invocation = parts.extensions.get::<Self>().cloned();
        invocation.ok_or_else(|| Problem::internal("the route is not behind the HTTP edge"))
    }
}

async fn at_the_edge(State(authenticator): State<Authenticator>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let invocation = invocation(&request);
    let id = invocation.request_id.clone();
    // Not the path itself: by mistake, it may hold an address or a name.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let span = tracing::info_span!("request", request_id = id.as_str(), method = %request.method(), route);
    let end = invocation.deadline.earlier_by(ANSWER_RESERVE).instant();
    let may_be_repeated = request.method() != Method::POST || request.headers().contains_key("idempotency-key");
    request.extensions_mut().insert(authenticator);
    request.extensions_mut().insert(invocation);

    async {
        // A panic fails this one request; the sandbox goes on.
        let handled = AssertUnwindSafe(tokio::time::timeout_at(end, next.run(request))).catch_unwind().await;
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
        // Nobody is asked to repeat what may take effect twice.
        if !may_be_repeated {
            headers.remove(header::RETRY_AFTER);
        }
        tracing::info!(status = response.status().as_u16(), millis = started.elapsed().as_millis() as u64, "answered");
        response
    }
    .instrument(span)
    .await
}

fn rendered(mut response: Response, id: &RequestId) -> Response {
    match response.extensions_mut().remove::<Unrendered>().and_then(|problem| problem.take()) {
        Some(problem) => refused(problem, id),
        None => response,
    }
}

fn refused(problem: Problem, id: &RequestId) -> Response {
    let code = problem.code();
    match problem.cause() {
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
    let id = gateway_id
        .or_else(|| lambda.map(|context| context.request_id.clone()))
        .unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    Invocation {
        request_id: RequestId(id.into()),
        deadline: Deadline::of_invocation(lambda.map_or(0, |context| context.deadline), DEFAULT_TIME),
        trace: header("traceparent")
            .and_then(TraceContext::parse)
            .or_else(|| header("x-amzn-trace-id").and_then(TraceContext::from_xray))
            .unwrap_or_else(TraceContext::start),
    }
}

/// A JSON request body. Says which field was wrong, and refuses what isn't
/// declared as JSON.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers().get(header::CONTENT_TYPE)) {
            return Err(unsupported_media_type());
        }
        let body = Bytes::from_request(request, state).await.map_err(unreadable)?;
        parse_json(&body).map(Self)
    }
}

impl<T: DeserializeOwned> Problems for Json<T> {
    fn problems() -> Vec<Problem> {
        let unparsed = ["[]", "{"].into_iter().filter_map(|body| parse_json::<T>(body.as_bytes()).err());
        unparsed.chain([unsupported_media_type(), payload_too_large(), unreadable_body()]).collect()
    }
}

/// A JSON object. Without it, what serde derives for a struct would also take
/// an array of its fields' values, which no documentation speaks of.
#[derive(Clone, Copy, Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// Reads a whole number, however it is written: `3.0` is one, too, for JSON
/// Schema and for languages that know but one kind of number.
pub fn whole<'de, T: TryFrom<i64>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Whole;

    impl Visitor<'_> for Whole {
        type Value = i64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number")
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<i64, E> {
            Ok(number)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<i64, E> {
            i64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<i64, E> {
            // Beyond that, a float no longer says which number is meant.
            let exact = number.fract() == 0.0 && number.abs() <= (1_i64 << f64::MANTISSA_DIGITS) as f64;
            if exact { Ok(number as i64) } else { Err(E::invalid_value(Unexpected::Float(number), &self)) }
        }
    }

    let number = deserializer.deserialize_i64(Whole)?;
    T::try_from(number).map_err(|_| de::Error::invalid_value(Unexpected::Signed(number), &"a number in range"))
}

/// Parses a JSON object, naming the field at which it stops making sense.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map(|Object(value)| value);
    let value = parsed.map_err(|error| {
        let field = error.path().to_string();
        let error = error.into_inner();
        if error.is_data() {
            // Nobody's member has the empty name but the body's own, mistaken, one.
            let field = if [".", ""].contains(&field.as_str()) { "body".to_owned() } else { field };
            Problem::invalid_field(&field, position_free(&error))
        } else {
            malformed(&error)
        }
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

/// serde's message without "at line 1 column 7": the field says where.
fn position_free(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed_json", format!("The body is not a JSON document: {error}."))
}

fn unreadable(rejection: BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE { payload_too_large() } else { unreadable_body() }
}

fn unsupported_media_type() -> Problem {
    let detail = "Send the body as `Content-Type: application/json`.";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}

fn payload_too_large() -> Problem {
    let detail = format!("The body must be at most {MAX_BODY} bytes.");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
}

fn no_such_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no_such_route", "There is no such route.")
}

fn unreadable_body() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "unreadable_body", "The body could not be read.")
}

fn is_json(content_type: Option<&HeaderValue>) -> bool {
    let media_type = content_type.and_then(|value| value.to_str().ok()).and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

/// The route's `{id}`, parsed.
#[derive(Clone, Copy, Debug)]
pub struct Id<T>(pub T);

impl<S: Send + Sync, T: FromStr<Err: fmt::Display>> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::invalid_field("id", "must be readable text"))?;
        text.parse().map(Self).map_err(|error| Problem::invalid_field("id", error))
    }
}

impl<T: FromStr<Err: fmt::Display>> Problems for Id<T> {
    fn problems() -> Vec<Problem> {
        let unparsed = "1".parse::<T>().err().map(|error| Problem::invalid_field("id", error));
        // Characters that no path can have leave nothing that a route fits.
        unparsed.into_iter().chain([no_such_route()]).collect()
    }
}

/// The query string, parsed. Unknown and repeated parameters are refused by a
/// type that denies unknown fields.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parse_query(&parts.uri).map(Self)
    }
}

fn parse_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    axum::extract::Query::try_from_uri(uri)
        .map(|query| query.0)
        .map_err(|rejection| Problem::invalid_field("query", rejection.body_text()))
}

impl<T: DeserializeOwned> Problems for Query<T> {
    fn problems() -> Vec<Problem> {
        parse_query::<T>(&Uri::from_static("/?no_such_parameter=1")).err().into_iter().collect()
    }
}
