//! What the API's document says of this service's values and refusals.

use chassis::{openapi::one_of, problems, schema};
use strum::VariantArray;

use crate::{domain::PaymentStatus, service::PaymentError};

schema!(
    PaymentStatus,
    "PaymentStatus",
    // A tombstone is no payment to anybody but the orders service.
    one_of(
        PaymentStatus::VARIANTS
            .iter()
            .filter(|status| **status != PaymentStatus::Cancelled)
            .map(|status| status.as_str())
    )
    .description(Some(
        "- `INTENT`: the provider was asked, its answer is not known\n\
             - `AUTHORISED`: the provider holds the money\n\
             - `DECLINED`: the provider refused\n\
             - `CAPTURED`: the money was taken\n\
             - `VOIDED`: the hold was given up, nothing was taken\n\
             - `REFUNDED`: the money was taken and given back"
    ))
);

problems! {
    /// Reading a payment.
    Reading: [PaymentError::NotFound];
}
