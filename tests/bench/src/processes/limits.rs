//! The limits of the figures about the programs, in one place. If a figure is past its
//! limit, `make bench` fails.
//!
//! `docs/performance.md` says which limits are the targets, and why the others are not.

use crate::report::Limit;

/// The instructions from the start of the process to its first request for an event, over
/// those of the bare hello-world.
pub const INIT_INSTRUCTIONS: Limit = Limit::RatioAtMost(1.5);
/// The time from the start of the process to its first request for an event, over that of
/// the bare hello-world.
pub const INIT_TIME: Limit = Limit::RatioAtMost(1.5);
/// The peak of the resident memory, in MB.
pub const MEMORY: Limit = Limit::AtMost(9.0);
/// The size of the zip, in MB.
pub const ZIP: Limit = Limit::AtMost(2.5);
/// The instructions of GET product over those of the bare handler.
pub const GET_PRODUCT: Limit = Limit::RatioAtMost(1.2);
