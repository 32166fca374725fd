//! Lets containers reach servers that listen only on the loopback address.
//!
//! Containers of Docker Desktop can reach them. On Linux, `host.docker.internal`
//! is the address of a network bridge, on which a server would have to listen, too.
//! The emulator and `sam local` trust every client, and so must not listen on all
//! addresses. Only containers and this machine can reach the bridge. The relay is
//! home-made because `socat`, which could do it, is rarely installed.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use crate::prelude::*;

/// The name by which containers call the machine on which they run.
pub const HOST: &str = "host.docker.internal";

/// The address of this machine in containers of `image`, if the relay can listen on
/// it. Asks a container: the settings of Docker engines differ too much.
pub fn bridge(tools: &Tools, image: &str) -> Result<Option<IpAddr>> {
    let host = format!("{HOST}:host-gateway");
    let hosts = quiet(cmd!(tools, "docker run --rm --add-host {host} --entrypoint cat {image} /etc/hosts"))?;
    let address = address_of(HOST, &hosts).with_context(|| format!("containers don't know {HOST}:\n{hosts}"))?;
    Ok(TcpListener::bind((address, 0)).is_ok().then_some(address))
}

/// Finds the address of a name in a hosts file.
fn address_of(name: &str, hosts: &str) -> Option<IpAddr> {
    let mut lines = hosts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(|words| words.iter().skip(1).any(|word| *word == name))?.first()?.parse().ok()
}

/// Forwards connections to `port` at `address` to the same port of the loopback
/// address, until the process ends.
pub fn relay(address: IpAddr, port: u16) -> Result<()> {
    let listener = TcpListener::bind((address, port)).with_context(|| format!("cannot listen at {address}:{port}"))?;
    forward(listener, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    Ok(())
}

fn forward(listener: TcpListener, to: SocketAddr) {
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // Client and server notice a broken connection themselves.
            thread::spawn(move || connect(&client, to).ok());
        }
    });
}

fn connect(client: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    let requests = thread::spawn(move || copy(from_client, to_server));
    let answers = copy(server, client.try_clone()?);
    requests.join().unwrap_or(Ok(()))?;
    answers
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
    fn the_address_of_a_name_is_found_in_a_hosts_file() {
        let hosts = "127.0.0.1\tlocalhost\n# a comment\n172.17.0.1\thost.docker.internal\n172.17.0.2\tf5f5\n";
        assert_eq!(address_of(HOST, hosts), Some(IpAddr::from([172, 17, 0, 1])));
        assert_eq!(address_of("elsewhere", hosts), None);
    }

    #[test]
    fn both_directions_are_forwarded_until_they_end() {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let (server, front) = (listen(), listen());
        let address = front.local_addr().expect("an address");
        forward(front, server.local_addr().expect("an address"));
        let answering = thread::spawn(move || {
            let (mut stream, _) = server.accept().expect("a client");
            let mut request = String::new();
            stream.read_to_string(&mut request).expect("a request");
            write!(stream, "{request}? Yes.").expect("an answer");
        });
        let mut client = TcpStream::connect(address).expect("a connection");
        client.write_all(b"Open").expect("a request");
        client.shutdown(Shutdown::Write).expect("its end");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, "Open? Yes.");
        answering.join().expect("a server");
    }
}
