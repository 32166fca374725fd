//! The services that the original design's flow calls, with the requests to DynamoDB that
//! such services make: one for each call. They keep no reservation, no idempotency key
//! and no state of a payment. Nothing is added that would make them more expensive.

use aws_sdk_dynamodb::{Client, types::AttributeValue};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use in_process_tests::{World, world};
use serde_json::{Value, json};

/// The sort key of the items of these services. The shop's own items have other keys.
const SORT_KEY: &str = "ORIGINAL";

/// Replaces the users, products and payments services of `world`. The products with these
/// ids each get an item that contains the stock, as in the plain design.
pub async fn serve(world: &World, products: &[String]) {
    for id in products {
        let item = json!({
            "pk": { "S": format!("PRODUCT#{id}") },
            "sk": { "S": SORT_KEY },
            "name": { "S": "Teapot" },
            "description": { "S": "Short and stout." },
            "price": { "N": "19.99" },
            "available": { "N": "100" },
        });
        world.cloud.put_item("ProductsTable", item);
    }
    let client = Client::new(&world::aws(world.cloud.clone()).await.config);
    world.cloud.serve("users", Router::new().route("/users/{id}/validate", post(validate)).with_state(client.clone()));
    let products = Router::new().route("/products/{id}", get(product)).route("/products/reserve", post(reserve));
    world.cloud.serve("products", products.with_state(client.clone()));
    world.cloud.serve("payments", Router::new().route("/payments", post(pay)).with_state(client));
}

type Answer = Result<Json<Value>, StatusCode>;

fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// Any failure of a request to DynamoDB.
fn failed<E>(_: E) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}

async fn validate(State(client): State<Client>, Path(id): Path<String>) -> Answer {
    let profile = client.get_item().table_name("UsersTable").key("pk", text(format!("USER#{id}")));
    let profile = profile.key("sk", text("USER")).send().await.map_err(failed)?;
    Ok(Json(json!({ "valid": profile.item.is_some(), "recipient": { "name": "Ada" } })))
}

async fn product(State(client): State<Client>, Path(id): Path<String>) -> Answer {
    let product = client.get_item().table_name("ProductsTable").key("pk", text(format!("PRODUCT#{id}")));
    let product = product.key("sk", text(SORT_KEY)).send().await.map_err(failed)?;
    product.item.ok_or(StatusCode::NOT_FOUND)?;
    Ok(Json(json!({ "id": id, "name": "Teapot", "price": 19.99 })))
}

async fn reserve(State(client): State<Client>, Json(body): Json<Value>) -> Answer {
    let id = body["product_id"].as_str().unwrap_or_default();
    let update = client.update_item().table_name("ProductsTable").key("pk", text(format!("PRODUCT#{id}")));
    let update = update
        .key("sk", text(SORT_KEY))
        .update_expression("SET available = available - :quantity")
        .condition_expression("available >= :quantity")
        .expression_attribute_values(":quantity", AttributeValue::N(body["quantity"].to_string()));
    update.send().await.map_err(failed)?;
    Ok(Json(json!({ "total": { "minor": 1999, "currency": "USD" } })))
}

async fn pay(State(client): State<Client>, Json(body): Json<Value>) -> Answer {
    let payment = client.put_item().table_name("PaymentsTable");
    let payment = payment
        .item("pk", text(format!("PAYMENT#{}", body["order_id"].as_str().unwrap_or_default())))
        .item("sk", text(SORT_KEY))
        .item("user_id", text(body["user_id"].as_str().unwrap_or_default()))
        .item("amount", text(body["amount"].to_string()))
        .item("status", text("PAID"));
    payment.send().await.map_err(failed)?;
    Ok(Json(json!({ "status": "PAID" })))
}
