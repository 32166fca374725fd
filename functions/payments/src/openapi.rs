//! The OpenAPI schemas of this service's values, and its problem responses.

use chassis::{openapi::one_of, problems, schema};
use strum::VariantArray;

use crate::{domain::PaymentStatus, service::PaymentError};

schema!(
    PaymentStatus,
    "PaymentStatus",
    // Only the orders service can see a tombstone, whose status is `CANCELLED`.
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
    /// Reading a payment.
    Reading: [PaymentError::NotFound];
}
