//! The notifications service: tells customers by e-mail and SMS what became
//! of their orders. Events come from a queue; each is told once.
//!
//! - [`domain`]: what there is to tell, without any technology
//! - [`event`]: reading it from the queue's messages
//! - [`message`]: how it is worded; the templates are in `templates/`
//! - [`service`]: telling it once
//! - [`repository`]: where it is kept what was told
//! - [`channels`]: SES and SNS
//! - [`handlers`]: the two kinds of invocation, a batch and a request
//! - [`config`]: what can be set

pub mod channels;
pub mod config;
pub mod domain;
pub mod event;
pub mod handlers;
pub mod message;
pub mod repository;
pub mod service;
