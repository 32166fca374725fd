//! The whole shop in one process.
//!
//! [`World`] starts the real services (handlers, service and repository code)
//! on an embedded DynamoDB and stand-ins for the queue, the mail and the text
//! messages. Everything that leaves a service goes through one connector,
//! [`cloud::Cloud`], so that tests see all of it and can interfere.
//!
//! A test reads as three sentences: arrange a world, let a [`Person`] act,
//! assert on the [`Answer`].

pub mod cloud;
pub mod fault;
pub mod invocation;
pub mod keys;
pub mod permissions;
pub mod scenario;
pub mod tables;
pub mod template;
pub mod trials;
pub mod world;

pub use world::{Answer, Person, World};
