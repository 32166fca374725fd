//! The deployed policies allow each function exactly the requests that it needs.
//! The tests sign requests with the credentials of each function's role.

use std::{collections::BTreeSet, time::Duration};

use http::StatusCode;
use serde_json::{Value, json};
use stack_tests::{
    Person, Stack, eventually,
    shop::Shop,
    signed::{Signer, UnsignedRequest},
};
use tokio::sync::Mutex;

/// The tests hold this lock, so that they run one after the other: one test removes
/// policy statements that the other test checks.
static POLICIES: Mutex<()> = Mutex::const_new(());

/// The requests that each function may send. Every other request in [`attempts`]
/// must be refused.
const ALLOWED: [(&str, &[&str]); 6] = [
    (
        "users",
        &[
            "GetItem users",
            "PutItem users",
            "DeleteItem users",
            "Query users",
            "SendMessage order_events",
            "SendMessage user_events",
        ],
    ),
    (
        "products",
        &[
            "GetItem products",
            "BatchGetItem products",
            "PutItem products",
            "UpdateItem products",
            "Query products",
            "Query products/catalogue",
        ],
    ),
    (
        "orders",
        &[
            "GetItem orders",
            "BatchGetItem orders",
            "PutItem orders",
            "UpdateItem orders",
            "Query orders",
            "Query orders/by_user",
            "Query orders/open_orders",
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
            "BatchGetItem orders",
            "PutItem orders",
            "UpdateItem orders",
            "Query orders/open_orders",
            "Query orders/by_user",
            "Query orders/by_age",
            "POST /users/{id}/validate",
            "POST /products/reserve",
            "POST /reservations/{id}/release",
            "POST /reservations/accounts",
            "POST /stock/accounts",
            "POST /payments",
            "POST /payments/{id}/capture",
            "POST /payments/{id}/cancel",
            "POST /payments/{id}/erase-recipient",
            "POST /payments/accounts",
            "POST /payments/charges",
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
            "Query sandbox_ledger/by_age",
            "SendMessage order_events",
        ],
    ),
    (
        "notifications",
        &[
            "GetItem notifications",
            "PutItem notifications",
            "UpdateItem notifications",
            "DeleteItem notifications",
            "Query notifications",
            "ReceiveMessage order_events",
            "DeleteMessage order_events",
            "GetQueueAttributes order_events",
            "SendMessage order_events",
            "SendEmail",
            "Publish to a phone number",
        ],
    ),
];

#[tokio::test]
async fn each_role_allows_the_requests_of_its_function_and_no_other_requests() {
    let _policies = POLICIES.lock().await;
    let stack = Stack::deployed();
    let attempts = attempts(&stack).await;
    for (function, expected) in ALLOWED {
        let role = stack.role_of(function).await;
        let mut allowed = BTreeSet::new();
        for (name, request) in &attempts {
            if is_allowed(&role, request).await {
                allowed.insert(name.as_str());
            }
        }
        let expected = BTreeSet::from_iter(expected.iter().copied());
        let excess: Vec<_> = allowed.difference(&expected).collect();
        let missing: Vec<_> = expected.difference(&allowed).collect();
        assert!(excess.is_empty() && missing.is_empty(), "{function} may also {excess:?}, but not {missing:?}");
    }
}

/// Sends a request, and returns whether the role allows it. The request changes
/// nothing even if it is allowed: it names something that doesn't exist, or is invalid
/// in another way. AWS checks the role's rights before it finds out.
async fn is_allowed(role: &Signer, request: &UnsignedRequest) -> bool {
    let (status, text) = role.send(request).await;
    // The services themselves refuse roles with the code `forbidden`.
    let is_denial = ["AccessDenied", "AuthorizationError", "not authorized", "\"forbidden\""]
        .iter()
        .any(|word| text.contains(word));
    // If AWS didn't know the credentials, it would refuse every request, and the test
    // would prove nothing.
    let is_unknown = ["Signature", "security token", "UnrecognizedClient"].iter().any(|word| text.contains(word));
    assert!(!is_unknown && status < 500, "{request:?}: {status} {text}");
    !is_denial
}

/// All requests that are tried with each role, by name. Requests to the stream and
/// the logs are missing: their names on the emulator differ from their names on AWS,
/// so the emulator refuses such requests to every role.
async fn attempts(stack: &Stack) -> Vec<(String, UnsignedRequest)> {
    let mut attempts = Vec::new();
    let indexes = [
        ("products", "catalogue"),
        ("orders", "by_user"),
        ("orders", "open_orders"),
        ("orders", "by_age"),
        ("sandbox_ledger", "by_age"),
    ];
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
    attempts.extend(other_services(stack).await);
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

/// A request to each route between services. The request is invalid, so the service
/// refuses it even if the role may call the route. The services also have public
/// routes, which no role may call.
fn internal_routes(stack: &Stack) -> Vec<(String, UnsignedRequest)> {
    let routes = [
        ("POST", "/users/{id}/validate"),
        ("POST", "/products/reserve"),
        ("POST", "/reservations/{id}/release"),
        ("POST", "/payments"),
        ("POST", "/payments/{id}/capture"),
        ("POST", "/payments/{id}/cancel"),
        ("POST", "/payments/{id}/erase-recipient"),
        ("POST", "/reservations/accounts"),
        ("POST", "/stock/accounts"),
        ("POST", "/payments/accounts"),
        ("POST", "/payments/charges"),
        ("GET", "/payments/{id}"),
        ("GET", "/users/{id}"),
        ("POST", "/users"),
        ("GET", "/products"),
        ("POST", "/products"),
        ("GET", "/health/products"),
    ];
    let service = |path: &str| match path.trim_start_matches('/').split('/').next() {
        Some("users") => "users",
        Some("payments") => "payments",
        _ => "products",
    };
    let request = |(method, path): (&'static str, &str)| UnsignedRequest {
        service: "lambda",
        method,
        url: format!("{}{}", stack.services[service(path)], path.replace("{id}", "none")),
        headers: vec![("content-type", "application/json".into())],
        body: if method == "POST" { "{}".into() } else { String::new() },
    };
    routes.into_iter().map(|(method, path)| (format!("{method} {path}"), request((method, path)))).collect()
}

/// Requests to other AWS services, and requests that would give the role more
/// rights.
async fn other_services(stack: &Stack) -> Vec<(String, UnsignedRequest)> {
    let form = |service, body: &str| UnsignedRequest {
        service,
        method: "POST",
        url: format!("{}/", stack.emulator_url),
        headers: vec![("content-type", "application/x-www-form-urlencoded".into())],
        body: body.to_owned(),
    };
    let mail = UnsignedRequest {
        service: "ses",
        method: "POST",
        url: format!("{}/v2/email/outbound-emails", stack.emulator_url),
        headers: vec![("content-type", "application/json".into())],
        body: "{}".into(),
    };
    let role = stack.role_arn("order_worker").await;
    let role_name = role.rsplit('/').next().unwrap_or_default();
    // A role that may call a service must do so by the service's URL. If the role could
    // invoke the function, it could name another caller in the event.
    let invoke = |function: &str, query: &str| UnsignedRequest {
        service: "lambda",
        method: "POST",
        url: format!("{}/2015-03-31/functions/{}/invocations{query}", stack.emulator_url, stack.functions[function]),
        headers: vec![],
        body: "{}".into(),
    };
    let functions = ["users", "products", "payments"];
    let invocations = functions.into_iter().flat_map(|function| {
        ["", "?Qualifier=live"].map(|query| (format!("InvokeFunction {function}{query}"), invoke(function, query)))
    });
    let mut requests: Vec<_> = invocations.collect();
    requests.extend([
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
    ]);
    requests
}

fn json_request(stack: &Stack, service: &'static str, prefix: &str, operation: &str, body: Value) -> UnsignedRequest {
    UnsignedRequest {
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

/// Removes some policy statements, one at a time. Without the statement, reads are
/// refused with 503, or orders wait. When the statement is back, reads succeed and
/// orders are finished.
#[tokio::test]
async fn a_function_without_one_of_its_rights_fails_and_recovers_when_the_right_is_back() {
    let _policies = POLICIES.lock().await;
    let (shop, ada) = Shop::with_customer().await;
    let (stack, teapot) = (&shop.stack, shop.product("5", 100).await);
    let place = async || ada.place(&[(&teapot, 1)], "tok_accepted").await.expect_success();

    let profile = format!("/users/{}", ada.id);
    for (function, action, path) in
        [("users", "dynamodb:GetItem", profile.as_str()), ("products", "dynamodb:Query", "/products")]
    {
        let answer = without_right(stack, function, action, || ada.get(path)).await;
        answer.expect_problem(503, "unavailable");
        ada.get(path).await.expect(StatusCode::OK);
    }

    // The worker finishes the orders that the requests could not finish.
    for (function, action) in [("orders", "lambda:InvokeFunctionUrl"), ("payments", "dynamodb:PutItem")] {
        let order = without_right(stack, function, action, place).await;
        assert_eq!(order["status"], "PENDING", "{function} without {action}");
        finish(stack, &ada, &order).await;
    }

    // Orders wait while the worker itself lacks a right.
    let order = without_right(stack, "order_worker", "lambda:InvokeFunctionUrl", async || {
        let order = place().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        ada.order(order["id"].as_str().unwrap()).await
    });
    let order = order.await;
    assert_eq!(order["status"], "CONFIRMED");
    finish(stack, &ada, &order).await;
}

/// Starts sweeps until an order is finished.
async fn finish(stack: &Stack, customer: &Person, order: &Value) {
    let id = order["id"].as_str().unwrap();
    eventually("the order to be finished", async || {
        stack.sweep().await;
        (customer.order(id).await["status"] == "DONE").then_some(())
    })
    .await;
}

/// Runs `act` while a function's role lacks all statements that allow `action`.
/// Puts the statements back afterwards, also if `act` panics.
async fn without_right<T, F: Future<Output = T>>(
    stack: &Stack,
    function: &str,
    action: &str,
    act: impl FnOnce() -> F,
) -> T {
    let role = stack.role_arn(function).await;
    let role = role.rsplit('/').next().unwrap_or_default();
    // The right to call other services is in a policy of its own.
    let policy = if action.starts_with("lambda:") { "calls".to_owned() } else { function.replace('_', "-") };
    let names = ["--role-name", role, "--policy-name", &policy];
    let get = [&["iam", "get-role-policy", "--query", "PolicyDocument", "--output", "json"], &names[..]].concat();
    let whole = stack.aws(&get).await;
    let mut lacking: Value = serde_json::from_str(&whole).expect("a policy in JSON");
    let statements = lacking["Statement"].as_array_mut().expect("statements");
    let before = statements.len();
    statements.retain(|statement| {
        let actions = &statement["Action"];
        *actions != action && !actions.as_array().is_some_and(|all| all.iter().any(|allowed| allowed == action))
    });
    assert!(statements.len() < before, "{function} has no right to {action}");

    let put = async |document: &str| {
        let put = [&["iam", "put-role-policy", "--policy-document", document], &names[..]].concat();
        stack.aws(&put).await;
    };
    put(&lacking.to_string()).await;
    let outcome = std::panic::AssertUnwindSafe(act());
    let outcome = futures::FutureExt::catch_unwind(outcome).await;
    put(&whole).await;
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
