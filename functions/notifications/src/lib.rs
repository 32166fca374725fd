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

use chassis::{aws::Aws, clock::Clock, dynamo::Table};

use crate::{
    channels::Channels, config::Config, handlers::Function, repository::DynamoRepository, service::Notifications,
};

/// Builds the whole function from its configuration: the queue's consumer, and
/// its routes.
pub fn build(config: Config, aws: &Aws, clock: Clock) -> Function {
    let authenticator = config.http.public_authenticator(aws, clock.clone());
    let table = Table::open(&aws.config, config.table);
    let channels = Channels::new(&aws.config, config.sender);
    let notifications = Notifications::new(DynamoRepository::new(table.clone()), channels, clock);
    Function::new(notifications, config.http.cors.around(handlers::router(table, authenticator)))
}
