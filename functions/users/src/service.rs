//! What can be done with users.

use std::sync::Arc;

use chassis::{
    caller::{Caller, UserId},
    clock::Clock,
    contact::Email,
    store::StoreError,
};

use crate::{
    domain::{Name, Profile, Standing, User},
    repository::{Repository, Saved},
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
    /// 409: somebody changed the user at the same time, and kept doing so.
    #[error("the user was changed meanwhile")]
    ChangedMeanwhile,
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

/// How often a change is tried when others change the same user.
const CHANGE_TRIES: usize = 3;

/// The use cases.
#[derive(Clone)]
pub struct Users {
    repository: Arc<dyn Repository>,
    clock: Clock,
}

impl Users {
    /// On top of `repository`.
    pub fn new(repository: impl Repository + 'static, clock: Clock) -> Self {
        Self { repository: Arc::new(repository), clock }
    }

    /// Creates the caller's own profile. Contact details are the verified
    /// claims: nobody can sit on somebody else's address.
    pub async fn create(&self, caller: &Caller, name: Name, email: Email) -> Result<User, UserError> {
        if caller.email.as_ref() != Some(&email) {
            return Err(UserError::EmailNotVerified);
        }
        let profile = Profile { name, email, phone: caller.phone.clone() };
        let user = User::new(caller.user_id, profile, self.clock.now());
        match self.repository.create(&user).await? {
            Saved::Done => Ok(user),
            Saved::EmailTaken => Err(UserError::EmailTaken),
            Saved::Stale => match self.repository.find(user.id).await? {
                Some(User { standing: Standing::Inactive, .. }) => Err(UserError::Inactive),
                _ => Err(UserError::Exists),
            },
        }
    }

    /// Reads a user, for its owner or an administrator.
    pub async fn get(&self, caller: &Caller, id: UserId) -> Result<User, UserError> {
        if !caller.may_act_for(id) {
            return Err(UserError::NotFound);
        }
        self.repository.find(id).await?.ok_or(UserError::NotFound)
    }

    /// Changes a profile. Where the owner does it, their phone number follows
    /// the verified claim, too.
    pub async fn change(&self, caller: &Caller, id: UserId, change: Change) -> Result<User, UserError> {
        let own = caller.user_id == id;
        if change.email.is_some() && !(own && caller.email == change.email) {
            return Err(UserError::EmailNotVerified);
        }
        for _ in 0..CHANGE_TRIES {
            let before = self.get(caller, id).await?;
            let profile = before.profile().ok_or(UserError::Inactive)?;
            let profile = Profile {
                name: change.name.clone().unwrap_or_else(|| profile.name.clone()),
                email: change.email.clone().unwrap_or_else(|| profile.email.clone()),
                phone: if own { caller.phone.clone() } else { profile.phone.clone() },
            };
            let after = before.changed(Standing::Active(profile), self.clock.now());
            match self.repository.replace(&before, &after).await? {
                Saved::Done => return Ok(after),
                Saved::EmailTaken => return Err(UserError::EmailTaken),
                Saved::Stale => {}
            }
        }
        Err(UserError::ChangedMeanwhile)
    }

    /// Deactivates a user and erases their personal data. Doing it again
    /// changes nothing.
    pub async fn deactivate(&self, caller: &Caller, id: UserId) -> Result<(), UserError> {
        for _ in 0..CHANGE_TRIES {
            let before = self.get(caller, id).await?;
            if before.standing == Standing::Inactive {
                return Ok(());
            }
            let after = before.changed(Standing::Inactive, self.clock.now());
            if let Saved::Done = self.repository.replace(&before, &after).await? {
                return Ok(());
            }
        }
        Err(UserError::ChangedMeanwhile)
    }

    /// What another service may know: whether this user may order, and how
    /// to reach them.
    pub async fn standing(&self, id: UserId) -> Result<Option<Standing>, UserError> {
        Ok(self.repository.find(id).await?.map(|user| user.standing))
    }
}
