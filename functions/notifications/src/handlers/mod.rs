//! Handles the two kinds of invocation: a batch of messages from SQS, and an HTTP
//! request.

mod messages;
mod sqs_batch;

use axum::{Router, routing::get};
use chassis::{
    caller::Authenticator,
    deadline::Deadline,
    dynamo::Table,
    function::invocation_span,
    health::{self, Check},
    http::{answer, edge},
    pause::{self, PauseSwitch},
    telemetry,
    time_limits::NOTIFICATIONS_FUNCTION,
};
use lambda_runtime::{Error, LambdaEvent};
use serde_json::{Value, value::RawValue};
use tracing::Instrument;
use utoipa::{OpenApi as _, openapi::OpenApi};

pub use self::sqs_batch::UnnamedFailure;
use crate::{message_holder::MessageHolder, service::Notifications};

/// What the switch of this service pauses.
pub(crate) const PAUSED_PART: &str = "messages";

/// Returns the router of the HTTP routes.
pub fn router(notifications: Notifications, table: Table, pause: PauseSwitch, authenticator: Authenticator) -> Router {
    let routes = Router::new().route("/messages", get(messages::list)).with_state(notifications);
    let health = health::routes_with("notifications", vec![Check::of_table(table)], Some(pause.clone()));
    edge(routes.merge(pause::routes(pause)).merge(health), authenticator)
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(messages::list))]
struct Api;

/// Returns the OpenAPI document of the HTTP routes.
pub fn api() -> OpenApi {
    let effect = "While messages are paused, no e-mail and no text message is sent. The events wait in the queue; after \
                  the pause, their messages are sent within a minute.";
    Api::openapi().merge_from(pause::api(PAUSED_PART, effect)).merge_from(health::api("notifications"))
}

/// The Lambda function. Each payload shows whether the invocation is a batch from SQS or an
/// HTTP request.
#[derive(Clone)]
pub struct Function {
    notifications: Notifications,
    holder: MessageHolder,
    router: Router,
}

impl Function {
    pub fn new(notifications: Notifications, holder: MessageHolder, router: Router) -> Self {
        Self { notifications, holder, router }
    }

    pub fn router(&self) -> Router {
        self.router.clone()
    }

    pub async fn handle(&self, event: LambdaEvent<Box<RawValue>>) -> Result<Value, Error> {
        let LambdaEvent { payload, context } = event;
        match sqs_batch::records(payload.get()) {
            Some(records) => {
                let deadline = Deadline::of_invocation(context.deadline, NOTIFICATIONS_FUNCTION);
                let span = invocation_span("queue", &context);
                let response = Box::pin(sqs_batch::handle(&self.notifications, &self.holder, &records, deadline))
                    .instrument(span.clone())
                    .await;
                telemetry::record_outcome(&span, &response);
                Ok(serde_json::to_value(response?)?)
            }
            None => {
                let response = answer(self.router.clone(), payload.get(), context).await?;
                Ok(serde_json::to_value(response)?)
            }
        }
    }
}
