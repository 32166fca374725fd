//! `GET /health/{service}`: reports that the service runs and, to
//! administrators, that the service can read from its table.

use axum::{Json, Router, routing::get};
use serde::Serialize;
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
    dynamo::{Key, Table},
    input::{Flag, Input, Parameters, Query, ReadQuery},
    openapi::{ID_TOKEN, ProblemResponses},
    problem::Problem,
};

#[derive(Debug, IntoParams)]
struct HealthQuery {
    /// Whether to read from the service's table, too. Only for administrators.
    #[param(required = false)]
    deep: bool,
}

impl ReadQuery for HealthQuery {
    fn read(parameters: &mut Parameters<'_>) -> Option<Self> {
        let deep = parameters.optional::<Flag>("deep").is_some_and(|Flag(deep)| deep);
        Some(Self { deep })
    }
}

/// The health of a service.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// The service's name.
    pub service: &'static str,
    /// The service's version.
    pub version: &'static str,
    /// Always `ok`. A service that is not healthy responds with a problem document.
    pub status: &'static str,
    /// `ok` if the service has read from its table. Missing if `deep` was not requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub table: Option<&'static str>,
}

/// Returns the health route of `service`.
pub fn routes(service: &'static str, table: Table) -> Router {
    let handler = async move |caller: Option<Caller>, Input(Query(query)): Input<Query<HealthQuery>>| {
        let table_state = match (query.deep, caller) {
            (false, _) => None,
            (true, None) => return Err(Problem::unauthenticated("A deep check is for administrators.")),
            (true, Some(caller)) if !caller.admin => {
                return Err(Problem::forbidden("A deep check is for administrators."));
            }
            (true, Some(_)) => {
                // The table has no item with this key. A response that says so
                // is enough.
                table.get::<serde::de::IgnoredAny>(&Key::new("HEALTH", "HEALTH")).await?;
                Some("ok")
            }
        };
        Ok(Json(Health { service, version: env!("CARGO_PKG_VERSION"), status: "ok", table: table_state }))
    };
    Router::new().route(&format!("/health/{service}"), get(handler))
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
    let components = Components::builder().schema_from::<Health>().build();
    OpenApiBuilder::new().info(Info::default()).paths(paths).components(Some(components)).build()
}
