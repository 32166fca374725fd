//! The reasons why an order is cancelled, and their codes.

use chassis::{audit::Reason, id::UserId};
use serde::{Deserialize, Serialize};

use super::{ids::ProductId, prices::Quote};

/// A line that asks for more than the available stock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    pub product_id: ProductId,
    pub requested: u32,
    pub available: u32,
}

/// The reason why an order is cancelled: a service refused a step, the order timed out, or a person cancelled it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::VariantNames)]
#[serde(tag = "code", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum CancellationReason {
    /// The customer has no profile.
    UserNotFound,
    /// The customer's profile was deactivated.
    UserInactive,
    /// Some products do not exist.
    UnknownProduct {
        products: Vec<ProductId>,
    },
    /// The products have prices in different currencies.
    MixedCurrencies,
    OutOfStock {
        lines: Vec<Shortage>,
    },
    /// A price differs from the price that the customer was shown.
    PriceChanged {
        /// The current prices.
        quote: Quote,
    },
    /// The payment provider refused the authorisation.
    PaymentDeclined {
        /// The payment provider's code for the refusal.
        reason: String,
    },
    /// The authorised payment cannot be captured: the payment provider refuses the capture for good, or the
    /// authorisation no longer exists.
    CaptureRefused,
    /// The order was not decided within [`DECIDE_WITHIN`](chassis::time_limits::DECIDE_WITHIN).
    TimedOut,
    /// The customer cancelled the order.
    CustomerRequest,
    /// An administrator cancelled the order of another person.
    CancelledByShop {
        administrator: UserId,
        explanation: Reason,
    },
}

impl CancellationReason {
    /// Returns the stable code of the reason, which appears in HTTP responses, in events and in the order's history.
    pub fn code(&self) -> &'static str {
        self.into()
    }
}
