//! The ids of orders, products and payments.

use chassis::typed_id;
use jiff::Timestamp;
use uuid::Uuid;

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

    /// Returns the smallest id that an order placed at this time, or later, can have.
    pub fn first_at(time: Timestamp) -> Self {
        let millis = u128::try_from(time.as_millisecond()).unwrap_or_default();
        // A UUID of version 7 begins with 48 bits for the time.
        Self::from_uuid(Uuid::from_u128(millis << 80))
    }

    /// Returns the next greater id.
    pub fn after(self) -> Self {
        Self::from_uuid(Uuid::from_u128(self.uuid().as_u128().saturating_add(1)))
    }

    /// Returns the next smaller id.
    pub fn before(self) -> Self {
        Self::from_uuid(Uuid::from_u128(self.uuid().as_u128().saturating_sub(1)))
    }
}

impl PaymentId {
    /// Returns the id of the order that the payment is for.
    pub fn order(self) -> OrderId {
        OrderId::from_uuid(self.uuid())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::OrderId;

    #[test]
    fn the_ids_of_orders_sort_by_the_time_at_which_the_orders_were_placed() {
        let placed = Timestamp::from_millisecond(0x0195_A8E0_52C4).unwrap();
        let id = OrderId::from_uuid(Uuid::from_u128(0x0195A8E0_52C4_7D1A_B3F6_8C2D4E6F7A90));
        assert!(OrderId::first_at(placed) < id);
        assert!(id < OrderId::first_at(placed + std::time::Duration::from_millis(1)));
        assert!(id.before() < id && id < id.after());
    }
}
