//! The users service: profiles of the people who order.
//!
//! - [`domain`]: what a user is, without any technology
//! - [`service`]: what can be done with users
//! - [`repository`]: where they are kept
//! - [`handlers`]: the HTTP routes; `openapi`: how they are described
//! - [`config`]: what can be set

pub mod config;
pub mod domain;
pub mod handlers;
mod openapi;
pub mod repository;
pub mod service;
