//! The API's document: it is what the code says, it has the gateway's routes,
//! and what it says of requests and answers holds.

mod answers;
mod contract;
mod document;
mod inputs;
mod repeats;
mod template;

use std::{collections::BTreeSet, fs};

use contract::Contract;
use http::{Request, StatusCode};
use in_process_tests::{Caller, World};
use serde_json::Value;

/// Where the document is committed.
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.yaml");

#[test]
fn the_committed_document_is_what_the_code_says() {
    let generated = document::yaml();
    if std::env::var_os("HOLDFAST_UPDATE").is_some() {
        fs::write(COMMITTED, &generated).unwrap();
    }
    let committed = fs::read_to_string(COMMITTED).unwrap_or_default();
    let first = generated.lines().zip(committed.lines()).position(|(new, old)| new != old);
    let first = first.unwrap_or_else(|| generated.lines().count().min(committed.lines().count()));
    assert!(
        generated == committed,
        "docs/openapi.yaml is not what the code says, from line {} on:\n  code      {}\n  committed {}\n\
         `make openapi` writes it anew; look at what has changed.",
        first + 1,
        generated.lines().nth(first).unwrap_or("(end)"),
        committed.lines().nth(first).unwrap_or("(end)"),
    );
}

#[test]
fn it_has_the_routes_that_the_public_api_has_and_asks_for_a_token_where_the_gateway_does() {
    let contract = Contract::new();
    let documented: BTreeSet<_> = contract
        .operations()
        .iter()
        .map(|operation| template::route(&operation.method, operation.path, operation.needs_token(contract.document())))
        .collect();
    let deployed = template::routes();
    assert!(deployed.len() > 15, "the template's routes were not found");
    let (missing, unknown): (Vec<_>, Vec<_>) =
        (deployed.difference(&documented).collect(), documented.difference(&deployed).collect());
    assert!(missing.is_empty() && unknown.is_empty(), "not documented: {missing:?}; not deployed: {unknown:?}");
    for server in contract.document()["servers"].as_array().unwrap() {
        assert!(server["url"].as_str().unwrap().ends_with(&format!("/{}", template::stage())), "{server}");
    }
}

#[tokio::test]
async fn the_routers_serve_each_operation_and_refuse_the_methods_that_are_not_there() {
    let (contract, world) = (Contract::new(), World::start().await);
    let operations = contract.operations();
    for operation in &operations {
        let path = operation.path.replace("{id}", "none");
        let request = Request::builder().method(&operation.method).uri(&path).body(String::new().into()).unwrap();
        let answer = world.send_raw(&Caller::admin(), request).await;
        assert!(!["no_such_route", "method_not_allowed"].contains(&code(&answer.json())), "{}", answer.text);
        // Some paths have further methods on the internal API.
        let request = Request::builder().method("PUT").uri(&path).body(String::new().into()).unwrap();
        let answer = world.send_raw(&Caller::admin(), request).await;
        answer.expect_problem(StatusCode::METHOD_NOT_ALLOWED.as_u16(), "method_not_allowed");
        assert!(answer.header("allow").is_some_and(|allow| allow.contains(operation.method.as_str())), "{path}");
    }
}

fn code(problem: &Value) -> &str {
    problem["code"].as_str().unwrap_or_default()
}

#[test]
fn what_the_gateway_itself_answers_is_documented() {
    let contract = Contract::new();
    let responses = template::gateway_responses();
    assert!(responses.len() >= 5, "the template's gateway responses were not found");
    for (name, status, body) in responses {
        for operation in contract.operations() {
            let applies = match name.as_str() {
                "UNAUTHORIZED" => operation.needs_token(contract.document()),
                "REQUEST_TOO_LARGE" => operation.body().is_some(),
                "THROTTLED" | "DEFAULT_5XX" => true,
                // No authorizer of ours denies what it has let in; and no
                // operation is where there is none.
                "ACCESS_DENIED" | "MISSING_AUTHENTICATION_TOKEN" => false,
                other => panic!("is {other} to be documented?"),
            };
            if applies {
                let response = &operation.details["responses"][status.to_string()];
                assert!(!response.is_null(), "{} says nothing of {name}, {status}", operation.id);
                let schema = &contract.resolve(response)["content"][chassis::problem::CONTENT_TYPE]["schema"];
                assert!(contract.validator(schema).is_valid(&body), "{}: {name} is not like {schema}", operation.id);
            }
        }
    }
}

#[test]
fn whatever_it_refers_to_is_there() {
    let text = document::yaml();
    let contract = Contract::new();
    let references = text.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("$ref: '#"));
    let references: BTreeSet<_> = references.map(|reference| reference.trim_end_matches('\'')).collect();
    assert!(references.len() > 20, "{references:?}");
    for reference in references {
        assert!(contract.document().pointer(reference).is_some(), "there is no {reference}");
    }
}

#[test]
fn its_examples_are_what_their_schemas_say() {
    fn walk(contract: &Contract, part: &Value, checked: &mut usize) {
        let examples = match part["examples"].as_array() {
            Some(examples) => examples.iter().map(|example| (part, example)).collect(),
            None => {
                let named = part["examples"].as_object().into_iter().flatten().map(|(_, example)| &example["value"]);
                let all = named.chain(part.get("example"));
                all.map(|example| (&part["schema"], example)).collect::<Vec<_>>()
            }
        };
        for (schema, example) in examples {
            assert!(contract.validator(schema).is_valid(example), "{example} is not like {schema}");
            *checked += 1;
        }
        let parts: Vec<&Value> = match part {
            Value::Object(members) => {
                members.iter().filter(|(name, _)| *name != "examples").map(|(_, part)| part).collect()
            }
            Value::Array(parts) => parts.iter().collect(),
            _ => Vec::new(),
        };
        parts.into_iter().for_each(|part| walk(contract, part, checked));
    }
    let (contract, mut checked) = (Contract::new(), 0);
    walk(&contract, contract.document(), &mut checked);
    assert!(checked > 30, "{checked}");
}

/// Generators of clients make a class of each schema that has members; without
/// a name of ours, they invent one.
#[test]
fn whatever_has_members_has_a_name_and_every_refusal_is_a_problem() {
    fn nameless(schema: &Value) -> bool {
        let members = schema["properties"].as_object().into_iter().flat_map(|members| members.values());
        let alternatives = ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|word| schema[word].as_array()).flatten();
        let mut parts = schema.get("items").into_iter().chain(members).chain(alternatives);
        parts.any(|part| part["properties"].is_object() || nameless(part))
    }
    let contract = Contract::new();
    for (name, schema) in contract.document()["components"]["schemas"].as_object().unwrap() {
        assert!(!nameless(schema), "a part of {name} has no name: {schema}");
    }
    let mut refusals = 0;
    for operation in contract.operations() {
        let responses = operation.details["responses"].as_object().unwrap().values();
        let contents = responses.filter_map(|response| contract.resolve(response)["content"].as_object());
        let request = operation.details["requestBody"]["content"].as_object();
        for (kind, content) in contents.chain(request).flatten() {
            let name = content["schema"]["$ref"].as_str().unwrap_or_default();
            assert!(!name.is_empty(), "{} has a body without a name: {content}", operation.id);
            assert_eq!(kind == chassis::problem::CONTENT_TYPE, name == "#/components/schemas/Problem", "{name}");
            refusals += usize::from(kind == chassis::problem::CONTENT_TYPE);
        }
    }
    assert!(refusals > 100, "{refusals}");
}

/// 19.99 is a multiple of 0.01 for some validators, and for others, which
/// divide floats, it is none.
#[test]
fn no_validator_has_to_divide_floats() {
    fn walk(part: &Value) {
        let factor = &part["multipleOf"];
        assert!(factor.is_null() || factor.is_u64(), "multiples of {factor}");
        match part {
            Value::Object(members) => members.values().for_each(walk),
            Value::Array(parts) => parts.iter().for_each(walk),
            _ => {}
        }
    }
    walk(Contract::new().document());
}

#[test]
fn a_name_means_one_thing_and_every_operation_says_what_it_is_for() {
    let mut schemas = std::collections::BTreeMap::<String, Value>::new();
    for part in document::parts() {
        for (name, schema) in part.components.unwrap_or_default().schemas {
            let schema = serde_json::to_value(schema).unwrap();
            let other = schemas.entry(name.clone()).or_insert_with(|| schema.clone());
            assert_eq!(*other, schema, "two services mean different things by {name}");
        }
    }
    let contract = Contract::new();
    let mut ids = BTreeSet::new();
    for operation in contract.operations() {
        assert!(ids.insert(operation.id.to_owned()), "two operations are called {}", operation.id);
        assert!(operation.details["summary"].is_string(), "{} has no summary", operation.id);
        assert_eq!(operation.details["tags"].as_array().map(Vec::len), Some(1), "{}", operation.id);
    }
}
