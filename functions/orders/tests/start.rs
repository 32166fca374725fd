//! What the programs do with an environment in which they can't work.

use std::process::Command;

fn start(program: &str, variables: &[(&str, &str)]) -> String {
    let mut program = Command::new(program);
    let output = program.env_clear().envs(variables.iter().copied()).output().expect("the program starts");
    assert!(!output.status.success());
    String::from_utf8(output.stderr).expect("a text")
}

#[test]
fn a_function_that_lacks_variables_stops_and_names_them_all_with_what_was_expected() {
    let said = start(env!("CARGO_BIN_EXE_orders"), &[("USERS_URL", "users"), ("RUST_LOG", "orders=loud")]);
    for fault in [
        "RUST_LOG cannot be used; expected what to log, such as info or warn,orders=debug",
        "ORDERS_TABLE is missing; expected the name of a DynamoDB table",
        "USERS_URL cannot be used; expected the base address of the users service",
        "PRODUCTS_URL is missing; expected the base address of the products service",
        "ORDER_EVENTS_QUEUE_URL is missing; expected the address of an SQS queue",
        "AUTH_AUDIENCE is missing; expected the id of the user pool's client",
        "CANCELLATION_WINDOW_HOURS is missing; expected for how many hours an order can be cancelled",
    ] {
        assert!(said.contains(fault), "{fault}\n{said}");
    }
}

#[test]
fn the_worker_does_not_ask_for_what_only_requests_need() {
    let said = start(env!("CARGO_BIN_EXE_order-worker"), &[("ORDERS_TABLE", "no table")]);
    assert!(said.contains("ORDERS_TABLE cannot be used"), "{said}");
    assert!(!said.contains("AUTH_") && !said.contains("CANCELLATION_WINDOW_HOURS"), "{said}");
}
