//! What a user is.

use std::str::FromStr;

use chassis::{
    contact::{Email, VerifiedContact},
    id::UserId,
    text::{self, InvalidText},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The most characters of a name.
pub const MAX_NAME: usize = 100;

/// What a person wants to be called, in one line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(String);

impl FromStr for Name {
    type Err = InvalidText;

    fn from_str(name: &str) -> Result<Self, InvalidText> {
        text::line(name, MAX_NAME).map(Self)
    }
}

/// Redacted, as all personal data is.
impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Name(redacted)")
    }
}

/// Personal data, which is erased when the user leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What to call the person.
    pub name: Name,
    /// How to reach the person. The user pool has verified it; no two active
    /// users have the same e-mail address.
    ///
    /// There is no e-mail address after the pool has verified it for another
    /// person, until this person's next token brings one.
    pub contact: VerifiedContact,
}

impl Profile {
    /// The profile after its owner came with a token that says `heard`.
    ///
    /// A token without a verified e-mail address leaves the profile's in force:
    /// the pool may be waiting for the confirmation of another one. A token
    /// that is older than what the profile knows changes nothing.
    #[must_use]
    pub fn after_token(&self, heard: &VerifiedContact) -> Self {
        if heard.as_of < self.contact.as_of {
            return self.clone();
        }
        let email = heard.email.clone().or_else(|| self.contact.email.clone());
        Self { contact: VerifiedContact { email, ..heard.clone() }, ..self.clone() }
    }

    /// The profile after the pool has verified its address for another person.
    #[must_use]
    pub fn without_email(&self) -> Self {
        Self { contact: VerifiedContact { email: None, ..self.contact.clone() }, ..self.clone() }
    }
}

/// What is kept of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// The user may order.
    Active(Profile),
    /// The user has left for good. The personal data is erased.
    Erased {
        /// Whether the other services were told to erase their copies.
        is_announced: bool,
    },
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Derived from the user pool's subject.
    pub id: UserId,
    /// What is kept of the user.
    pub account: Account,
    /// Grows with each write; guards against lost updates.
    pub version: u64,
    /// When the profile was made.
    pub created_at: Timestamp,
    /// When the user's data changed last.
    pub updated_at: Timestamp,
}

impl User {
    /// A new, active user.
    pub fn new(id: UserId, profile: Profile, now: Timestamp) -> Self {
        Self { id, account: Account::Active(profile), version: 1, created_at: now, updated_at: now }
    }

    /// The profile, while active.
    pub fn profile(&self) -> Option<&Profile> {
        match &self.account {
            Account::Active(profile) => Some(profile),
            Account::Erased { .. } => None,
        }
    }

    /// The e-mail address, while there is one.
    pub fn email(&self) -> Option<&Email> {
        self.profile()?.contact.email.as_ref()
    }

    /// The user after a change. That a newer token says the same is no change
    /// of the user's data: `updated_at` stays.
    #[must_use]
    pub fn changed(&self, account: Account, now: Timestamp) -> Self {
        let shown = |account: &Account| match account {
            Account::Active(Profile { name, contact }) => {
                Some((name.clone(), contact.email.clone(), contact.phone.clone()))
            }
            Account::Erased { .. } => None,
        };
        let updated_at = if shown(&account) == shown(&self.account) { self.updated_at } else { now };
        Self { account, version: self.version + 1, updated_at, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use chassis::{contact::VerifiedContact, id::UserId};
    use jiff::Timestamp;

    use super::{Account, Name, Profile, User};

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
    fn a_newer_token_replaces_what_the_profile_knew_and_an_older_one_does_not() {
        let (a, b) =
            (contact(Some("a@example.com"), Some("+15555550101"), 100), contact(Some("b@example.com"), None, 200));
        assert_eq!(profile(a.clone()).after_token(&b), profile(b.clone()));
        assert_eq!(profile(b.clone()).after_token(&a), profile(b));
    }

    #[test]
    fn a_token_without_a_verified_address_leaves_the_profiles_in_force() {
        let known = profile(contact(Some("a@example.com"), Some("+15555550101"), 100));
        let heard = known.after_token(&contact(None, None, 200));
        assert_eq!(heard.contact, contact(Some("a@example.com"), None, 200));
    }

    #[test]
    fn a_newer_token_that_says_the_same_is_no_change_of_the_users_data() {
        let user =
            User::new(UserId::generate(), profile(contact(Some("a@example.com"), None, 100)), Timestamp::UNIX_EPOCH);
        let now = Timestamp::from_second(300).unwrap();
        let same = user.changed(Account::Active(profile(contact(Some("a@example.com"), None, 200))), now);
        assert_eq!((same.updated_at, same.version), (user.updated_at, 2));
        let renamed = user.changed(Account::Active(profile(contact(None, None, 200))), now);
        assert_eq!(renamed.updated_at, now);
    }
}
