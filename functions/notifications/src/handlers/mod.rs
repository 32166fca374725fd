//! The two kinds of invocation: a batch from the queue, and an HTTP request
//! for the health route.

mod batch;

use axum::Router;
use chassis::{
    caller::Authenticator,
    deadline::Deadline,
    dynamo::Table,
    health,
    http::{answer, edge},
};
use lambda_runtime::{Error, LambdaEvent};
use serde_json::{Value, value::RawValue};
use utoipa::openapi::OpenApi;

pub use self::batch::UnnamedFailure;
use crate::service::Notifications;

/// How long an invocation may take where no Lambda says so.
const DEFAULT_TIME: std::time::Duration = std::time::Duration::from_secs(30);

/// The HTTP routes, behind the HTTP edge.
pub fn router(table: Table, authenticator: Authenticator) -> Router {
    edge(health::routes("notifications", table), authenticator)
}

/// What the API's document says of them.
pub fn api() -> OpenApi {
    health::api("notifications")
}

/// The function: takes each payload to whom it is for.
#[derive(Clone)]
pub struct Function {
    notifications: Notifications,
    router: Router,
}

impl Function {
    /// Of both handlers.
    pub fn new(notifications: Notifications, router: Router) -> Self {
        Self { notifications, router }
    }

    /// The HTTP routes.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Handles one invocation.
    pub async fn handle(&self, event: LambdaEvent<Box<RawValue>>) -> Result<Value, Error> {
        let LambdaEvent { payload, context } = event;
        match batch::records(payload.get()) {
            Some(records) => {
                let deadline = Deadline::of_invocation(context.deadline, DEFAULT_TIME);
                let response = batch::handle(&self.notifications, &records, deadline).await?;
                Ok(serde_json::to_value(response)?)
            }
            None => {
                let response = answer(self.router.clone(), payload.get(), context).await?;
                Ok(serde_json::to_value(response)?)
            }
        }
    }
}
