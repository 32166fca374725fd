//! The deployed public API, as `template.yaml` describes it.

use std::collections::BTreeSet;

use in_process_tests::template::{Template, entries, logical_id};
use serde_json::Value;

const API: &str = "PublicApi";

/// A method, a path, and whether the gateway requires a token.
pub type Route = (String, String, bool);

fn property(template: &Template, name: &str) -> Value {
    template.get(&format!("Resources.{API}.Properties.{name}")).clone()
}

/// The name of the API's stage, which is the first part of each path.
pub fn stage() -> String {
    property(&Template::read(), "StageName").as_str().expect("a stage").to_owned()
}

/// All routes of the public API.
pub fn routes() -> BTreeSet<Route> {
    let template = Template::read();
    let auth = property(&template, "Auth");
    let default = auth["DefaultAuthorizer"].as_str().expect("a default authorizer");
    assert_eq!(logical_id(&auth["Authorizers"][default]["UserPoolArn"]), "UserPool");
    let routes = template.routes().filter(|route| route.api == API);
    routes
        .map(|route| {
            let authorizer = &route.auth["Authorizer"];
            assert!(authorizer.is_null() || authorizer == "NONE", "this test doesn't know the authorizer {authorizer}");
            (route.method.to_owned(), route.path.to_owned(), authorizer.is_null())
        })
        .collect()
}

/// The responses that the gateway itself gives: the type, the status and the body of
/// each.
pub fn own_answers() -> Vec<(String, u16, Value)> {
    let template = Template::read();
    let responses = property(&template, "GatewayResponses");
    let with_status = entries(&responses).filter_map(|(kind, response)| {
        let status = u16::try_from(response["StatusCode"].as_u64()?).ok()?;
        let body = response["ResponseTemplates"]["application/json"].as_str().expect("a body");
        let body = serde_json::from_str(body).expect("a body in JSON");
        let headers = &response["ResponseParameters"]["Headers"];
        assert_eq!(headers["Content-Type"], format!("'{}'", chassis::problem::CONTENT_TYPE).as_str());
        Some((kind.to_owned(), status, body))
    });
    with_status.collect()
}
