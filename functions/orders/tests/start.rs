//! The orders function and the order worker stop at once if environment variables are missing or invalid.

use std::process::Command;

fn start(program: &str, variables: &[(&str, &str)]) -> String {
    let mut program = Command::new(program);
    let output = program.env_clear().envs(variables.iter().copied()).output().expect("the program starts");
    assert!(!output.status.success());
    String::from_utf8(output.stderr).expect("standard error is UTF-8")
}

#[test]
fn a_function_without_its_variables_stops_and_names_every_variable_and_its_expected_value() {
    let stderr = start(env!("CARGO_BIN_EXE_orders"), &[("USERS_URL", "users"), ("RUST_LOG", "orders=loud")]);
    for fault in [
        "RUST_LOG cannot be used; expected what to log, such as info or warn,orders=debug",
        "ORDERS_TABLE is missing; expected the name of a DynamoDB table",
        "USERS_URL cannot be used; expected the base address of the users service",
        "PRODUCTS_URL is missing; expected the base address of the products service",
        "ORDER_EVENTS_QUEUE_URL is missing; expected the address of an SQS queue",
        "AUTH_AUDIENCE is missing; expected the id of the user pool's client",
        "CANCELLATION_WINDOW_HOURS is missing; expected for how many hours an order can be cancelled",
    ] {
        assert!(stderr.contains(fault), "{fault}\n{stderr}");
    }
}

#[test]
fn the_worker_does_not_require_the_variables_that_only_requests_need() {
    let stderr = start(env!("CARGO_BIN_EXE_order-worker"), &[("ORDERS_TABLE", "no table")]);
    assert!(stderr.contains("ORDERS_TABLE cannot be used"), "{stderr}");
    assert!(!stderr.contains("AUTH_") && !stderr.contains("CANCELLATION_WINDOW_HOURS"), "{stderr}");
}
