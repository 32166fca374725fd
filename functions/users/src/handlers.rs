//! The HTTP routes of users.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chassis::{
    caller::{Authenticator, Caller, Internal},
    contact::{Email, Phone, VerifiedContact},
    dynamo::Table,
    health,
    http::edge,
    id::UserId,
    input::{Body, Id, Input, Message, Object, ReadBody, text, whole},
    invocation::Invocation,
    openapi::{Location, OnlyKnownMembers, ProblemResponses, one_of},
    problem::Problem,
    trace::TraceContext,
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{
    OpenApi, ToSchema,
    openapi::{self, ObjectBuilder},
};

use crate::{
    domain::{Account, Name, Profile, User},
    openapi::{Changing, Creating, Deactivating, Reading},
    service::{Change, UserError, Users},
};

/// All routes, public and internal, behind the HTTP edge.
pub fn router(users: Users, table: Table, authenticator: Authenticator) -> Router {
    let routes = Router::new()
        .route("/users", post(create))
        .route("/users/{id}", get(read).patch(change).delete(deactivate))
        .route("/users/{id}/validate", post(validate))
        .with_state(users)
        .merge(health::routes("users", table));
    edge(routes, authenticator)
}

#[derive(OpenApi)]
#[openapi(paths(create, read, change, deactivate), modifiers(&OnlyKnownMembers))]
struct Api;

/// What the API's document says of the public routes.
pub fn api() -> openapi::OpenApi {
    Api::openapi().merge_from(health::api("users"))
}

#[derive(Debug, ToSchema)]
struct NewUser {
    /// The address that the caller verified when signing up.
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
    /// The caller's own verified address: nobody else can change it.
    email: Option<Email>,
    name: Option<Name>,
}

impl ReadBody for UserChange {
    type Context = Caller;

    fn read(body: &mut Object<'_, '_>, caller: &Caller) -> Option<Self> {
        let (email, name) = (body.optional("email", text), body.optional("name", text));
        check_owner(body, email.as_ref(), caller);
        Some(Self { email, name })
    }
}

const NOT_VERIFIED: &str = "must be the e-mail address that you verified when you signed up";

/// Names an address that is not the caller's together with all else that is
/// wrong. The use cases refuse it in any case.
fn check_owner(body: &mut Object<'_, '_>, email: Option<&Email>, caller: &Caller) {
    if email.is_some_and(|email| caller.contact.email.as_ref() != Some(email)) {
        body.refuse("email", NOT_VERIFIED);
    }
}

const ACTIVE: &str = "ACTIVE";
const INACTIVE: &str = "INACTIVE";

fn status_schema() -> ObjectBuilder {
    one_of([ACTIVE, INACTIVE])
}

/// A user. A deactivated one has no name and no addresses.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
struct UserDocument {
    id: UserId,
    #[schema(schema_with = status_schema)]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<Name>,
    /// Absent, too, after the user pool has verified the address for somebody else, until this person's next token brings
    /// another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    email: Option<Email>,
    /// Only if the user pool has verified it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    phone: Option<Phone>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<User> for UserDocument {
    fn from(user: User) -> Self {
        let (id, created_at, updated_at) = (user.id, user.created_at, user.updated_at);
        match user.account {
            Account::Active(Profile { name, contact }) => Self {
                id,
                status: ACTIVE,
                name: Some(name),
                email: contact.email,
                phone: contact.phone,
                created_at,
                updated_at,
            },
            Account::Erased { .. } => {
                Self { id, status: INACTIVE, name: None, email: None, phone: None, created_at, updated_at }
            }
        }
    }
}

/// What the token of a user says, as another service passes it on.
#[derive(Debug)]
struct Heard(VerifiedContact);

impl ReadBody for Heard {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        let (email, phone) = (body.optional("email", text), body.optional("phone", text));
        let as_of = body.required("as_of", whole::<i64>);
        let as_of = as_of.and_then(|second| body.check("as_of", Timestamp::from_second(second)));
        Some(Self(VerifiedContact { email, phone, as_of: as_of? }))
    }
}

/// What other services learn of a user.
#[derive(Debug, Serialize)]
struct Validation {
    valid: bool,
    /// Why not: `user_not_found` or `user_inactive`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<Recipient>,
}

/// Contact details that an event needs, so that its consumer asks nobody.
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
/// Whoever wants to order needs one. The e-mail address must be the one that the user pool verified; a verified phone
/// number is taken from the token, too. Each person has one profile, whose id derives from the token's subject.
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

/// Read a profile
///
/// One's own; an administrator may read anybody's. Somebody else's is 404. A profile has no e-mail address after the
/// user pool has verified that address for another person, until its owner's next token brings one.
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
/// What is left out, or null, stays as it is. E-mail address and phone number follow the caller's newest token.
#[utoipa::path(
    patch,
    path = "/users/{id}",
    operation_id = "changeUser",
    tag = "Users",
    params(("id" = UserId, Path)),
    request_body = UserChange,
    responses(
        (status = 200, description = "The profile as it stands now.", body = UserDocument),
        ProblemResponses<(Changing, Caller, Input<(Id<UserId>, Body<UserChange>)>)>,
    ),
)]
async fn change(
    State(users): State<Users>,
    caller: Caller,
    invocation: Invocation,
    Input((Id(id), Body(change))): Input<(Id<UserId>, Body<UserChange>)>,
) -> Result<Json<UserDocument>, Problem> {
    let UserChange { name, email } = change;
    let change = Change { name, email };
    Ok(Json(users.change(&caller, id, change, invocation.deadline).await?.into()))
}

/// Leave
///
/// Deactivates the user for good and erases the personal data. The copies in orders and payments are erased soon after,
/// and nothing is sent to the user any more. Doing it again changes nothing.
#[utoipa::path(
    delete,
    path = "/users/{id}",
    operation_id = "deactivateUser",
    tag = "Users",
    params(("id" = UserId, Path)),
    responses(
        (status = 204, description = "Deactivated."),
        ProblemResponses<(Deactivating, Caller, Input<Id<UserId>>)>,
    ),
)]
async fn deactivate(
    State(users): State<Users>,
    caller: Caller,
    trace: TraceContext,
    invocation: Invocation,
    Input(Id(id)): Input<Id<UserId>>,
) -> Result<StatusCode, Problem> {
    users.deactivate(&caller, id, &trace, invocation.deadline).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn validate(
    State(users): State<Users>,
    _: Internal,
    invocation: Invocation,
    Message((Id(id), Body(Heard(heard)))): Message<(Id<UserId>, Body<Heard>)>,
) -> Result<Json<Validation>, Problem> {
    let invalid = |reason| Validation { valid: false, reason: Some(reason), recipient: None };
    Ok(Json(match users.validate(id, &heard, invocation.deadline).await? {
        Some(Account::Active(Profile { name, contact })) => {
            let recipient = Recipient { name, email: contact.email, phone: contact.phone };
            Validation { valid: true, reason: None, recipient: Some(recipient) }
        }
        Some(Account::Erased { .. }) => invalid("user_inactive"),
        None => invalid("user_not_found"),
    }))
}

impl From<UserError> for Problem {
    fn from(error: UserError) -> Self {
        let conflict = |code, detail: &str| Problem::new(StatusCode::CONFLICT, code, detail);
        match error {
            UserError::NotFound => Problem::not_found("user"),
            UserError::Exists => conflict("user_exists", "You have a profile already."),
            UserError::EmailTaken => conflict("email_taken", "Another user has this e-mail address."),
            UserError::Inactive => conflict("user_inactive", "This user was deactivated."),
            UserError::EmailNotVerified => Problem::invalid_field("email", NOT_VERIFIED),
            UserError::TokenOutdated => Problem::invalid_field(
                "email",
                "must be the e-mail address that you verified last; your token is older than that, sign in again",
            ),
            UserError::Contended => Problem::contended(error),
            UserError::Publish(_) => Problem::unavailable(error),
            UserError::Store(error) => error.into(),
        }
    }
}
