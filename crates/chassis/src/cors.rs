//! Which web page a browser may call the functions from.
//!
//! The gateway answers preflights; but a page may read an answer only if the
//! answer itself names the page's origin
//! ([Fetch, HTTP-CORS protocol](https://fetch.spec.whatwg.org/#http-cors-protocol)),
//! and what a function answers, the gateway passes on as it is.

use std::{net::Ipv4Addr, str::FromStr, time::Duration};

use axum::Router;
use http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::CorsLayer;

use crate::config::{Configuration, Env};

/// What a page may send besides what every page may.
pub const REQUEST_HEADERS: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static("idempotency-key"),
    header::IF_MATCH,
    HeaderName::from_static("traceparent"),
];
/// What a page may read besides what every page may. A REST API renames
/// `WWW-Authenticate`, and adds an id of its own for the request.
pub const ANSWER_HEADERS: [HeaderName; 7] = [
    header::ETAG,
    header::LOCATION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("x-amzn-remapped-www-authenticate"),
    HeaderName::from_static("x-amzn-requestid"),
    HeaderName::from_static("x-request-id"),
];
const METHODS: [Method; 5] = [Method::DELETE, Method::GET, Method::PATCH, Method::POST, Method::OPTIONS];
/// For how long a browser needn't ask again.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The one page's origin that browsers may call from, as they write it: in
/// lower case, and without the port that its scheme has by itself. Any other
/// text would equal no page's origin, and so let nobody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// Why a text is no origin.
#[derive(Debug, thiserror::Error)]
#[error("must be an origin as browsers write it, such as https://shop.example.com")]
pub struct InvalidOrigin;

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let (scheme, authority) = text.split_once("://").ok_or(InvalidOrigin)?;
        let own_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(InvalidOrigin),
        };
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        // A number may be written in several ways; a browser writes it in one.
        let port_as_written = port.is_none_or(|text| {
            text.parse::<u16>().is_ok_and(|port| port != 0 && port != own_port && port.to_string() == text)
        });
        if !(is_host(host) && port_as_written) {
            return Err(InvalidOrigin);
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| InvalidOrigin)
    }
}

/// Whether a text is a host as browsers write it: a name in lower case, or an
/// IPv4 address in its usual form, which is what they make of any name that ends
/// with a number. A name in another script is in Punycode.
fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        plain && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_name = last.starts_with(|first: char| first.is_ascii_lowercase()) && text.split('.').all(is_label);
    is_name || text.parse::<Ipv4Addr>().is_ok()
}

/// Lets browsers in from one origin, or from nowhere.
#[derive(Clone, Debug)]
pub struct Cors(Option<Origin>);

/// From nowhere, if the variable is missing or empty.
impl Configuration for Cors {
    fn read(env: &mut Env<'_>) -> Option<Self> {
        env.optional("CORS_ORIGIN", "the origin of a web page, as browsers write it, such as https://shop.example.com")
            .map(Self)
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
        for header in ["etag", "location", "retry-after", "x-amzn-remapped-www-authenticate", "x-request-id"] {
            assert!(exposed.split(',').any(|one| one.trim() == header), "{exposed}");
        }
    }

    #[tokio::test]
    async fn it_is_told_before_it_asks_what_it_may_send() {
        let answer = ask(shop(), Method::OPTIONS).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let allowed = |header| answer.headers()[header].to_str().unwrap().to_owned();
        for header in ["authorization", "idempotency-key", "if-match", "traceparent"] {
            assert!(allowed(header::ACCESS_CONTROL_ALLOW_HEADERS).contains(header), "{header}");
        }
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
    fn an_origin_is_what_a_browser_sends_and_nothing_else() {
        for text in [
            "https://shop.example.com",
            "http://localhost:3000",
            "https://shop.example.com:8443",
            "http://127.0.0.1:8080",
            "https://xn--mnchen-3ya.example",
            "http://shop.example.com:443",
        ] {
            assert!(text.parse::<Origin>().is_ok(), "{text}");
        }
        for text in [
            "",
            "*",
            "null",
            "https://",
            "https://*",
            "shop.example.com",
            "https://shop.example.com/",
            "https://a.example/b",
            "https://a.example?b",
            "ftp://a.example",
            "HTTPS://shop.example.com",
            "https://Shop.Example.com",
            "https://münchen.example",
            "https://shop.example.com:443",
            "http://localhost:80",
            "https://shop.example.com:",
            "https://shop.example.com:0",
            "https://shop.example.com:08443",
            "https://shop.example.com:+8443",
            "https://shop.example.com:65536",
            "https://shop.example.com:8443:8443",
            "https://shop.example.com.",
            "https://shop..example.com",
            "https://-shop.example.com",
            "https://ada@shop.example.com",
            "https://ada:lovelace@shop.example.com",
            "http://127.1",
            "http://127.0.0.01",
            "http://2130706433",
            "http://0x7f.1",
            "https://a b",
            " https://a.example",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
