//! How long a customer waits for the decision about an order.
//!
//! Each call that the orders function makes takes 20 ms of virtual time, and everything
//! else takes no time. So the latency over 20 ms is the number of calls that are made
//! one after another: the phases.

use std::time::Duration;

use anyhow::{Context, Result};
use http::StatusCode;
use in_process_tests::shop::order_request;

use crate::{
    fixture::Fixture,
    original_flow::{self, OriginalFlow},
    report::{BarSeries, Chart, ChartContent, Figure, Limit, Section, Table},
    table::lines_of,
    virtual_time,
};

pub const NAME: &str = "order-latency";
/// The time that each call takes.
const CALL: Duration = Duration::from_millis(20);
/// The numbers of lines of the measured orders.
const LINES: [usize; 3] = [1, 10, 50];
/// The services that the orders function calls.
const SERVICES: [&str; 3] = ["users", "products", "payments"];

/// The time until the response to `POST /orders` for an order with this number of lines,
/// if each call that the function `slow` makes takes [`CALL`].
pub fn latency_of_order(lines: usize, slow: &'static str) -> Duration {
    virtual_time::run(async {
        let Fixture { world, customer, products, .. } = Fixture::start(lines).await;
        let lines: Vec<_> = products.iter().map(|product| (product.as_str(), 1)).collect();
        world.cloud.set_latency(slow, CALL);
        let place = world.place(&customer, order_request(&lines, "tok_accepted"), "the-key");
        let (answer, latency) = virtual_time::timed(place).await;
        answer.expect(StatusCode::CREATED);
        latency
    })
}

/// The time that the original design's flow takes for an order with this number of
/// lines.
pub fn latency_of_original_flow(lines: usize) -> Result<Duration> {
    virtual_time::run(async {
        let Fixture { world, clock, customer, products } = Fixture::start(lines).await;
        let flow = OriginalFlow::new(&world, clock).await?;
        world.cloud.set_latency(original_flow::CALLER, CALL);
        let (placed, latency) = virtual_time::timed(flow.place(customer.id(), &products)).await;
        placed.context("the original flow places an order")?;
        Ok(latency)
    })
}

/// The number of calls that took this time one after another.
pub fn phases(latency: Duration) -> f64 {
    latency.as_secs_f64() / CALL.as_secs_f64()
}

pub fn measure() -> Result<Section> {
    let mut section = Section::new(NAME, "Order latency");
    let orders = LINES.map(|lines| latency_of_order(lines, "orders"));
    let originals = LINES.map(latency_of_original_flow).into_iter().collect::<Result<Vec<_>>>()?;
    for ((lines, order), original) in LINES.into_iter().zip(orders).zip(&originals) {
        let figure = Figure::new(format!("phases of POST /orders, {}", lines_of(lines)), phases(order), "calls")
            .compared_with("original flow", phases(*original));
        section.figures.push(figure.within(Limit::AtMost(4.0)));
    }
    let [one, .., fifty] = orders.map(|latency| latency.as_secs_f64() * 1000.0);
    section.figures.push(
        Figure::new("latency of 50 lines, 20 ms for each call", fifty, "ms")
            .compared_with("1 line", one)
            .within(Limit::RatioAtMost(1.1)),
    );
    let rows = SERVICES.map(|service| {
        let inside = LINES.map(|lines| format!("{}", phases(latency_of_order(lines, service))));
        [service.to_owned()].into_iter().chain(inside).collect()
    });
    section.tables.push(Table {
        title: "Calls, one after another, that a called service makes before it answers".into(),
        columns: ["service".to_owned()].into_iter().chain(LINES.map(lines_of)).collect(),
        rows: rows.into(),
    });
    let series = |name: &str, latencies: &[Duration]| BarSeries {
        name: name.into(),
        values: latencies.iter().map(|latency| phases(*latency)).collect(),
    };
    section.charts.push(Chart {
        file: NAME.into(),
        title: "Calls, one after another, until the response to POST /orders".into(),
        content: ChartContent::Bars {
            value_label: "calls".into(),
            stacked: false,
            groups: LINES.map(lines_of).into(),
            series: vec![series("Holdfast", &orders), series("original flow", &originals)],
        },
    });
    Ok(section)
}
