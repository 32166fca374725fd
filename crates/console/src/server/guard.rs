//! Lets only the console's own page in, and says to the browser what the page may do.
//!
//! Another page of the user's browser could send requests to the loopback address. A name that
//! its owner points at the loopback address has another `Host`; a page of another origin has
//! another `Origin`.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::problem::Problem;

/// The page of the API viewer, whose library sets styles on elements.
pub const API_VIEWER: &str = "/reference.html";
/// E-mails, which have inline styles and are shown in a frame.
pub const MAIL: &str = "/mail/";

const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                           font-src 'self'; connect-src 'self'; frame-src 'self'; form-action 'none'; \
                           base-uri 'none'; frame-ancestors 'none'";
const VIEWER_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                             img-src 'self' data:; font-src 'self' data:; connect-src 'self'; \
                             worker-src 'self' blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'self'";
const MAIL_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; \
                           base-uri 'none'; frame-ancestors 'self'; sandbox";

/// The names under which the page may be opened.
#[derive(Clone)]
pub struct Guard {
    hosts: [String; 2],
}

impl Guard {
    pub fn of(port: u16) -> Self {
        Self { hosts: ["localhost", "127.0.0.1"].map(|name| format!("{name}:{port}")) }
    }

    fn refuses(&self, method: &Method, headers: &HeaderMap) -> Option<&'static str> {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let Some(host) = text(header::HOST).filter(|host| self.hosts.iter().any(|own| own == host)) else {
            return Some("The request has another host than the console.");
        };
        if [Method::GET, Method::HEAD].contains(method) {
            return None;
        }
        if text(header::ORIGIN) != Some(&format!("http://{host}")) {
            return Some("The request comes from another page than the console's.");
        }
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        site.is_some_and(|site| site != b"same-origin").then_some("The request comes from another site.")
    }
}

pub async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = match guard.refuses(request.method(), request.headers()) {
        Some(reason) => Problem::forbidden(reason).into_response(),
        None => next.run(request).await,
    };
    let policy = match path.as_str() {
        API_VIEWER => VIEWER_POLICY,
        path if path.starts_with(MAIL) => MAIL_POLICY,
        _ => PAGE_POLICY,
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // The state of the stack is never the same twice.
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(method: &Method, headers: &[(&'static str, &'static str)]) -> bool {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Guard::of(4731).refuses(method, &headers.collect()).is_some()
    }

    #[test]
    fn only_the_loopback_names_with_the_own_port_are_hosts() {
        for host in ["localhost:4731", "127.0.0.1:4731"] {
            assert!(!refuses(&Method::GET, &[("host", host)]));
        }
        for host in ["evil.example:4731", "localhost:4732", "localhost", ""] {
            assert!(refuses(&Method::GET, &[("host", host)]), "{host}");
        }
        assert!(refuses(&Method::GET, &[]));
    }

    #[test]
    fn a_request_that_changes_something_comes_from_the_page_itself() {
        let host = ("host", "localhost:4731");
        let own = ("origin", "http://localhost:4731");
        for method in [Method::POST, Method::DELETE, Method::PATCH] {
            assert!(!refuses(&method, &[host, own]));
            assert!(!refuses(&method, &[host, own, ("sec-fetch-site", "same-origin")]));
            assert!(refuses(&method, &[host]), "no origin");
            assert!(refuses(&method, &[host, ("origin", "http://evil.example")]));
            assert!(refuses(&method, &[host, ("origin", "http://127.0.0.1:4731")]), "the other name");
            assert!(refuses(&method, &[host, own, ("sec-fetch-site", "cross-site")]));
        }
    }
}
