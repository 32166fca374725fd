//! The products service: what is sold, at which price, and how much of it is
//! there.
//!
//! - [`domain`]: products, stock and reservations, without any technology
//! - [`service`]: what can be done with them
//! - [`repository`]: where they are kept
//! - [`handlers`]: the HTTP routes; `openapi`: how they are described
//! - [`config`]: what can be set

pub mod config;
pub mod domain;
pub mod handlers;
mod openapi;
pub mod repository;
pub mod service;
