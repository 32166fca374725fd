//! The HTTP routes of users.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chassis::{
    audit::Reason,
    caller::{Admin, Authenticator, Caller, Internal},
    contact::{Email, Phone, VerifiedContact},
    dynamo::Table,
    health,
    http::edge,
    id::UserId,
    input::{Body, Id, Input, Message, Object, Paging, Parameters, Query, ReadBody, ReadQuery, text, whole},
    invocation::Invocation,
    openapi::{Location, OnlyKnownMembers, ProblemResponses, one_of},
    page::Page,
    problem::Problem,
    trace::TraceContext,
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{
    IntoParams, OpenApi, ToSchema,
    openapi::{self, ObjectBuilder},
};

use crate::{
    domain::{ActionKind, Name, Profile, User, UserAction, UserState},
    openapi::{Changing, Creating, Deactivating, ListingActions, Reading},
    problems::EMAIL_NOT_VERIFIED,
    service::{ProfileChange, Users},
};

/// Returns all public and internal routes, with the middleware that each service has ([`edge`]).
pub fn router(users: Users, table: Table, authenticator: Authenticator) -> Router {
    let routes = Router::new()
        .route("/users", get(search).post(create))
        .route("/users/{id}", get(read).patch(change).delete(deactivate))
        .route("/users/{id}/actions", get(actions))
        .route("/users/{id}/validate", post(validate))
        .with_state(users)
        .merge(health::routes("users", table));
    edge(routes, authenticator)
}

#[derive(OpenApi)]
#[openapi(paths(search, create, read, change, deactivate, actions), modifiers(&OnlyKnownMembers))]
struct Api;

/// The part of the OpenAPI document that describes the public routes of users.
pub fn api() -> openapi::OpenApi {
    Api::openapi().merge_from(health::api("users"))
}

#[derive(Debug, ToSchema)]
struct NewUser {
    /// The e-mail address that the caller verified at sign-up.
    email: Email,
    name: Name,
}

impl ReadBody for NewUser {
    type Context = Caller;

    fn read(body: &mut Object<'_, '_>, caller: &Caller) -> Option<Self> {
        let (email, name) = (body.required("email", text), body.required("name", text));
        check_owner(body, email.as_ref(), caller);
        Some(Self { email: email?, name: name? })
    }
}

#[derive(Debug, ToSchema)]
struct UserChange {
    /// The caller's own verified e-mail address. Administrators cannot change another person's e-mail address.
    email: Option<Email>,
    name: Option<Name>,
    /// Why an administrator changes another person's profile. Needed then, and refused otherwise.
    reason: Option<Reason>,
}

impl ReadBody for UserChange {
    type Context = Caller;

    fn read(body: &mut Object<'_, '_>, caller: &Caller) -> Option<Self> {
        let (email, name) = (body.optional("email", text), body.optional("name", text));
        let reason = body.optional("reason", text);
        check_owner(body, email.as_ref(), caller);
        Some(Self { email, name, reason })
    }
}

/// Refuses an e-mail address that is not the caller's own. The service refuses such an address, too, but only this
/// check can report it in one response together with all other bad fields.
fn check_owner(body: &mut Object<'_, '_>, email: Option<&Email>, caller: &Caller) {
    if email.is_some_and(|email| caller.contact.email.as_ref() != Some(email)) {
        body.reject("email", EMAIL_NOT_VERIFIED);
    }
}

const ACTIVE: &str = "ACTIVE";
const INACTIVE: &str = "INACTIVE";

fn status_schema() -> ObjectBuilder {
    one_of([ACTIVE, INACTIVE])
}

/// A user. A deactivated user has no name, e-mail address or phone number.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
struct UserDocument {
    id: UserId,
    #[schema(schema_with = status_schema)]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<Name>,
    /// A deactivated user has no e-mail address. An active user has none from the time at which the user pool has
    /// verified the address for another person, until a new token of the user contains a new address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    email: Option<Email>,
    /// The phone number, if the user pool has verified it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    phone: Option<Phone>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<User> for UserDocument {
    fn from(user: User) -> Self {
        let (id, created_at, updated_at) = (user.id, user.created_at, user.updated_at);
        match user.state {
            UserState::Active(Profile { name, contact }) => Self {
                id,
                status: ACTIVE,
                name: Some(name),
                email: contact.email,
                phone: contact.phone,
                created_at,
                updated_at,
            },
            UserState::Erased { .. } => {
                Self { id, status: INACTIVE, name: None, email: None, phone: None, created_at, updated_at }
            }
        }
    }
}

/// The body of `POST /users/{id}/validate`: the contact details from the user's token, which the calling service has
/// received.
#[derive(Debug)]
struct TokenContact(VerifiedContact);

impl ReadBody for TokenContact {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        let (email, phone) = (body.optional("email", text), body.optional("phone", text));
        let as_of = body.required("as_of", whole::<i64>);
        let as_of = as_of.and_then(|second| body.check("as_of", Timestamp::from_second(second)));
        Some(Self(VerifiedContact { email, phone, as_of: as_of? }))
    }
}

/// The response of `POST /users/{id}/validate`: whether the user may order.
#[derive(Debug, Serialize)]
struct Validation {
    valid: bool,
    /// The reason why the user may not order: `user_not_found` or `user_inactive`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<Recipient>,
}

/// The contact details of a user who may order. The calling service copies them into its events, so that the consumers
/// of the events don't have to request them from this service.
#[derive(Debug, Serialize)]
struct Recipient {
    name: Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<Email>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<Phone>,
}

/// Create your profile
///
/// A customer needs a profile to order. The e-mail address must be the address that the user pool has verified. If the
/// token contains a verified phone number, the profile gets that number, too. Each person has one profile. The id of
/// the profile derives from the subject of the person's tokens.
#[utoipa::path(
    post,
    path = "/users",
    operation_id = "createUser",
    tag = "Users",
    request_body = NewUser,
    responses(
        (status = 201, description = "The profile.", body = UserDocument, headers(("location" = inline(Location)))),
        ProblemResponses<(Creating, Caller, Input<Body<NewUser>>)>,
    ),
)]
async fn create(
    State(users): State<Users>,
    caller: Caller,
    invocation: Invocation,
    Input(Body(new)): Input<Body<NewUser>>,
) -> Result<Response, Problem> {
    let user = users.create(&caller, new.name, new.email, invocation.deadline).await?;
    let location = [(header::LOCATION, format!("users/{}", user.id))];
    Ok((StatusCode::CREATED, location, Json(UserDocument::from(user))).into_response())
}

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct SearchParameters {
    /// The e-mail address. Upper and lower case make no difference.
    #[param(value_type = Email)]
    email: Email,
}

impl ReadQuery for SearchParameters {
    fn read(parameters: &mut Parameters<'_>) -> Option<Self> {
        Some(Self { email: parameters.required("email")? })
    }
}

type UserPage = Page<UserDocument>;

/// Find a customer
///
/// For administrators. Returns the user who has this e-mail address: one user, or nobody. A deactivated user has no
/// e-mail address any more, and is not found.
#[utoipa::path(
    get,
    path = "/users",
    operation_id = "findUser",
    tag = "Users",
    params(SearchParameters),
    responses(
        (status = 200, description = "The user, or an empty page.", body = UserPage),
        ProblemResponses<(Admin, Input<Query<SearchParameters>>)>,
    ),
)]
async fn search(
    State(users): State<Users>,
    _: Admin,
    Input(Query(SearchParameters { email })): Input<Query<SearchParameters>>,
) -> Result<Json<UserPage>, Problem> {
    let found = users.find_by_email(&email).await?;
    Ok(Json(Page { items: found.into_iter().map(UserDocument::from).collect(), next_cursor: None }))
}

/// Read a profile
///
/// Users can read only their own profile: a request for another user's profile gets a 404. An administrator can read
/// every profile. After the user pool has verified a profile's e-mail address for another person, the profile has no
/// e-mail address until a new token of its owner contains a new address.
#[utoipa::path(
    get,
    path = "/users/{id}",
    operation_id = "getUser",
    tag = "Users",
    params(("id" = UserId, Path)),
    responses(
        (status = 200, description = "The profile.", body = UserDocument),
        ProblemResponses<(Reading, Caller, Input<Id<UserId>>)>,
    ),
)]
async fn read(
    State(users): State<Users>,
    caller: Caller,
    Input(Id(id)): Input<Id<UserId>>,
) -> Result<Json<UserDocument>, Problem> {
    Ok(Json(users.get(&caller, id).await?.into()))
}

/// Change a profile
///
/// A value whose member is absent or null stays as it is. If you change your own profile, it also gets the e-mail
/// address and the phone number of your token, unless the profile already has those of a newer token.
#[utoipa::path(
    patch,
    path = "/users/{id}",
    operation_id = "changeUser",
    tag = "Users",
    params(("id" = UserId, Path)),
    request_body = UserChange,
    responses(
        (status = 200, description = "The changed profile.", body = UserDocument),
        ProblemResponses<(Changing, Caller, Input<(Id<UserId>, Body<UserChange>)>)>,
    ),
)]
async fn change(
    State(users): State<Users>,
    caller: Caller,
    invocation: Invocation,
    Input((Id(id), Body(change))): Input<(Id<UserId>, Body<UserChange>)>,
) -> Result<Json<UserDocument>, Problem> {
    let UserChange { name, email, reason } = change;
    let change = ProfileChange { name, email, reason };
    Ok(Json(users.change(&caller, id, change, invocation.deadline).await?.into()))
}

/// Delete your profile
///
/// Deactivates the user for good and erases the personal data. The copies in orders and payments are erased soon
/// afterwards, and the user gets no further messages. A repeated request changes nothing. An administrator may delete
/// another person's profile.
#[utoipa::path(
    delete,
    path = "/users/{id}",
    operation_id = "deactivateUser",
    tag = "Users",
    params(("id" = UserId, Path), DeactivationParameters),
    responses(
        (status = 204, description = "The user is deactivated."),
        ProblemResponses<(Deactivating, Caller, Input<(Id<UserId>, Query<DeactivationParameters>)>)>,
    ),
)]
async fn deactivate(
    State(users): State<Users>,
    caller: Caller,
    trace: TraceContext,
    invocation: Invocation,
    Input((Id(id), Query(DeactivationParameters { reason }))): Input<(Id<UserId>, Query<DeactivationParameters>)>,
) -> Result<StatusCode, Problem> {
    users.deactivate(&caller, id, reason, &trace, invocation.deadline).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeactivationParameters {
    /// Why an administrator deletes another person's profile. Needed then, and refused otherwise.
    #[param(value_type = Reason, required = false)]
    reason: Option<Reason>,
}

impl ReadQuery for DeactivationParameters {
    fn read(parameters: &mut Parameters<'_>) -> Option<Self> {
        Some(Self { reason: parameters.optional("reason") })
    }
}

/// What an administrator has done with a profile: who, when and why.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserAction)]
struct ActionDocument {
    action: ActionKind,
    /// The administrator.
    acted_by: UserId,
    reason: Reason,
    acted_at: Timestamp,
}

impl From<UserAction> for ActionDocument {
    fn from(action: UserAction) -> Self {
        let UserAction { action, acted_by, reason, acted_at, version: _ } = action;
        Self { action, acted_by, reason, acted_at }
    }
}

type ActionPage = Page<ActionDocument>;

/// List what administrators have done with a profile
///
/// For administrators. Returns one page, the oldest action first. What users change in their own profiles is not listed.
#[utoipa::path(
    get,
    path = "/users/{id}/actions",
    operation_id = "listUserActions",
    tag = "Users",
    params(("id" = UserId, Path), Paging),
    responses(
        (status = 200, description = "A page of actions.", body = ActionPage),
        ProblemResponses<(ListingActions, Admin, Input<(Id<UserId>, Query<Paging>)>)>,
    ),
)]
async fn actions(
    State(users): State<Users>,
    _: Admin,
    Input((Id(id), Query(Paging { limit, cursor }))): Input<(Id<UserId>, Query<Paging>)>,
) -> Result<Json<ActionPage>, Problem> {
    Ok(Json(users.actions(id, limit, cursor.as_ref()).await?.map(ActionDocument::from)))
}

async fn validate(
    State(users): State<Users>,
    _: Internal,
    invocation: Invocation,
    Message((Id(id), Body(TokenContact(contact)))): Message<(Id<UserId>, Body<TokenContact>)>,
) -> Result<Json<Validation>, Problem> {
    let invalid = |reason| Validation { valid: false, reason: Some(reason), recipient: None };
    Ok(Json(match users.validate(id, &contact, invocation.deadline).await? {
        Some(UserState::Active(Profile { name, contact })) => {
            let recipient = Recipient { name, email: contact.email, phone: contact.phone };
            Validation { valid: true, reason: None, recipient: Some(recipient) }
        }
        Some(UserState::Erased { .. }) => invalid("user_inactive"),
        None => invalid("user_not_found"),
    }))
}
