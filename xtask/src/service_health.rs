//! Calls the health routes of the services.

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::{
    commands::run_until_interrupted,
    http::{self, Response},
    prelude::*,
};

/// The services that have a health route.
const SERVICES: [&str; 5] = ["users", "products", "payments", "orders", "notifications"];
/// The time limit for a request to an emulator. Some emulators need more than two
/// seconds for their first response.
pub const EMULATOR_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit for a request to `cargo lambda watch`, which compiles a function when
/// its first request arrives.
const COMPILATION_TIMEOUT: Duration = Duration::from_secs(1800);

/// Calls the health route of each service at `url`. Returns a description of each
/// service that does not respond.
pub fn silent_services(url: &str) -> Vec<String> {
    let failures = SERVICES.map(|service| {
        let response = http::get(&format!("{url}/health/{service}"), EMULATOR_TIMEOUT).and_then(Response::success);
        response.err().map(|error| format!("{service} does not respond: {error:#}"))
    });
    failures.into_iter().flatten().collect()
}

/// Waits until every service at `url` responds. The first request to a function makes
/// the server compile or start the function, which takes longer than the services wait
/// for each other. These first requests must therefore come before the first order.
pub fn wait_until_all_respond(url: &str) -> Result<()> {
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
/// Prints a message as soon as all services respond.
pub fn serve(server: Cmd<'_>, url: &str) -> Result<()> {
    say!("▸ {server}");
    let (began, address) = (Instant::now(), url.to_owned());
    thread::spawn(move || match wait_until_all_respond(&address) {
        Ok(()) => say!("\n✓ The shop is open at {address} ({})\n", seconds(began.elapsed())),
        Err(error) => complain!("\nerror: {error:#}"),
    });
    run_until_interrupted(server)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn a_service_that_does_not_respond_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut request = [0; 4096];
                let length = client.read(&mut request).expect("a request");
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let status = if request.contains("/health/payments") { "502 Bad Gateway" } else { "200 OK" };
                write!(client, "HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}")
                    .expect("a response");
            }
        });
        let silent = silent_services(&url);
        assert!(silent.len() == 1 && silent[0].starts_with("payments does not respond"), "{silent:?}");
    }
}
