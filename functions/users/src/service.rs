//! The use cases of users.

use std::sync::Arc;

use chassis::{
    audit::Reason,
    caller::Caller,
    clock::Clock,
    contact::{Email, VerifiedContact},
    deadline::Deadline,
    events::{Event, EventPublisher, EventType, PublishError},
    id::UserId,
    page::{Cursor, Limit, ListError, Page},
    store::StoreError,
    time_limits::USERS_RETRY_RESERVE,
    trace::TraceContext,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{ActionKind, Name, Profile, User, UserAction, UserState},
    repository::{Repository, SaveUserOutcome},
};

/// The errors of the use cases, with the HTTP status of each.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// HTTP 404: the user does not exist, or the caller may not see the user.
    #[error("the user does not exist")]
    NotFound,
    /// HTTP 409.
    #[error("the caller already has a profile")]
    Exists,
    /// HTTP 409.
    #[error("another user has this e-mail address")]
    EmailTaken,
    /// HTTP 409.
    #[error("the user was deactivated")]
    Inactive,
    /// HTTP 422.
    #[error("the user pool has not verified this e-mail address for the caller")]
    EmailNotVerified,
    /// HTTP 422: the caller's token has this e-mail address, but the profile has the e-mail address of a newer token.
    #[error("a newer token has another e-mail address")]
    TokenOutdated,
    /// HTTP 422: an administrator did not say why another person's profile is changed, or somebody explained why their
    /// own profile is changed.
    #[error("the reason {0}")]
    Explanation(&'static str),
    /// HTTP 409: other requests changed the user before each attempt, until the deadline.
    #[error("other requests changed the user before each attempt to write it")]
    Contended,
    /// HTTP 503: the user is erased, but the other services are not notified yet.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// HTTP 409 (contention), 503 (the table is throttled or unavailable) or 500 (a stored item is corrupt).
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A change of a profile. `None` leaves a value as it is.
#[derive(Clone, Debug, Default)]
pub struct ProfileChange {
    pub name: Option<Name>,
    /// The new e-mail address, which must be the caller's own verified e-mail address.
    pub email: Option<Email>,
    /// Why an administrator changes another person's profile.
    pub reason: Option<Reason>,
}

/// The attribute `source` of all events of the users service.
const SOURCE: &str = "/users";

/// The types of events that the users service publishes.
pub fn published_events() -> [EventType; 1] {
    [EventType::of::<UserErased>(SOURCE, "UserErased", "A person's data was erased by the users service.")]
}

/// The data of the event `UserErased`.
#[derive(Debug, Serialize, ToSchema)]
struct UserErased {
    user_id: UserId,
}

#[derive(Clone)]
pub struct Users {
    repository: Arc<dyn Repository>,
    /// One publisher for each service that has copies of personal data.
    publishers: Arc<[EventPublisher]>,
    clock: Clock,
}

impl Users {
    /// After a user is erased, each of `publishers` publishes the event `UserErased`.
    pub fn new(
        repository: impl Repository + 'static,
        publishers: impl IntoIterator<Item = EventPublisher>,
        clock: Clock,
    ) -> Self {
        Self { repository: Arc::new(repository), publishers: publishers.into_iter().collect(), clock }
    }

    /// Creates the caller's own profile. The contact details come from the caller's token, so that nobody can create a
    /// profile with another person's e-mail address.
    pub async fn create(
        &self,
        caller: &Caller,
        name: Name,
        email: Email,
        deadline: Deadline,
    ) -> Result<User, UserError> {
        if caller.contact.email.as_ref() != Some(&email) {
            return Err(UserError::EmailNotVerified);
        }
        let profile = Profile { name, contact: caller.contact.clone() };
        let user = User::new(caller.user_id, profile, self.clock.now());
        for attempt in 0.. {
            match stale_if_contended(self.repository.create(&user).await)? {
                SaveUserOutcome::Saved => return Ok(user),
                SaveUserOutcome::EmailTaken => return Err(UserError::EmailTaken),
                SaveUserOutcome::Stale => match self.repository.find(user.id).await?.map(|user| user.state) {
                    Some(UserState::Erased { .. }) => return Err(UserError::Inactive),
                    Some(UserState::Active(_)) => return Err(UserError::Exists),
                    None => {}
                },
            }
            if !deadline.earlier_by(USERS_RETRY_RESERVE).pause(attempt).await {
                break;
            }
        }
        Err(UserError::Contended)
    }

    /// Reads a user. Only the user and administrators may read a user: for other callers, the user is not found.
    pub async fn get(&self, caller: &Caller, id: UserId) -> Result<User, UserError> {
        if !caller.may_act_for(id) {
            return Err(UserError::NotFound);
        }
        self.repository.find(id).await?.ok_or(UserError::NotFound)
    }

    /// Finds the active user who has this e-mail address. Only administrators may search for users.
    pub async fn find_by_email(&self, email: &Email) -> Result<Option<User>, UserError> {
        Ok(self.repository.find_by_email(email).await?)
    }

    /// Reads a page of what administrators have done with a user's profile, the oldest action first. Only administrators
    /// may list the actions.
    pub async fn actions(
        &self,
        id: UserId,
        limit: Limit,
        cursor: Option<&Cursor>,
    ) -> Result<Page<UserAction>, ListError> {
        self.repository.actions(id, limit, cursor).await
    }

    /// Changes a profile. If the caller is the profile's owner, the profile also gets the contact details of the
    /// caller's token.
    pub async fn change(
        &self,
        caller: &Caller,
        id: UserId,
        change: ProfileChange,
        deadline: Deadline,
    ) -> Result<User, UserError> {
        let token_contact = (caller.user_id == id).then_some(&caller.contact);
        if change.email.is_some() && token_contact.and_then(|contact| contact.email.as_ref()) != change.email.as_ref() {
            return Err(UserError::EmailNotVerified);
        }
        for attempt in 0.. {
            let before = self.get(caller, id).await?;
            let author = author(caller, id, change.reason.clone())?;
            let profile = before.profile().ok_or(UserError::Inactive)?;
            let name = change.name.clone().unwrap_or_else(|| profile.name.clone());
            let current = token_contact.map_or_else(|| profile.clone(), |contact| profile.after_token(contact));
            let after = Profile { name, ..current };
            if change.email.is_some() && after.contact.email != change.email {
                return Err(UserError::TokenOutdated);
            }
            let must_have_email = change.email.is_some();
            if let Some(user) = self.replace(&before, after, must_have_email, author.as_ref()).await? {
                return Ok(user);
            }
            if !deadline.earlier_by(USERS_RETRY_RESERVE).pause(attempt).await {
                break;
            }
        }
        Err(UserError::Contended)
    }

    /// Deactivates a user, erases the user's personal data, and has the other services erase their copies. A repeated
    /// request changes nothing.
    ///
    /// A request succeeds only after the event `UserErased` is published. If the function crashes before it has stored
    /// that the event is published, a repeated request publishes the event again.
    pub async fn deactivate(
        &self,
        caller: &Caller,
        id: UserId,
        reason: Option<Reason>,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<(), UserError> {
        for attempt in 0.. {
            let before = self.get(caller, id).await?;
            let author = author(caller, id, reason.clone())?;
            let is_announced = match before.state {
                UserState::Erased { is_announced: true } => return Ok(()),
                UserState::Erased { is_announced: false } => {
                    self.announce_erasure(&before, trace, deadline).await?;
                    true
                }
                UserState::Active(_) => false,
            };
            let after = before.with_state(UserState::Erased { is_announced }, self.clock.now());
            // The announcement of an erasure is no action of its own.
            let action = author.filter(|_| !is_announced).map(|author| author.acting(ActionKind::Deactivated, &after));
            // After a successful write, the next pass of the loop publishes the event or, if that is done, returns.
            let is_written = stale_if_contended(self.repository.replace(&before, &after, action.as_ref()).await)?
                == SaveUserOutcome::Saved;
            if !is_written && !deadline.earlier_by(USERS_RETRY_RESERVE).pause(attempt).await {
                break;
            }
        }
        Err(UserError::Contended)
    }

    async fn announce_erasure(&self, user: &User, trace: &TraceContext, deadline: Deadline) -> Result<(), UserError> {
        let data = UserErased { user_id: user.id };
        let event = Event::new(SOURCE, "UserErased", user.id, user.updated_at, trace.clone(), data);
        for publisher in self.publishers.iter() {
            publisher.publish(&event, deadline).await?;
        }
        Ok(())
    }

    /// Updates a profile from the contact details in its owner's token, and returns the user's state. `None` if the
    /// user does not exist.
    pub async fn validate(
        &self,
        id: UserId,
        token_contact: &VerifiedContact,
        deadline: Deadline,
    ) -> Result<Option<UserState>, UserError> {
        for attempt in 0.. {
            let Some(before) = self.repository.find(id).await? else { return Ok(None) };
            let Some(profile) = before.profile() else { return Ok(Some(before.state)) };
            let after = profile.after_token(token_contact);
            if let Some(user) = self.replace(&before, after, false, None).await? {
                return Ok(Some(user.state));
            }
            if !deadline.earlier_by(USERS_RETRY_RESERVE).pause(attempt).await {
                break;
            }
        }
        Err(UserError::Contended)
    }

    /// Writes `profile` if the stored user is still `before`. Returns `None` if another request has changed the user.
    ///
    /// If a newer token has given the profile's new e-mail address to another user, the result depends on
    /// `must_have_email`: `true` means the error `EmailTaken`, `false` means that the profile keeps its old address.
    async fn replace(
        &self,
        before: &User,
        profile: Profile,
        must_have_email: bool,
        author: Option<&Author>,
    ) -> Result<Option<User>, UserError> {
        let mut state = UserState::Active(profile);
        if state == before.state {
            return Ok(Some(before.clone()));
        }
        let mut after = before.with_state(state.clone(), self.clock.now());
        let action = author.map(|author| author.acting(ActionKind::Changed, &after));
        let mut saved = stale_if_contended(self.repository.replace(before, &after, action.as_ref()).await)?;
        if let (SaveUserOutcome::EmailTaken, false, UserState::Active(profile)) = (saved, must_have_email, &mut state) {
            profile.contact.email = before.email().cloned();
            after = before.with_state(state, self.clock.now());
            saved = stale_if_contended(self.repository.replace(before, &after, action.as_ref()).await)?;
        }
        match saved {
            SaveUserOutcome::Saved => Ok(Some(after)),
            SaveUserOutcome::Stale => Ok(None),
            SaveUserOutcome::EmailTaken => Err(UserError::EmailTaken),
        }
    }
}

/// An administrator who changes another person's profile, and the reason.
struct Author {
    id: UserId,
    reason: Reason,
}

impl Author {
    /// Returns the record of the action after which the user is `after`.
    fn acting(&self, action: ActionKind, after: &User) -> UserAction {
        let (acted_by, reason) = (self.id, self.reason.clone());
        UserAction { version: after.version, action, acted_by, reason, acted_at: after.updated_at }
    }
}

/// Returns the author of a change of the user `id`, or `None` if the users themselves change their profile.
fn author(caller: &Caller, id: UserId, reason: Option<Reason>) -> Result<Option<Author>, UserError> {
    match (caller.user_id == id, reason) {
        (true, None) => Ok(None),
        (true, Some(_)) => Err(UserError::Explanation("is for other persons' profiles; leave it out for your own")),
        (false, Some(reason)) => Ok(Some(Author { id: caller.user_id, reason })),
        (false, None) => Err(UserError::Explanation("must be given, because this is another person's profile")),
    }
}

/// Turns the error `Contended` into the outcome `Stale`, because the caller must try the write again in both cases.
fn stale_if_contended(saved: Result<SaveUserOutcome, StoreError>) -> Result<SaveUserOutcome, StoreError> {
    match saved {
        Err(StoreError::Contended { .. }) => Ok(SaveUserOutcome::Stale),
        other => other,
    }
}
