//! The reasons for which an order is cancelled, and the codes that name the reasons.

use serde::{Deserialize, Serialize};

use super::{ids::ProductId, prices::Quote};

/// A line whose quantity is not in stock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    pub product_id: ProductId,
    pub requested: u32,
    pub available: u32,
}

/// The reason for which an order is cancelled: a service refused a step, the order timed out, or a person cancelled it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
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
        /// The provider's code.
        reason: String,
    },
    /// The payment provider refused for good to capture an authorised payment.
    CaptureRefused,
    /// The order was not decided within [`DECIDE_WITHIN`](chassis::time_limits::DECIDE_WITHIN).
    TimedOut,
    /// The customer cancelled the order.
    CustomerRequest,
    /// An administrator cancelled the order.
    CancelledByShop,
}

impl CancellationReason {
    /// The stable code of the reason in answers, in events and in the order's history.
    pub fn code(&self) -> &'static str {
        self.into()
    }
}
