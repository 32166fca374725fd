//! `GET /health/{service}`: is it there, and (for administrators) does it
//! reach its table?

use axum::{Json, Router, routing::get};
use serde::{Deserialize, Serialize};

use crate::{
    caller::Caller,
    dynamo::{Key, Table},
    http::Query,
    problem::Problem,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Depth {
    #[serde(default)]
    deep: bool,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Health {
    /// Which service.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Always `ok`: what is not ok answers with a problem.
    pub status: &'static str,
    /// `ok` if the table was asked and answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<&'static str>,
}

/// The health route of `service`.
pub fn routes(service: &'static str, table: Table) -> Router {
    let handler = async move |Query(depth): Query<Depth>, caller: Option<Caller>| {
        let table_state = match (depth.deep, caller) {
            (false, _) => None,
            (true, None) => return Err(Problem::unauthenticated("A deep check is for administrators.")),
            (true, Some(caller)) if !caller.admin => {
                return Err(Problem::forbidden("A deep check is for administrators."));
            }
            (true, Some(_)) => {
                // Nothing has this key: that the table answers is all that is asked.
                table.get::<serde::de::IgnoredAny>(&Key::new("HEALTH", "HEALTH")).await?;
                Some("ok")
            }
        };
        Ok(Json(Health { service, version: env!("CARGO_PKG_VERSION"), status: "ok", table: table_state }))
    };
    Router::new().route(&format!("/health/{service}"), get(handler))
}
