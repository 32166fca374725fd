//! The targets and limits of the figures about the programs, in one place. If a figure is
//! past its limit, `make bench` fails. Where a limit is not the target, the target is out
//! of reach, and the limit keeps what is reached; `docs/performance.md` has the reasons.

use crate::report::Limit;

/// The instructions from the start of the process to its first request for an event, over
/// those of the bare hello-world.
pub const INIT_INSTRUCTIONS_TARGET: Limit = Limit::RatioAtMost(1.5);
pub const INIT_INSTRUCTIONS: Limit = Limit::RatioAtMost(8.0);
/// The time from the start of the process to its first request for an event, over that of
/// the bare hello-world.
pub const INIT_TIME_TARGET: Limit = Limit::RatioAtMost(1.5);
pub const INIT_TIME: Limit = Limit::RatioAtMost(2.5);
/// The peak of the resident memory, in MB.
pub const MEMORY: Limit = Limit::AtMost(9.0);
/// The size of the zip, in MB.
pub const ZIP_TARGET: Limit = Limit::AtMost(2.5);
pub const ZIP: Limit = Limit::AtMost(3.3);
/// The instructions of GET product over those of the bare handler.
pub const GET_PRODUCT: Limit = Limit::RatioAtMost(1.2);
/// The instructions of a request's telemetry over those of the whole GET product.
pub const TELEMETRY: Limit = Limit::RatioAtMost(0.1);
/// The instructions that telemetry adds to the init, over those of the bare hello-world.
/// hello-world takes some 10 ms, so a tenth of it is 1 ms.
pub const TELEMETRY_INIT: Limit = Limit::RatioAtMost(0.1);
