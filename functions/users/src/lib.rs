//! The users service: profiles of the people who order.
//!
//! - [`domain`]: what a user is, without any technology
//! - [`service`]: what can be done with users
//! - [`repository`]: where they are kept
//! - [`handlers`]: the HTTP routes

pub mod domain;
pub mod handlers;
pub mod repository;
pub mod service;
