//! Reads `template.yaml` for the tests.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Map, Value};
use serde_yaml_ng::Value as Yaml;

/// The AWS account of the tests.
pub const ACCOUNT: &str = "000000000000";

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A CloudFormation template in which short forms are expanded: `!Ref X`
/// becomes `{"Ref": "X"}`.
#[derive(Clone, Debug)]
pub struct Template(Value);

/// A Lambda function that the template declares.
#[derive(Clone, Debug)]
pub struct Function<'a> {
    /// The function's logical id.
    pub id: &'a str,
    /// The name of the function's binary.
    pub name: &'a str,
    /// The function's own properties, without the properties from `Globals`.
    pub properties: &'a Value,
}

/// A route of the public API.
#[derive(Clone, Debug)]
pub struct Route<'a> {
    /// The API's logical id.
    pub api: &'a str,
    /// The HTTP method, such as `GET`.
    pub method: &'a str,
    /// The path, such as `/orders/{id}`.
    pub path: &'a str,
    /// The logical id of the function that serves the route.
    pub function: &'a str,
    /// The route's own property `Auth`; null if the route has none.
    pub auth: &'a Value,
}

/// A route for other services, with a role that may call it.
#[derive(Clone, Copy, Debug)]
pub struct InternalRoute<'a> {
    /// The logical id of the function that serves the route.
    pub function: &'a str,
    /// The logical id of the role.
    pub caller: &'a str,
    /// The HTTP method, such as `POST`.
    pub method: &'a str,
    /// The path, such as `/payments/{id}/cancel`.
    pub path: &'a str,
}

/// A statement of an IAM role's policies.
#[derive(Clone, Debug)]
pub struct Statement<'a> {
    /// The role's logical id.
    pub role: &'a str,
    /// `true` if the statement's effect is `Allow`, `false` if it is `Deny`.
    pub allows: bool,
    /// The IAM actions, such as `dynamodb:GetItem`.
    pub actions: Vec<&'a str>,
    /// The resources as the template writes them.
    pub resources: Vec<&'a Value>,
    /// The statement's condition; null if the statement has none.
    pub condition: &'a Value,
}

impl Template {
    /// Reads `template.yaml`.
    pub fn read() -> Self {
        Self::read_from("template.yaml")
    }

    /// Reads a template whose path is relative to the repository's root.
    pub fn read_from(file: &str) -> Self {
        let text = std::fs::read_to_string(format!("{ROOT}/{file}")).expect("the template is readable");
        let mut whole: Yaml = serde_yaml_ng::from_str(&text).expect("the template is YAML");
        whole.apply_merge().expect("merge keys refer to mappings");
        Self(expand_short_forms(whole))
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

    /// The logical id and the declaration of each resource of this type.
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

    /// The function's own timeout, or the timeout in `Globals` if the function
    /// has none.
    pub fn timeout(&self, function: &Function<'_>) -> Duration {
        let default = self.get("Globals.Function.Timeout");
        let seconds = function.properties["Timeout"].as_u64().or(default.as_u64());
        Duration::from_secs(seconds.expect("a function has a timeout"))
    }

    /// The routes of the public API.
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

    /// The routes for other services, which are reached through function URLs.
    pub fn internal_routes(&self) -> impl Iterator<Item = InternalRoute<'_>> {
        self.functions().flat_map(|function| {
            let callers = &function.properties["Environment"]["Variables"]["INTERNAL_CALLERS"]["Fn::Sub"];
            let entries = callers.as_str().into_iter().flat_map(|text| text.split(','));
            entries.map(move |entry| {
                let words: Vec<_> = entry.split_whitespace().collect();
                let [role, method, path] = words[..] else { panic!("{entry}") };
                let role = role.strip_prefix("${").and_then(|role| role.strip_suffix(".Arn}"));
                let caller = role.unwrap_or_else(|| panic!("{entry} names no role"));
                InternalRoute { function: function.id, caller, method, path }
            })
        })
    }

    /// The text of a function's variable `INTERNAL_CALLERS`. In it, the name of
    /// each role is the role's logical id.
    pub fn internal_callers(&self, function: &str) -> Option<String> {
        let function = self.functions().find(|known| known.name == function)?;
        let callers = function.properties["Environment"]["Variables"]["INTERNAL_CALLERS"]["Fn::Sub"].as_str()?;
        Some(callers.replace("${", &format!("arn:aws:iam::{ACCOUNT}:role/")).replace(".Arn}", ""))
    }

    /// All statements of all IAM roles, also the statements of policies that are
    /// resources of their own. If `Fn::If` chooses between two statements, both
    /// statements are included.
    pub fn statements(&self) -> impl Iterator<Item = Statement<'_>> {
        let own = self.resources("AWS::IAM::Role").flat_map(|(role, resource)| {
            list(&resource["Properties"]["Policies"]).map(move |policy| (role, &policy["PolicyDocument"]))
        });
        let attached = self.resources("AWS::IAM::Policy").flat_map(|(_, policy)| {
            let policy = &policy["Properties"];
            list(&policy["Roles"]).map(move |role| (logical_id(role), &policy["PolicyDocument"]))
        });
        own.chain(attached).flat_map(|(role, document)| {
            list(&document["Statement"]).flat_map(branches).map(move |statement| Statement {
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
    /// The properties of each event of this type that invokes the function.
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

/// The logical id of the resource to which a `!Ref` or a `!GetAtt` refers.
pub fn logical_id(reference: &Value) -> &str {
    let name = reference["Ref"].as_str().or(reference["Fn::GetAtt"].as_str());
    name.and_then(|name| name.split('.').next()).unwrap_or_else(|| panic!("{reference} refers to no resource"))
}

/// The members of a list. Null counts as an empty list, and any other value as
/// a list with one member.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Null => [].iter(),
        Value::Array(members) => members.iter(),
        one => std::slice::from_ref(one).iter(),
    }
}

/// The entries of a mapping. Any other value has no entries.
pub fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// The two values that an `Fn::If` chooses from. A value that is no `Fn::If` is
/// returned itself.
fn branches(value: &Value) -> impl Iterator<Item = &Value> {
    match value["Fn::If"].as_array() {
        Some(choice) => choice[1..].iter(),
        None => std::slice::from_ref(value).iter(),
    }
}

fn expand_short_forms(value: Yaml) -> Value {
    match value {
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let name = match tag.trim_start_matches('!') {
                name @ ("Ref" | "Condition") => name.to_owned(),
                name => format!("Fn::{name}"),
            };
            Value::Object(Map::from_iter([(name, expand_short_forms(tagged.value))]))
        }
        Yaml::Sequence(members) => members.into_iter().map(expand_short_forms).collect(),
        Yaml::Mapping(entries) => {
            let key = |key: Yaml| key.as_str().expect("keys are strings").to_owned();
            Value::Object(entries.into_iter().map(|(name, value)| (key(name), expand_short_forms(value))).collect())
        }
        scalar => serde_json::to_value(scalar).expect("YAML without tags is JSON"),
    }
}
