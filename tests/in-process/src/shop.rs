//! Steps that tests of several services share: adding a product, placing,
//! reading and cancelling an order, letting background work finish, and summing
//! up stock and money.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{Answer, Caller, World};

/// The body of a request to `POST /orders`.
pub fn order_request(lines: &[(&str, u32)], payment_method: &str) -> Value {
    let line = |(product, quantity): &(&str, u32)| json!({ "product_id": product, "quantity": quantity });
    json!({ "items": lines.iter().map(line).collect::<Vec<_>>(), "payment_method": payment_method })
}

/// The number in a DynamoDB attribute.
#[track_caller]
pub fn number(attribute: &Value) -> i64 {
    attribute["N"].as_str().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{attribute} is no number"))
}

/// The order's id, which an order's DynamoDB item contains only in its key.
pub fn order_id(item: &Value) -> &str {
    item["pk"]["S"].as_str().unwrap_or_default().trim_start_matches("ORDER#")
}

/// The available and the reserved stock in the item of a shard. Asserts that
/// neither is negative.
#[track_caller]
fn stock(shard: &Value) -> (i64, i64) {
    let stock = (number(&shard["available"]), number(&shard["reserved"]));
    assert!(stock.0 >= 0 && stock.1 >= 0, "{shard}");
    stock
}

/// The statuses in the history of an order, oldest first. `order` is the
/// order's representation in the public API.
pub fn statuses(order: &Value) -> Vec<&str> {
    order["history"].as_array().unwrap().iter().map(|entry| entry["status"].as_str().unwrap()).collect()
}

impl World {
    /// Adds a product with this unit price and stock. Returns its id.
    pub async fn product(&self, price: &str, stock: u32) -> String {
        let price: Value = serde_json::from_str(price).unwrap();
        let body = json!({ "name": "Teapot", "description": "Short and stout.", "price": price, "stock": stock });
        let product = self.post(&Caller::admin(), "/products", body).await.expect(StatusCode::CREATED);
        product["id"].as_str().unwrap().to_owned()
    }

    /// The available stock of a product, as the API shows it.
    pub async fn stock(&self, product: &str) -> u64 {
        let product = self.get(&Caller::anonymous(), &format!("/products/{product}")).await.expect(StatusCode::OK);
        product["stock"].as_u64().unwrap()
    }

    /// Places an order with an idempotency key.
    pub async fn place(&self, caller: &Caller, body: Value, key: &str) -> Answer {
        self.send_with(caller, Method::POST, "/orders", Some(body), &[("idempotency-key", key)]).await
    }

    /// Places an order that is confirmed. Returns the order.
    pub async fn confirmed_order(&self, caller: &Caller, lines: &[(&str, u32)], key: &str) -> Value {
        self.place(caller, order_request(lines, "tok_accepted"), key).await.expect(StatusCode::CREATED)
    }

    /// Cancels an order. `order` is either the order or a problem document that
    /// contains the order's id.
    pub async fn cancel(&self, caller: &Caller, order: &Value) -> Answer {
        let id = order["id"].as_str().or(order["order_id"].as_str()).expect("an order");
        self.send(caller, Method::POST, &format!("/orders/{id}/cancel"), None).await
    }

    /// Cancels another person's order as an administrator.
    pub async fn cancel_for_shop(&self, admin: &Caller, order: &Value, reason: &str) -> Answer {
        let id = order["id"].as_str().expect("an order");
        self.post(admin, &format!("/orders/{id}/cancel"), json!({ "reason": reason })).await
    }

    /// Reads an order through the public API.
    pub async fn order(&self, caller: &Caller, id: &Value) -> Value {
        self.get(caller, &format!("/orders/{}", id.as_str().unwrap())).await.expect(StatusCode::OK)
    }

    /// Delivers the records of the orders table's stream to the worker until
    /// there are no new records.
    pub async fn settle(&self) {
        while self.deliver_stream().await > 0 {}
    }

    /// Lets `count` minutes pass. In each minute, the worker runs a sweep, and
    /// the new records of the stream and the queued order events are delivered.
    pub async fn pass_minutes(&self, count: usize) {
        self.deliver_stream().await;
        for _ in 0..count {
            tokio::time::advance(Duration::from_secs(60)).await;
            self.sweep().await;
            self.deliver_stream().await;
            self.deliver_messages().await;
        }
    }

    /// Lets the orders function and the notifier read their switches, which they then
    /// need not read for some seconds. So the next order makes the requests that all
    /// orders make.
    pub async fn read_switches(&self) {
        for part in ["orders", "messages"] {
            self.get(&Caller::admin(), &format!("/pauses/{part}")).await.expect(StatusCode::OK);
        }
    }

    /// Takes the events out of the queue of order events, oldest first.
    pub fn take_events(&self) -> Vec<Value> {
        self.cloud.take_messages().iter().map(|text| serde_json::from_str(text).expect("an event")).collect()
    }

    /// Takes the events out of the queue of order events and returns their
    /// types, oldest first.
    pub fn take_event_types(&self) -> Vec<String> {
        self.take_events().iter().map(|event| event["type"].as_str().expect("a type").to_owned()).collect()
    }

    /// The DynamoDB items of all orders.
    pub fn stored_orders(&self) -> Vec<Value> {
        self.cloud.scan("OrdersTable").into_iter().filter(|item| item["sk"]["S"] == "ORDER").collect()
    }

    /// The DynamoDB item of the order. Asserts that exactly one order is
    /// stored.
    #[track_caller]
    pub fn stored_order(&self) -> Value {
        let mut orders = self.stored_orders();
        assert_eq!(orders.len(), 1, "{orders:?}");
        orders.remove(0)
    }

    /// The number of orders in a state.
    pub fn orders_in_state(&self, state: &str) -> i64 {
        self.stored_orders().iter().filter(|order| order["state"]["S"] == state).count() as i64
    }

    /// Gives a product this number of stock shards.
    pub async fn give_shards(&self, product: &str, count: u8) -> Answer {
        let body = json!({ "stock_shards": count });
        let path = format!("/products/{product}");
        self.send_with(&Caller::admin(), Method::PATCH, &path, Some(body), &[("if-match", "*")]).await
    }

    /// The available and the reserved stock of each shard of a product, sorted by
    /// the shard's number. Asserts that neither is negative.
    #[track_caller]
    pub fn shards(&self, product: &str) -> Vec<(i64, i64)> {
        let items = self.cloud.scan("ProductsTable").into_iter();
        let shards = items.filter(|item| item["sk"]["S"] == "STOCK" && item["product_id"]["S"] == product);
        let mut shards: Vec<_> = shards.map(|item| (number(&item["shard"]), stock(&item))).collect();
        shards.sort_unstable();
        shards.into_iter().map(|(_, stock)| stock).collect()
    }

    /// The available and the reserved stock, each summed over all products.
    /// Asserts that neither is negative for any shard.
    #[track_caller]
    pub fn stock_sums(&self) -> (i64, i64) {
        let shards = self.cloud.scan("ProductsTable").into_iter().filter(|item| item["sk"]["S"] == "STOCK");
        shards.map(|item| stock(&item)).fold((0, 0), |sums, stock| (sums.0 + stock.0, sums.1 + stock.1))
    }

    /// The money that the provider has captured and not refunded, in minor
    /// units. Asserts that no charge is still authorised.
    #[track_caller]
    pub fn kept_money(&self) -> i64 {
        let charges = self.cloud.scan("SandboxLedgerTable");
        assert!(charges.iter().all(|charge| charge["status"]["S"] != "AUTHORISED"), "{charges:?}");
        charges.iter().map(|charge| number(&charge["captured_minor"]) - number(&charge["refunded_minor"])).sum()
    }
}
