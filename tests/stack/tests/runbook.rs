//! The commands of `docs/runbook.md` run: all blocks that are marked with `sh emulator`.

use std::process::Output;

use http::StatusCode;
use stack_tests::{Stack, shop::Shop};
use tokio::process::Command;

const RUNBOOK: &str = include_str!("../../../docs/runbook.md");
/// The heading under which a block stands, and the block.
type Block = (&'static str, &'static str);

/// The marked blocks. The first defines the functions that all others use.
fn blocks() -> (Block, Vec<Block>) {
    let mut blocks = Vec::new();
    for section in RUNBOOK.split("\n##").skip(1) {
        let heading = section.lines().next().expect("a heading");
        for rest in section.split("\n```sh emulator\n").skip(1) {
            blocks.push((heading, rest.split("\n```").next().expect("the end of a block")));
        }
    }
    let first = blocks.remove(0);
    (first, blocks)
}

/// Runs a block as an operator would, in a shell that stops at the first command that
/// fails.
async fn run(stack: &Stack, functions: &str, block: &str, variables: &[(&str, &str)]) -> Output {
    let mut shell = Command::new("bash");
    shell.args(["-eu", "-o", "pipefail", "-c", &format!("{functions}\n{block}")]);
    shell.env("AWS_ENDPOINT_URL", &stack.emulator_url).env("AWS_DEFAULT_REGION", &stack.region);
    shell.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").env("AWS_PAGER", "");
    shell.env("STACK", "holdfast").env("API", &stack.api_url).envs(variables.iter().copied());
    shell.output().await.expect("bash runs")
}

#[tokio::test]
async fn every_command_for_the_emulator_runs() {
    let shop = Shop::open().await;
    let stack = &shop.stack;
    let ada = stack.customer("Ada").await;
    let product = shop.product("19.99", 5).await;
    let order = ada.place(&[(&product, 1)], "tok_accepted").await.expect(StatusCode::CREATED);
    let order = order["id"].as_str().expect("an id");
    ada.order_with_status(order, "DONE").await;
    let somebody = stack.customer("Bob").await;
    let admin = format!("Authorization: Bearer {}", shop.admin.token.as_deref().expect("a token"));
    let live = ["lambda", "get-alias", "--name", "live", "--query", "FunctionVersion", "--output", "text"];
    let version = stack.aws(&[&live[..], &["--function-name", &stack.functions["orders"]]].concat()).await;
    let variables = [("ORDER", order), ("ADMIN", &admin), ("USERNAME", &somebody.email), ("VERSION", version.trim())];

    let ((_, functions), blocks) = blocks();
    assert!(blocks.len() > 15, "{}", blocks.len());
    let runs = blocks.iter().map(|(heading, block)| {
        let variables = &variables;
        async move { (heading, block, run(stack, functions, block, variables).await) }
    });
    let mut failures = Vec::new();
    for (heading, block, output) in futures::future::join_all(runs).await {
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            failures.push(format!("{heading}:\n{block}\n{error}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    // The refund by hand has taken effect.
    ada.order_with_status(order, "CANCELLED").await;
}

/// A command that shows nothing although there is something to show would mislead an
/// operator at night.
#[tokio::test]
async fn the_functions_of_the_runbook_find_what_there_is() {
    let shop = Shop::open().await;
    let ada = shop.stack.customer("Ada").await;
    let product = shop.product("19.99", 5).await;
    let order = ada.place(&[(&product, 1)], "tok_accepted").await.expect(StatusCode::CREATED);
    let order = order["id"].as_str().expect("an id");
    ada.order_with_status(order, "DONE").await;
    let ((_, functions), _) = blocks();
    let shown = async |command: &str| {
        let output = run(&shop.stack, functions, command, &[]).await;
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a text").trim().to_owned()
    };
    assert_eq!(shown("output OrdersTableName").await, shop.stack.tables["orders"]);
    assert!(shown(&format!("lines orders {order}")).await.contains("CONFIRMED"));
    assert!(shown("lines order-worker worked").await.contains("\"source\":\"s"));
    shown("waiting OrderEventsQueueUrl").await.parse::<u64>().expect("a number of messages");
    // The emulator makes no metrics of log lines, so the test reports one.
    let dimensions = "Stack=holdfast";
    let data = ["--namespace", "Holdfast", "--metric-name", "OrdersPlaced", "--value", "7", "--dimensions", dimensions];
    shop.stack.aws(&[&["cloudwatch", "put-metric-data"], &data[..]].concat()).await;
    assert!(shown("metric OrdersPlaced").await.ends_with("7.0"));
}
