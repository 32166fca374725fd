//! Tests of the OpenAPI document, `docs/openapi.yaml`: the document is generated from
//! the code and has the gateway's routes, and the services accept exactly the requests
//! and give exactly the responses that the document describes.

mod accepted_requests;
mod checker;
mod documented_answers;
mod fingerprints;
mod gateway;
mod generation;

use std::{collections::BTreeSet, fs};

use checker::Checker;
use http::{Request, StatusCode};
use in_process_tests::{Caller, World};
use serde_json::Value;

/// The path of the committed document.
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.yaml");

#[test]
fn the_committed_document_is_the_one_that_the_code_generates() {
    let generated = generation::yaml();
    if std::env::var_os("HOLDFAST_UPDATE").is_some() {
        fs::write(COMMITTED, &generated).unwrap();
    }
    let committed = fs::read_to_string(COMMITTED).unwrap_or_default();
    let first = generated.lines().zip(committed.lines()).position(|(new, old)| new != old);
    let first = first.unwrap_or_else(|| generated.lines().count().min(committed.lines().count()));
    assert!(
        generated == committed,
        "docs/openapi.yaml differs from the generated document, first in line {}:\n  generated {}\n  committed {}\n\
         `make openapi` writes the generated document; review the differences.",
        first + 1,
        generated.lines().nth(first).unwrap_or("(end)"),
        committed.lines().nth(first).unwrap_or("(end)"),
    );
}

#[test]
fn the_document_has_the_public_apis_routes_and_requires_a_token_where_the_gateway_does() {
    let checker = Checker::new();
    let documented: BTreeSet<_> = checker
        .operations()
        .iter()
        .map(|operation| {
            (operation.method.to_string(), operation.path.to_owned(), operation.needs_token(checker.document()))
        })
        .collect();
    let deployed = gateway::routes();
    assert!(deployed.len() > 15, "the template's routes were not found");
    let (missing, unknown): (Vec<_>, Vec<_>) =
        (deployed.difference(&documented).collect(), documented.difference(&deployed).collect());
    assert!(missing.is_empty() && unknown.is_empty(), "not documented: {missing:?}; not deployed: {unknown:?}");
    for server in checker.document()["servers"].as_array().unwrap() {
        assert!(server["url"].as_str().unwrap().ends_with(&format!("/{}", gateway::stage())), "{server}");
    }
}

#[tokio::test]
async fn the_services_serve_each_operation_and_refuse_other_methods() {
    let (checker, world) = (Checker::new(), World::start().await);
    let operations = checker.operations();
    for operation in &operations {
        let path = operation.path.replace("{id}", "none");
        let request = Request::builder().method(&operation.method).uri(&path).body(String::new().into()).unwrap();
        let answer = world.send_raw(&Caller::admin(), request).await;
        assert!(!["no_such_route", "method_not_allowed"].contains(&code(&answer.json())), "{}", answer.text);
        // No path has the method PUT, neither on the public nor on the internal API.
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
fn the_document_describes_the_gateways_own_responses() {
    let checker = Checker::new();
    let responses = gateway::own_answers();
    assert!(responses.len() >= 5, "the template's gateway responses were not found");
    for (name, status, body) in responses {
        for operation in checker.operations() {
            let applies = match name.as_str() {
                "UNAUTHORIZED" => operation.needs_token(checker.document()),
                "REQUEST_TOO_LARGE" => operation.body().is_some(),
                "THROTTLED" | "DEFAULT_5XX" => true,
                // The authorizer gives a valid token access to every operation.
                "ACCESS_DENIED" => false,
                // This is the response to a request for an unknown route, which is not an
                // operation.
                "MISSING_AUTHENTICATION_TOKEN" => false,
                other => panic!("decide here which operations must document {other}"),
            };
            if applies {
                let response = &operation.details["responses"][status.to_string()];
                assert!(!response.is_null(), "{} does not document {name}, {status}", operation.id);
                let schema = &checker.resolve(response)["content"][chassis::problem::CONTENT_TYPE]["schema"];
                assert!(checker.validator(schema).is_valid(&body), "{}: {name} does not match {schema}", operation.id);
            }
        }
    }
}

#[test]
fn every_reference_in_the_document_has_a_target() {
    let text = generation::yaml();
    let checker = Checker::new();
    let references = text.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("$ref: '#"));
    let references: BTreeSet<_> = references.map(|reference| reference.trim_end_matches('\'')).collect();
    assert!(references.len() > 20, "{references:?}");
    for reference in references {
        assert!(checker.document().pointer(reference).is_some(), "there is no {reference}");
    }
}

#[test]
fn the_documents_examples_match_their_schemas() {
    fn walk(checker: &Checker, part: &Value, checked: &mut usize) {
        let examples = match part["examples"].as_array() {
            Some(examples) => examples.iter().map(|example| (part, example)).collect(),
            None => {
                let named = part["examples"].as_object().into_iter().flatten().map(|(_, example)| &example["value"]);
                let all = named.chain(part.get("example"));
                all.map(|example| (&part["schema"], example)).collect::<Vec<_>>()
            }
        };
        for (schema, example) in examples {
            assert!(checker.validator(schema).is_valid(example), "{example} does not match {schema}");
            *checked += 1;
        }
        let parts: Vec<&Value> = match part {
            Value::Object(members) => {
                members.iter().filter(|(name, _)| *name != "examples").map(|(_, part)| part).collect()
            }
            Value::Array(parts) => parts.iter().collect(),
            _ => Vec::new(),
        };
        parts.into_iter().for_each(|part| walk(checker, part, checked));
    }
    let (checker, mut checked) = (Checker::new(), 0);
    walk(&checker, checker.document(), &mut checked);
    assert!(checked > 30, "{checked}");
}

/// A client generator makes a class of each schema that has members. If such a schema
/// has no name, the generator invents a name for the class.
#[test]
fn every_schema_with_members_has_a_name_and_every_refusal_is_a_problem() {
    fn has_unnamed_part(schema: &Value) -> bool {
        let members = schema["properties"].as_object().into_iter().flat_map(|members| members.values());
        let alternatives = ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|word| schema[word].as_array()).flatten();
        let mut parts = schema.get("items").into_iter().chain(members).chain(alternatives);
        parts.any(|part| part["properties"].is_object() || has_unnamed_part(part))
    }
    let checker = Checker::new();
    for (name, schema) in checker.document()["components"]["schemas"].as_object().unwrap() {
        assert!(!has_unnamed_part(schema), "a part of {name} has no name: {schema}");
    }
    let mut refusals = 0;
    for operation in checker.operations() {
        let responses = operation.details["responses"].as_object().unwrap().values();
        let contents = responses.filter_map(|response| checker.resolve(response)["content"].as_object());
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

/// Some validators divide floating-point numbers, and so find that 19.99 is not a
/// multiple of 0.01. With whole numbers they make no such mistake.
#[test]
fn the_document_requires_only_multiples_of_whole_numbers() {
    fn walk(part: &Value) {
        let factor = &part["multipleOf"];
        assert!(factor.is_null() || factor.is_u64(), "multiples of {factor}");
        match part {
            Value::Object(members) => members.values().for_each(walk),
            Value::Array(parts) => parts.iter().for_each(walk),
            _ => {}
        }
    }
    walk(Checker::new().document());
}

#[test]
fn each_schema_name_has_one_meaning_and_each_operation_has_an_id_a_summary_and_a_tag() {
    let mut schemas = std::collections::BTreeMap::<String, Value>::new();
    for part in generation::parts() {
        for (name, schema) in part.components.unwrap_or_default().schemas {
            let schema = serde_json::to_value(schema).unwrap();
            let other = schemas.entry(name.clone()).or_insert_with(|| schema.clone());
            assert_eq!(*other, schema, "two services have different schemas called {name}");
        }
    }
    let checker = Checker::new();
    let mut ids = BTreeSet::new();
    for operation in checker.operations() {
        assert!(ids.insert(operation.id.to_owned()), "two operations are called {}", operation.id);
        assert!(operation.details["summary"].is_string(), "{} has no summary", operation.id);
        assert_eq!(operation.details["tags"].as_array().map(Vec::len), Some(1), "{}", operation.id);
    }
}
