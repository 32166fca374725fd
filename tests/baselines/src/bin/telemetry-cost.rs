//! Does what the telemetry of requests does, and nothing else: `telemetry-cost <mode>
//! <requests>`, where the mode is `none`, `off` or `log`. `make bench` counts its
//! instructions.

use std::{env, hint::black_box};

use chassis::{
    config::Configuration,
    context_span, detail_span,
    telemetry::{self, TelemetryConfig},
    trace::TraceContext,
};
use tracing::field;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(mode), Some(requests)) = (arguments.next(), arguments.next()) else {
        return Err("two arguments are needed".into());
    };
    if mode != "none" {
        let config = TelemetryConfig::from_variables(&|name| (name == "TRACE_SPANS").then(|| mode.clone()))?;
        // Lambda's standard output is a pipe. A write to it is a system call, which is the
        // same with every format.
        let dispatch = telemetry::dispatch("products", config, |line| {
            black_box(line.len());
        });
        tracing::dispatcher::set_global_default(dispatch)?;
    }
    for _ in 0..requests.parse()? {
        request(&TraceContext::start());
    }
    Ok(())
}

/// A request to reserve stock: two requests to DynamoDB, one log line.
fn request(remote: &TraceContext) {
    let span = context_span!(
        "request",
        parent = %remote,
        xray = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
        request_id = "0195a8e0-0000-7000-8000-000000000001",
        method = "POST",
        route = "/products/reserve",
        caller = "orders",
        order_id = field::Empty,
        status = field::Empty,
    );
    black_box(telemetry::context_of(&span));
    let _in_request = span.enter();
    telemetry::concerns_order("ord_0195a8e0-0000-7000-8000-000000000001");
    for operation in ["DynamoDB_20120810.BatchGetItem", "DynamoDB_20120810.TransactWriteItems"] {
        let call = detail_span!("aws", operation, attempt = "attempt=1; max=3", status = field::Empty);
        call.in_scope(|| black_box(operation));
        telemetry::record_outcome(&call, &Ok::<_, String>(()));
    }
    tracing::info!(
        method = "POST",
        route = "/products/reserve",
        status = 200,
        millis = 12,
        caller = "orders",
        "answered"
    );
}
