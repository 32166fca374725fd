//! The ids of orders, products and payments.

use chassis::typed_id;

typed_id!(
    /// The id of an order. Its UUID has version 7 and begins with the time, so a customer's orders can be sorted by id.
    OrderId,
    "ord"
);
typed_id!(
    /// The id of a product of the products service.
    ProductId,
    "prod"
);
typed_id!(
    /// The id of a payment of the payments service.
    PaymentId,
    "pay"
);

impl OrderId {
    /// Returns the id of the order's payment. The payment's id is derived from the order's id, so that the saga can
    /// cancel a payment even if the response to its authorisation was lost.
    pub fn payment(self) -> PaymentId {
        PaymentId::from_uuid(self.uuid())
    }
}
