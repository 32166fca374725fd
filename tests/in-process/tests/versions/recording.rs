//! A recording has samples of all formats that one version of the code sends or stores:
//! requests, responses, events and items. The samples are stored as files.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use in_process_tests::{World, event_document};
use serde_json::{Value, json};

/// The samples of one version by their kind. The kind is also the name of the samples' file.
/// Samples of the same kind differ in their shape.
#[derive(Debug, Default, PartialEq)]
pub struct Recording(pub BTreeMap<String, Vec<Value>>);

/// The kind of the AsyncAPI document: what a consumer of the version knows of the events.
pub const EVENT_DOCUMENT: &str = "documents/events";

/// Returns the folder of all recordings. This folder contains a folder for each version.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded")
}

impl Recording {
    /// Reads the recordings of all versions. The key is the version.
    pub fn all() -> BTreeMap<String, Self> {
        let entries = fs::read_dir(folder()).expect("recordings");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a version"));
        names.map(|version| (version.clone(), Self::read(&version))).collect()
    }

    fn read(version: &str) -> Self {
        let mut samples = BTreeMap::new();
        for group in fs::read_dir(folder().join(version)).expect("a recording") {
            let group = group.expect("a group");
            for file in fs::read_dir(group.path()).expect("a group's files") {
                let path = file.expect("a file").path();
                let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
                let kind = format!("{}/{name}", group.file_name().to_str().expect("a group's name"));
                let text = fs::read_to_string(&path).expect("a recorded file");
                samples.insert(kind, serde_json::from_str(&text).expect("a list of samples"));
            }
        }
        Self(samples)
    }

    /// Writes the recording to files. Panics if the version is already recorded.
    pub fn write(&self, version: &str) {
        let folder = folder().join(version);
        assert!(
            !folder.exists(),
            "{version} is already recorded, and deployed code may read and write these formats. Raise the version \
             first. If {version} was never deployed, delete its folder instead."
        );
        for (kind, samples) in &self.0 {
            let path = folder.join(format!("{kind}.json"));
            fs::create_dir_all(path.parent().expect("a group")).expect("a folder");
            let text = serde_json::to_string_pretty(samples).expect("JSON");
            fs::write(path, text + "\n").expect("a file");
        }
    }

    /// Records every request between services with its response, every event, and every
    /// state that an item in `world` has had since `record_items` was called.
    pub fn of(world: &World) -> Self {
        let mut recording = Self::default();
        for exchange in world.cloud.exchanges() {
            let route: Vec<_> = exchange.path.split('/').map(|part| if is_id(part) { "{id}" } else { part }).collect();
            let code = exchange.answer["code"].as_str().or(exchange.answer["reason"].as_str());
            let code = code.map(|code| format!(" {code}")).unwrap_or_default();
            let kind = format!("exchanges/{} {} {}{code}", exchange.method, route.join("."), exchange.status);
            let sample = json!({
                "service": exchange.service,
                "method": exchange.method.as_str(),
                "path": exchange.path,
                "request": exchange.request,
                "status": exchange.status,
                "answer": exchange.answer,
            });
            recording.add(kind, sample);
        }
        for message in world.cloud.sent_messages() {
            let event: Value = serde_json::from_str(&message).expect("an event");
            let reason = event["data"]["reason"].as_str().map(|reason| format!(" {reason}")).unwrap_or_default();
            recording.add(format!("events/{}{reason}", event["type"].as_str().expect("a type")), event);
        }
        for (table, mut item) in world.cloud.recorded_items() {
            // The shard is computed from the order's id, which is random. A fixed shard makes
            // the recording the same in every run.
            for name in ["/check_shard/S", "/age_shard/S"] {
                if let Some(shard) = item.pointer_mut(name) {
                    *shard = "0".into();
                }
            }
            recording.add(format!("items/{table} {}", kind_of(&item)), item);
        }
        let mut recording = recording.without_random_values();
        recording.0.insert(EVENT_DOCUMENT.to_owned(), vec![event_document::document()]);
        recording
    }

    fn add(&mut self, kind: String, sample: Value) {
        let samples = self.0.entry(kind).or_default();
        if !samples.iter().any(|known| shape(known) == shape(&sample)) {
            samples.push(sample);
        }
    }

    /// Replaces random ids, trace contexts and digests by values that are the same in every
    /// run.
    fn without_random_values(self) -> Self {
        let mut names = HashMap::new();
        let mut counts = HashMap::<usize, usize>::new();
        let text = serde_json::to_string(&self.0).expect("JSON");
        // Ids and digests consist of hexadecimal digits and dashes.
        let is_part = |c: char| c.is_ascii_hexdigit() || c == '-';
        let mut steady = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(start) = rest.find(is_part) {
            let (before, from) = rest.split_at(start);
            let (word, after) = from.split_at(from.find(|c| !is_part(c)).unwrap_or(from.len()));
            steady.push_str(before);
            steady.push_str(&steady_word(word, &mut names, &mut counts));
            rest = after;
        }
        steady.push_str(rest);
        Self(serde_json::from_str(&steady).expect("JSON"))
    }

    /// Returns the samples whose kind begins with `group`, with their kind.
    pub fn samples<'a>(&'a self, group: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let of_group = self.0.iter().filter(move |(kind, _)| kind.starts_with(group));
        of_group.flat_map(|(kind, samples)| samples.iter().map(move |sample| (kind.as_str(), sample)))
    }
}

/// Returns the kind of an item: the first parts of its partition key and its sort key, and
/// the item's state, if the item has a state.
pub fn kind_of(item: &Value) -> String {
    let first = |key: &str| item[key]["S"].as_str().and_then(|key| key.split('#').next()).unwrap_or("?").to_owned();
    let state = ["state", "status"].iter().find_map(|name| item[*name]["S"].as_str());
    let words = [Some(first("pk")), Some(first("sk")).filter(|sk| *sk != first("pk")), state.map(str::to_owned)];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn is_id(text: &str) -> bool {
    text.rsplit_once('_').is_some_and(|(_, id)| id.parse::<uuid::Uuid>().is_ok())
}

/// Replaces a random UUID, or a random number of 16, 32 or 64 hexadecimal digits,
/// by a counter: the first value of its length becomes 1, the second becomes 2.
fn steady_word(word: &str, names: &mut HashMap<String, String>, counts: &mut HashMap<usize, usize>) -> String {
    let is_uuid = word.len() == 36 && word.parse::<uuid::Uuid>().is_ok();
    if is_uuid || ([16, 32, 64].contains(&word.len()) && !word.contains('-')) {
        let name = names.entry(word.to_owned()).or_insert_with(|| {
            let count = counts.entry(word.len()).or_default();
            *count += 1;
            match is_uuid {
                true => format!("00000000-0000-7000-8000-{count:012x}"),
                false => format!("{count:0width$x}", width = word.len()),
            }
        });
        return name.clone();
    }
    // A trace context has the form `00-<trace>-<span>-01`. Each of its parts is replaced.
    if word.contains('-') {
        return word.split('-').map(|part| steady_word(part, names, counts)).collect::<Vec<_>>().join("-");
    }
    word.to_owned()
}

/// Returns the path and the type of each value in a document.
pub fn shape(value: &Value) -> BTreeSet<(String, &'static str)> {
    fn add(value: &Value, at: String, found: &mut BTreeSet<(String, &'static str)>) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(items) => {
                items.iter().for_each(|item| add(item, format!("{at}[]"), found));
                "array"
            }
            Value::Object(members) => {
                members.iter().for_each(|(name, value)| add(value, format!("{at}.{name}"), found));
                "object"
            }
        };
        found.insert((at, kind));
    }
    let mut found = BTreeSet::new();
    add(value, String::new(), &mut found);
    found
}

/// Returns whether the names in an object are generated ids, not members that the
/// code knows. A later version adds no member to such an object.
fn is_map(object: &serde_json::Map<String, Value>) -> bool {
    !object.is_empty() && object.keys().all(|name| is_id(name))
}

/// Returns the value with an additional member in every object, since a later version may
/// add members that the current code does not know.
pub fn with_later_members(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let is_map = is_map(members);
            let members = members.iter().map(|(name, value)| (name.clone(), with_later_members(value)));
            let later = ("added_later".to_owned(), json!({ "of": ["a", { "later": "version" }], "n": 1 }));
            members.chain((!is_map).then_some(later)).collect()
        }
        Value::Array(items) => items.iter().map(with_later_members).collect(),
        plain => plain.clone(),
    }
}

/// Does the same as [`with_later_members`] for an item in DynamoDB's JSON format.
pub fn with_later_attributes(item: &Value) -> Value {
    let attribute = |value: &Value| -> Value {
        match (&value["M"], &value["L"]) {
            (map @ Value::Object(_), _) => json!({ "M": with_later_attributes(map) }),
            (_, Value::Array(list)) => json!({ "L": list.iter().map(later_in).collect::<Vec<_>>() }),
            _ => value.clone(),
        }
    };
    fn later_in(value: &Value) -> Value {
        match &value["M"] {
            map @ Value::Object(_) => json!({ "M": with_later_attributes(map) }),
            _ => value.clone(),
        }
    }
    let item = item.as_object().expect("an item");
    let members = item.iter().map(|(name, value)| (name.clone(), attribute(value)));
    let later = ("added_later".to_owned(), json!({ "M": { "by": { "S": "a later version" } } }));
    members.chain((!is_map(item)).then_some(later)).collect()
}
