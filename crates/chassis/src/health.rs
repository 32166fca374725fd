//! `GET /health/{service}`: reports that the service runs, its version and its
//! commit. With `deep=true`, administrators also see the state of everything that
//! the service depends on.
//!
//! The check without `deep` is for machines: it calls nothing, so that a load
//! balancer or a monitor takes no service out of use because another one is slow.
//! The deep check is for people. It answers with 200 even if a dependency fails,
//! because the answer then says which one.

use std::{fmt, sync::Arc, time::Duration};

use axum::{Json, Router, routing::get};
use futures::{
    FutureExt,
    future::{BoxFuture, join, join_all},
};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        Components, ContentBuilder, HttpMethod, Info, OpenApi, OpenApiBuilder, PathItem, Paths, Ref, ResponseBuilder,
        path::{OperationBuilder, ParameterIn},
        response::ResponsesBuilder,
        security::SecurityRequirement,
    },
};

use crate::{
    caller::{Admin, Caller},
    deadline::Deadline,
    dynamo::{Key, Table},
    input::{Flag, Input, Parameters, Query, ReadQuery},
    openapi::{ID_TOKEN, ProblemResponses},
    pause::PauseSwitch,
    problem::Problem,
    service_client::ServiceClient,
    telemetry,
    trace::TraceContext,
    version,
};

#[derive(Debug, IntoParams)]
struct HealthQuery {
    /// Whether to check everything that the service depends on, too. Only for administrators.
    #[param(required = false)]
    deep: bool,
}

impl ReadQuery for HealthQuery {
    fn read(parameters: &mut Parameters<'_>) -> Option<Self> {
        let deep = parameters.optional::<Flag>("deep").is_some_and(|Flag(deep)| deep);
        Some(Self { deep })
    }
}

/// The time within which each dependency must answer a deep check.
const PATIENCE: Duration = Duration::from_secs(2);

/// The health of a service.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// The service's name.
    pub service: &'static str,
    /// The service's version.
    pub version: &'static str,
    /// The commit that the service was built from, or `unknown`.
    pub commit: &'static str,
    /// `ok`, or `degraded` if a deep check found a dependency that does not work.
    #[schema(value_type = String)]
    pub status: Status,
    /// The state of everything that the service depends on. Missing if `deep` was not requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dependencies: Option<Vec<DependencyHealth>>,
    /// Whether administrators have paused this part of the shop. Missing if `deep` was not requested, if the service
    /// has no switch, or if the switch cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub paused: Option<bool>,
}

/// The state of a service as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The service runs, and so does every dependency that was checked.
    Ok,
    /// A dependency does not work.
    Degraded,
}

/// The health of something that a service depends on.
#[derive(Debug, Serialize, ToSchema)]
pub struct DependencyHealth {
    /// The name: `table`, or the name of another service.
    pub name: &'static str,
    /// `ok`, or `unavailable` if there was no useful answer within two seconds. The function's log has the reason.
    #[schema(value_type = String)]
    pub state: DependencyState,
    /// The time until the answer, or until the check was given up, in milliseconds.
    pub milliseconds: u64,
    /// Whether the circuit breaker for the service is open in the execution environment that answered. Other
    /// environments have breakers of their own. Missing if there is no breaker.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub breaker_open: Option<bool>,
}

/// The state of something that a service depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyState {
    /// The dependency answered.
    Ok,
    /// The dependency gave no useful answer in time.
    Unavailable,
}

type CheckResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// A check of something that a service depends on.
#[derive(Clone)]
pub struct Check {
    name: &'static str,
    run: Arc<dyn Fn(TraceContext, Deadline) -> BoxFuture<'static, CheckResult> + Send + Sync>,
    is_breaker_open: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Check {
    /// Checks that a service can read from its table.
    pub fn of_table(table: Table) -> Self {
        let run = move |_, _| {
            let table = table.clone();
            // The table has no item with this key. A response that says so is enough.
            let read = async move { table.get::<serde::de::IgnoredAny>(&Key::new("HEALTH", "HEALTH")).await };
            read.map(|found| found.map(drop).map_err(Into::into)).boxed()
        };
        Self { name: "table", run: Arc::new(run), is_breaker_open: None }
    }

    /// Checks that another service answers this service. `path` is a route of the other service, as
    /// [`ServiceClient::probe`] needs it.
    pub fn of_service(client: Arc<ServiceClient>, path: &'static str) -> Self {
        let called = client.clone();
        let run = move |trace: TraceContext, deadline| {
            let client = called.clone();
            async move { client.probe(path, &trace, deadline).await.map_err(Into::into) }.boxed()
        };
        let name = client.service();
        Self { name, run: Arc::new(run), is_breaker_open: Some(Arc::new(move || client.is_breaker_open())) }
    }

    async fn result(&self, trace: TraceContext) -> DependencyHealth {
        let (began, deadline) = (Instant::now(), Deadline::after(PATIENCE));
        let result = deadline.run((self.run)(trace, deadline)).await;
        let state = match result.unwrap_or_else(|elapsed| Err(elapsed.into())) {
            Ok(()) => DependencyState::Ok,
            Err(error) => {
                let cause = telemetry::chain(error.as_ref());
                tracing::warn!(dependency = self.name, cause, "a deep check found a dependency that does not work");
                DependencyState::Unavailable
            }
        };
        DependencyHealth {
            name: self.name,
            state,
            milliseconds: began.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
            breaker_open: self.is_breaker_open.as_ref().map(|is_open| is_open()),
        }
    }
}

/// Returns the health route of `service`, which depends only on its table, and has no
/// switch.
pub fn routes(service: &'static str, table: Table) -> Router {
    routes_with(service, vec![Check::of_table(table)], None)
}

/// Returns the health route of `service`. A deep check runs all `checks` side by side,
/// and says whether the service is paused.
pub fn routes_with(service: &'static str, checks: Vec<Check>, pause: Option<PauseSwitch>) -> Router {
    let checks: Arc<[Check]> = checks.into();
    let handler = async move |caller: Option<Caller>,
                              trace: TraceContext,
                              Input(Query(query)): Input<Query<HealthQuery>>| {
        let (dependencies, paused) = match (query.deep, caller) {
            (false, _) => (None, None),
            (true, None) => return Err(Problem::unauthenticated("A deep check is for administrators.")),
            (true, Some(caller)) if !caller.admin => {
                return Err(Problem::forbidden("A deep check is for administrators."));
            }
            (true, Some(_)) => {
                let checked = join_all(checks.iter().map(|check| check.result(trace.clone())));
                let (dependencies, paused) = join(checked, is_paused(pause.as_ref())).await;
                (Some(dependencies), paused)
            }
        };
        let works = dependencies.iter().flatten().all(|dependency| dependency.state == DependencyState::Ok);
        let status = if works { Status::Ok } else { Status::Degraded };
        Ok(Json(Health { service, version: version::VERSION, commit: version::commit(), status, dependencies, paused }))
    };
    Router::new().route(&format!("/health/{service}"), get(handler))
}

/// Returns whether the service is paused; nothing if it has no switch, or if the switch cannot be read in time.
async fn is_paused(pause: Option<&PauseSwitch>) -> Option<bool> {
    let read = Deadline::after(PATIENCE).run(pause?.is_paused_now()).await;
    let cause = match read {
        Ok(Ok(is_paused)) => return Some(is_paused),
        Ok(Err(error)) => telemetry::chain(&error),
        Err(elapsed) => elapsed.to_string(),
    };
    tracing::warn!(cause, "a deep check could not read the switch");
    None
}

/// Describes the health route for the OpenAPI document.
pub fn api(service: &str) -> OpenApi {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(Health::name()))).build();
    let healthy = ResponseBuilder::new().description("The service runs.").content("application/json", content);
    let operation = OperationBuilder::new()
        .tag("Health")
        .operation_id(Some(format!("{service}Health")))
        .summary(Some(format!("Check that the {service} service runs")))
        .parameters(Some(HealthQuery::into_params(|| Some(ParameterIn::Query))))
        .responses(
            ResponsesBuilder::new()
                .response("200", healthy)
                .responses_from_into_responses::<ProblemResponses<(Input<Query<HealthQuery>>, Admin)>>(),
        )
        .securities(Some([SecurityRequirement::default(), SecurityRequirement::new(ID_TOKEN, [""; 0])]));
    let path = PathItem::new(HttpMethod::Get, operation);
    let mut paths = Paths::new();
    paths.paths.insert(format!("/health/{service}"), path);
    let components = Components::builder().schema_from::<Health>().schema_from::<DependencyHealth>().build();
    OpenApiBuilder::new().info(Info::default()).paths(paths).components(Some(components)).build()
}
