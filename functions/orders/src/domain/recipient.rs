//! The person that messages about an order are sent to.

use std::fmt;

use chassis::contact::{Email, Phone};
use serde::{Deserialize, Serialize};

/// The name and addresses of the customer, as the users service knows them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    pub name: String,
    /// Absent if the user pool has verified the address for another person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<Phone>,
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recipient(redacted)")
    }
}
