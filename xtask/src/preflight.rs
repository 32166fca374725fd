//! Preflights, on emulators that leave the headers out.
//!
//! On AWS the gateway answers them with what SAM has written into the API's
//! body. MiniStack makes the methods of that body, but not their answers, so
//! that no page could call the API. It takes such an answer by API Gateway's own
//! call, one for each path, after each deployment.

use std::{collections::HashMap, process::Command};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::process::quiet;

/// As the template has them, in `PublicApi`.
const ALLOW_HEADERS: &str = "'authorization,content-type,idempotency-key,if-match,traceparent'";
const MAX_AGE: &str = "'600'";

#[derive(Deserialize)]
struct Resources {
    items: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    id: String,
    #[serde(default)]
    resource_methods: HashMap<String, Value>,
}

impl Resource {
    /// Whether the gateway is to answer a preflight here, and has no headers to
    /// answer it with.
    fn lacks_an_answer(&self) -> bool {
        let of_preflight = self.resource_methods.get("OPTIONS").map(|method| &method["methodIntegration"]);
        of_preflight.is_some_and(|integration| {
            let answers = integration["integrationResponses"].as_object();
            integration["type"] == "MOCK" && answers.is_none_or(serde_json::Map::is_empty)
        })
    }

    fn answer(&self, origin: &str) -> Value {
        let mut methods: Vec<_> = self.resource_methods.keys().map(String::as_str).collect();
        methods.sort_unstable();
        let header = |name: &str| format!("method.response.header.Access-Control-{name}");
        json!({
            header("Allow-Origin"): format!("'{origin}'"),
            header("Allow-Methods"): format!("'{}'", methods.join(",")),
            header("Allow-Headers"): ALLOW_HEADERS,
            header("Max-Age"): MAX_AGE,
        })
    }
}

/// Gives an emulator the headers that it lacks, if the stack names an origin.
/// `aws` is the AWS CLI, pointed at the emulator.
pub fn complete(aws: impl Fn() -> Command, stack: &str) -> Result<()> {
    let describe = |query: &str| {
        let mut describe = aws();
        describe.args(["cloudformation", "describe-stacks", "--output", "text", "--stack-name", stack]);
        quiet(describe.args(["--query", query])).map(|found| found.trim().to_owned())
    };
    let origin = describe("Stacks[0].Parameters[?ParameterKey=='CorsOrigin'].ParameterValue")?;
    if origin.is_empty() {
        return Ok(());
    }
    let address = describe("Stacks[0].Outputs[?OutputKey=='PublicApiUrl'].OutputValue")?;
    let api = address.trim_end_matches("/v1").rsplit('/').next().unwrap_or_default();
    let mut get = aws();
    get.args(["apigateway", "get-resources", "--embed", "methods", "--output", "json", "--rest-api-id", api]);
    let found: Resources = serde_json::from_str(&quiet(&mut get)?).context("the API's resources are no resources")?;
    for resource in found.items.iter().filter(|resource| resource.lacks_an_answer()) {
        let mut put = aws();
        put.args(["apigateway", "put-integration-response", "--http-method", "OPTIONS", "--status-code", "200"]);
        put.args(["--rest-api-id", api, "--resource-id", &resource.id]);
        quiet(put.arg("--response-parameters").arg(resource.answer(&origin).to_string()))
            .context("the emulator takes no headers for preflights")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(methods: Value) -> Resource {
        serde_json::from_value(json!({ "id": "a", "path": "/orders", "resourceMethods": methods })).unwrap()
    }

    #[test]
    fn a_preflight_without_headers_gets_them() {
        let mock = json!({ "methodIntegration": { "type": "MOCK", "integrationResponses": {} } });
        let bare = resource(json!({ "POST": {}, "OPTIONS": mock, "GET": {} }));
        assert!(bare.lacks_an_answer());
        let answer = bare.answer("https://shop.holdfast.org");
        assert_eq!(answer["method.response.header.Access-Control-Allow-Origin"], "'https://shop.holdfast.org'");
        assert_eq!(answer["method.response.header.Access-Control-Allow-Methods"], "'GET,OPTIONS,POST'");
    }

    #[test]
    fn one_with_headers_and_what_is_no_preflight_is_left_alone() {
        let own = json!({ "type": "MOCK", "integrationResponses": { "200": { "statusCode": "200" } } });
        assert!(!resource(json!({ "OPTIONS": { "methodIntegration": own } })).lacks_an_answer());
        let function = json!({ "type": "AWS_PROXY", "integrationResponses": {} });
        assert!(!resource(json!({ "OPTIONS": { "methodIntegration": function } })).lacks_an_answer());
        assert!(!resource(json!({ "GET": {} })).lacks_an_answer());
    }

    #[test]
    fn the_headers_are_those_of_the_template() {
        let template = include_str!("../../template.yaml");
        for line in [format!("AllowHeaders: \"{ALLOW_HEADERS}\""), format!("MaxAge: \"{MAX_AGE}\"")] {
            assert!(template.contains(&line), "{line}");
        }
    }
}
