//! The orders service: accepts orders, and takes each order to a final state.
//!
//! | module | content |
//! |---|---|
//! | [`domain`] | the order: its lines, prices, states and transitions, lease, history and cancellation reasons |
//! | [`saga`] | [`saga::steps`] is the table of steps and compensations, [`saga::engine`] runs the table |
//! | [`service`] | the use cases of customers: place, read, list and cancel orders |
//! | [`worker`] | finishes or undoes the orders that requests left open |
//! | [`erasure`] | the part of the worker that erases the personal data of customers whom the users service has erased |
//! | [`reconciliation`] | compares what the services have stored, and reports mismatches |
//! | [`metrics`] | the metrics of orders, one line for each order that an invocation worked on |
//! | [`repository`] | the interface to the store of orders; `repository::dynamo` implements it |
//! | `clients` | implements the saga's participants with calls of the other services and with events |
//! | `events` | the data of the published events |
//! | `handlers` | the HTTP routes |
//! | `requests` | reads the bodies and parameters of HTTP requests |
//! | `responses` | the JSON of orders in HTTP responses and in events |
//! | `problems` | the problem documents of each HTTP route |
//! | `schemas` | the OpenAPI schemas of the domain's types |
//! | `worker_event` | the events that start the worker: stream, schedule, messages of the users service |
//! | `config` | the environment variables of the orders function and of the order worker |
//! | `build` | builds the orders function and the order worker from their configuration |
//!
//! Each module of the chain `handlers` → `service` → [`saga`] → [`domain`] imports only modules to its right. The
//! modules `domain`, `saga`, `service`, `worker`, `erasure`, `reconciliation` (without `calls`) and `repository` use
//! neither the AWS SDK nor HTTP. All
//! other modules, and `repository::dynamo`, need the feature `lambda`.

pub mod domain;
pub mod erasure;
pub mod metrics;
pub mod reconciliation;
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
pub mod events;
#[cfg(feature = "lambda")]
pub mod handlers;
#[cfg(feature = "lambda")]
mod problems;
#[cfg(feature = "lambda")]
pub mod requests;
#[cfg(feature = "lambda")]
pub mod responses;
#[cfg(feature = "lambda")]
mod schemas;
#[cfg(feature = "lambda")]
pub mod worker_event;

#[cfg(feature = "lambda")]
pub use self::build::{build, build_worker};
