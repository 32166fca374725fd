//! No role allows what its function never does. (That each allows what its
//! function does is checked at each call in all tests of this crate.)

use std::{collections::BTreeSet, time::Duration};

use chassis::{clock::Clock, dynamo::Key};
use http::{Method, StatusCode};
use in_process_tests::{
    Caller, World,
    cloud::{Cloud, HostFault},
    permissions::{GRANTED, Permission},
    world,
};
use jiff::Timestamp;
use serde_json::{Value, json};

/// What Lambda itself does as the function: it writes its logs, and fetches
/// what it invokes the function with.
/// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-intro-execution-role.html>
fn used_by_lambda() -> BTreeSet<Permission> {
    let logs = [
        ("users", "UsersLogs"),
        ("products", "ProductsLogs"),
        ("orders", "OrdersLogs"),
        ("order-worker", "OrderWorkerLogs"),
        ("payments", "PaymentsLogs"),
        ("notifications", "NotificationsLogs"),
    ];
    let logs = logs.into_iter().flat_map(|(function, group)| {
        ["logs:CreateLogStream", "logs:PutLogEvents"].map(|action| Permission::new(function, action, group))
    });
    let stream = ["DescribeStream", "GetRecords", "GetShardIterator", "ListStreams"]
        .map(|action| Permission::new("order-worker", &format!("dynamodb:{action}"), "OrdersTable.StreamArn"));
    let queue = ["ReceiveMessage", "DeleteMessage", "GetQueueAttributes"].map(|action| format!("sqs:{action}"));
    let queue = queue.into_iter().flat_map(|action| {
        [("notifications", "OrderEventsQueue"), ("order-worker", "UserEventsQueue")]
            .map(|(function, queue)| Permission::new(function, &action, queue))
    });
    logs.chain(stream).chain(queue).collect()
}

#[tokio::test]
async fn what_a_role_does_not_allow_is_refused() {
    let cloud = Cloud::start();
    for (function, table, allowed) in
        [("orders", "OrdersTable", true), ("users", "OrdersTable", false), ("orders", "UsersTable", false)]
    {
        let table = world::table(cloud.clone(), table).await;
        let read = async move { table.get::<Value>(&Key::new("NONE", "NONE")).await };
        let result = cloud.start_function(function).run(read).await.unwrap();
        assert_eq!(result.is_ok(), allowed, "{function}: {result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_right_of_every_role_is_used() {
    let shop = Shop::open().await;
    shop.keep_profiles().await;
    shop.keep_the_catalogue().await;
    shop.take_orders().await;
    shop.let_the_worker_do_everything().await;
    shop.fail_to_notify().await;
    shop.check_health().await;
    shop.lose_a_customer().await;

    // The emulator knows the sender's identity as no resource.
    let only_local = Permission::new("notifications", "ses:SendEmail", "*");
    let used = shop.world.cloud.used_permissions();
    let used: BTreeSet<_> = used.into_iter().chain(used_by_lambda()).chain([only_local]).collect();
    let unused: Vec<_> = GRANTED.difference(&used).map(ToString::to_string).collect();
    assert!(unused.is_empty(), "{unused:#?}");
}

/// Plays whatever makes a function do something it doesn't do otherwise.
struct Shop {
    world: World,
    admin: Caller,
    ada: Caller,
    teapot: String,
}

impl Shop {
    async fn open() -> Self {
        let world = World::start_at(Clock::tokio(Timestamp::from_second(1_800_000_000).unwrap())).await;
        let (admin, ada) = (Caller::admin(), world.customer("Ada").await);
        let body = json!({ "name": "Teapot", "description": "Short and stout.", "price": 19.99, "stock": 100 });
        let teapot = world.post(&admin, "/products", body).await.expect(StatusCode::CREATED);
        Self { world, admin, ada, teapot: teapot["id"].as_str().unwrap().to_owned() }
    }

    async fn keep_profiles(&self) {
        let bob = self.world.customer("Bob").await;
        let path = format!("/users/{}", bob.id());
        self.world.patch(&bob, &path, json!({ "name": "Robert" })).await.expect(StatusCode::OK);
        self.world.get(&bob, &path).await.expect(StatusCode::OK);
        self.world.delete(&bob, &path).await.expect(StatusCode::NO_CONTENT);
    }

    /// A customer who has ordered leaves, and is erased everywhere.
    async fn lose_a_customer(&self) {
        self.order("tok_accepted").await;
        self.settle().await;
        self.world.delete(&self.ada, &format!("/users/{}", self.ada.id())).await.expect(StatusCode::NO_CONTENT);
        assert_eq!(self.world.deliver_user_events().await, 0);
    }

    async fn keep_the_catalogue(&self) {
        let path = format!("/products/{}", self.teapot);
        let etag = self.world.get(&self.ada, &path).await.header("etag").unwrap().to_owned();
        let change = Some(json!({ "price": 18.5 }));
        let answer = self.world.send_with(&self.admin, Method::PATCH, &path, change, &[("if-match", &etag)]).await;
        answer.expect(StatusCode::OK);
        let delivery = json!({ "adjustment_id": "delivery", "delta": 5, "reason": "Delivery" });
        self.world.post(&self.admin, &format!("{path}/stock-adjustments"), delivery).await.expect(StatusCode::OK);
        self.world.get(&self.ada, "/products").await.expect(StatusCode::OK);
    }

    async fn take_orders(&self) {
        let done = self.order("tok_accepted").await;
        self.settle().await;
        self.cancel(&done).await;
        self.order("tok_declined").await;
        self.settle().await;
        for path in ["/orders", "/orders?status=CANCELLED"] {
            self.world.get(&self.ada, path).await.expect(StatusCode::OK);
        }
    }

    /// Each service is away in turn while an order is placed: what the request
    /// leaves open, the worker does.
    async fn let_the_worker_do_everything(&self) {
        for away in ["users", "products", "payments"] {
            self.world.cloud.take_down(&format!("{away}.internal"));
            self.order("tok_accepted").await;
            self.world.cloud.bring_back();
            self.settle().await;
        }
        self.order("tok_capture_refused").await;
        self.settle().await;

        // Cancelled while the worker has its payment captured: it reads again.
        self.world.cloud.inject_fault("payments.internal", HostFault::Slow(Duration::from_secs(1)));
        let id = self.order("tok_accepted").await;
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.cancel(&id).await;
        };
        tokio::join!(self.world.deliver_stream(), cancel);
        self.world.cloud.bring_back();
        self.settle().await;
        let open = self.world.cloud.scan("OrdersTable").into_iter().filter(|item| item["next_check"].is_object());
        assert_eq!(open.count(), 0);
    }

    async fn fail_to_notify(&self) {
        self.world.cloud.answer_mail(|_| Some((400, json!({ "__type": "MessageRejected", "message": "no" }))));
        self.order("tok_accepted").await;
        self.settle().await;
    }

    async fn check_health(&self) {
        for service in ["users", "products", "orders", "payments", "notifications"] {
            self.world.get(&self.admin, &format!("/health/{service}?deep=true")).await.expect(StatusCode::OK);
        }
    }

    /// Places an order; the answer may be any.
    async fn order(&self, token: &str) -> String {
        let body = json!({ "items": [{ "product_id": self.teapot, "quantity": 1 }], "payment_method": token });
        let key = uuid::Uuid::new_v4().to_string();
        let headers = [("idempotency-key", key.as_str())];
        let answer: Value = self.world.send_with(&self.ada, Method::POST, "/orders", Some(body), &headers).await.json();
        answer["id"].as_str().or(answer["order_id"].as_str()).unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    async fn cancel(&self, id: &str) {
        let answer = self.world.send(&self.ada, Method::POST, &format!("/orders/{id}/cancel"), None).await;
        assert!(answer.status.is_success(), "{}", answer.text);
    }

    /// What happens by itself in some minutes.
    async fn settle(&self) {
        for _ in 0..5 {
            self.world.deliver_stream().await;
            self.world.deliver_messages().await;
            tokio::time::advance(Duration::from_secs(65)).await;
            self.world.sweep().await;
        }
    }
}
