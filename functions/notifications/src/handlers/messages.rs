//! The route by which administrators see which messages were sent about an order.

use axum::{Json, extract::State};
use chassis::{
    caller::Admin,
    input::{Input, Parameters, Query, ReadQuery},
    openapi::{ProblemResponses, one_of},
    page::Page,
    problem::Problem,
    schema,
};
use jiff::Timestamp;
use serde::Serialize;
use strum::VariantArray;
use utoipa::{IntoParams, ToSchema};

use crate::{
    domain::{Channel, Feedback, MessageKind, MessageState, OrderId, SentMessage},
    service::Notifications,
};

schema!(
    MessageKind,
    "MessageKind",
    one_of(MessageKind::VARIANTS.iter().map(<&str>::from))
        .description(Some("The type of the event that the message belongs to."))
);

schema!(Channel, "MessageChannel", one_of(Channel::VARIANTS.iter().map(<&str>::from)));

schema!(
    MessageState,
    "MessageStatus",
    one_of(MessageState::VARIANTS.iter().map(<&str>::from)).description(Some(
        "- `CLAIMED`: being sent; if this stays so for minutes, the sending was interrupted, and the message may have \
         been sent\n\
         - `SENT`: SES or SNS has accepted the message\n\
         - `REFUSED`: SES or SNS refused the recipient for good; no further attempt is made\n\
         - `FAILED`: certainly not sent; the next delivery of the event tries again\n\
         - `SUPPRESSED`: not sent, because an earlier e-mail to the address bounced, or its recipient complained"
    ))
);

schema!(
    Feedback,
    "MessageFeedback",
    one_of(Feedback::VARIANTS.iter().map(<&str>::from)).description(Some(
        "What SES reported after it had accepted the e-mail. After `BOUNCED` and `COMPLAINED`, nothing is sent to the \
         address any more."
    ))
);

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParameters {
    /// The order that the messages are about.
    #[param(value_type = OrderId)]
    order_id: OrderId,
}

impl ReadQuery for ListParameters {
    fn read(parameters: &mut Parameters<'_>) -> Option<Self> {
        Some(Self { order_id: parameters.required("order_id")? })
    }
}

/// A message about an order on one channel, without its text and without the recipient.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Message)]
pub(super) struct MessageDocument {
    /// The event that the message belongs to.
    event_id: String,
    message: MessageKind,
    /// The event whose message is sent again. Absent if this is the first message of an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    resend_of: Option<String>,
    channel: Channel,
    status: MessageState,
    /// The time of the last attempt to send the message.
    attempted_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    sent_at: Option<Timestamp>,
    /// The id of the message at SES or SNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    provider_id: Option<String>,
    /// The error code with which SES or SNS refused the recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    feedback: Option<Feedback>,
}

impl From<SentMessage> for MessageDocument {
    fn from(message: SentMessage) -> Self {
        let SentMessage {
            event_id,
            kind,
            resend_of,
            channel,
            state,
            attempted_at,
            sent_at,
            provider_id,
            refusal,
            feedback,
        } = message;
        Self {
            event_id: event_id.to_string(),
            message: kind,
            resend_of: resend_of.map(|of| of.to_string()),
            channel,
            status: state,
            attempted_at,
            sent_at,
            provider_id,
            refusal,
            feedback,
        }
    }
}

type MessagePage = Page<MessageDocument>;

/// List the messages of an order
///
/// For administrators. Returns the messages about an order of the last 30 days, one entry for each event and channel,
/// the oldest attempt first: all on one page.
#[utoipa::path(
    get,
    path = "/messages",
    operation_id = "listMessages",
    tag = "Messages",
    params(ListParameters),
    responses(
        (status = 200, description = "The messages.", body = MessagePage),
        ProblemResponses<(Admin, Input<Query<ListParameters>>)>,
    ),
)]
pub(super) async fn list(
    State(notifications): State<Notifications>,
    _: Admin,
    Input(Query(ListParameters { order_id })): Input<Query<ListParameters>>,
) -> Result<Json<MessagePage>, Problem> {
    let messages = notifications.messages(order_id).await?;
    Ok(Json(Page { items: messages.into_iter().map(MessageDocument::from).collect(), next_cursor: None }))
}
