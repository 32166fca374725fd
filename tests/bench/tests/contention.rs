//! The model of DynamoDB with which orders per second are measured.

use std::time::Duration;

use aws_sdk_dynamodb::{
    Client, Config,
    config::retry::RetryConfig,
    error::ProvideErrorMetadata,
    types::{AttributeValue, Put, TransactWriteItem},
};
use bench::{
    throughput::{Demand, Load, TIMING, run},
    virtual_time,
};
use in_process_tests::{World, world};

/// A client that repeats nothing, for the tables of a shop in which the model is on.
async fn modelled() -> (World, Client) {
    let world = World::start_in_test_time().await;
    let aws = world::aws(world.cloud.clone()).await;
    let config = Config::from(&aws.config).to_builder().retry_config(RetryConfig::disabled()).build();
    world.cloud.model_contention(TIMING);
    (world, Client::from_conf(config))
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

/// Writes items with these partition keys in one transaction. Returns the error's code.
async fn transact(client: &Client, keys: &[&str]) -> Option<String> {
    let put = |key: &&str| {
        let put = Put::builder().table_name("UsersTable").item("pk", text(key)).item("sk", text("S"));
        TransactWriteItem::builder().put(put.build().expect("a put with a table and an item")).build()
    };
    let request = client.transact_write_items().set_transact_items(Some(keys.iter().map(put).collect()));
    request.send().await.err().and_then(|error| error.code().map(str::to_owned))
}

async fn put(client: &Client, key: &str, payload: usize) -> Option<String> {
    let request = client.put_item().table_name("UsersTable").item("pk", text(key)).item("sk", text("S"));
    let request = request.item("payload", text(&"x".repeat(payload)));
    request.send().await.err().and_then(|error| error.code().map(str::to_owned))
}

#[test]
fn transactions_at_the_same_time_conflict_only_if_they_name_the_same_item() {
    virtual_time::run(async {
        let (_world, client) = modelled().await;
        let (one, other) = tokio::join!(transact(&client, &["a", "b"]), transact(&client, &["c", "d"]));
        assert_eq!((one, other), (None, None));
        let (one, other) = tokio::join!(transact(&client, &["a", "b"]), transact(&client, &["b", "c"]));
        assert_eq!((one, other.as_deref()), (None, Some("TransactionCanceledException")));
        assert_eq!(transact(&client, &["b", "c"]).await, None);
    });
}

#[test]
fn while_a_transaction_holds_an_item_a_write_conflicts_and_a_read_gets_the_old_item() {
    virtual_time::run(async {
        let (_world, client) = modelled().await;
        let later = async {
            tokio::time::sleep(Duration::from_millis(3)).await;
            let read = client.get_item().table_name("UsersTable").key("pk", text("a")).key("sk", text("S"));
            tokio::join!(put(&client, "a", 1), read.send())
        };
        let (transaction, (write, read)) = tokio::join!(transact(&client, &["a"]), later);
        assert_eq!((transaction, write.as_deref()), (None, Some("TransactionConflictException")));
        assert_eq!(read.unwrap().item, None);
    });
}

#[test]
fn a_partition_key_has_a_thousand_write_units_a_second_and_other_keys_are_not_throttled() {
    virtual_time::run(async {
        let (_world, client) = modelled().await;
        let refused = async |key: &str| put(&client, key, 300 * 1024).await.is_some();
        let began = tokio::time::Instant::now();
        let mut written = 0;
        while !refused("a").await {
            written += 1;
        }
        // Four writes of some 300 units use up the units that a key saves up.
        assert_eq!(written, 4);
        assert!(!refused("b").await);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!refused("a").await, "after {:?}", began.elapsed());
    });
}

#[test]
fn orders_of_one_product_that_conflict_are_all_confirmed_and_everything_adds_up() {
    let outcome = run(Load { rate: 40.0, seconds: 0.5, demand: Demand::Hot { shards: 1 } }).unwrap();
    assert!(outcome.is_sustained() && outcome.orders > 0, "{outcome:?}");
    assert!(outcome.contention.conflicts > 0, "{outcome:?}");
}

/// A response of DynamoDB has at most 1 MB. The checks after a load must see every order.
#[test]
fn all_items_of_a_table_are_found_even_if_they_need_several_pages() {
    virtual_time::run(async {
        let world = World::start_in_test_time().await;
        for n in 0..5 {
            let payload = "x".repeat(300 * 1024);
            let item = serde_json::json!({
                "pk": { "S": n.to_string() }, "sk": { "S": "S" }, "payload": { "S": payload },
            });
            world.cloud.put_item("UsersTable", item);
        }
        assert_eq!(world.cloud.scan("UsersTable").len(), 5);
    });
}
