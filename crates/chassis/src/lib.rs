//! Technical code that every service shares.
//!
//! No module of this crate knows what an order or a product is. The only
//! exception is [`time_limits`], which compares the time limits of all
//! services. The services share no business types through this crate: a service
//! that needs data of another service calls that service over HTTP.
//!
//! Without the `aws` feature, the crate has only the modules that domain code
//! needs. Then the domain code of a service can be tested without compiling the
//! AWS SDK.

#![warn(missing_docs)]

pub mod audit;
pub mod clock;
pub mod contact;
pub mod deadline;
pub mod fields;
pub mod id;
pub mod idempotency;
pub mod invocation;
pub mod metric;
pub mod money;
pub mod page;
pub mod store;
pub mod text;
pub mod time_limits;
pub mod trace;

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "aws")]
pub mod breaker;
#[cfg(feature = "aws")]
pub mod caller;
#[cfg(feature = "aws")]
pub mod config;
#[cfg(feature = "aws")]
pub mod cors;
#[cfg(feature = "aws")]
pub mod dynamo;
#[cfg(feature = "aws")]
pub mod events;
#[cfg(feature = "aws")]
pub mod function;
#[cfg(feature = "aws")]
pub mod gateway;
#[cfg(feature = "aws")]
pub mod health;
#[cfg(feature = "aws")]
pub mod http;
#[cfg(feature = "aws")]
pub mod input;
#[cfg(feature = "aws")]
pub mod internal_callers;
#[cfg(feature = "aws")]
pub mod openapi;
#[cfg(feature = "aws")]
pub mod pause;
#[cfg(feature = "aws")]
pub mod problem;
#[cfg(feature = "aws")]
pub mod service_client;
pub mod telemetry;
#[cfg(feature = "aws")]
pub mod token;
#[cfg(feature = "aws")]
mod trust;
#[cfg(feature = "aws")]
pub mod version;
