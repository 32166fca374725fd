//! Orders and their rules. This module uses no store, no other service and no HTTP.

mod answer;
mod cancellation;
mod history;
mod ids;
mod lease;
mod lines;
mod order;
mod payment_method;
mod prices;
mod purchase;
mod recipient;
mod resend;
mod state;

pub use self::{
    answer::{Answer, RecordedAnswer},
    cancellation::{CancellationReason, Shortage},
    history::{EmptyHistory, History, HistoryEntry},
    ids::{OrderId, PaymentId, ProductId},
    lease::Lease,
    lines::{InvalidQuantity, MAX_LINES, MAX_QUANTITY, OrderLine, OrderLines, Quantity},
    order::{Order, StepOutput, UnknownMembers},
    payment_method::{InvalidPaymentMethod, MAX_TOKEN, PaymentMethod},
    prices::{MixedQuote, PricedLine, Quote, ShownPrices},
    purchase::Purchase,
    recipient::Recipient,
    resend::{InvalidMessage, Message, Resend},
    state::{IllegalTransition, InvalidState, OrderState},
};
