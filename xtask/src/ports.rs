//! Chooses and checks TCP ports of this machine.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
};

use procfs::{
    net::{TcpState, tcp, tcp6},
    process::{FDTarget, all_processes},
};

use crate::prelude::*;

/// The URL of a server that listens on a port of this machine.
pub fn local_url(port: u16) -> String {
    format!("http://localhost:{port}")
}

/// Reads the port from make's command line: `make up PORT=4570`.
pub fn wanted_port() -> Result<Option<u16>> {
    let parse = |port: String| port.parse().with_context(|| format!("PORT={port} is no port"));
    make_variable("PORT").map(parse).transpose()
}

/// Returns a port that no program uses.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port is free")?;
    Ok(listener.local_addr().context("no port is free")?.port())
}

/// Checks that no program listens on `port`. The error names the program that does.
pub fn check_port(port: u16) -> Result<()> {
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        match TcpListener::bind((address, port)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
                let program = listening_program(port).unwrap_or_else(|| "another program".to_owned());
                bail!("{program} uses port {port} ({error}). Stop it, or choose another port: PORT={}", port + 4)
            }
            // The port is free, or this machine has no IPv4 or no IPv6.
            _ => {}
        }
    }
    Ok(())
}

/// Describes the process that listens on a port. Returns `None` if it is a process of
/// another user.
fn listening_program(port: u16) -> Option<String> {
    let mut sockets = [tcp(), tcp6()].into_iter().flatten().flatten();
    let listening = sockets.find(|it| it.local_address.port() == port && it.state == TcpState::Listen)?;
    let owner = all_processes().ok()?.flatten().find(|process| {
        let files = process.fd().into_iter().flatten().flatten();
        files.into_iter().any(|file| matches!(file.target, FDTarget::Socket(inode) if inode == listening.inode))
    })?;
    Some(format!("`{}` (process {})", owner.stat().ok()?.comm, owner.pid))
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    #[test]
    fn the_program_that_listens_on_a_port_is_named() {
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let Ok(listener) = TcpListener::bind((address, 0)) else { continue };
            let port = listener.local_addr().expect("an address").port();
            let error = check_port(port).expect_err("a used port").to_string();
            assert!(error.contains(&format!("process {}", process::id())), "{error}");
        }
    }
}
