//! Adds the missing headers to the responses to CORS preflights on an emulator.
//!
//! SAM writes the responses to preflights into the OpenAPI document that it gives to
//! API Gateway, and AWS creates them from there. MiniStack creates the OPTIONS methods
//! of that document, but not their responses, so no web page could call the API.
//! MiniStack accepts the responses by the API call `PutIntegrationResponse`: one call
//! for each path, after each deployment.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{prelude::*, tools::CloudTools};

/// CORS header values. They must equal those of `PublicApi` in `template.yaml`.
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
    /// Returns whether the gateway itself responds to preflights of this path, but
    /// without headers.
    fn lacks_headers(&self) -> bool {
        let integration = self.resource_methods.get("OPTIONS").map(|method| &method["methodIntegration"]);
        integration.is_some_and(|integration| {
            let responses = integration["integrationResponses"].as_object();
            integration["type"] == "MOCK" && responses.is_none_or(serde_json::Map::is_empty)
        })
    }

    fn headers(&self, origin: &str) -> Value {
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

/// Adds the missing headers if the stack's parameter `CorsOrigin` is not empty.
pub fn complete(cloud: &CloudTools<'_, '_>, stack: &str) -> Result<()> {
    let describe = |query: &str| {
        let describe = cmd!(cloud, "aws cloudformation describe-stacks --output text --stack-name {stack}");
        quiet(describe.args(["--query", query])).map(|found| found.trim().to_owned())
    };
    let origin = describe("Stacks[0].Parameters[?ParameterKey=='CorsOrigin'].ParameterValue")?;
    if origin.is_empty() {
        return Ok(());
    }
    let address = describe("Stacks[0].Outputs[?OutputKey=='PublicApiUrl'].OutputValue")?;
    let api = address.trim_end_matches("/v1").rsplit('/').next().unwrap_or_default();
    let get = cmd!(cloud, "aws apigateway get-resources --embed methods --output json --rest-api-id {api}");
    let found: Resources = serde_json::from_str(&quiet(get)?).context("the API's resources cannot be read")?;
    for resource in found.items.iter().filter(|resource| resource.lacks_headers()) {
        let (id, headers) = (&resource.id, resource.headers(&origin).to_string());
        let put = cmd!(cloud, "aws apigateway put-integration-response --http-method OPTIONS --status-code 200");
        quiet(put.args(["--rest-api-id", api, "--resource-id", id, "--response-parameters", &headers]))
            .context("the emulator does not accept the headers of preflights")?;
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
        assert!(bare.lacks_headers());
        let headers = bare.headers("https://shop.holdfast.org");
        assert_eq!(headers["method.response.header.Access-Control-Allow-Origin"], "'https://shop.holdfast.org'");
        assert_eq!(headers["method.response.header.Access-Control-Allow-Methods"], "'GET,OPTIONS,POST'");
    }

    #[test]
    fn a_preflight_with_headers_and_other_methods_stay_as_they_are() {
        let own = json!({ "type": "MOCK", "integrationResponses": { "200": { "statusCode": "200" } } });
        assert!(!resource(json!({ "OPTIONS": { "methodIntegration": own } })).lacks_headers());
        let function = json!({ "type": "AWS_PROXY", "integrationResponses": {} });
        assert!(!resource(json!({ "OPTIONS": { "methodIntegration": function } })).lacks_headers());
        assert!(!resource(json!({ "GET": {} })).lacks_headers());
    }

    #[test]
    fn the_header_values_equal_those_of_the_template() {
        let template = include_str!("../../template.yaml");
        for line in [format!("AllowHeaders: \"{ALLOW_HEADERS}\""), format!("MaxAge: \"{MAX_AGE}\"")] {
            assert!(template.contains(&line), "{line}");
        }
    }
}
