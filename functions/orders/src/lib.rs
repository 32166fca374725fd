//! The orders service: accepts orders, and takes each order to a final state.
//!
//! | module | content |
//! |---|---|
//! | [`domain`] | what an order is: its lines, prices, states and transitions, lease, history, reasons to cancel it |
//! | [`saga`] | [`saga::steps`] is the table of steps and compensations, [`saga::engine`] runs the table |
//! | [`service`] | the use cases of customers: place, read, list and cancel orders |
//! | [`worker`] | finishes or undoes the orders that requests left open |
//! | [`erasure`] | the part of the worker that erases the personal data of a customer who has left |
//! | [`repository`] | the interface to the store of orders; `repository::dynamo` implements it |
//! | `clients` | implements the saga's participants with calls of the other services and with events |
//! | `events` | the data of the published events |
//! | `handlers` | the HTTP routes, which use the next four modules |
//! | `requests` | reads the bodies and parameters of requests |
//! | `responses` | the JSON bodies of orders |
//! | `problems` | the problem documents, and which routes answer with them |
//! | `schemas` | the OpenAPI schemas of the domain's values |
//! | `worker_event` | the events that start the worker: stream, schedule, messages of the users service |
//! | `config`, `build` | the environment variables, and the functions built from them |
//!
//! Imports run downwards: `handlers` → `service` → [`saga`] → [`domain`]. The modules up to [`repository`] know neither the
//! AWS SDK nor HTTP; the others need the feature `lambda`.

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
mod events;
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
