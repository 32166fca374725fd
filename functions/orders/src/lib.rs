//! The orders service: takes orders, and takes each of them to an end.
//!
//! - [`domain`]: what an order is, and how it may move
//! - [`saga`]: the steps of an order as a table, and the engine that runs them
//! - [`service`]: what customers can do
//! - [`worker`]: finishing or undoing what a request left open
//! - [`erasure`]: erasing what orders know of a customer who has left
//! - [`repository`]: where orders are kept
//! - `clients`: the other services, and the queue
//! - `handlers`: the HTTP routes; `documents`: what they send; `openapi`: how
//!   both are described; `trigger`: what starts the worker;
//!   `config`: what can be set
//!
//! The first six know no SDK and no HTTP; see the feature `lambda`.

pub mod domain;
pub mod erasure;
pub mod repository;
pub mod saga;
pub mod service;
pub mod worker;

#[cfg(feature = "lambda")]
mod build;
#[cfg(feature = "lambda")]
pub mod clients;
#[cfg(feature = "lambda")]
pub mod config;
#[cfg(feature = "lambda")]
pub mod documents;
#[cfg(feature = "lambda")]
pub mod handlers;
#[cfg(feature = "lambda")]
mod openapi;
#[cfg(feature = "lambda")]
pub mod trigger;

#[cfg(feature = "lambda")]
pub use self::build::{build, build_worker};
