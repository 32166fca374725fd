//! The ids that an order refers to.

use chassis::typed_id;

typed_id!(
    /// UUIDs of version 7: a customer's orders sort by time.
    OrderId,
    "ord"
);
typed_id!(
    /// A product of the products service.
    ProductId,
    "prod"
);
typed_id!(
    /// A payment of the payments service.
    PaymentId,
    "pay"
);

impl OrderId {
    /// The id of the order's payment. It is derived from the order's id, so that a payment can be cancelled even if the
    /// answer to its authorisation was lost.
    pub fn payment(self) -> PaymentId {
        PaymentId::from_uuid(self.uuid())
    }
}
