//! The person to whom messages about an order are sent.

use std::fmt;

use chassis::contact::{Email, Phone};
use serde::{Deserialize, Serialize};

/// The customer's name and contact details, as the users service returned them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "lambda", derive(utoipa::ToSchema))]
pub struct Recipient {
    /// The customer's name.
    pub name: String,
    /// Absent if the user pool has verified the customer's e-mail address for another person meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "lambda", schema(nullable = false))]
    pub email: Option<Email>,
    /// Absent if the user pool has verified no phone number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "lambda", schema(nullable = false))]
    pub phone: Option<Phone>,
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recipient(redacted)")
    }
}
