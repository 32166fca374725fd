//! Asks the products and payments services what they have stored.

use std::sync::Arc;

use async_trait::async_trait;
use chassis::{
    deadline::Deadline,
    service_client::{CallError, ServiceClient},
    trace::TraceContext,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    AccountSource, ReconciliationError,
    accounts::{ChargePage, PaymentAccount, ReservationAccount, StockPage},
};
use crate::domain::{OrderId, PaymentId};

/// Asks with the clients with which the saga calls the services.
#[derive(Clone, Debug)]
pub struct ServiceAccounts {
    pub products: Arc<ServiceClient>,
    pub payments: Arc<ServiceClient>,
}

#[derive(Deserialize)]
struct Reservations {
    reservations: Vec<ReservationAccount>,
}

#[derive(Deserialize)]
struct Payments {
    payments: Vec<PaymentAccount>,
}

impl From<CallError> for ReconciliationError {
    fn from(error: CallError) -> Self {
        Self::Service(error.into())
    }
}

async fn ask<A: DeserializeOwned>(
    client: &ServiceClient,
    path: &str,
    body: &(impl Serialize + Sync),
    deadline: Deadline,
) -> Result<A, ReconciliationError> {
    Ok(client.post(path, body, &TraceContext::start(), deadline).await?)
}

#[async_trait]
impl AccountSource for ServiceAccounts {
    async fn reservations(
        &self,
        of: &[OrderId],
        deadline: Deadline,
    ) -> Result<Vec<ReservationAccount>, ReconciliationError> {
        let body = json!({ "order_ids": of });
        let answer: Reservations = ask(&self.products, "/reservations/accounts", &body, deadline).await?;
        Ok(answer.reservations)
    }

    async fn payments(
        &self,
        ids: &[PaymentId],
        deadline: Deadline,
    ) -> Result<Vec<PaymentAccount>, ReconciliationError> {
        let body = json!({ "payment_ids": ids });
        let answer: Payments = ask(&self.payments, "/payments/accounts", &body, deadline).await?;
        Ok(answer.payments)
    }

    async fn stock(&self, cursor: Option<&str>, deadline: Deadline) -> Result<StockPage, ReconciliationError> {
        ask(&self.products, "/stock/accounts", &json!({ "cursor": cursor }), deadline).await
    }

    async fn charges(
        &self,
        from: PaymentId,
        to: PaymentId,
        deadline: Deadline,
    ) -> Result<ChargePage, ReconciliationError> {
        ask(&self.payments, "/payments/charges", &json!({ "from": from, "to": to }), deadline).await
    }
}
