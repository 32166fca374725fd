//! A switch with which administrators pause a part of the shop and resume it, at
//! once and without a deployment: `/pauses/{part}`.
//!
//! The switch is an item of the service's own table. Each change of the switch
//! has a record, which is written in the same transaction
//! (`docs/adr/0017-the-audit-trail.md`). What a service does while it is paused
//! is its own matter: `docs/adr/0020-pauses.md`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Json, Router, extract::State, routing::get};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, Modify, ToSchema,
    openapi::{
        Components, ContentBuilder, HttpMethod, Info, OpenApi, OpenApiBuilder, PathItem, Paths, Ref, Required,
        path::{Operation, OperationBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        response::{ResponseBuilder, ResponsesBuilder},
        security::SecurityRequirement,
    },
};

use crate::{
    audit::Reason,
    caller::Admin,
    clock::{self, Clock},
    dynamo::{Key, Section, Table, TransactionOutcome, number},
    id::UserId,
    input::{Body, Input, Object, Paging, Query, ReadBody, flag, text},
    openapi::{ID_TOKEN, OnlyKnownMembers, ProblemResponses},
    page::{Cursor, InvalidCursor, Limit, ListError, Page},
    problem::Problem,
    problems,
    store::StoreError,
};

/// For how long an execution environment relies on what it has read. So a change of
/// the switch has an effect everywhere after this time, and an environment reads
/// the switch once in this time and not for each request.
pub const EFFECTIVE_WITHIN: Duration = Duration::from_secs(5);

const PARTITION: &str = "PAUSE";
const CHANGE_PREFIX: &str = "CHANGE#";

/// A change of a switch: who paused or resumed the part, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseChange {
    /// Counts the changes, from 1.
    version: u64,
    is_paused: bool,
    reason: Reason,
    changed_by: UserId,
    changed_at: Timestamp,
}

/// The item of the switch, which contains the last change, or the item of one change.
#[derive(Debug, Serialize, Deserialize)]
struct ChangeRecord {
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    change: PauseChange,
}

/// The switch that pauses one part of the shop. Clones share what they have read.
#[derive(Clone, Debug)]
pub struct PauseSwitch {
    part: &'static str,
    table: Table,
    clock: Clock,
    known: Arc<Mutex<Option<Known>>>,
}

/// What was read of a switch.
#[derive(Clone, Copy, Debug)]
struct Known {
    is_paused: bool,
    read_at: Timestamp,
}

impl PauseSwitch {
    /// Returns the switch of `part`, such as `orders`. It is an item of `table`.
    pub fn new(part: &'static str, table: Table, clock: Clock) -> Self {
        Self { part, table, clock, known: Arc::default() }
    }

    /// Returns whether the part is paused, or was paused less than
    /// [`EFFECTIVE_WITHIN`] ago.
    ///
    /// # Errors
    ///
    /// If the item cannot be read.
    pub async fn is_paused(&self) -> Result<bool, StoreError> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |known: &Known| clock::is_within(EFFECTIVE_WITHIN, known.read_at, self.clock.now());
        if let Some(known) = known.filter(is_fresh) {
            return Ok(known.is_paused);
        }
        self.is_paused_now().await
    }

    /// Reads whether the part is paused, also if that was read a moment ago.
    ///
    /// # Errors
    ///
    /// If the item cannot be read.
    pub async fn is_paused_now(&self) -> Result<bool, StoreError> {
        Ok(self.read().await?.is_some_and(|change| change.is_paused))
    }

    /// Reads the last change.
    async fn read(&self) -> Result<Option<PauseChange>, StoreError> {
        let read_at = self.clock.now();
        let record: Option<ChangeRecord> = self.table.get(&Key::new(PARTITION, PARTITION)).await?;
        let change = record.map(|record| record.change);
        self.remember(change.as_ref().is_some_and(|change| change.is_paused), read_at);
        Ok(change)
    }

    fn remember(&self, is_paused: bool, read_at: Timestamp) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Known { is_paused, read_at });
    }

    /// Pauses or resumes the part. If it is in this state already, nothing changes.
    /// Returns the last change; nothing if the part was never paused.
    async fn turn(&self, to: NewPause, administrator: UserId) -> Result<Option<PauseChange>, StoreError> {
        let NewPause { paused, reason } = to;
        let last = self.read().await?;
        if last.as_ref().is_some_and(|change| change.is_paused) == paused {
            return Ok(last);
        }
        let before = last.map_or(0, |change| change.version);
        let now = self.clock.now();
        let change =
            PauseChange { version: before + 1, is_paused: paused, reason, changed_by: administrator, changed_at: now };
        let record = |key| ChangeRecord { key, change: change.clone() };
        let switch = self
            .table
            .put(&record(Key::new(PARTITION, PARTITION)))?
            .condition_expression("attribute_not_exists(pk) OR version = :before")
            .expression_attribute_values(":before", number(before));
        let entry = record(Key::new(PARTITION, format!("{CHANGE_PREFIX}{:010}", change.version)));
        match self.table.transact(switch, [self.table.put_new(&entry)?]).await? {
            TransactionOutcome::Written => {}
            TransactionOutcome::SubjectConditionFailed(_) | TransactionOutcome::OtherConditionFailed => {
                return Err(StoreError::contended(self.table.name(), "the switch was changed at the same moment"));
            }
        }
        self.remember(paused, now);
        tracing::warn!(part = self.part, paused, administrator = %change.changed_by, "the switch was changed");
        Ok(Some(change))
    }

    /// Reads a page of the changes, the oldest first.
    async fn changes(&self, limit: Limit, cursor: Option<&Cursor>) -> Result<Page<PauseChange>, ListError> {
        let section = Section { partition: PARTITION, prefix: CHANGE_PREFIX, limit, cursor };
        let page: Page<ChangeRecord> = self.table.list_section(section).await?;
        Ok(page.map(|record| record.change))
    }
}

/// The wanted state of a switch.
#[derive(Debug, ToSchema)]
struct NewPause {
    /// Whether the part is to be paused.
    paused: bool,
    reason: Reason,
}

impl ReadBody for NewPause {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        let (paused, reason) = (body.required("paused", flag), body.required("reason", text));
        Some(Self { paused: paused?, reason: reason? })
    }
}

/// The state of a switch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Pause)]
struct PauseDocument {
    /// Whether the part is paused. A change has an effect everywhere after five seconds.
    paused: bool,
    /// The last change. Missing if the part was never paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_change: Option<ChangeDocument>,
}

impl From<Option<PauseChange>> for PauseDocument {
    fn from(last: Option<PauseChange>) -> Self {
        Self { paused: last.as_ref().is_some_and(|change| change.is_paused), last_change: last.map(Into::into) }
    }
}

/// A change of a switch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PauseChange)]
struct ChangeDocument {
    /// Whether the part was paused by this change, or resumed.
    paused: bool,
    reason: Reason,
    /// The administrator.
    changed_by: UserId,
    changed_at: Timestamp,
}

impl From<PauseChange> for ChangeDocument {
    fn from(change: PauseChange) -> Self {
        let PauseChange { version: _, is_paused, reason, changed_by, changed_at } = change;
        Self { paused: is_paused, reason, changed_by, changed_at }
    }
}

type ChangePage = Page<ChangeDocument>;

problems! {
    Changing: [Problem::contended("a sample")];
    ListingChanges: [ListError::Cursor(InvalidCursor)];
}

/// Returns the routes of a switch. They are for administrators.
pub fn routes(switch: PauseSwitch) -> Router {
    let path = format!("/pauses/{}", switch.part);
    Router::new()
        .route(&format!("{path}/changes"), get(list_changes))
        .route(&path, get(read).post(change))
        .with_state(switch)
}

async fn read(
    State(switch): State<PauseSwitch>,
    _: Admin,
    Input(()): Input<()>,
) -> Result<Json<PauseDocument>, Problem> {
    Ok(Json(switch.read().await?.into()))
}

async fn change(
    State(switch): State<PauseSwitch>,
    Admin(caller): Admin,
    Input(Body(to)): Input<Body<NewPause>>,
) -> Result<Json<PauseDocument>, Problem> {
    Ok(Json(switch.turn(to, caller.user_id).await?.into()))
}

async fn list_changes(
    State(switch): State<PauseSwitch>,
    _: Admin,
    Input(Query(Paging { limit, cursor })): Input<Query<Paging>>,
) -> Result<Json<ChangePage>, Problem> {
    Ok(Json(switch.changes(limit, cursor.as_ref()).await?.map(Into::into)))
}

/// Describes the routes of a switch for the OpenAPI document. `effect` says in one
/// sentence what the shop does while `part` is paused.
pub fn api(part: &str, effect: &str) -> OpenApi {
    let name = title(part);
    let ok = |schema: Ref, description: &str| {
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response = ResponseBuilder::new().description(description).content("application/json", content);
        ResponsesBuilder::new().response("200", response)
    };
    let pause = || Ref::from_schema_name(PauseDocument::name());
    let read = operation(format!("get{name}Pause"), format!("Read whether {part} are paused"), "For administrators.")
        .responses(
            ok(pause(), "The state of the switch.")
                .responses_from_into_responses::<ProblemResponses<(Admin, Input<()>)>>(),
        );
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(NewPause::name()))).build();
    let body = RequestBodyBuilder::new().content("application/json", body).required(Some(Required::True)).build();
    let change = operation(
        format!("set{name}Pause"),
        format!("Pause or resume {part}"),
        &format!("For administrators. {effect} A change has an effect everywhere after five seconds. If the switch has this state already, nothing changes."),
    )
    .request_body(Some(body))
    .responses(
        ok(pause(), "The state of the switch.")
            .responses_from_into_responses::<ProblemResponses<(Changing, Admin, Input<Body<NewPause>>)>>(),
    );
    let page = Ref::from_schema_name(ChangePage::name());
    let list = operation(
        format!("list{name}PauseChanges"),
        format!("List when {part} were paused and resumed"),
        "For administrators. Returns one page, the oldest change first.",
    )
    .parameters(Some(Paging::into_params(|| Some(ParameterIn::Query))))
    .responses(
        ok(page, "A page of changes.")
            .responses_from_into_responses::<ProblemResponses<(ListingChanges, Admin, Input<Query<Paging>>)>>(),
    );
    let mut switch = PathItem::new(HttpMethod::Get, read);
    switch.post = Some(change.build());
    let mut paths = Paths::new();
    paths.paths.insert(format!("/pauses/{part}"), switch);
    paths.paths.insert(format!("/pauses/{part}/changes"), PathItem::new(HttpMethod::Get, list));
    let components = Components::builder()
        .schema_from::<PauseDocument>()
        .schema_from::<NewPause>()
        .schema_from::<ChangeDocument>()
        .schema_from::<ChangePage>()
        .build();
    let mut api = OpenApiBuilder::new().info(Info::default()).paths(paths).components(Some(components)).build();
    OnlyKnownMembers.modify(&mut api);
    api
}

fn operation(id: String, summary: String, description: &str) -> OperationBuilder {
    Operation::builder()
        .tag("Pauses")
        .operation_id(Some(id))
        .summary(Some(summary))
        .description(Some(description))
        .securities(Some([SecurityRequirement::new(ID_TOKEN, [""; 0])]))
}

/// `orders` with a capital letter.
fn title(part: &str) -> String {
    let mut letters = part.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
