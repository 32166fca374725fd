//! Passes requests of the API viewer on to the public API, with the token of a person.

use anyhow::Context;
use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, HeaderName, Method, header},
    response::{IntoResponse, Response},
};

use super::{Console, problem::Problem};
use crate::people::Person;

/// The headers of a request that the API reads.
const REQUEST_HEADERS: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::ACCEPT, header::IF_MATCH, HeaderName::from_static("idempotency-key")];
/// The headers of a response that the API viewer shows.
const RESPONSE_HEADERS: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::LOCATION,
    header::ETAG,
    header::RETRY_AFTER,
    HeaderName::from_static("x-request-id"),
];

pub async fn pass(
    State(console): State<Console>,
    Path((person, path)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let person: Person = person.parse().map_err(|_| Problem::not_found("person"))?;
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let token = console.shop.people.token(person).await?;
    let mut request =
        console.shop.request(method, &format!("/{}{query}", encoded(&path))).bearer_auth(token).body(body);
    for name in &REQUEST_HEADERS {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.context("the shop's API did not answer")?;
    let (status, received) = (answer.status(), answer.headers().clone());
    let body = answer.bytes().await.context("the answer of the shop's API is incomplete")?;
    let mut response = (status, body).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    for name in &RESPONSE_HEADERS {
        if let Some(value) = received.get(name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}

/// The path was decoded, so it is encoded again, except for its slashes.
fn encoded(path: &str) -> String {
    let part = |part: &str| {
        let form = serde_urlencoded::to_string([("", part)]).unwrap_or_default();
        form.trim_start_matches('=').replace('+', "%20")
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn a_decoded_path_is_encoded_again() {
        assert_eq!(encoded("orders/ord_1"), "orders/ord_1");
        assert_eq!(encoded("orders/a b?c#d"), "orders/a%20b%3Fc%23d");
    }
}
