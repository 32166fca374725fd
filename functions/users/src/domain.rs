//! Users and their profiles.

use std::str::FromStr;

use chassis::{
    audit::Reason,
    contact::{Email, VerifiedContact},
    id::UserId,
    text::{self, InvalidText},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The maximum length of a name, in characters.
pub const MAX_NAME: usize = 100;

/// The name with which a person wants to be addressed: one line of text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(String);

impl FromStr for Name {
    type Err = InvalidText;

    fn from_str(name: &str) -> Result<Self, InvalidText> {
        text::line(name, MAX_NAME).map(Self)
    }
}

/// The name is personal data, so it never appears in logs.
impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Name(redacted)")
    }
}

/// The personal data of a user. It is erased when the user is deactivated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: Name,
    /// The contact details that the user pool has verified. Two active users never have the same e-mail address.
    ///
    /// A profile loses its e-mail address if the pool has verified that address for another person. The profile can get
    /// a new address from the next token of its owner.
    pub contact: VerifiedContact,
}

impl Profile {
    /// The profile after its owner has sent a token with the given contact details.
    ///
    /// A token without a verified e-mail address leaves the profile's address as it is, because the owner may have
    /// entered a new address in the user pool, but not yet confirmed it. A token that is older than the profile's
    /// contact details changes nothing.
    #[must_use]
    pub fn after_token(&self, token_contact: &VerifiedContact) -> Self {
        if token_contact.as_of < self.contact.as_of {
            return self.clone();
        }
        let email = token_contact.email.clone().or_else(|| self.contact.email.clone());
        Self { contact: VerifiedContact { email, ..token_contact.clone() }, ..self.clone() }
    }

    /// The profile after the user pool has verified its e-mail address for another person.
    #[must_use]
    pub fn without_email(&self) -> Self {
        Self { contact: VerifiedContact { email: None, ..self.contact.clone() }, ..self.clone() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserState {
    /// The user may order.
    Active(Profile),
    /// The user was deactivated for good, and the personal data is erased.
    Erased {
        /// `true` if the event that makes the other services erase their copies was published.
        is_announced: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The id, which derives from the subject (`sub`) in the person's tokens.
    pub id: UserId,
    pub state: UserState,
    /// The version of the stored user, which grows by one with each write. Each write compares the version, so that no
    /// update is lost.
    pub version: u64,
    pub created_at: Timestamp,
    /// The time of the last change of the user's data.
    pub updated_at: Timestamp,
}

impl User {
    /// A new, active user.
    pub fn new(id: UserId, profile: Profile, now: Timestamp) -> Self {
        Self { id, state: UserState::Active(profile), version: 1, created_at: now, updated_at: now }
    }

    /// The profile of an active user.
    pub fn profile(&self) -> Option<&Profile> {
        match &self.state {
            UserState::Active(profile) => Some(profile),
            UserState::Erased { .. } => None,
        }
    }

    pub fn email(&self) -> Option<&Email> {
        self.profile()?.contact.email.as_ref()
    }

    /// The user with another state. If only the time of the contact details differs, because a newer token has the same
    /// contact details, `updated_at` stays as it is.
    #[must_use]
    pub fn with_state(&self, state: UserState, now: Timestamp) -> Self {
        let visible = |state: &UserState| match state {
            UserState::Active(Profile { name, contact }) => {
                Some((name.clone(), contact.email.clone(), contact.phone.clone()))
            }
            UserState::Erased { .. } => None,
        };
        let updated_at = if visible(&state) == visible(&self.state) { self.updated_at } else { now };
        Self { state, version: self.version + 1, updated_at, ..self.clone() }
    }
}

/// What an administrator has done with the profile of another person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum ActionKind {
    /// The name was changed.
    Changed,
    /// The user was deactivated, and the personal data erased.
    Deactivated,
}

/// The record of an administrator's action. It contains no personal data of the user, so it outlives the erasure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserAction {
    /// The version of the user after the action.
    pub version: u64,
    pub action: ActionKind,
    /// The administrator.
    pub acted_by: UserId,
    pub reason: Reason,
    pub acted_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use chassis::{contact::VerifiedContact, id::UserId};
    use jiff::Timestamp;

    use super::{Name, Profile, User, UserState};

    #[test]
    fn a_name_is_one_line_of_at_most_100_characters() {
        assert!("Ada Lovelace".parse::<Name>().is_ok());
        assert!("é".repeat(100).parse::<Name>().is_ok());
        for name in ["", "  ", "Ada\nLovelace", "\u{202E}adA", &"é".repeat(101)] {
            assert!(name.parse::<Name>().is_err(), "{name}");
        }
    }

    fn contact(email: Option<&str>, phone: Option<&str>, second: i64) -> VerifiedContact {
        VerifiedContact {
            email: email.map(|email| email.parse().unwrap()),
            phone: phone.map(|phone| phone.parse().unwrap()),
            as_of: Timestamp::from_second(second).unwrap(),
        }
    }

    fn profile(contact: VerifiedContact) -> Profile {
        Profile { name: "Ada".parse().unwrap(), contact }
    }

    #[test]
    fn a_newer_token_replaces_the_contact_details_and_an_older_token_does_not() {
        let (a, b) =
            (contact(Some("a@example.com"), Some("+15555550101"), 100), contact(Some("b@example.com"), None, 200));
        assert_eq!(profile(a.clone()).after_token(&b), profile(b.clone()));
        assert_eq!(profile(b.clone()).after_token(&a), profile(b));
    }

    #[test]
    fn a_token_without_a_verified_email_keeps_the_email_of_the_profile() {
        let known = profile(contact(Some("a@example.com"), Some("+15555550101"), 100));
        let updated = known.after_token(&contact(None, None, 200));
        assert_eq!(updated.contact, contact(Some("a@example.com"), None, 200));
    }

    #[test]
    fn a_newer_token_with_the_same_contact_details_does_not_change_updated_at() {
        let user =
            User::new(UserId::generate(), profile(contact(Some("a@example.com"), None, 100)), Timestamp::UNIX_EPOCH);
        let now = Timestamp::from_second(300).unwrap();
        let same = user.with_state(UserState::Active(profile(contact(Some("a@example.com"), None, 200))), now);
        assert_eq!((same.updated_at, same.version), (user.updated_at, 2));
        let renamed = user.with_state(UserState::Active(profile(contact(None, None, 200))), now);
        assert_eq!(renamed.updated_at, now);
    }
}
