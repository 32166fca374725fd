//! The sections of the report, in the order in which they run.

use anyhow::Result;

use crate::{
    cost, order_latency,
    processes::{cold_start, warm_invocation},
    report::Section,
    throughput,
};

/// A section's name, and the function that measures its figures.
pub type Measurement = (&'static str, fn() -> Result<Section>);

/// All sections. `docs/performance.md` has a region for each of them.
pub const SECTIONS: &[Measurement] = &[
    (cold_start::NAME, cold_start::measure),
    (warm_invocation::NAME, warm_invocation::measure),
    (order_latency::NAME, order_latency::measure),
    (throughput::NAME, throughput::measure),
    (cost::NAME, cost::measure),
];
