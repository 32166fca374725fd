//! The AsyncAPI document of all events, `docs/asyncapi.yaml`. The document is generated
//! from the types that the services serialise, and each event that a service sends in a
//! test is checked against it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use chassis::events::EventType;
use jsonschema::{Draft, Validator};
use serde_json::{Map, Value, json};

const HEAD: &str =
    "# `make asyncapi` generates this file from the code. Do not edit it: a test compares it with the code.\n";

const DESCRIPTION: &str = "\
The events that the services of the shop publish: CloudEvents 1.0 in JSON, each in one message of an SQS queue.

**Delivery.** An event is delivered at least once, and events may arrive in any sequence. A repeated event has the same \
`id`. Each event of one type happens at most once to its subject, except `ResendRequested`.

**Evolution.** A consumer ignores members that it does not know. A later version may add members, and types of events; it \
never removes a member, and never changes a member's type or meaning. An event whose meaning changes gets a new type. \
docs/adding-an-event.md has the whole rule.

**Personal data.** `recipient` is absent once the person is erased.";

/// A queue, and the services that send events to it and receive events from it.
struct Channel {
    name: &'static str,
    output: &'static str,
    description: &'static str,
    receiver: &'static str,
    receives: &'static str,
    carries: fn(&EventType) -> bool,
}

const CHANNELS: [Channel; 2] = [
    Channel {
        name: "orderEvents",
        output: "OrderEventsQueueUrl",
        description: "All events, for the notifications service.",
        receiver: "notifications",
        receives: "Sends the customer an e-mail and a text message, or forgets an erased person.",
        carries: |_| true,
    },
    Channel {
        name: "userEvents",
        output: "UserEventsQueueUrl",
        description: "Events about people, for the orders service.",
        receiver: "orders",
        receives: "Erases the person in all orders and payments.",
        carries: |event| event.source == "/users",
    },
];

/// All types of events.
pub fn event_types() -> Vec<EventType> {
    let orders = orders::events::published().into_iter();
    orders.chain(payments::service::published_events()).chain(users::service::published_events()).collect()
}

/// The text of the committed document.
pub fn yaml() -> String {
    HEAD.to_owned() + &serde_yaml_ng::to_string(&document()).expect("the document can be written as YAML")
}

/// The whole document.
pub fn document() -> Value {
    let types = event_types();
    let mut schemas = BTreeMap::new();
    for (name, schema) in types.iter().flat_map(|event| &event.schemas) {
        let schema = serde_json::to_value(schema).expect("a schema");
        if let Some(other) = schemas.insert(name.clone(), schema.clone()) {
            assert_eq!(other, schema, "two types have the name {name}");
        }
    }
    let messages: Map<_, _> = types.iter().map(|event| (event.kind.to_owned(), message(event))).collect();
    let mut operations = Map::new();
    let mut channels = Map::new();
    for channel in CHANNELS {
        let carried: Vec<_> = types.iter().filter(|event| (channel.carries)(event)).collect();
        let of_channel = |kind: &str| json!({ "$ref": format!("#/channels/{}/messages/{kind}", channel.name) });
        let reference = json!({ "$ref": format!("#/channels/{}", channel.name) });
        let all: Vec<_> = carried.iter().map(|event| of_channel(event.kind)).collect();
        let receives = json!({
            "action": "receive",
            "channel": reference,
            "title": channel.receiver,
            "summary": channel.receives,
            "messages": all,
        });
        operations.insert(format!("{}.receive.{}", channel.receiver, channel.name), receives);
        let mut senders: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for event in &carried {
            senders.entry(event.source.trim_start_matches('/')).or_default().push(of_channel(event.kind));
        }
        for (sender, messages) in senders {
            let sends = json!({ "action": "send", "channel": reference, "title": sender, "messages": messages });
            operations.insert(format!("{sender}.send.{}", channel.name), sends);
        }
        let messages: Map<_, _> = carried
            .iter()
            .map(|event| (event.kind.to_owned(), json!({ "$ref": format!("#/components/messages/{}", event.kind) })))
            .collect();
        let described = json!({
            "address": Value::Null,
            "title": channel.name,
            "description": format!("{} The address is the stack's output `{}`.", channel.description, channel.output),
            "messages": messages,
        });
        channels.insert(channel.name.to_owned(), described);
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Holdfast events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
    })
}

fn message(event: &EventType) -> Value {
    json!({
        "name": event.kind,
        "title": event.kind,
        "summary": event.summary,
        "contentType": "application/json",
        "payload": {
            "allOf": [
                { "$ref": format!("#/components/schemas/{}", event.schema) },
                {
                    "properties": {
                        "specversion": { "const": "1.0" },
                        "source": { "const": event.source },
                        "type": { "const": event.kind },
                        "datacontenttype": { "const": "application/json" },
                    },
                },
            ],
        },
    })
}

/// Checks events against one version of the document.
pub struct EventChecker(HashMap<String, Validator>);

impl EventChecker {
    /// A checker for each type of event that `document` describes.
    pub fn new(document: &Value) -> Self {
        let messages = document["components"]["messages"].as_object().expect("messages");
        let validator = |message: &Value| {
            let whole = json!({ "allOf": [message["payload"]], "components": document["components"] });
            // A payload without `schemaFormat` is a superset of this draft.
            let options = jsonschema::options().with_draft(Draft::Draft7).should_validate_formats(true);
            options.build(&whole).unwrap_or_else(|error| panic!("{}: {error}", message["name"]))
        };
        Self(messages.iter().map(|(kind, message)| (kind.clone(), validator(message))).collect())
    }

    /// A checker for the events of this version.
    pub fn current() -> &'static Self {
        static CURRENT: LazyLock<EventChecker> = LazyLock::new(|| EventChecker::new(&document()));
        &CURRENT
    }

    /// Returns whether the document describes this type of event.
    pub fn knows(&self, kind: &str) -> bool {
        self.0.contains_key(kind)
    }

    /// Returns every difference between an event and the document.
    pub fn errors(&self, event: &Value) -> Vec<String> {
        let kind = event["type"].as_str().unwrap_or_default();
        match self.0.get(kind) {
            Some(validator) => {
                let text =
                    |error: jsonschema::ValidationError<'_>| format!("{kind}: {} at {}", error, error.instance_path());
                validator.iter_errors(event).map(text).collect()
            }
            None => vec![format!("the document has no type of event {kind:?}")],
        }
    }
}
