//! HTTP: speaking to the shop through the gateway, and to the emulator.

use std::{
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, anyhow};
use serde_json::Value;
use ureq::{Agent, http::Request};

use crate::{
    complain,
    process::{attended, line},
    progress::seconds,
    say,
};

/// An HTTP client for JSON.
pub struct Http {
    agent: Agent,
}

/// What came back, whatever its status.
pub struct Answer {
    pub status: u16,
    pub body: Value,
    /// The body as it came: its members in the shop's order, and its money with
    /// the shop's digits.
    pub text: String,
    pub took: Duration,
    request: String,
}

impl Http {
    pub fn new() -> Self {
        Self::within(Duration::from_secs(60))
    }

    /// For asking whether somebody is there.
    pub fn impatient() -> Self {
        Self::within(Duration::from_secs(2))
    }

    /// For asking whether an emulator of somebody else is there: the first answer
    /// of some takes longer than two seconds.
    pub fn unhurried() -> Self {
        Self::within(Duration::from_secs(30))
    }

    /// For what compiles first.
    pub fn patient() -> Self {
        Self::within(Duration::from_secs(1800))
    }

    fn within(time: Duration) -> Self {
        // An error's body says what is wrong, so it isn't an error here; and no
        // proxy knows the way to this machine.
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(time)).proxy(None);
        Self { agent: config.build().into() }
    }

    pub fn get(&self, url: &str) -> Result<Answer> {
        self.send("GET", url, &[], None)
    }

    pub fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Result<Answer> {
        let request = format!("{method} {url}");
        let mut builder = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let began = Instant::now();
        let answer = match body {
            None => builder.body(()).map(|request| self.agent.run(request)),
            Some(body) => {
                if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                    builder = builder.header("content-type", "application/json");
                }
                builder.body(body.to_string()).map(|request| self.agent.run(request))
            }
        };
        let answer = answer.with_context(|| format!("{request} cannot be asked"))?;
        let mut answer = answer.with_context(|| format!("{request} got no answer"))?;
        let text = answer.body_mut().read_to_string().with_context(|| format!("{request}: the answer broke off"))?;
        // What isn't JSON is shown as it is.
        let body = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.clone()));
        Ok(Answer { status: answer.status().as_u16(), body, text, took: began.elapsed(), request })
    }
}

/// What the services that don't answer at `url` say instead; empty if each
/// answers.
pub fn silent_services(url: &str) -> Vec<String> {
    let asked = SERVICES.map(|service| {
        let answer = Http::unhurried().get(&format!("{url}/health/{service}")).and_then(Answer::granted);
        answer.err().map(|error| format!("{service} does not answer: {error:#}"))
    });
    asked.into_iter().flatten().collect()
}

/// Runs a program that keeps the shop at `url` open; tells when it is.
pub fn keep_open(program: &mut Command, url: &str) -> Result<()> {
    say!("▸ {}", line(program));
    let (began, address) = (Instant::now(), url.to_owned());
    thread::spawn(move || match wait_until_open(&address) {
        Ok(()) => say!("\n✓ The shop is open at {address} ({})\n", seconds(began.elapsed())),
        Err(error) => complain!("\nerror: {error:#}"),
    });
    attended(program)
}

/// The services that answer requests.
const SERVICES: [&str; 5] = ["users", "products", "payments", "orders", "notifications"];

/// Waits until every service of the shop at `url` answers. Where each is
/// compiled or started only at its first request, an order wouldn't wait for
/// it.
pub fn wait_until_open(url: &str) -> Result<()> {
    let port = url.rsplit_once(':').with_context(|| format!("{url} has no port"))?.1;
    let address = ("localhost", port.parse().with_context(|| format!("{url} has no port"))?);
    while TcpStream::connect(address).is_err() {
        thread::sleep(Duration::from_millis(100));
    }
    for service in SERVICES {
        Http::patient().get(&format!("{url}/health/{service}"))?.granted()?;
    }
    Ok(())
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body, if the request was granted.
    pub fn granted(self) -> Result<Value> {
        if self.is_success() { Ok(self.body) } else { Err(self.refusal()) }
    }

    /// The refusal, for people: the problem document in a line, then its bad
    /// fields, one each.
    fn refusal(&self) -> Error {
        let Self { status, body, request, .. } = self;
        let text = |member: &str| body[member].as_str().map(str::to_owned);
        let said = match (text("code"), text("detail")) {
            (Some(code), detail) => format!("{code}. {}", detail.unwrap_or_default()),
            _ => body.to_string(),
        };
        let fields = body["errors"].as_array().into_iter().flatten().map(|error| format!("\n  {error}"));
        anyhow!("{request} was refused with {status}: {said}{}", fields.collect::<String>())
    }
}

/// A JSON text with line breaks and nothing else changed.
pub fn indented(json: &str) -> String {
    let (mut out, mut depth, mut in_string, mut escaped) = (String::new(), 0_usize, false, false);
    let mut characters = json.chars().peekable();
    while let Some(character) = characters.next() {
        let line = |depth: usize| format!("\n{}", "  ".repeat(depth));
        match character {
            _ if in_string => {
                in_string = escaped || character != '"';
                escaped = character == '\\' && !escaped;
                out.push(character);
            }
            '{' | '[' => {
                out.push(character);
                if !matches!(characters.peek(), Some('}' | ']')) {
                    depth += 1;
                    out += &line(depth);
                } else if let Some(end) = characters.next() {
                    out.push(end);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                out += &line(depth);
                out.push(character);
            }
            ',' => out += &format!(",{}", line(depth)),
            ':' => out += ": ",
            _ if character.is_whitespace() => {}
            _ => {
                in_string = character == '"';
                out.push(character);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_document_reads_as_a_sentence() {
        let body = json!({
            "code": "invalid_request", "detail": "Not valid: name",
            "errors": [{ "field": "name", "detail": "must not be empty" }],
        });
        let answer = Answer {
            status: 422,
            text: body.to_string(),
            body,
            took: Duration::ZERO,
            request: "POST /users".to_owned(),
        };
        let refusal = answer.granted().expect_err("a refusal").to_string();
        assert_eq!(
            refusal,
            "POST /users was refused with 422: invalid_request. Not valid: name\n  \
             {\"detail\":\"must not be empty\",\"field\":\"name\"}"
        );
    }

    #[test]
    fn a_service_that_does_not_answer_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut question = [0; 4096];
                let length = client.read(&mut question).expect("a question");
                let asked = String::from_utf8_lossy(&question[..length]).into_owned();
                let status = if asked.contains("/health/payments") { "502 Bad Gateway" } else { "200 OK" };
                write!(client, "HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}")
                    .expect("an answer");
            }
        });
        let silent = silent_services(&url);
        assert!(silent.len() == 1 && silent[0].starts_with("payments does not answer"), "{silent:?}");
    }

    #[test]
    fn indenting_keeps_order_digits_and_strings() {
        let text = r#"{"total":64.50,"id":"a, {b}: \"c\\","none":[],"lines":[1,{"x":{}}]}"#;
        let lines = [
            "{",
            "  \"total\": 64.50,",
            r#"  "id": "a, {b}: \"c\\","#,
            "  \"none\": [],",
            "  \"lines\": [",
            "    1,",
            "    {",
            "      \"x\": {}",
            "    }",
            "  ]",
            "}",
        ];
        assert_eq!(indented(text), lines.join("\n"));
    }
}
