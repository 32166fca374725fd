//! Counts what a confirmed order costs: its requests to DynamoDB, the write and
//! read units of these requests, and its calls between services. The numbers
//! depend only on the code, so they are exact on every machine.

use std::fmt::Write;

use http::StatusCode;
use in_process_tests::{Caller, World, cloud::Capacity, shop::order_request};

/// A table, and the requests, write units and read units that an order costs
/// there.
type TableCost = (&'static str, u64, f64, f64);

/// How to change the expected numbers.
const HOW_TO_UPDATE: &str = "If this change is deliberate, write the new numbers into this test, and into the section \
                             \"Write units of an order\" of docs/performance.md, which says why each write exists.";

/// A world in which an order with this number of lines was placed with an
/// idempotency key, and has reached `DONE`. Its messages are sent.
async fn finished_order(lines: usize) -> World {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    let mut products = Vec::new();
    for _ in 0..lines {
        products.push(world.product("19.99", 100).await);
    }
    let lines: Vec<_> = products.iter().map(|product| (product.as_str(), 1)).collect();
    world.read_switches().await;
    world.cloud.start_metering();
    world.place(&ada, order_request(&lines, "tok_accepted"), "key-1").await.expect(StatusCode::CREATED);
    world.settle().await;
    world.deliver_messages().await;
    assert_eq!(world.orders_in_state("DONE"), 1);
    world
}

/// The sum of each table that the order used, in the order of the tables'
/// names.
fn costs(world: &World) -> Vec<(String, Capacity)> {
    let requests = world.cloud.metered_requests();
    let mut tables: Vec<_> = requests.iter().map(|request| request.table.clone()).collect();
    tables.sort_unstable();
    tables.dedup();
    let of_table = |table: String| {
        let sum = Capacity::of(requests.iter().filter(|request| request.table == table));
        (table, sum)
    };
    tables.into_iter().map(of_table).collect()
}

#[track_caller]
fn assert_costs(world: &World, expected: &[TableCost]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(table, requests, write_units, read_units)| {
            let sum = Capacity { requests: *requests, write_units: *write_units, read_units: *read_units };
            ((*table).to_owned(), sum)
        })
        .collect();
    let requests = world.cloud.metered_requests().iter().fold(String::new(), |mut text, request| {
        writeln!(text, "{request:?}").expect("a String accepts every text");
        text
    });
    assert_eq!(costs(world), expected, "the cost of an order has changed. {HOW_TO_UPDATE}\n{requests}");
}

#[tokio::test]
async fn a_confirmed_order_with_one_line_costs_exactly_the_documented_units() {
    let world = finished_order(1).await;
    assert_costs(
        &world,
        &[
            ("NotificationsTable", 6, 4.0, 2.0),
            ("OrdersTable", 4, 11.0, 1.0),
            ("PaymentsTable", 4, 3.0, 1.0),
            ("ProductsTable", 2, 4.0, 1.0),
            ("SandboxLedgerTable", 4, 3.0, 2.0),
            ("UsersTable", 1, 0.0, 1.0),
        ],
    );
}

#[tokio::test]
async fn a_confirmed_order_with_ten_lines_costs_exactly_the_documented_units() {
    let world = finished_order(10).await;
    assert_costs(
        &world,
        &[
            ("NotificationsTable", 6, 4.0, 2.0),
            ("OrdersTable", 4, 13.0, 1.0),
            ("PaymentsTable", 4, 3.0, 1.0),
            ("ProductsTable", 2, 24.0, 10.0),
            ("SandboxLedgerTable", 4, 3.0, 2.0),
            ("UsersTable", 1, 0.0, 1.0),
        ],
    );
}

#[tokio::test]
async fn an_order_calls_each_service_once_for_each_step_however_many_lines_it_has() {
    for lines in [1, 10] {
        let world = finished_order(lines).await;
        let mut calls: Vec<_> = world.cloud.exchanges().into_iter().map(|call| call.service).collect();
        calls.sort_unstable();
        assert_eq!(calls, ["payments", "payments", "products", "users"], "{lines} lines. {HOW_TO_UPDATE}");
    }
}

#[tokio::test]
async fn a_failed_condition_costs_as_many_units_as_the_stored_item_and_changes_no_index() {
    let world = World::start().await;
    let ada = world.customer("Ada").await;
    world.cloud.start_metering();
    // The customer already has a profile. The transaction would put two items.
    world
        .post(&ada, "/users", serde_json::json!({ "name": "Ada", "email": ada.email() }))
        .await
        .expect(StatusCode::CONFLICT);
    let requests = world.cloud.metered_requests();
    let failed = requests.iter().find(|request| request.failed).expect("a failed request");
    assert_eq!((failed.operation.as_str(), failed.write_units()), ("TransactWriteItems", 4.0), "{requests:?}");
    assert!(failed.index_write_units.is_empty());
}

#[tokio::test]
async fn nothing_is_metered_before_a_test_starts_the_meter_and_the_meter_starts_again_from_zero() {
    let world = World::start().await;
    world.product("1.00", 1).await;
    world.cloud.start_metering();
    assert!(world.cloud.consumed().is_empty());
    let product = world.product("1.00", 1).await;
    let consumed = world.cloud.consumed();
    let of_products = consumed[&("products", "ProductsTable".to_owned())];
    // The product, its stock shard and its first version, which are written in one transaction, and the entry in the
    // index `catalogue`.
    assert_eq!(of_products, Capacity { requests: 1, write_units: 7.0, read_units: 0.0 });
    world.cloud.start_metering();
    assert!(world.cloud.consumed().is_empty());
    world.get(&Caller::anonymous(), &format!("/products/{product}")).await.expect(StatusCode::OK);
    assert_eq!(world.cloud.consumed().len(), 1);
}
