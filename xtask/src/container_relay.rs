//! Forwards TCP connections from containers to servers that listen only on the loopback
//! address.
//!
//! Containers call the host `host.docker.internal`. With Docker Desktop, such a
//! connection reaches the loopback address. On Linux, the name is the address of a
//! network bridge, on which the emulator and `sam local` do not listen. They trust every
//! client, so they must not listen on all addresses. The relay listens on the bridge,
//! which only containers and this machine can reach. The relay is home-made, because
//! the program `socat`, which could replace it, is rarely installed.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use crate::prelude::*;

/// The host name of this machine in containers.
pub const HOST: &str = "host.docker.internal";

/// Returns the address that containers of `image` use for this machine. Returns `None`
/// if this machine cannot listen on that address, as with Docker Desktop. The address
/// depends on the Docker engine's settings, so it is read from a container's hosts file.
pub fn bridge(tools: &Tools, image: &str) -> Result<Option<IpAddr>> {
    let host = format!("{HOST}:host-gateway");
    let hosts = quiet(cmd!(tools, "docker run --rm --add-host {host} --entrypoint cat {image} /etc/hosts"))?;
    let address = address_of(HOST, &hosts).with_context(|| format!("containers don't know {HOST}:\n{hosts}"))?;
    Ok(TcpListener::bind((address, 0)).is_ok().then_some(address))
}

/// Finds the address of a host name in the text of a hosts file.
fn address_of(name: &str, hosts: &str) -> Option<IpAddr> {
    let mut lines = hosts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(|words| words.iter().skip(1).any(|word| *word == name))?.first()?.parse().ok()
}

/// Listens on `port` of `address`. Forwards each connection to the same port of the
/// loopback address, until this process ends.
pub fn relay(address: IpAddr, port: u16) -> Result<()> {
    let listener = TcpListener::bind((address, port)).with_context(|| format!("cannot listen at {address}:{port}"))?;
    forward(listener, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    Ok(())
}

fn forward(listener: TcpListener, to: SocketAddr) {
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // An error is ignored: client and server both see that their connection ended.
            thread::spawn(move || connect(&client, to).ok());
        }
    });
}

fn connect(client: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    let requests = thread::spawn(move || copy(from_client, to_server));
    let responses = copy(server, client.try_clone()?);
    requests.join().unwrap_or(Ok(()))?;
    responses
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
    fn the_relay_forwards_requests_and_responses_until_they_end() {
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
        client.shutdown(Shutdown::Write).expect("the end of the request");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, "Open? Yes.");
        answering.join().expect("a server");
    }
}
