//! The notifications service: sends customers e-mails and text messages about their
//! orders. The service consumes events from a queue, and sends one message for each
//! event and channel.
//!
//! - [`domain`]: the content of notifications, without any technology
//! - [`event_parser`]: parses the events in the queue's messages
//! - [`email_feedback_parser`]: parses the bounces and complaints that SES reports through the same queue
//! - [`templates`]: renders the texts; the template files are in `templates/`
//! - [`message_holder`]: keeps messages in the queue while they are paused
//! - [`service`]: makes sure that the message about each event is sent once on each channel
//! - [`repository`]: stores which messages were sent, which users were erased, and which
//!   addresses are suppressed
//! - [`email_and_sms`]: sends e-mails with SES and text messages with SNS
//! - [`handlers`]: handles the two kinds of invocation, a batch from SQS (`sqs_batch`)
//!   and an HTTP request
//! - [`config`]: reads the configuration

pub mod config;
pub mod domain;
pub mod email_and_sms;
pub mod email_feedback_parser;
pub mod event_parser;
pub mod handlers;
pub mod message_holder;
pub mod repository;
pub mod service;
pub mod templates;

use chassis::{aws::Aws, clock::Clock, dynamo::Table, events::EventPublisher, pause::PauseSwitch};

use crate::{
    config::Config, email_and_sms::MessageSender, handlers::Function, message_holder::MessageHolder,
    repository::DynamoRepository, service::Notifications,
};

/// Builds the notifications function from its configuration: the queue's consumer and
/// the HTTP routes.
pub fn build(config: Config, aws: &Aws, clock: Clock) -> Function {
    let authenticator = config.http.public_authenticator(aws, clock.clone());
    let table = Table::open(&aws.config, config.table);
    let sender = MessageSender::new(&aws.config, config.sender, config.email_configuration_set);
    let pause = PauseSwitch::new(handlers::PAUSED_PART, table.clone(), clock.clone());
    let notifications = Notifications::new(DynamoRepository::new(table.clone()), sender, clock);
    let router = handlers::router(notifications.clone(), table, pause.clone(), authenticator);
    let (sdk, queue) = (aws.config.clone(), config.events);
    let holder = MessageHolder::new(pause, move || EventPublisher::open(&sdk, queue));
    Function::new(notifications, holder, config.http.cors.around(router))
}
