//! Erases a customer's personal data in orders and payments, after the users service has erased the customer.

use chassis::{
    id::UserId,
    invocation::Invocation,
    page::{Cursor, ListError},
    store::StoreError,
    time_limits::RECORD_RESERVE,
    trace::TraceContext,
};
use futures::{StreamExt, stream};

use crate::{
    domain::OrderId,
    saga::{StepContext, StepError},
    worker::Worker,
};

/// The number of orders in which personal data is erased side by side.
const CONCURRENCY: usize = 8;

/// The reason why some of the customer's data is not erased yet. The erasure is safe to repeat.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// A step of an open order may still send the customer's data to the payments service, so the erasure must be
    /// repeated when the orders are in a final state.
    #[error("{0} orders of the customer are still open")]
    StillOpen(usize),
    /// The customer has too many orders for one invocation.
    #[error("no time left for the rest of the customer's orders")]
    NoTime,
    #[error(transparent)]
    List(#[from] ListError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the payment could not be erased")]
    Payment(#[from] StepError),
}

impl Worker {
    /// Erases a customer's name and addresses in all orders of the customer, and in the payments of the orders that are
    /// in a final state.
    ///
    /// If the customer has open orders, the data in these orders is erased, too, but the result is
    /// [`ErasureError::StillOpen`]: a step of an open order may still send the data to the payments service, so the
    /// caller must repeat the erasure.
    pub async fn erase_customer(
        &self,
        customer: UserId,
        trace: &TraceContext,
        invocation: &Invocation,
    ) -> Result<(), ErasureError> {
        let context = StepContext { deadline: invocation.deadline.earlier_by(RECORD_RESERVE), trace };
        let mut cursor: Option<Cursor> = None;
        let mut still_open = 0;
        loop {
            let page = self.engine.repository.order_ids(customer, cursor.as_ref()).await?;
            let erased = stream::iter(page.items).map(|id| self.erase_order(id, context));
            let erased: Vec<_> = erased.buffer_unordered(CONCURRENCY).collect().await;
            for is_finished in erased {
                still_open += usize::from(!is_finished?);
            }
            match page.next_cursor {
                Some(next) => cursor = Some(next.parse().map_err(ListError::from)?),
                None if still_open > 0 => return Err(ErasureError::StillOpen(still_open)),
                None => return Ok(()),
            }
        }
    }

    /// Erases the customer's data in an order and, if the order is in a final state, in the order's payment. Returns
    /// whether the order is in a final state. If it is not, a later step may still store personal data.
    async fn erase_order(&self, id: OrderId, context: StepContext<'_>) -> Result<bool, ErasureError> {
        if context.deadline.remaining().is_zero() {
            return Err(ErasureError::NoTime);
        }
        let Some(order) = self.engine.repository.erase_customer(id).await? else { return Ok(true) };
        let is_finished = !order.state.is_open();
        if is_finished {
            self.engine.participants.erase_recipient(&order, context).await?;
        }
        Ok(is_finished)
    }
}
