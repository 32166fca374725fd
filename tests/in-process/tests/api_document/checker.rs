//! Compares the services' responses with the OpenAPI document, and records which of
//! the documented responses the services have given.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use http::{Method, Request, StatusCode};
use in_process_tests::{Answer, Caller, World};
use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

use crate::generation;

/// An operation's id, a response's status, and the code of the problem document. The
/// code is empty if the response is not a problem document.
pub type AnswerKind = (String, u16, String);

pub struct Checker {
    document: Value,
    /// The kinds of responses that the services have given.
    seen: Mutex<BTreeSet<AnswerKind>>,
}

/// An operation of the document.
#[derive(Clone)]
pub struct Operation<'a> {
    pub id: &'a str,
    pub method: Method,
    pub path: &'a str,
    pub details: &'a Value,
}

impl Operation<'_> {
    /// Returns whether the operation requires a token, by its own security
    /// requirements or by the requirements of the whole document.
    pub fn needs_token(&self, document: &Value) -> bool {
        let security = self.details.get("security").unwrap_or(&document["security"]);
        !security.as_array().expect("a list of requirements").contains(&json!({}))
    }

    /// The schema of the request's body.
    pub fn body(&self) -> Option<&Value> {
        self.details.pointer("/requestBody/content/application~1json/schema")
    }
}

impl Checker {
    pub fn new() -> Self {
        let document = serde_json::to_value(generation::document()).expect("the document is JSON");
        Self { document, seen: Mutex::default() }
    }

    pub fn document(&self) -> &Value {
        &self.document
    }

    pub fn operations(&self) -> Vec<Operation<'_>> {
        let paths = self.document["paths"].as_object().expect("paths");
        let operations = paths.iter().flat_map(|(path, item)| {
            item.as_object().expect("operations").iter().map(move |(method, details)| Operation {
                id: details["operationId"].as_str().expect("an operationId"),
                method: method.to_uppercase().parse().expect("a method"),
                path,
                details,
            })
        });
        operations.collect()
    }

    pub fn operation(&self, id: &str) -> Operation<'_> {
        let operation = self.operations().into_iter().find(|operation| operation.id == id);
        operation.unwrap_or_else(|| panic!("there is no operation {id}"))
    }

    /// A validator for a schema of the document.
    pub fn validator(&self, schema: &Value) -> Validator {
        let whole = json!({ "allOf": [schema], "components": self.document["components"] });
        let options = jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true);
        options.build(&whole).unwrap_or_else(|_| panic!("an invalid schema, or a reference without a target: {schema}"))
    }

    /// The target of a reference, or the part itself if it isn't a reference.
    pub fn resolve<'a>(&'a self, part: &'a Value) -> &'a Value {
        match part["$ref"].as_str() {
            Some(reference) => self.document.pointer(&reference[1..]).expect("the target of a reference"),
            None => part,
        }
    }

    /// Sends a request, and asserts that the document describes the response.
    pub async fn send(&self, world: &World, id: &str, person: &Caller, request: Request<axum::body::Body>) -> Answer {
        let operation = self.operation(id);
        let path = request.uri().path().to_owned();
        let matches = |pattern: &str, part: &str| pattern == part || pattern.starts_with('{');
        let has_path = operation.path.split('/').count() == path.split('/').count()
            && operation.path.split('/').zip(path.split('/')).all(|(pattern, part)| matches(pattern, part));
        assert!(has_path && *request.method() == operation.method, "{id} is not at {} {path}", request.method());
        let answer = world.send_raw(person, request).await;
        self.check(&operation, &answer);
        answer
    }

    /// Asserts that the document describes this response to the operation.
    pub fn check(&self, operation: &Operation<'_>, answer: &Answer) {
        let Operation { id, details, .. } = operation;
        let status = answer.status.as_u16();
        let response = details["responses"].get(answer.status.as_str());
        let response = self.resolve(response.unwrap_or_else(|| panic!("{id} answered {status}: {}", answer.text)));
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let header = self.resolve(header);
            match answer.header(name) {
                Some(value) => {
                    let value = value.parse::<u64>().map_or_else(|_| Value::from(value), Value::from);
                    assert!(self.validator(&header["schema"]).is_valid(&value), "{id} {status} {name}: {value}");
                }
                None => assert_ne!(header["required"], true, "{id} {status} lacks {name}"),
            }
        }
        match response.get("content").and_then(Value::as_object) {
            Some(content) => {
                let kind = answer.header("content-type").unwrap_or_default();
                let content = content.get(kind).unwrap_or_else(|| panic!("{id} {status} is {kind}: {}", answer.text));
                let errors = self.validator(&content["schema"]);
                let errors: Vec<_> = errors.iter_errors(&answer.json()).map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{id} {status}: {errors:?} in {}", answer.text);
            }
            None => assert!(answer.text.is_empty(), "{id} {status}: {}", answer.text),
        }
        let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(((*id).to_owned(), status, code));
    }

    /// The documented kinds of responses that the services have not given.
    pub fn unseen(&self) -> BTreeSet<AnswerKind> {
        let mut documented = BTreeSet::new();
        for operation in self.operations() {
            for (status, response) in operation.details["responses"].as_object().expect("responses") {
                let problem = "/content/application~1problem+json/schema/properties/code/enum";
                let codes = self.resolve(response).pointer(problem).and_then(Value::as_array);
                let codes = codes.map_or_else(|| vec![json!("")], Clone::clone);
                let status = status.parse::<StatusCode>().expect("a status").as_u16();
                let kind =
                    |code: Value| (operation.id.to_owned(), status, code.as_str().unwrap_or_default().to_owned());
                documented.extend(codes.into_iter().map(kind));
            }
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        documented.difference(&seen).cloned().collect()
    }
}
