//! The OpenAPI schema of a payment's status, and the problem responses of the public routes.

use chassis::{openapi::one_of, problems, schema};
use strum::VariantArray;

use crate::{domain::PaymentStatus, service::PaymentError};

schema!(
    PaymentStatus,
    "PaymentStatus",
    // The public API never shows `CANCELLED`: it is the status of a tombstone, and only
    // services can read a tombstone.
    one_of(
        PaymentStatus::VARIANTS
            .iter()
            .filter(|status| **status != PaymentStatus::Cancelled)
            .map(|status| status.as_str())
    )
    .description(Some(
        "- `INTENT`: the authorisation was requested, and its outcome is not known yet\n\
             - `AUTHORISED`: the payment provider holds the amount\n\
             - `DECLINED`: the payment provider declined the payment\n\
             - `CAPTURED`: the amount was captured\n\
             - `VOIDED`: the hold was voided, and nothing was captured\n\
             - `REFUNDED`: the amount was captured and refunded"
    ))
);

problems! {
    /// The problem responses to a request that reads a payment.
    Reading: [PaymentError::NotFound];
}
