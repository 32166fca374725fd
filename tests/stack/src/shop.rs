//! Actions that several tests share: to open the shop, to add a product, and to place,
//! read and cancel an order.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Answer, Person, Stack, eventually};

/// A stack, and an administrator who is signed in.
pub struct Shop {
    pub stack: Stack,
    pub admin: Person,
}

impl Shop {
    /// The shop on the deployed stack.
    pub async fn open() -> Self {
        Self::on(Stack::deployed()).await
    }

    /// The shop on a given stack.
    pub async fn on(stack: Stack) -> Self {
        Self { admin: stack.admin().await, stack }
    }

    /// The shop on the deployed stack, with a customer called Ada.
    pub async fn with_customer() -> (Self, Person) {
        let shop = Self::open().await;
        let ada = shop.stack.customer("Ada").await;
        (shop, ada)
    }

    /// Adds a product with this unit price and stock. Returns the product's id.
    pub async fn product(&self, price: &str, stock: u32) -> String {
        let price: Value = serde_json::from_str(price).unwrap();
        let body = json!({ "name": "Teapot", "description": "Short and stout.", "price": price, "stock": stock });
        let product = self.admin.post("/products", body).await.expect(StatusCode::CREATED);
        product["id"].as_str().unwrap().to_owned()
    }

    /// The available stock of a product, as the API shows it.
    pub async fn stock(&self, product: &str) -> u64 {
        let product = self.stack.anonymous().get(&format!("/products/{product}")).await.expect(StatusCode::OK);
        product["stock"].as_u64().unwrap()
    }
}

impl Person {
    /// Places an order with a fresh idempotency key.
    pub async fn place(&self, lines: &[(&str, u32)], payment_method: &str) -> Answer {
        self.place_with_key(lines, payment_method, &Uuid::new_v4().to_string()).await
    }

    /// Places an order with an idempotency key.
    pub async fn place_with_key(&self, lines: &[(&str, u32)], payment_method: &str, key: &str) -> Answer {
        self.try_place_with_key(lines, payment_method, key).await.expect("an answer")
    }

    /// Places an order with an idempotency key. Returns an error if no response
    /// arrives.
    pub async fn try_place_with_key(
        &self,
        lines: &[(&str, u32)],
        payment_method: &str,
        key: &str,
    ) -> reqwest::Result<Answer> {
        let line = |(product, quantity): &(&str, u32)| json!({ "product_id": product, "quantity": quantity });
        let body = json!({ "items": lines.iter().map(line).collect::<Vec<_>>(), "payment_method": payment_method });
        self.try_send_to(&self.stack.api_url, Method::POST, "/orders", Some(body), &[("idempotency-key", key)]).await
    }

    /// Reads an order.
    pub async fn order(&self, id: &str) -> Value {
        self.get(&format!("/orders/{id}")).await.expect(StatusCode::OK)
    }

    /// Waits until an order has a status. Returns the order.
    pub async fn order_with_status(&self, id: &str, status: &str) -> Value {
        eventually(&format!("{id} to be {status}"), async || {
            let order = self.order(id).await;
            (order["status"] == status).then_some(order)
        })
        .await
    }

    /// Cancels an order.
    pub async fn cancel(&self, id: &str) -> Answer {
        self.send(Method::POST, &format!("/orders/{id}/cancel"), None, &[]).await
    }
}

/// The statuses in the history of an order, as the API shows the order.
pub fn statuses(order: &Value) -> Vec<&str> {
    order["history"].as_array().unwrap().iter().map(|entry| entry["status"].as_str().unwrap()).collect()
}
