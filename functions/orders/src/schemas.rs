//! The OpenAPI schemas of the domain's types.

use chassis::{
    audit::Reason,
    id::UserId,
    money::{Currency, Money},
    openapi::{SAMPLE_ID, one_of, text, whole},
    schema,
};
use strum::VariantArray;

use crate::domain::{
    CancellationReason, MAX_QUANTITY, MAX_TOKEN, Message, OrderState, PaymentMethod, PricedLine, ProductId, Quantity,
    Quote, Shortage,
};

schema!(
    OrderState,
    "OrderStatus",
    one_of(OrderState::VARIANTS.iter().map(|state| state.name())).description(Some(
        "- `PENDING`: not decided yet\n\
         - `CONFIRMED`: the stock is reserved and the payment is authorised\n\
         - `DONE`: the payment is captured\n\
         - `CANCELLING`: the stock is being released, and the payment is being voided or refunded\n\
         - `CANCELLED`: nothing is reserved, authorised or captured any more"
    ))
);

schema!(
    Message,
    "OrderMessage",
    one_of(Message::VARIANTS.iter().map(<&str>::from)).description(Some(
        "A message about an order, named by the event that it belongs to. `OrderCreated` can be sent again while the \
         order is `DONE`, `OrderCancelled` when it is `CANCELLED`."
    ))
);

schema!(Quantity, "Quantity", whole(1, MAX_QUANTITY.into()));

schema!(
    PaymentMethod,
    "PaymentMethod",
    text(format!("^[A-Za-z0-9_-]{{1,{MAX_TOKEN}}}$"), "tok_accepted").description(Some(
        "The payment provider's token. The built-in sandbox knows `tok_accepted`, `tok_declined`, \
         `tok_insufficient_funds`, `tok_slow`, `tok_flaky` (fails once, then succeeds) and `tok_capture_refused`."
    ))
);

/// The code of a [`CancellationReason`].
#[derive(Debug)]
pub(crate) struct ReasonCode;

schema!(ReasonCode, "CancellationReason", one_of(sample_of_each_reason().iter().map(CancellationReason::code)));

/// The code of a [`CancellationReason`] in an event. A consumer must accept codes that it does not know, so the schema
/// is no list of codes.
#[derive(Debug)]
pub(crate) struct PublishedReason;

schema!(
    PublishedReason,
    "PublishedReason",
    text("^[a-z][a-z_]*$", "out_of_stock").description(Some(format!(
        "The reason for a cancellation. A later version may have more reasons than these: `{}`.",
        sample_of_each_reason().iter().map(CancellationReason::code).collect::<Vec<_>>().join("`, `")
    )))
);

/// Returns a quote with one line at a price of 19.99 USD.
fn sample_quote(product_id: ProductId) -> Quote {
    let price = Money::from_minor(1999, Currency::USD).unwrap_or(Money::zero(Currency::USD));
    let quantity = Quantity::ONE;
    let line = PricedLine { product_id, name: "Mug".into(), quantity, unit_price: price, line_total: price };
    Quote { lines: vec![line], total: price }
}

pub(crate) fn sample_of_each_reason() -> Vec<CancellationReason> {
    let product_id = ProductId::from_uuid(SAMPLE_ID);
    let samples = vec![
        CancellationReason::PaymentDeclined { reason: "insufficient_funds".into() },
        CancellationReason::OutOfStock { lines: vec![Shortage { product_id, requested: 3, available: 2 }] },
        CancellationReason::PriceChanged { quote: sample_quote(product_id) },
        CancellationReason::UnknownProduct { products: vec![product_id] },
        CancellationReason::MixedCurrencies,
        CancellationReason::UserNotFound,
        CancellationReason::UserInactive,
        CancellationReason::TimedOut,
        CancellationReason::CustomerRequest,
        CancellationReason::CancelledByShop {
            administrator: UserId::from_uuid(SAMPLE_ID),
            explanation: Reason::sample(),
        },
        CancellationReason::CaptureRefused,
    ];
    // This match has no `_` arm, so that the compiler reports a new reason here. A new reason also needs a sample
    // above.
    samples
        .into_iter()
        .inspect(|reason| match reason {
            CancellationReason::PaymentDeclined { .. }
            | CancellationReason::OutOfStock { .. }
            | CancellationReason::PriceChanged { .. }
            | CancellationReason::UnknownProduct { .. }
            | CancellationReason::MixedCurrencies
            | CancellationReason::UserNotFound
            | CancellationReason::UserInactive
            | CancellationReason::TimedOut
            | CancellationReason::CustomerRequest
            | CancellationReason::CancelledByShop { .. }
            | CancellationReason::CaptureRefused => {}
        })
        .collect()
}
