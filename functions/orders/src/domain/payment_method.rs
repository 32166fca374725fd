//! The payment token with which the customer pays.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The maximum number of characters of a payment token.
pub const MAX_TOKEN: usize = 128;

/// A token of the payment provider. Anybody who has the token can charge the customer, so the token is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PaymentMethod(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a payment token: 1 to {MAX_TOKEN} letters, digits, `_` or `-`")]
pub struct InvalidPaymentMethod;

impl FromStr for PaymentMethod {
    type Err = InvalidPaymentMethod;

    fn from_str(token: &str) -> Result<Self, InvalidPaymentMethod> {
        let plain = token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let well_formed = plain && (1..=MAX_TOKEN).contains(&token.len());
        if well_formed { Ok(Self(token.to_owned())) } else { Err(InvalidPaymentMethod) }
    }
}

impl fmt::Debug for PaymentMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PaymentMethod(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::PaymentMethod;

    #[test]
    fn a_payment_token_is_1_to_128_plain_characters() {
        for good in ["tok_1", "a-B_9", &"t".repeat(128)] {
            assert!(good.parse::<PaymentMethod>().is_ok(), "{good}");
        }
        for bad in ["", "tok 1", "tok.1", "tök", "tok\n", &"t".repeat(129)] {
            assert!(bad.parse::<PaymentMethod>().is_err(), "{bad}");
        }
    }
}
