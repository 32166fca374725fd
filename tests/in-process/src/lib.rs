//! Tests of all services in one process.
//!
//! [`World`] starts the real services (handlers, service and repository code)
//! on an embedded DynamoDB and on stand-ins for the queues, SES and SNS. Every
//! call that leaves a service goes through one connector, [`cloud::Cloud`], so
//! that tests can see each call and inject faults.
//!
//! A test has three parts: it starts a world, lets a [`Caller`] send requests,
//! and asserts on each response ([`Answer`]). The steps that many tests share
//! are methods of [`World`] in [`shop`].
//!
//! The fault harness uses the world. It consists of four modules:
//!
//! 1. [`fault`] defines faults, the points at which faults can occur, and plans
//!    of faults.
//! 2. [`cloud`] injects the faults of a plan into calls.
//! 3. [`scenario`] plays one customer's order while faults occur, lets the system
//!    recover, and checks every guarantee.
//! 4. [`trials`] generates all trials (a trial is a scenario with a plan), plays
//!    the trials, and sums up their reports.

pub mod answer;
pub mod caller;
pub mod cloud;
pub mod cloudwatch;
pub mod event_document;
pub mod fault;
pub mod generated_region;
pub mod keys;
pub mod permissions;
pub mod running_function;
pub mod scenario;
pub mod shop;
pub mod tables;
pub mod template;
pub mod trials;
pub mod world;

pub use answer::Answer;
pub use caller::Caller;
pub use world::World;
