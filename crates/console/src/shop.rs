//! Sends requests to the shop's public API, as one of the two people or as a customer of
//! the storm.

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{emulator::Emulator, people::People};

/// How many products a page of the catalogue has at most.
const PAGE: u32 = 100;
/// How many pages are read at most. A cursor that never ends would otherwise be followed
/// for ever.
const PAGES: usize = 100;

#[derive(Clone)]
pub struct Shop {
    pub emulator: Emulator,
    pub people: People,
}

/// An answer of the public API, as it was received.
pub struct Answer {
    pub status: u16,
    pub content_type: Option<String>,
    pub body: Bytes,
}

impl Answer {
    pub async fn receive(request: RequestBuilder) -> Result<Self> {
        let response = request.send().await.context("the shop's API did not answer")?;
        let status = response.status().as_u16();
        let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let content_type = content_type.map(str::to_owned);
        let body = response.bytes().await.context("the answer of the shop's API is incomplete")?;
        Ok(Self { status, content_type, body })
    }

    /// The body; null if it is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A line of an order: a product and a quantity.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub product_id: String,
    pub quantity: u32,
}

impl Shop {
    /// A request to the public API, without a token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.emulator.http.request(method, format!("{}{path}", self.emulator.stack.api_url))
    }

    /// All products of the catalogue.
    pub async fn products(&self) -> Result<Vec<Value>> {
        let (mut products, mut cursor) = (Vec::new(), None);
        for _ in 0..PAGES {
            let mut query = vec![("limit", PAGE.to_string())];
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let query = serde_urlencoded::to_string(query).context("a cursor cannot be sent")?;
            let answer = Answer::receive(self.request(Method::GET, &format!("/products?{query}"))).await?;
            ensure!(answer.status == 200, "the catalogue was refused with {}", answer.status);
            let mut page = answer.json();
            if let Value::Array(items) = page["items"].take() {
                products.extend(items);
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Ok(products),
            }
        }
        Err(anyhow!("the catalogue has more than {PAGES} pages"))
    }

    /// Places an order with a token.
    pub async fn place(&self, token: &str, lines: &[Line], card: &str, key: &str) -> Result<Answer> {
        let items: Vec<_> =
            lines.iter().map(|line| json!({ "product_id": line.product_id, "quantity": line.quantity })).collect();
        let request = self
            .request(Method::POST, "/orders")
            .bearer_auth(token)
            .header("idempotency-key", key)
            .json(&json!({ "items": items, "payment_method": card }));
        Answer::receive(request).await
    }
}
