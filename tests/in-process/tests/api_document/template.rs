//! What the template says of the public API.

use std::collections::BTreeSet;

use serde_json::Value;
use serde_yaml_ng::Value as Yaml;

const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../template.yaml");
const API: &str = "PublicApi";

/// Method, path, and whether the gateway wants a token.
pub type Route = (String, String, bool);

fn resources() -> Yaml {
    let text = std::fs::read_to_string(TEMPLATE).expect("template.yaml is readable");
    let template: Yaml = serde_yaml_ng::from_str(&text).expect("template.yaml is YAML");
    template["Resources"].clone()
}

fn api() -> Yaml {
    resources()[API]["Properties"].clone()
}

/// The stage, which is the first part of each path.
pub fn stage() -> String {
    api()["StageName"].as_str().expect("a stage").to_owned()
}

/// All routes.
pub fn routes() -> BTreeSet<Route> {
    let auth = &api()["Auth"];
    let default = auth["DefaultAuthorizer"].as_str().expect("a default authorizer");
    assert!(!auth["Authorizers"][default]["UserPoolArn"].is_null(), "{default} must be of Cognito");
    let resources = resources();
    let functions = resources.as_mapping().expect("resources").values();
    let events = functions.filter_map(|function| function["Properties"]["Events"].as_mapping()).flatten();
    let routes = events.filter(|(_, event)| event["Type"] == "Api").map(|(_, event)| &event["Properties"]);
    let public = routes.filter(|route| refers_to(&route["RestApiId"], API));
    public
        .map(|route| {
            let text = |key: &str| route[key].as_str().expect("a text").to_owned();
            let authorizer = &route["Auth"]["Authorizer"];
            assert!(authorizer.is_null() || authorizer == "NONE", "an authorizer that this test doesn't know");
            (text("Method"), text("Path"), authorizer.is_null())
        })
        .collect()
}

/// `!Ref name`.
fn refers_to(value: &Yaml, name: &str) -> bool {
    matches!(value, Yaml::Tagged(tagged) if tagged.tag == "Ref" && tagged.value == name)
}

/// What the gateway itself answers: by its own name for it, status and body.
pub fn gateway_responses() -> Vec<(String, u16, Value)> {
    let responses = &api()["GatewayResponses"];
    let with_status = responses.as_mapping().expect("responses").iter().filter_map(|(name, response)| {
        let status = u16::try_from(response["StatusCode"].as_u64()?).ok()?;
        let body = response["ResponseTemplates"]["application/json"].as_str().expect("a body");
        let body = serde_json::from_str(body).expect("a body in JSON");
        let headers = &response["ResponseParameters"]["Headers"];
        assert_eq!(headers["Content-Type"], format!("'{}'", chassis::problem::CONTENT_TYPE).as_str());
        Some((name.as_str()?.to_owned(), status, body))
    });
    with_status.collect()
}

/// An operation's place, as a route.
pub fn route(method: &http::Method, path: &str, needs_token: bool) -> Route {
    (method.to_string(), path.to_owned(), needs_token)
}
