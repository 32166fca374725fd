//! What a user is.

use std::str::FromStr;

use chassis::{
    caller::UserId,
    contact::{Email, Phone},
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

/// Personal data, which goes when the user goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What to call them.
    pub name: Name,
    /// Verified by the user pool; unique among active users.
    pub email: Email,
    /// Verified by the user pool.
    pub phone: Option<Phone>,
}

/// Whether somebody takes part, and if so, with which data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// May order.
    Active(Profile),
    /// Deactivated; the personal data is erased.
    Inactive,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Derived from the user pool's subject.
    pub id: UserId,
    /// Active with a profile, or inactive without.
    pub standing: Standing,
    /// How many times the user was changed; guards against lost updates.
    pub version: u64,
    /// When the profile was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

impl User {
    /// A new, active user.
    pub fn new(id: UserId, profile: Profile, now: Timestamp) -> Self {
        Self { id, standing: Standing::Active(profile), version: 1, created_at: now, updated_at: now }
    }

    /// The profile, while active.
    pub fn profile(&self) -> Option<&Profile> {
        match &self.standing {
            Standing::Active(profile) => Some(profile),
            Standing::Inactive => None,
        }
    }

    /// The user as it stands after a change.
    #[must_use]
    pub fn changed(&self, standing: Standing, now: Timestamp) -> Self {
        Self { standing, version: self.version + 1, updated_at: now, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn a_name_is_one_line_of_at_most_100_characters() {
        assert!("Ada Lovelace".parse::<Name>().is_ok());
        assert!("é".repeat(100).parse::<Name>().is_ok());
        for name in ["", "  ", "Ada\nLovelace", "\u{202E}adA", &"é".repeat(101)] {
            assert!(name.parse::<Name>().is_err(), "{name}");
        }
    }
}
