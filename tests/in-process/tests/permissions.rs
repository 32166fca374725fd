//! Tests that each role allows only calls that its function makes. The opposite, that
//! a role allows all calls of its function, is part of every test of this crate: the
//! embedded cloud refuses a call that the role does not allow.

use std::{collections::BTreeSet, time::Duration};

use chassis::{clock::Clock, dynamo::Key};
use http::{Method, StatusCode};
use in_process_tests::{
    Caller, World,
    cloud::{Cloud, HostFault},
    permissions::{GRANTED, Permission},
    shop::order_request,
    world::{self, email_feedback},
};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The permissions that Lambda itself uses with the function's role, to write logs and
/// X-Ray's segments, and to read the stream or queue whose records Lambda passes to the function.
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
    let segments = ["users", "products", "orders", "order-worker", "payments", "notifications"];
    let segments = segments.into_iter().flat_map(|function| {
        ["xray:PutTraceSegments", "xray:PutTelemetryRecords"].map(|action| Permission::new(function, action, "*"))
    });
    let stream = ["DescribeStream", "GetRecords", "GetShardIterator", "ListStreams"]
        .map(|action| Permission::new("order-worker", &format!("dynamodb:{action}"), "OrdersTable.StreamArn"));
    let queue = ["ReceiveMessage", "DeleteMessage", "GetQueueAttributes"].map(|action| format!("sqs:{action}"));
    let queue = queue.into_iter().flat_map(|action| {
        [("notifications", "OrderEventsQueue"), ("order-worker", "UserEventsQueue")]
            .map(|(function, queue)| Permission::new(function, &action, queue))
    });
    logs.chain(segments).chain(stream).chain(queue).collect()
}

#[tokio::test]
async fn a_call_that_the_role_does_not_allow_is_refused() {
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
async fn every_permission_of_every_role_is_used() {
    let usage = Usage::start().await;
    usage.manage_a_profile().await;
    usage.manage_the_catalogue().await;
    usage.place_and_cancel_orders().await;
    usage.let_the_worker_carry_out_each_step().await;
    usage.report_a_bounce().await;
    usage.world.reconcile().await;
    usage.fail_to_send_mail().await;
    usage.check_health().await;
    usage.pause_messages().await;
    usage.erase_a_customer().await;

    // The template grants this permission only on an emulator, which has no ARN for the
    // sender's identity. The functions in these tests use the permission for AWS.
    let only_local = Permission::new("notifications", "ses:SendEmail", "*");
    let used = usage.world.cloud.used_permissions();
    let used: BTreeSet<_> = used.into_iter().chain(used_by_lambda()).chain([only_local]).collect();
    let unused: Vec<_> = GRANTED.difference(&used).map(ToString::to_string).collect();
    assert!(unused.is_empty(), "{unused:#?}");
}

/// A world in which the functions use every permission.
struct Usage {
    world: World,
    admin: Caller,
    ada: Caller,
    teapot: String,
}

impl Usage {
    async fn start() -> Self {
        let world = World::start_at(Clock::tokio(Timestamp::from_second(1_800_000_000).unwrap())).await;
        let (admin, ada) = (Caller::admin(), world.customer("Ada").await);
        let teapot = world.product("19.99", 100).await;
        Self { world, admin, ada, teapot }
    }

    async fn manage_a_profile(&self) {
        let bob = self.world.customer("Bob").await;
        let path = format!("/users/{}", bob.id());
        self.world.patch(&bob, &path, json!({ "name": "Robert" })).await.expect(StatusCode::OK);
        self.world.get(&bob, &path).await.expect(StatusCode::OK);
        self.world.get(&self.admin, &format!("{path}/actions")).await.expect(StatusCode::OK);
        self.world.delete(&bob, &path).await.expect(StatusCode::NO_CONTENT);
    }

    /// Deletes the profile of a customer with orders, so that all services erase the
    /// customer's data.
    async fn erase_a_customer(&self) {
        self.order("tok_accepted").await;
        self.settle().await;
        self.world.delete(&self.ada, &format!("/users/{}", self.ada.id())).await.expect(StatusCode::NO_CONTENT);
        assert_eq!(self.world.deliver_user_events().await, 0);
        self.world.deliver_messages().await;
    }

    /// Reports that Ada's e-mails bounce, so that the notifier stores a digest of her address, and
    /// deletes it when she is erased.
    async fn report_a_bounce(&self) {
        let mails = self.world.cloud.mails();
        let mail = mails.iter().rfind(|mail| mail["Destination"]["ToAddresses"][0] == self.ada.email());
        let report = email_feedback("Email Bounced", mail.expect("an e-mail to Ada"));
        self.world.cloud.put_message(report.to_string());
        self.world.deliver_messages().await;
    }

    async fn manage_the_catalogue(&self) {
        let path = format!("/products/{}", self.teapot);
        let etag = self.world.get(&self.ada, &path).await.header("etag").unwrap().to_owned();
        let change = Some(json!({ "price": 18.5 }));
        let answer = self.world.send_with(&self.admin, Method::PATCH, &path, change, &[("if-match", &etag)]).await;
        answer.expect(StatusCode::OK);
        let delivery = json!({ "adjustment_id": "delivery", "delta": 5, "reason": "Delivery" });
        self.world.post(&self.admin, &format!("{path}/stock-adjustments"), delivery).await.expect(StatusCode::OK);
        self.world.get(&self.ada, "/products").await.expect(StatusCode::OK);
        self.world.get(&self.admin, &format!("{path}/versions")).await.expect(StatusCode::OK);
    }

    async fn place_and_cancel_orders(&self) {
        let done = self.order("tok_accepted").await;
        self.settle().await;
        self.cancel(&done).await;
        self.order("tok_declined").await;
        self.settle().await;
        for path in ["/orders", "/orders?status=CANCELLED"] {
            self.world.get(&self.ada, path).await.expect(StatusCode::OK);
        }
        self.world.get(&self.admin, "/open-orders").await.expect(StatusCode::OK);
        let resends = format!("/orders/{}/resends", done["id"].as_str().unwrap());
        self.world.get(&self.admin, &resends).await.expect(StatusCode::OK);
        let messages = format!("/messages?order_id={}", done["id"].as_str().unwrap());
        self.world.get(&self.admin, &messages).await.expect(StatusCode::OK);
    }

    /// Places an order while one service is down, for each service, so that the worker
    /// carries out the steps that the request could not.
    async fn let_the_worker_carry_out_each_step(&self) {
        for service in ["users", "products", "payments"] {
            self.world.cloud.take_down(&format!("{service}.internal"));
            self.order("tok_accepted").await;
            self.world.cloud.bring_back();
            self.settle().await;
        }
        self.order("tok_capture_refused").await;
        self.settle().await;

        // The customer cancels an order while the worker captures its payment, so that
        // the worker must read the order again.
        self.world.cloud.inject_fault("payments.internal", HostFault::Slow(Duration::from_secs(1)));
        let order = self.order("tok_accepted").await;
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.cancel(&order).await;
        };
        tokio::join!(self.world.deliver_stream(), cancel);
        self.world.cloud.bring_back();
        self.settle().await;
        let open = self.world.cloud.scan("OrdersTable").into_iter().filter(|item| item["next_check"].is_object());
        assert_eq!(open.count(), 0);
    }

    async fn fail_to_send_mail(&self) {
        self.world.cloud.answer_mail(|_| Some((400, json!({ "__type": "MessageRejected", "message": "no" }))));
        self.order("tok_accepted").await;
        self.settle().await;
    }

    async fn pause_messages(&self) {
        for paused in [true, false] {
            let body = json!({ "paused": paused, "reason": "A trial." });
            self.world.post(&self.admin, "/pauses/messages", body).await.expect(StatusCode::OK);
            self.order("tok_accepted").await;
            self.settle().await;
        }
    }

    async fn check_health(&self) {
        for service in ["users", "products", "orders", "payments", "notifications"] {
            self.world.get(&self.admin, &format!("/health/{service}?deep=true")).await.expect(StatusCode::OK);
        }
    }

    /// Places an order. The response may have any status, but must contain the order's id.
    async fn order(&self, token: &str) -> Value {
        let key = uuid::Uuid::new_v4().to_string();
        let body = order_request(&[(&self.teapot, 1)], token);
        let order = self.world.place(&self.ada, body, &key).await.json();
        assert!(order["id"].is_string() || order["order_id"].is_string(), "{order}");
        order
    }

    async fn cancel(&self, order: &Value) {
        let answer = self.world.cancel(&self.ada, order).await;
        assert!(answer.status.is_success(), "{}", answer.text);
    }

    /// Lets background work finish, including work that is retried after some minutes.
    async fn settle(&self) {
        self.world.pass_minutes(6).await;
    }
}
