//! Erasing what orders and their payments know of a customer who has left.

use chassis::{
    id::UserId,
    invocation::Invocation,
    page::{Limit, ListError},
    store::StoreError,
    trace::TraceContext,
};
use futures::{StreamExt, stream};

use crate::{
    domain::OrderId,
    repository::OrderList,
    saga::{Run, StepError, engine::RECORD_RESERVE},
    worker::Worker,
};

/// How many orders are erased at once.
const CONCURRENCY: usize = 8;

/// Why a customer's data is not erased everywhere yet. All of it is safe to
/// repeat.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// Orders that may still make a payment with the customer's data.
    #[error("{0} orders of the customer are still open")]
    StillOpen(usize),
    /// There are too many orders for one invocation.
    #[error("no time left for the rest of the customer's orders")]
    NoTime,
    /// The orders can't be listed.
    #[error(transparent)]
    List(#[from] ListError),
    /// An order can't be erased.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A payment can't be erased.
    #[error(transparent)]
    Payment(#[from] StepError),
}

impl Worker {
    /// Erases a customer's name and addresses in all their orders, and in the
    /// payments of those that are at an end.
    ///
    /// The data of an open order is erased in the order at once, but its
    /// payment may still be on its way: an error then asks for a repetition.
    pub async fn erase_customer(
        &self,
        customer: UserId,
        trace: &TraceContext,
        invocation: &Invocation,
    ) -> Result<(), ErasureError> {
        let run = Run { deadline: invocation.deadline.earlier_by(RECORD_RESERVE), trace };
        let mut list = OrderList { user_id: customer, status: None, limit: Limit::MAX, cursor: None };
        let mut still_open = 0;
        loop {
            let page = self.engine.repository.list(&list).await?;
            let erased = stream::iter(page.items).map(|order| self.erase_order(order.id, run));
            let erased: Vec<_> = erased.buffer_unordered(CONCURRENCY).collect().await;
            for is_closed in erased {
                still_open += usize::from(!is_closed?);
            }
            match page.next_cursor {
                Some(cursor) => list.cursor = Some(cursor.parse().map_err(ListError::from)?),
                None if still_open > 0 => return Err(ErasureError::StillOpen(still_open)),
                None => return Ok(()),
            }
        }
    }

    /// Returns whether the order is at an end, so that nothing of it will come.
    async fn erase_order(&self, id: OrderId, run: Run<'_>) -> Result<bool, ErasureError> {
        if run.deadline.remaining().is_zero() {
            return Err(ErasureError::NoTime);
        }
        let Some(order) = self.engine.repository.erase_customer(id).await? else { return Ok(true) };
        let is_closed = !order.state.is_open();
        if is_closed {
            self.engine.participants.erase_recipient(&order, run).await?;
        }
        Ok(is_closed)
    }
}
