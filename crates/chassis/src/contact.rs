//! E-mail addresses and phone numbers, which are never logged.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};

/// The maximum length of an e-mail address in characters (RFC 5321, 4.5.3.1).
pub const MAX_EMAIL: usize = 254;
/// The regular expression (ECMA-262) for phone numbers in the OpenAPI document.
pub const PHONE: &str = r"^\+[1-9][0-9]{7,14}$";

/// An e-mail address in lower case, at most [`MAX_EMAIL`] characters.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Email(String);

/// A phone number in the form of ITU-T E.164: `+` and 8 to 15 digits.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Phone(String);

/// A person's contact details, which the user pool has verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedContact {
    /// The e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// The phone number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<Phone>,
    /// The time of the verification in whole seconds: the time at which the
    /// token was issued. The contact details of an older token never replace
    /// the contact details of a newer token.
    #[serde(with = "jiff::fmt::serde::timestamp::second::required")]
    pub as_of: Timestamp,
}

impl VerifiedContact {
    /// No contact details, for a person without a token. The time is the
    /// earliest time, so that this value never replaces the contact details of
    /// a token.
    pub const UNKNOWN: Self = Self { email: None, phone: None, as_of: Timestamp::UNIX_EPOCH };
}

/// The reasons why a text is not accepted as a contact detail. The error does
/// not contain the text, which may be a person's e-mail address or phone number
/// with a typing error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidContact {
    /// The text is not an e-mail address.
    #[error("must be an e-mail address such as ada@example.com")]
    Email,
    /// The text is not a phone number.
    #[error("must be a phone number in international form such as +15555550100")]
    Phone,
}

impl FromStr for Email {
    type Err = InvalidContact;

    fn from_str(text: &str) -> Result<Self, InvalidContact> {
        let text = text.trim();
        // Quoted local parts, display names, address literals and hosts without
        // a domain are refused: the standard allows them, but no customer has
        // such an address.
        let options =
            email_address::Options::default().with_required_tld().without_display_text().without_domain_literal();
        let plain =
            text.is_ascii() && text.len() <= MAX_EMAIL && !text.bytes().any(|b| b == b'"' || b.is_ascii_control());
        match email_address::EmailAddress::parse_with_options(text, options) {
            Ok(_) if plain => Ok(Self(text.to_ascii_lowercase())),
            _ => Err(InvalidContact::Email),
        }
    }
}

impl FromStr for Phone {
    type Err = InvalidContact;

    fn from_str(text: &str) -> Result<Self, InvalidContact> {
        let digits = text.strip_prefix('+').ok_or(InvalidContact::Phone)?;
        let well_formed =
            (8..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        if well_formed { Ok(Self(text.to_owned())) } else { Err(InvalidContact::Phone) }
    }
}

macro_rules! personal_text {
    ($name:ident) => {
        impl $name {
            /// Returns the e-mail address or phone number itself, which only
            /// code that sends or stores it needs.
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        /// Shows only the type's name: personal data must not be logged.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

personal_text!(Email);
personal_text!(Phone);

#[cfg(test)]
mod tests {
    use super::{Email, Phone};

    #[test]
    fn an_e_mail_address_is_normalised_to_one_spelling() {
        assert_eq!(" Ada@Example.COM ".parse::<Email>().unwrap().expose(), "ada@example.com");
    }

    #[test]
    fn only_a_plain_e_mail_address_is_accepted() {
        for text in [
            "",
            "ada",
            "ada@",
            "@example.com",
            "ada@localhost",
            "Ada <ada@example.com>",
            "\"a b\"@example.com",
            "ada@[127.0.0.1]",
            "a@b.com\nBcc: x@y.com",
            "a@b.com,c@d.com",
            "ädä@example.com",
        ] {
            assert!(text.parse::<Email>().is_err(), "{text}");
        }
        assert!(format!("a@{}.com", "b".repeat(250)).parse::<Email>().is_err());
    }

    #[test]
    fn a_phone_number_is_international_and_all_digits() {
        assert!("+15555550100".parse::<Phone>().is_ok());
        for text in ["", "15555550100", "+0155555501", "+1 555", "+1555555010012345", "+1555abc0100"] {
            assert!(text.parse::<Phone>().is_err(), "{text}");
        }
    }

    #[test]
    fn debug_output_shows_no_e_mail_address() {
        assert_eq!(format!("{:?}", "ada@example.com".parse::<Email>().unwrap()), "Email(redacted)");
    }
}
