//! The payments service: one payment an order, authorised, captured, voided or
//! refunded at a payment provider.
//!
//! - [`domain`]: what a payment is, and what may become of it
//! - [`service`]: what can be done with payments
//! - [`provider`]: whoever moves the money; a sandbox is built in
//! - [`repository`]: where payments are kept
//! - [`handlers`]: the HTTP routes; `openapi`: how they are described
//! - [`config`]: what can be set

pub mod config;
pub mod domain;
pub mod handlers;
mod openapi;
pub mod provider;
pub mod repository;
pub mod service;
