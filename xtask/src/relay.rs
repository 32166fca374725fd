//! Lets containers reach servers that listen on this machine alone.
//!
//! Docker Desktop's containers can. On Linux, `host.docker.internal` is the
//! bridge that containers hang on, and a server would have to listen there,
//! too; both the emulator and `sam local` trust whoever reaches them, and so
//! must not listen everywhere. Only containers and this machine reach the
//! bridge.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
};

use anyhow::{Context, Result};

use crate::process::quiet;

/// How containers call the machine that they run on.
pub const HOST: &str = "host.docker.internal";

/// Where containers of `image` find this machine, if that is one of its own
/// addresses. They are asked themselves: an engine's settings say it in too
/// many ways.
pub fn bridge(image: &str) -> Result<Option<IpAddr>> {
    let mut run = Command::new("docker");
    run.args([
        "run",
        "--rm",
        "--add-host",
        &format!("{HOST}:host-gateway"),
        "--entrypoint",
        "cat",
        image,
        "/etc/hosts",
    ]);
    let hosts = quiet(&mut run)?;
    let address = address_of(HOST, &hosts).with_context(|| format!("containers don't know {HOST}:\n{hosts}"))?;
    Ok(TcpListener::bind((address, 0)).is_ok().then_some(address))
}

/// What a hosts file says of a name.
fn address_of(name: &str, hosts: &str) -> Option<IpAddr> {
    let lines = hosts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = lines.into_iter().find(|words| words.iter().skip(1).any(|word| *word == name));
    found?.first()?.parse().ok()
}

/// Passes on what comes for `port` at `address` to this machine's own, until
/// the process ends.
pub fn relay(address: IpAddr, port: u16) -> Result<()> {
    let listener = TcpListener::bind((address, port)).with_context(|| format!("cannot listen at {address}:{port}"))?;
    pass_on(listener, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    Ok(())
}

fn pass_on(listener: TcpListener, to: SocketAddr) {
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A connection that breaks is its ends' concern: they notice.
            thread::spawn(move || connect(&client, to).ok());
        }
    });
}

fn connect(client: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    let there = thread::spawn(move || copy(from_client, to_server));
    let back = copy(server, client.try_clone()?);
    there.join().unwrap_or(Ok(()))?;
    back
}

fn copy(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    io::copy(&mut from, &mut to)?;
    to.shutdown(Shutdown::Write)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_hosts_file_is_read() {
        let hosts = "127.0.0.1\tlocalhost\n# a comment\n172.17.0.1\thost.docker.internal\n172.17.0.2\tf5f5\n";
        assert_eq!(address_of(HOST, hosts), Some(IpAddr::from([172, 17, 0, 1])));
        assert_eq!(address_of("elsewhere", hosts), None);
    }

    #[test]
    fn what_comes_is_passed_on_both_ways_to_its_end() {
        let local = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let (server, front) = (local(), local());
        let address = front.local_addr().expect("an address");
        pass_on(front, server.local_addr().expect("an address"));
        let answering = thread::spawn(move || {
            let (mut stream, _) = server.accept().expect("a client");
            let mut question = String::new();
            stream.read_to_string(&mut question).expect("a question");
            write!(stream, "{question}? Yes.").expect("an answer");
        });
        let mut client = TcpStream::connect(address).expect("a connection");
        client.write_all(b"Open").expect("a question");
        client.shutdown(Shutdown::Write).expect("its end");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, "Open? Yes.");
        answering.join().expect("a server");
    }
}
