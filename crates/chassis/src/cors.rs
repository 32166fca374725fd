//! Which web page a browser may call the functions from.
//!
//! The gateway answers preflights; but a page may read an answer only if the
//! answer itself names the page's origin
//! ([Fetch, HTTP-CORS protocol](https://fetch.spec.whatwg.org/#http-cors-protocol)),
//! and what a function answers, the gateway passes on as it is.

use std::{str::FromStr, time::Duration};

use axum::Router;
use http::{HeaderName, HeaderValue, Method, Uri, header, uri::PathAndQuery};
use tower_http::cors::CorsLayer;

use crate::config::{Configuration, Env};

/// What a page may send besides what every page may.
const REQUEST_HEADERS: [HeaderName; 4] =
    [header::AUTHORIZATION, header::CONTENT_TYPE, HeaderName::from_static("idempotency-key"), header::IF_MATCH];
/// What a page may read besides what every page may.
const ANSWER_HEADERS: [HeaderName; 5] = [
    header::ETAG,
    header::LOCATION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("x-request-id"),
];
const METHODS: [Method; 5] = [Method::DELETE, Method::GET, Method::PATCH, Method::POST, Method::OPTIONS];
/// For how long a browser needn't ask again.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The one page's origin that browsers may call from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// Why a text is no origin.
#[derive(Debug, thiserror::Error)]
#[error("must be an origin, such as https://shop.example.com")]
pub struct InvalidOrigin;

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let uri: Uri = text.parse().map_err(|_| InvalidOrigin)?;
        // A browser sends no path with its origin, and would never find one equal.
        let bare =
            !text.ends_with('/') && uri.path_and_query().is_none_or(|path| path == &PathAndQuery::from_static("/"));
        let web = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| host != "*");
        let value = HeaderValue::from_str(text).map_err(|_| InvalidOrigin)?;
        if web && bare { Ok(Self(value)) } else { Err(InvalidOrigin) }
    }
}

/// Lets browsers in from one origin, or from nowhere.
#[derive(Clone, Debug)]
pub struct Cors(Option<Origin>);

/// From nowhere, if the variable is missing or empty.
impl Configuration for Cors {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        env.optional("CORS_ORIGIN", "the origin of a web page, such as https://shop.example.com").map(Self)
    }
}

impl Cors {
    /// Puts it around all routes.
    pub fn around(self, router: Router) -> Router {
        let Some(Origin(origin)) = self.0 else { return router };
        let layer = CorsLayer::new()
            .allow_origin(origin)
            .allow_headers(REQUEST_HEADERS)
            .allow_methods(METHODS)
            .expose_headers(ANSWER_HEADERS)
            .max_age(MAX_AGE)
            // There is but one origin: the answer is the same for whoever asks.
            .vary([]);
        router.layer(layer)
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, routing::get};
    use http::{Method, Request, Response, StatusCode, header};
    use tower::ServiceExt;

    use super::{Cors, Origin};

    async fn ask(cors: Cors, method: Method) -> Response<Body> {
        let routes = Router::new().route("/", get(|| async { StatusCode::IM_A_TEAPOT }));
        let request = Request::builder().method(method).header(header::ORIGIN, "https://shop.example.com");
        let request = request.header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST").body(Body::empty()).unwrap();
        cors.around(routes).oneshot(request).await.unwrap()
    }

    fn shop() -> Cors {
        Cors("https://shop.example.com".parse().ok())
    }

    #[tokio::test]
    async fn a_page_of_the_named_origin_may_read_answers_and_the_headers_that_it_needs() {
        let answer = ask(shop(), Method::GET).await;
        assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://shop.example.com");
        let exposed = answer.headers()[header::ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap();
        for header in ["etag", "location", "retry-after", "x-request-id"] {
            assert!(exposed.split(',').any(|one| one.trim() == header), "{exposed}");
        }
    }

    #[tokio::test]
    async fn it_is_told_before_it_asks_what_it_may_send() {
        let answer = ask(shop(), Method::OPTIONS).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let allowed = |header| answer.headers()[header].to_str().unwrap().to_owned();
        assert!(allowed(header::ACCESS_CONTROL_ALLOW_HEADERS).contains("idempotency-key"));
        assert!(allowed(header::ACCESS_CONTROL_ALLOW_METHODS).contains("PATCH"));
        assert!(!answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }

    #[tokio::test]
    async fn unless_an_origin_is_named_no_page_may() {
        for method in [Method::GET, Method::OPTIONS] {
            let answer = ask(Cors(None), method).await;
            assert!(!answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        }
    }

    #[test]
    fn an_origin_is_scheme_and_host_and_nothing_else() {
        for text in ["https://shop.example.com", "http://localhost:3000"] {
            assert!(text.parse::<Origin>().is_ok(), "{text}");
        }
        for text in [
            "*",
            "https://*",
            "shop.example.com",
            "https://shop.example.com/",
            "https://a.example/b",
            "ftp://a.example",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
