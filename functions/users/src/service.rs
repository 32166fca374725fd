//! What can be done with users.

use std::{sync::Arc, time::Duration};

use chassis::{
    caller::Caller,
    clock::Clock,
    contact::{Email, VerifiedContact},
    deadline::Deadline,
    events::{Event, EventPublisher, PublishError},
    id::UserId,
    store::StoreError,
    trace::TraceContext,
};
use serde::Serialize;

use crate::{
    domain::{Account, Name, Profile, User},
    repository::{Repository, SaveUserOutcome},
};

/// Why a request about users is refused.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// 404: no such user, or none of the caller's business.
    #[error("no such user")]
    NotFound,
    /// 409: the caller has a profile already.
    #[error("a profile exists already")]
    Exists,
    /// 409: another user has this e-mail address.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// 409: deactivated for good.
    #[error("the user is inactive")]
    Inactive,
    /// 422: not an address that the user pool verified for this caller.
    #[error("the e-mail address is not the verified one")]
    EmailNotVerified,
    /// 422: the caller's token says so, but a newer token said otherwise.
    #[error("a newer token has another e-mail address")]
    TokenOutdated,
    /// 409: other requests changed the user again and again, for as long as
    /// there was time.
    #[error("the user keeps changing")]
    Contended,
    /// 503: the user is erased, but the other services don't know it yet.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// 503 or 500.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a change may touch; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// A new name.
    pub name: Option<Name>,
    /// A new address: must be the caller's verified one.
    pub email: Option<Email>,
}

/// How long before an invocation's end a conflicting write is not tried again:
/// a try takes a second at most, and the answer needs its time, too.
const LAST_TRY: Duration = Duration::from_secs(2);

/// What the event `UserErased` says.
#[derive(Debug, Serialize)]
struct UserErased {
    user_id: UserId,
}

/// The use cases.
#[derive(Clone)]
pub struct Users {
    repository: Arc<dyn Repository>,
    /// One for each service that has copies of personal data.
    publishers: Arc<[EventPublisher]>,
    clock: Clock,
}

impl Users {
    /// The use cases on top of `repository`; each of `publishers` hears who is
    /// erased.
    pub fn new(
        repository: impl Repository + 'static,
        publishers: impl IntoIterator<Item = EventPublisher>,
        clock: Clock,
    ) -> Self {
        Self { repository: Arc::new(repository), publishers: publishers.into_iter().collect(), clock }
    }

    /// Creates the caller's own profile. Contact details are what the pool has
    /// verified: nobody can take somebody else's address.
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
            match again_if_contended(self.repository.create(&user).await)? {
                SaveUserOutcome::Saved => return Ok(user),
                SaveUserOutcome::EmailTaken => return Err(UserError::EmailTaken),
                SaveUserOutcome::Stale => match self.repository.find(user.id).await?.map(|user| user.account) {
                    Some(Account::Erased { .. }) => return Err(UserError::Inactive),
                    Some(Account::Active(_)) => return Err(UserError::Exists),
                    None => {}
                },
            }
            if !deadline.earlier_by(LAST_TRY).pause(attempt).await {
                break;
            }
        }
        Err(UserError::Contended)
    }

    /// Reads a user, for its owner or an administrator.
    pub async fn get(&self, caller: &Caller, id: UserId) -> Result<User, UserError> {
        if !caller.may_act_for(id) {
            return Err(UserError::NotFound);
        }
        self.repository.find(id).await?.ok_or(UserError::NotFound)
    }

    /// Changes a profile. Where its owner does it, the contact details follow
    /// the owner's token.
    pub async fn change(
        &self,
        caller: &Caller,
        id: UserId,
        change: Change,
        deadline: Deadline,
    ) -> Result<User, UserError> {
        let heard = (caller.user_id == id).then_some(&caller.contact);
        if change.email.is_some() && heard.and_then(|contact| contact.email.as_ref()) != change.email.as_ref() {
            return Err(UserError::EmailNotVerified);
        }
        for attempt in 0.. {
            let before = self.get(caller, id).await?;
            let profile = before.profile().ok_or(UserError::Inactive)?;
            let name = change.name.clone().unwrap_or_else(|| profile.name.clone());
            let after = Profile { name, ..heard.map_or_else(|| profile.clone(), |heard| profile.after_token(heard)) };
            if change.email.is_some() && after.contact.email != change.email {
                return Err(UserError::TokenOutdated);
            }
            let must_have_email = change.email.is_some();
            if let Some(user) = self.replace(&before, after, must_have_email).await? {
                return Ok(user);
            }
            if !deadline.earlier_by(LAST_TRY).pause(attempt).await {
                break;
            }
        }
        Err(UserError::Contended)
    }

    /// Deactivates a user, erases their personal data, and has the other
    /// services erase their copies of it. Doing it again changes nothing.
    ///
    /// It is acknowledged only when the event is out. Whoever repeats it after
    /// a crash publishes what is not known to have been published.
    pub async fn deactivate(
        &self,
        caller: &Caller,
        id: UserId,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<(), UserError> {
        for attempt in 0.. {
            let before = self.get(caller, id).await?;
            let is_announced = match before.account {
                Account::Erased { is_announced: true } => return Ok(()),
                Account::Erased { is_announced: false } => {
                    self.announce_erasure(&before, trace, deadline).await?;
                    true
                }
                Account::Active(_) => false,
            };
            let after = before.changed(Account::Erased { is_announced }, self.clock.now());
            // Written: the next round takes the next step.
            let is_written =
                again_if_contended(self.repository.replace(&before, &after).await)? == SaveUserOutcome::Saved;
            if !is_written && !deadline.earlier_by(LAST_TRY).pause(attempt).await {
                break;
            }
        }
        Err(UserError::Contended)
    }

    async fn announce_erasure(&self, user: &User, trace: &TraceContext, deadline: Deadline) -> Result<(), UserError> {
        let data = UserErased { user_id: user.id };
        let event = Event::new("/users", "UserErased", user.id, user.updated_at, trace.clone(), data);
        for publisher in self.publishers.iter() {
            publisher.publish(&event, deadline).await?;
        }
        Ok(())
    }

    /// Whether a user may order, and how to reach them: what the user's token
    /// says is heard first. `None` where there is no such user.
    pub async fn validate(
        &self,
        id: UserId,
        heard: &VerifiedContact,
        deadline: Deadline,
    ) -> Result<Option<Account>, UserError> {
        for attempt in 0.. {
            let Some(before) = self.repository.find(id).await? else { return Ok(None) };
            let Some(profile) = before.profile() else { return Ok(Some(before.account)) };
            let after = profile.after_token(heard);
            if let Some(user) = self.replace(&before, after, false).await? {
                return Ok(Some(user.account));
            }
            if !deadline.earlier_by(LAST_TRY).pause(attempt).await {
                break;
            }
        }
        Err(UserError::Contended)
    }

    /// Writes `profile` where `before` is what is stored. `None` if it isn't.
    ///
    /// Another user may have the address, by a newer token than this user's:
    /// then this is an error where the address is what was asked for, and
    /// everything else is written where it isn't.
    async fn replace(&self, before: &User, profile: Profile, must_have_email: bool) -> Result<Option<User>, UserError> {
        let mut account = Account::Active(profile);
        if account == before.account {
            return Ok(Some(before.clone()));
        }
        let mut after = before.changed(account.clone(), self.clock.now());
        let mut saved = again_if_contended(self.repository.replace(before, &after).await)?;
        if let (SaveUserOutcome::EmailTaken, false, Account::Active(profile)) = (saved, must_have_email, &mut account) {
            profile.contact.email = before.email().cloned();
            after = before.changed(account, self.clock.now());
            saved = again_if_contended(self.repository.replace(before, &after).await)?;
        }
        match saved {
            SaveUserOutcome::Saved => Ok(Some(after)),
            SaveUserOutcome::Stale => Ok(None),
            SaveUserOutcome::EmailTaken => Err(UserError::EmailTaken),
        }
    }
}

/// A write that only met other transactions is tried again, after a pause, as
/// one that found something changed.
fn again_if_contended(saved: Result<SaveUserOutcome, StoreError>) -> Result<SaveUserOutcome, StoreError> {
    match saved {
        Err(StoreError::Contended { .. }) => Ok(SaveUserOutcome::Stale),
        other => other,
    }
}
