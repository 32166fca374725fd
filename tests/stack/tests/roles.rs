//! What each function may do, tried with the credentials of its role, on the
//! policies that were deployed.

use std::{collections::BTreeSet, time::Duration};

use http::StatusCode;
use serde_json::{Value, json};
use stack_tests::{
    Person, Stack, eventually,
    signed::{Request, Signer},
};
use tokio::sync::Mutex;

/// One test takes rights away that the other counts.
static ROLES: Mutex<()> = Mutex::const_new(());

/// Everything that each function may do. All else that [`attempts`] tries is
/// refused.
const MAY: [(&str, &[&str]); 6] = [
    (
        "users",
        &["GetItem users", "PutItem users", "DeleteItem users", "SendMessage order_events", "SendMessage user_events"],
    ),
    (
        "products",
        &[
            "GetItem products",
            "BatchGetItem products",
            "PutItem products",
            "UpdateItem products",
            "Query products/catalogue",
        ],
    ),
    (
        "orders",
        &[
            "GetItem orders",
            "PutItem orders",
            "UpdateItem orders",
            "Query orders/by_user",
            "Query orders/by_user_and_status",
            "POST /users/{id}/validate",
            "POST /products/reserve",
            "POST /reservations/{id}/release",
            "POST /payments",
            "POST /payments/{id}/cancel",
            "SendMessage order_events",
        ],
    ),
    (
        "order_worker",
        &[
            "GetItem orders",
            "PutItem orders",
            "UpdateItem orders",
            "Query orders/open_orders",
            "Query orders/by_user",
            "POST /users/{id}/validate",
            "POST /products/reserve",
            "POST /reservations/{id}/release",
            "POST /payments",
            "POST /payments/{id}/capture",
            "POST /payments/{id}/cancel",
            "POST /payments/{id}/erase-recipient",
            "SendMessage order_events",
            "ReceiveMessage user_events",
            "DeleteMessage user_events",
            "GetQueueAttributes user_events",
        ],
    ),
    (
        "payments",
        &[
            "GetItem payments",
            "PutItem payments",
            "UpdateItem payments",
            "GetItem sandbox_ledger",
            "PutItem sandbox_ledger",
            "SendMessage order_events",
        ],
    ),
    (
        "notifications",
        &[
            "GetItem notifications",
            "PutItem notifications",
            "UpdateItem notifications",
            "ReceiveMessage order_events",
            "DeleteMessage order_events",
            "GetQueueAttributes order_events",
            "SendEmail",
            "Publish to a phone number",
        ],
    ),
];

#[tokio::test]
async fn each_function_may_do_what_it_does_and_nothing_else() {
    let _alone = ROLES.lock().await;
    let stack = Stack::deployed();
    let attempts = attempts(&stack).await;
    for (function, may) in MAY {
        let role = stack.role_of(function).await;
        let mut did = BTreeSet::new();
        for (name, request) in &attempts {
            if is_allowed(&role, request).await {
                did.insert(name.as_str());
            }
        }
        let may = BTreeSet::from_iter(may.iter().copied());
        let (more, less): (Vec<_>, Vec<_>) = (did.difference(&may).collect(), may.difference(&did).collect());
        assert!(more.is_empty() && less.is_empty(), "{function} may also {more:?}, but not {less:?}");
    }
}

/// The requests change nothing where they are allowed: what they name isn't
/// there, or they are no good in another way. Rights are looked at first.
async fn is_allowed(role: &Signer, request: &Request) -> bool {
    let (status, text) = role.send(request).await;
    let is_denial = ["AccessDenied", "AuthorizationError", "not authorized"].iter().any(|word| text.contains(word));
    // Credentials that aren't understood would be refused everything.
    let is_unknown = ["Signature", "security token", "UnrecognizedClient"].iter().any(|word| text.contains(word));
    assert!(!is_unknown && status < 500, "{request:?}: {status} {text}");
    !is_denial
}

/// Not among them are the stream and the logs, which the emulator knows under
/// other names than AWS, and so refuses to every role.
async fn attempts(stack: &Stack) -> Vec<(String, Request)> {
    let mut attempts = Vec::new();
    let indexes =
        [("products", "catalogue"), ("orders", "by_user"), ("orders", "by_user_and_status"), ("orders", "open_orders")];
    for (name, table) in &stack.tables {
        let of_table =
            on_table(table).into_iter().map(|(operation, body)| (format!("{operation} {name}"), operation, body));
        attempts.extend(of_table.map(|(what, operation, body)| {
            (what, json_request(stack, "dynamodb", "DynamoDB_20120810", operation, body))
        }));
        for (_, index) in indexes.iter().filter(|(of, _)| of == name) {
            for operation in ["Query", "Scan"] {
                let body = json!({ "TableName": table, "IndexName": index, "KeyConditionExpression": "pk = :pk" });
                let request = json_request(stack, "dynamodb", "DynamoDB_20120810", operation, body);
                attempts.push((format!("{operation} {name}/{index}"), request));
            }
        }
    }
    for (name, url) in &stack.queues {
        for (operation, body) in on_queue(url) {
            let request = json_request(stack, "sqs", "AmazonSQS", operation, body);
            attempts.push((format!("{operation} {name}"), request));
        }
    }
    attempts.extend(internal_routes(stack));
    attempts.extend(elsewhere(stack).await);
    attempts
}

fn on_table(table: &str) -> Vec<(&'static str, Value)> {
    let key = json!({ "pk": { "S": "NONE" }, "sk": { "S": "NONE" } });
    let never = "attribute_exists(pk)";
    let query = "pk = :pk";
    let values = json!({ ":pk": { "S": "NONE" } });
    vec![
        ("GetItem", json!({ "TableName": table, "Key": key })),
        ("PutItem", json!({ "TableName": table, "Item": key, "ConditionExpression": never })),
        ("UpdateItem", json!({ "TableName": table, "Key": key, "ConditionExpression": never })),
        ("DeleteItem", json!({ "TableName": table, "Key": key, "ConditionExpression": never })),
        ("Query", json!({ "TableName": table, "KeyConditionExpression": query, "ExpressionAttributeValues": values })),
        ("Scan", json!({ "TableName": table, "Limit": 1 })),
        ("BatchGetItem", json!({ "RequestItems": { table: { "Keys": [key] } } })),
        ("BatchWriteItem", json!({ "RequestItems": { table: [{ "DeleteRequest": { "Key": key } }] } })),
        (
            "TransactWriteItems",
            json!({ "TransactItems": [{ "ConditionCheck": { "TableName": table, "Key": key, "ConditionExpression": never } }] }),
        ),
        ("DescribeTable", json!({ "TableName": table })),
        ("UpdateTable", json!({ "TableName": table })),
        ("UpdateTimeToLive", json!({ "TableName": table })),
        ("DeleteTable", json!({ "TableName": table })),
    ]
}

fn on_queue(url: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("SendMessage", json!({ "QueueUrl": url, "MessageBody": "" })),
        ("ReceiveMessage", json!({ "QueueUrl": url, "MaxNumberOfMessages": 0 })),
        ("DeleteMessage", json!({ "QueueUrl": url, "ReceiptHandle": "none" })),
        ("ChangeMessageVisibility", json!({ "QueueUrl": url, "ReceiptHandle": "none", "VisibilityTimeout": 0 })),
        ("GetQueueAttributes", json!({ "QueueUrl": url, "AttributeNames": ["QueueArn"] })),
        ("SetQueueAttributes", json!({ "QueueUrl": url, "Attributes": {} })),
        ("PurgeQueue", json!({ "QueueUrl": url })),
        ("DeleteQueue", json!({ "QueueUrl": url })),
    ]
}

/// Every route between services, each with what the service refuses.
fn internal_routes(stack: &Stack) -> Vec<(String, Request)> {
    let routes = [
        ("POST", "/users/{id}/validate"),
        ("POST", "/products/reserve"),
        ("POST", "/reservations/{id}/release"),
        ("POST", "/payments"),
        ("POST", "/payments/{id}/capture"),
        ("POST", "/payments/{id}/cancel"),
        ("POST", "/payments/{id}/erase-recipient"),
        ("GET", "/payments/{id}"),
    ];
    let request = |(method, path): (&'static str, &str)| Request {
        service: "execute-api",
        method,
        url: format!("{}{}", stack.internal_api_url, path.replace("{id}", "none")),
        headers: vec![("content-type", "application/json".into())],
        body: if method == "POST" { "{}".into() } else { String::new() },
    };
    routes.into_iter().map(|(method, path)| (format!("{method} {path}"), request((method, path)))).collect()
}

/// Other services of AWS, and the means to get more rights.
async fn elsewhere(stack: &Stack) -> Vec<(String, Request)> {
    let form = |service, body: &str| Request {
        service,
        method: "POST",
        url: format!("{}/", stack.emulator_url),
        headers: vec![("content-type", "application/x-www-form-urlencoded".into())],
        body: body.to_owned(),
    };
    let mail = Request {
        service: "ses",
        method: "POST",
        url: format!("{}/v2/email/outbound-emails", stack.emulator_url),
        headers: vec![("content-type", "application/json".into())],
        body: "{}".into(),
    };
    let role = stack.role_arn("order_worker").await;
    let role_name = role.rsplit('/').next().unwrap_or_default();
    let invoke = Request {
        service: "lambda",
        method: "POST",
        url: format!("{}/2015-03-31/functions/{}/invocations", stack.emulator_url, stack.functions["payments"]),
        headers: vec![],
        body: "{}".into(),
    };
    vec![
        ("SendEmail".into(), mail),
        (
            "Publish to a phone number".into(),
            form("sns", "Action=Publish&Version=2010-03-31&PhoneNumber=none&Message="),
        ),
        (
            "Publish to a topic".into(),
            form("sns", "Action=Publish&Version=2010-03-31&TopicArn=arn:aws:sns:us-east-1:000000000000:none&Message="),
        ),
        ("CreateTopic".into(), form("sns", "Action=CreateTopic&Version=2010-03-31&Name=none")),
        (
            "AssumeRole".into(),
            form("sts", &format!("Action=AssumeRole&Version=2011-06-15&RoleArn={role}&RoleSessionName=none")),
        ),
        (
            "PutRolePolicy".into(),
            form("iam", &format!("Action=PutRolePolicy&Version=2010-05-08&RoleName={role_name}&PolicyName=none")),
        ),
        ("InvokeFunction payments".into(), invoke),
        ("ListTables".into(), json_request(stack, "dynamodb", "DynamoDB_20120810", "ListTables", json!({}))),
        ("ListQueues".into(), json_request(stack, "sqs", "AmazonSQS", "ListQueues", json!({}))),
        (
            "CreateLogGroup".into(),
            json_request(stack, "logs", "Logs_20140328", "CreateLogGroup", json!({ "logGroupName": "none" })),
        ),
        ("DescribeLogGroups".into(), json_request(stack, "logs", "Logs_20140328", "DescribeLogGroups", json!({}))),
        ("ListSecrets".into(), json_request(stack, "secretsmanager", "secretsmanager", "ListSecrets", json!({}))),
        (
            "ListUsers of the pool".into(),
            json_request(
                stack,
                "cognito-idp",
                "AWSCognitoIdentityProviderService",
                "ListUsers",
                json!({ "UserPoolId": stack.user_pool_id }),
            ),
        ),
    ]
}

fn json_request(stack: &Stack, service: &'static str, prefix: &str, operation: &str, body: Value) -> Request {
    Request {
        service,
        method: "POST",
        url: format!("{}/", stack.emulator_url),
        headers: vec![
            ("content-type", "application/x-amz-json-1.0".into()),
            ("x-amz-target", format!("{prefix}.{operation}")),
        ],
        body: body.to_string(),
    }
}

/// A sample of the statements, taken away one at a time: none is there for
/// nothing, and without it nothing worse happens than that orders wait.
#[tokio::test]
async fn without_one_of_its_rights_a_function_fails_and_recovers_when_it_has_it_back() {
    let _alone = ROLES.lock().await;
    let stack = Stack::deployed();
    let (admin, ada) = (stack.admin().await, stack.customer("Ada").await);
    let body = json!({ "name": "Teapot", "description": "Short and stout.", "price": 5, "stock": 100 });
    let teapot = admin.post("/products", body).await.expect(StatusCode::CREATED);
    let shop = Shop { stack, ada, teapot: teapot["id"].as_str().unwrap().to_owned() };

    let profile = format!("/users/{}", shop.ada.id);
    for (function, action, path) in
        [("users", "dynamodb:GetItem", profile.as_str()), ("products", "dynamodb:Query", "/products")]
    {
        let answer = shop.without(function, action, || shop.ada.get(path)).await;
        answer.expect_problem(503, "unavailable");
        shop.ada.get(path).await.expect(StatusCode::OK);
    }

    // What a request can't do, the worker does.
    for (function, action) in [("orders", "execute-api:Invoke"), ("payments", "dynamodb:PutItem")] {
        let order = shop.without(function, action, || shop.order()).await;
        assert_eq!(order["status"], "PENDING", "{function} without {action}");
        shop.finish(&order).await;
    }

    // What the worker can't do waits for it.
    let order = shop.without("order_worker", "execute-api:Invoke", async || {
        let order = shop.order().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        shop.ada.get(&format!("/orders/{}", order["id"].as_str().unwrap())).await.expect(StatusCode::OK)
    });
    let order = order.await;
    assert_eq!(order["status"], "CONFIRMED");
    shop.finish(&order).await;
}

struct Shop {
    stack: Stack,
    ada: Person,
    teapot: String,
}

impl Shop {
    async fn order(&self) -> Value {
        let key = uuid::Uuid::new_v4().to_string();
        let answer = self.ada.order(&[(&self.teapot, 1)], "tok_accepted", &key).await;
        assert!(answer.status.is_success(), "{}", answer.text);
        answer.expect(answer.status)
    }

    async fn finish(&self, order: &Value) {
        let path = format!("/orders/{}", order["id"].as_str().unwrap());
        eventually("the order to be finished", async || {
            self.stack.sweep().await;
            (self.ada.get(&path).await.expect(StatusCode::OK)["status"] == "DONE").then_some(())
        })
        .await;
    }

    /// Does something while a function's role lacks the statements that allow
    /// `action`. They are back afterwards whatever came of it.
    async fn without<T, F: Future<Output = T>>(&self, function: &str, action: &str, act: impl FnOnce() -> F) -> T {
        let role = self.stack.role_arn(function).await;
        let role = role.rsplit('/').next().unwrap_or_default();
        let policy = function.replace('_', "-");
        let names = ["--role-name", role, "--policy-name", &policy];
        let get = [&["iam", "get-role-policy", "--query", "PolicyDocument", "--output", "json"], &names[..]].concat();
        let whole = self.stack.aws(&get).await;
        let mut lacking: Value = serde_json::from_str(&whole).expect("a policy in JSON");
        let statements = lacking["Statement"].as_array_mut().expect("statements");
        let before = statements.len();
        statements.retain(|statement| {
            let actions = &statement["Action"];
            *actions != action && !actions.as_array().is_some_and(|all| all.iter().any(|one| one == action))
        });
        assert!(statements.len() < before, "{function} has no right to {action}");

        let put = async |document: &str| {
            let put = [&["iam", "put-role-policy", "--policy-document", document], &names[..]].concat();
            self.stack.aws(&put).await;
        };
        put(&lacking.to_string()).await;
        let outcome = std::panic::AssertUnwindSafe(act());
        let outcome = futures::FutureExt::catch_unwind(outcome).await;
        put(&whole).await;
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
