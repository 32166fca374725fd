//! Reads `template.yaml` for the tests.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Map, Value};
use serde_yaml_ng::Value as Yaml;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A template whose short forms are written out: `!Ref X` is `{"Ref": "X"}`.
#[derive(Clone, Debug)]
pub struct Template(Value);

/// A function of the template.
#[derive(Clone, Debug)]
pub struct Function<'a> {
    /// The logical id.
    pub id: &'a str,
    /// The name of the binary.
    pub name: &'a str,
    /// The properties that the function itself declares, without the globals.
    pub properties: &'a Value,
}

/// A route of one of the APIs.
#[derive(Clone, Debug)]
pub struct Route<'a> {
    /// The API's logical id.
    pub api: &'a str,
    /// Such as `GET`.
    pub method: &'a str,
    /// Such as `/orders/{id}`.
    pub path: &'a str,
    /// The logical id of the function that serves the route.
    pub function: &'a str,
    /// The route's own authorisation; null if it declares none.
    pub auth: &'a Value,
}

/// A statement of a role's policies.
#[derive(Clone, Debug)]
pub struct Statement<'a> {
    /// The role's logical id.
    pub role: &'a str,
    /// `true` for `Allow`, `false` for `Deny`.
    pub allows: bool,
    /// Such as `dynamodb:GetItem`.
    pub actions: Vec<&'a str>,
    /// The resources as the template writes them.
    pub resources: Vec<&'a Value>,
    /// The condition; null if the statement has none.
    pub condition: &'a Value,
}

impl Template {
    /// Reads `template.yaml`.
    pub fn read() -> Self {
        Self::read_from("template.yaml")
    }

    /// Reads another template.
    pub fn read_from(file: &str) -> Self {
        let text = std::fs::read_to_string(format!("{ROOT}/{file}")).expect("the template is readable");
        let mut whole: Yaml = serde_yaml_ng::from_str(&text).expect("the template is YAML");
        whole.apply_merge().expect("merge keys refer to mappings");
        Self(written_out(whole))
    }

    /// The value at a path such as `Globals.Function.Timeout`.
    pub fn get(&self, path: &str) -> &Value {
        path.split('.').fold(&self.0, |value, key| &value[key])
    }

    /// Returns a function that tells whether CloudFormation accepts a text as the
    /// value of the parameter.
    pub fn constraint(&self, parameter: &str) -> impl Fn(&str) -> bool + use<'_> {
        let declared = &self.get("Parameters")[parameter];
        assert_eq!(declared["Type"], "String", "{parameter}");
        let pattern = declared["AllowedPattern"].as_str().map(|pattern| {
            jsonschema::validator_for(&serde_json::json!({ "pattern": pattern }))
                .expect("the pattern is a regular expression")
        });
        move |text| {
            let listed = list(&declared["AllowedValues"]).any(|value| value == text);
            let shaped = pattern.as_ref().is_none_or(|pattern| pattern.is_valid(&Value::from(text)));
            let length = text.chars().count() as u64;
            let long_enough = declared["MinLength"].as_u64().is_none_or(|least| length >= least);
            let short_enough = declared["MaxLength"].as_u64().is_none_or(|most| length <= most);
            (declared["AllowedValues"].is_null() || listed) && shaped && long_enough && short_enough
        }
    }

    /// Returns whether CloudFormation accepts `text` as the value of the parameter.
    pub fn accepts(&self, parameter: &str, text: &str) -> bool {
        self.constraint(parameter)(text)
    }

    /// The resources of one type: logical ids and declarations.
    pub fn resources(&self, kind: &str) -> impl Iterator<Item = (&str, &Value)> {
        let all = entries(self.get("Resources"));
        all.filter(move |(_, resource)| resource["Type"] == kind)
    }

    pub fn functions(&self) -> impl Iterator<Item = Function<'_>> {
        self.resources("AWS::Serverless::Function").map(|(id, resource)| Function {
            id,
            name: resource["Metadata"]["BuildProperties"]["Binary"].as_str().expect("a function's binary has a name"),
            properties: &resource["Properties"],
        })
    }

    /// The timeout of a function.
    pub fn timeout(&self, function: &Function<'_>) -> Duration {
        let default = self.get("Globals.Function.Timeout");
        let seconds = function.properties["Timeout"].as_u64().or(default.as_u64());
        Duration::from_secs(seconds.expect("a function has a timeout"))
    }

    /// The routes of both APIs.
    pub fn routes(&self) -> impl Iterator<Item = Route<'_>> {
        let events =
            self.functions().flat_map(|function| function.events("Api").map(move |event| (function.id, event)));
        events.map(|(function, event)| Route {
            api: event["RestApiId"]["Ref"].as_str().expect("a route names its API"),
            method: event["Method"].as_str().expect("a route has a method"),
            path: event["Path"].as_str().expect("a route has a path"),
            function,
            auth: &event["Auth"],
        })
    }

    /// All statements of all roles. If a condition chooses between two statements,
    /// both are included.
    pub fn statements(&self) -> impl Iterator<Item = Statement<'_>> {
        self.resources("AWS::IAM::Role").flat_map(|(role, resource)| {
            let policies = list(&resource["Properties"]["Policies"]);
            let statements = policies.flat_map(|policy| list(&policy["PolicyDocument"]["Statement"]));
            statements.flat_map(branches).map(move |statement| Statement {
                role,
                allows: statement["Effect"] == "Allow",
                actions: list(&statement["Action"]).map(|action| action.as_str().expect("an action's name")).collect(),
                resources: list(&statement["Resource"]).collect(),
                condition: &statement["Condition"],
            })
        })
    }
}

impl<'a> Function<'a> {
    /// The properties of the events of one type that invoke the function.
    pub fn events(&self, kind: &'static str) -> impl Iterator<Item = &'a Value> + use<'a> {
        let events = entries(&self.properties["Events"]).map(|(_, event)| event);
        events.filter(move |event| event["Type"] == kind).map(|event| &event["Properties"])
    }

    /// The types of the events that invoke the function.
    pub fn sources(&self) -> BTreeSet<&'a str> {
        let kinds = entries(&self.properties["Events"]).map(|(_, event)| event["Type"].as_str());
        kinds.map(|kind| kind.expect("an event has a type")).collect()
    }

    /// The logical id of the function's role.
    pub fn role(&self) -> &'a str {
        logical_id(&self.properties["Role"])
    }
}

/// The logical id that `!Ref` or `!GetAtt` names.
pub fn logical_id(reference: &Value) -> &str {
    let name = reference["Ref"].as_str().or(reference["Fn::GetAtt"].as_str());
    name.and_then(|name| name.split('.').next()).unwrap_or_else(|| panic!("{reference} refers to no resource"))
}

/// The members of a list. A value that is no list counts as a list of one
/// member.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Null => [].iter(),
        Value::Array(members) => members.iter(),
        one => std::slice::from_ref(one).iter(),
    }
}

/// The entries of a mapping. A value that is no mapping has no entries.
pub fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// The values that a condition chooses from, or the value itself if there is no
/// condition.
fn branches(value: &Value) -> impl Iterator<Item = &Value> {
    match value["Fn::If"].as_array() {
        Some(choice) => choice[1..].iter(),
        None => std::slice::from_ref(value).iter(),
    }
}

fn written_out(value: Yaml) -> Value {
    match value {
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let name = match tag.trim_start_matches('!') {
                name @ ("Ref" | "Condition") => name.to_owned(),
                name => format!("Fn::{name}"),
            };
            Value::Object(Map::from_iter([(name, written_out(tagged.value))]))
        }
        Yaml::Sequence(members) => members.into_iter().map(written_out).collect(),
        Yaml::Mapping(entries) => {
            let key = |key: Yaml| key.as_str().expect("keys are strings").to_owned();
            Value::Object(entries.into_iter().map(|(name, value)| (key(name), written_out(value))).collect())
        }
        scalar => serde_json::to_value(scalar).expect("YAML without tags is JSON"),
    }
}
