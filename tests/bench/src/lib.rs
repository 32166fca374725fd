//! Measures how fast the shop is and what it costs, without AWS.
//!
//! The program `bench` (`make bench`) runs the [`sections`]. Each section returns
//! figures. A figure is compared with a baseline that was measured in the same run,
//! and may have a limit. The program prints the figures, writes them to
//! `target/bench/bench.json`, draws the charts, and writes the tables of
//! `docs/performance.md` from that JSON file.

pub mod chart;
pub mod cost;
pub mod document;
pub mod fixture;
pub mod log_counter;
pub mod order_latency;
pub mod original_flow;
pub mod original_services;
pub mod prices;
pub mod processes;
pub mod report;
pub mod sections;
pub mod table;
pub mod throughput;
pub mod virtual_time;
