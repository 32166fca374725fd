//! The products service: what is sold, at which price, and how much of it is
//! there.
//!
//! - [`domain`]: products, stock and reservations, without any technology
//! - [`service`]: what can be done with them
//! - [`repository`]: where they are kept
//! - [`handlers`]: the HTTP routes

pub mod domain;
pub mod handlers;
pub mod repository;
pub mod service;
