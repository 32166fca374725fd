//! The figures that depend neither on the machine nor on the profile. The functions that
//! `make bench` measures with are the functions that these tests call.

use bench::order_latency::{latency_of_order, latency_of_original_flow, phases};

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
