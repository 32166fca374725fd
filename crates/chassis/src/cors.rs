//! Allows a web page to call the functions from a browser (CORS).
//!
//! The gateway answers preflight requests. But a page may read a response only
//! if the response itself names the page's origin ([Fetch, HTTP-CORS
//! protocol](https://fetch.spec.whatwg.org/#http-cors-protocol)). The gateway
//! does not add the origin to a function's response, so the function does.

use std::{net::Ipv4Addr, str::FromStr, time::Duration};

use axum::Router;
use http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::CorsLayer;

use crate::configuration;

/// The request headers that the page may send, in addition to the headers that
/// every page may send. `PublicApi` in `template.yaml` must have the same list.
pub const REQUEST_HEADERS: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static("idempotency-key"),
    header::IF_MATCH,
    HeaderName::from_static("traceparent"),
];
/// The response headers that the page may read, in addition to the headers that
/// every page may read. `PublicApi` in `template.yaml` must have the same list.
/// The headers `x-amzn-…` are from the gateway: it renames `WWW-Authenticate`,
/// and adds its own request id.
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
/// The time for which a browser may reuse the response to a preflight request.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The origin of the web page that may call the functions, in the form that
/// browsers send: in lower case, and without the default port of its scheme. A
/// text in another form is refused, because it would equal no page's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// The error for a text that is not an origin.
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
        // A port can be written in several ways, and a browser uses one of them.
        let port_as_written = port.is_none_or(|text| {
            text.parse::<u16>().is_ok_and(|port| port != 0 && port != own_port && port.to_string() == text)
        });
        if !(is_host(host) && port_as_written) {
            return Err(InvalidOrigin);
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| InvalidOrigin)
    }
}

/// Returns whether a text is a host in the form that browsers send: a name in
/// lower case, or an IPv4 address in its usual form. (Browsers turn any name
/// that ends with a number into an IPv4 address.) A name in another script is
/// in Punycode.
fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        plain && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_name = last.starts_with(|first: char| first.is_ascii_lowercase()) && text.split('.').all(is_label);
    is_name || text.parse::<Ipv4Addr>().is_ok()
}

configuration! {
    /// The origin from which browsers may call. Without an origin, no page may.
    #[derive(Clone, Debug)]
    pub struct Cors {
        /// The origin of the web page.
        pub origin: Option<Origin> = optional(
            "CORS_ORIGIN",
            "the origin of a web page, as browsers write it, such as https://shop.example.com"
        ),
    }
}

impl Cors {
    /// Puts the CORS layer around all routes.
    pub fn around(self, router: Router) -> Router {
        let Some(Origin(origin)) = self.origin else { return router };
        let layer = CorsLayer::new()
            .allow_origin(origin)
            .allow_headers(REQUEST_HEADERS)
            .allow_methods(METHODS)
            .expose_headers(ANSWER_HEADERS)
            .max_age(MAX_AGE)
            // There is only one origin, so responses to different origins do not differ.
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
        Cors { origin: "https://shop.example.com".parse().ok() }
    }

    #[tokio::test]
    async fn a_page_of_the_origin_may_read_answers_and_the_headers_that_it_needs() {
        let answer = ask(shop(), Method::GET).await;
        assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://shop.example.com");
        let exposed = answer.headers()[header::ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap();
        for header in ["etag", "location", "retry-after", "x-amzn-remapped-www-authenticate", "x-request-id"] {
            assert!(exposed.split(',').any(|one| one.trim() == header), "{exposed}");
        }
    }

    #[tokio::test]
    async fn a_preflight_names_the_headers_and_methods_that_the_page_may_send() {
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
    async fn without_an_origin_no_page_may_read_answers() {
        for method in [Method::GET, Method::OPTIONS] {
            let answer = ask(Cors { origin: None }, method).await;
            assert!(!answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        }
    }

    #[test]
    fn only_origins_in_the_form_that_browsers_send_are_accepted() {
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
