//! What the API's document says of this service's values and refusals.

use chassis::{
    fields::FieldError,
    money::{Currency, Money},
    openapi::{Problems, SAMPLE_ID, one_of, text, whole},
    page::{InvalidCursor, ListError},
    problem::Problem,
    problems, schema,
};
use strum::VariantArray;
use utoipa::{
    ToSchema,
    openapi::{
        Ref,
        schema::{Array, ArrayBuilder},
    },
};

use crate::{
    documents::refused,
    domain::{
        InvalidQuantity, MAX_LINES, MAX_QUANTITY, MAX_TOKEN, OrderId, OrderState, PaymentMethod, PricedLine, ProductId,
        Quantity, Quote, Refusal, Shortage,
    },
    handlers::NewOrderItem,
    service::OrderError,
};

schema!(
    OrderState,
    "OrderStatus",
    one_of(OrderState::VARIANTS.iter().map(|state| state.name())).description(Some(
        "- `PENDING`: undecided\n\
         - `CONFIRMED`: stock is reserved, the payment authorised\n\
         - `DONE`: paid for, and announced\n\
         - `CANCELLING`: being undone\n\
         - `CANCELLED`: undone, nothing is reserved, held or kept"
    ))
);

schema!(Quantity, "Quantity", whole(1, MAX_QUANTITY.into()).description(Some("How many pieces.")));

schema!(
    PaymentMethod,
    "PaymentMethod",
    text(format!("^[A-Za-z0-9_-]{{1,{MAX_TOKEN}}}$"), "tok_accepted").description(Some(
        "The payment provider's token. The built-in sandbox knows `tok_accepted`, `tok_declined`, \
         `tok_insufficient_funds`, `tok_slow`, `tok_flaky` (fails once, then works) and `tok_capture_refused`."
    ))
);

/// Why an order is, or was, undone.
#[derive(Debug)]
pub(crate) struct Reason;

schema!(Reason, "CancellationReason", one_of(every_refusal().iter().map(Refusal::code)));

/// The lines that an order is asked for.
pub(crate) fn items() -> Array {
    let items = ArrayBuilder::new()
        .items(Ref::from_schema_name(NewOrderItem::name()))
        .min_items(Some(1))
        .max_items(Some(MAX_LINES));
    let description = format!("Lines of one product are added up; together they ask for {MAX_QUANTITY} at most.");
    items.description(Some(description)).build()
}

/// One piece at 19.99.
fn sample_quote(product_id: ProductId) -> Quote {
    let price = Money::from_minor(1999, Currency::USD).unwrap_or(Money::zero(Currency::USD));
    let quantity = Quantity::ONE;
    let line = PricedLine { product_id, name: "Mug".into(), quantity, unit_price: price, line_total: price };
    Quote { lines: vec![line], total: price }
}

/// One of each kind.
fn every_refusal() -> Vec<Refusal> {
    let product_id = ProductId::from_uuid(SAMPLE_ID);
    let samples = vec![
        Refusal::PaymentDeclined { reason: "insufficient_funds".into() },
        Refusal::OutOfStock { lines: vec![Shortage { product_id, requested: 3, available: 2 }] },
        Refusal::PriceChanged { quote: sample_quote(product_id) },
        Refusal::UnknownProduct { products: vec![product_id] },
        Refusal::MixedCurrencies,
        Refusal::UserNotFound,
        Refusal::UserInactive,
        Refusal::TimedOut,
        Refusal::CustomerRequest,
        Refusal::CancelledByShop,
        Refusal::CaptureRefused,
    ];
    // Whoever adds a kind is led here, and adds a sample above.
    samples
        .into_iter()
        .inspect(|refusal| match refusal {
            Refusal::PaymentDeclined { .. } | Refusal::OutOfStock { .. } | Refusal::UnknownProduct { .. } => {}
            Refusal::PriceChanged { .. } => {}
            Refusal::MixedCurrencies | Refusal::UserNotFound | Refusal::UserInactive => {}
            Refusal::TimedOut | Refusal::CustomerRequest | Refusal::CancelledByShop | Refusal::CaptureRefused => {}
        })
        .collect()
}

/// Placing an order.
pub(crate) struct Placing;

impl Problems for Placing {
    fn problems() -> Vec<Problem> {
        let too_much = FieldError::new("items[0].quantity", InvalidQuantity);
        let invalid = [Problem::invalid(vec![too_much])];
        // A capture comes after the answer.
        let answered = every_refusal().into_iter().filter(|refusal| *refusal != Refusal::CaptureRefused);
        let refused = answered.map(|refusal| refused(&refusal, OrderId::from_uuid(SAMPLE_ID)));
        invalid.into_iter().chain(refused).chain([OrderError::InFlight.into()]).collect()
    }
}

problems! {
    /// Reading an order.
    Reading: [OrderError::NotFound];
    /// Reading a page of orders.
    Listing: [ListError::Cursor(InvalidCursor), Problem::not_found("user")];
    /// Cancelling an order.
    Cancelling: [OrderError::NotFound, OrderError::CancellationClosed, OrderError::KeepsMoving];
}
