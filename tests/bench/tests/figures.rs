//! The figures that depend neither on the machine nor on the profile. The functions that
//! `make bench` measures with are the functions that these tests call.

use bench::{
    cost,
    order_latency::{latency_of_order, latency_of_original_flow, phases},
    prices::Kind,
};

#[test]
fn an_order_takes_four_phases_with_any_number_of_lines() {
    for lines in [1, 10, 50] {
        assert_eq!(phases(latency_of_order(lines, "orders")), 4.0, "{lines} lines");
    }
}

/// Validate, get and reserve each product, pay, write the order, publish the event.
#[test]
fn the_original_flow_takes_four_phases_and_two_more_for_each_line() {
    for lines in [1, 10] {
        let latency = latency_of_original_flow(lines).unwrap();
        assert_eq!(phases(latency), (4 + 2 * lines) as f64, "{lines} lines");
    }
}

/// One request to the public API, and one invocation each for the request, the users and
/// the products service, two payment calls, the worker, and two messages.
#[test]
fn a_confirmed_order_takes_eight_invocations_and_six_requests_to_the_queue_with_any_number_of_lines() {
    for lines in [1, 10] {
        let order = cost::of_order(lines).unwrap();
        let quantities = [Kind::Invocations, Kind::QueueRequests, Kind::Emails, Kind::TextMessages];
        let quantities = quantities.map(|kind| order.usage.get(kind));
        assert_eq!(quantities, [8.0, 6.0, 1.0, 1.0], "{lines} lines");
    }
}

#[test]
fn the_original_flow_makes_a_gateway_request_for_each_of_its_calls() {
    for lines in [1, 10] {
        let original = cost::of_original_flow(lines).unwrap();
        assert_eq!(original.usage.get(Kind::GatewayRequests), (3 + 2 * lines) as f64, "{lines} lines");
    }
}
