//! The health routes: which services answer, and when all of them do.

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::{
    commands::attend,
    http::{self, Answer},
    prelude::*,
};

/// The services that have a health route.
const SERVICES: [&str; 5] = ["users", "products", "payments", "orders", "notifications"];
/// The first answer of some emulators takes longer than two seconds.
pub const EMULATOR_TIMEOUT: Duration = Duration::from_secs(30);
/// `cargo lambda watch` compiles a function at its first request.
const COMPILATION_TIMEOUT: Duration = Duration::from_secs(1800);

/// Describes each service at `url` that does not answer; empty if all services
/// answer.
pub fn silent_services(url: &str) -> Vec<String> {
    let failures = SERVICES.map(|service| {
        let answer = http::get(&format!("{url}/health/{service}"), EMULATOR_TIMEOUT).and_then(Answer::success);
        answer.err().map(|error| format!("{service} does not answer: {error:#}"))
    });
    failures.into_iter().flatten().collect()
}

/// Waits until every service at `url` answers. Where a function is compiled or
/// started only at its first request, an order would not wait so long.
pub fn wait_until_all_answer(url: &str) -> Result<()> {
    let port = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let address = ("localhost", port.with_context(|| format!("{url} has no port"))?);
    while TcpStream::connect(address).is_err() {
        thread::sleep(Duration::from_millis(100));
    }
    for service in SERVICES {
        http::get(&format!("{url}/health/{service}"), COMPILATION_TIMEOUT)?.success()?;
    }
    Ok(())
}

/// Runs a server that serves the shop at `url` until the user interrupts it.
/// Prints a message as soon as all services answer.
pub fn serve(server: Cmd<'_>, url: &str) -> Result<()> {
    say!("▸ {server}");
    let (began, address) = (Instant::now(), url.to_owned());
    thread::spawn(move || match wait_until_all_answer(&address) {
        Ok(()) => say!("\n✓ The shop is open at {address} ({})\n", seconds(began.elapsed())),
        Err(error) => complain!("\nerror: {error:#}"),
    });
    attend(server)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn a_service_that_does_not_answer_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut request = [0; 4096];
                let length = client.read(&mut request).expect("a request");
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let status = if request.contains("/health/payments") { "502 Bad Gateway" } else { "200 OK" };
                write!(client, "HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}")
                    .expect("an answer");
            }
        });
        let silent = silent_services(&url);
        assert!(silent.len() == 1 && silent[0].starts_with("payments does not answer"), "{silent:?}");
    }
}
