//! What the services record about the actions of administrators: who acted, when
//! and why. An action and its record are one write, so that no action is without a
//! record. `docs/adr/0017-the-audit-trail.md` says where the records are.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    id::UserId,
    text::{self, InvalidText},
};

/// The maximum length of a reason, in characters.
pub const MAX_REASON: usize = 200;
/// The maximum length of the id of a resend, in characters.
pub const MAX_RESEND_ID: usize = 64;

/// The reason for an administrator's action: one line of text. It outlives the
/// erasure of a customer, so it must contain no personal data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reason(String);

impl FromStr for Reason {
    type Err = InvalidText;

    fn from_str(reason: &str) -> Result<Self, InvalidText> {
        text::line(reason, MAX_REASON).map(Self)
    }
}

impl Reason {
    /// Returns a reason for the samples of the OpenAPI document.
    pub fn sample() -> Self {
        Self("The customer called.".to_owned())
    }
}

/// The administrator who acts, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The administrator's id. It is no e-mail address, so a record of it is no
    /// personal data of a customer.
    pub id: UserId,
    /// The reason, if the administrator has given one.
    pub reason: Option<Reason>,
}

/// The id that an administrator chooses for a resend. A resend that is requested
/// again with its id is not sent again. The id becomes a part of an event's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResendId(String);

/// The error for a text that is not the id of a resend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {MAX_RESEND_ID} letters, digits, `-` and `_`")]
pub struct InvalidResendId;

impl FromStr for ResendId {
    type Err = InvalidResendId;

    fn from_str(id: &str) -> Result<Self, InvalidResendId> {
        let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if plain && (1..=MAX_RESEND_ID).contains(&id.len()) { Ok(Self(id.to_owned())) } else { Err(InvalidResendId) }
    }
}

impl fmt::Display for ResendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(feature = "aws")]
mod openapi {
    use super::{MAX_REASON, MAX_RESEND_ID, Reason, ResendId};
    use crate::{
        openapi::{line, text},
        schema,
    };

    schema!(
        Reason,
        "ActionReason",
        line(MAX_REASON, "The customer called.", "The reason, in one line of text, without personal data.")
    );

    schema!(
        ResendId,
        "ResendId",
        text(format!("^[A-Za-z0-9_-]{{1,{MAX_RESEND_ID}}}$"), "ticket-4711").description(Some(
            "The id that you choose for the resend. A resend that is requested again with its id is not sent again."
        ))
    );
}

#[cfg(test)]
mod tests {
    use super::ResendId;

    #[test]
    fn the_id_of_a_resend_has_letters_digits_dashes_and_underscores_only() {
        for id in ["a", "ticket-4711", "A_1", &"x".repeat(64)] {
            assert!(id.parse::<ResendId>().is_ok(), "{id}");
        }
        for id in ["", " ", "a b", "a:b", "a#b", "a/b", "é", &"x".repeat(65)] {
            assert!(id.parse::<ResendId>().is_err(), "{id}");
        }
    }
}
