//! What runs in the lab's pods: `pause` only waits; `echo` is a web server that says who asks and who answers, and sends
//! every datagram back; `httpbin` answers as the service of that name does, as far as tests of gateways need it;
//! `hostname-echo` answers with the name of its pod. Called as `workload ROLE`, or under the role's name.
//!
//! A server listens on `PORT` (8080), and where `TLS_DIRECTORY` names a directory with `tls.crt` and `tls.key`, as a
//! Secret of that type is mounted, also on `TLS_PORT` (8443).

mod answer;
mod http;
mod tls;

use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, thread};

use nix::sys::signal::{SigSet, Signal};

use answer::Role;
use http::Request;

/// The port a server listens on unless `PORT` names another.
const PORT: u16 = 8080;
/// The port for TLS unless `TLS_PORT` names another.
const TLS_PORT: u16 = 8443;
/// A client that says nothing for so long is let go.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let mut words = env::args().map(|word| word.rsplit('/').next().unwrap_or_default().to_owned());
    let role = words.find_map(|word| match word.as_str() {
        "pause" => Some(None),
        word => Role::named(word).map(Some),
    });
    // A process with number 1 dies of no signal it has not asked for: wait for them by hand. Blocked
    // before any thread starts, so that no thread takes them first.
    let mut endings = SigSet::empty();
    endings.add(Signal::SIGTERM);
    endings.add(Signal::SIGINT);
    if endings.thread_block().is_err() {
        return ExitCode::FAILURE;
    }
    match role {
        Some(None) => {}
        Some(Some(role)) => {
            if let Err(error) = start(role) {
                eprintln!("cannot listen: {error}");
                return ExitCode::FAILURE;
            }
        }
        None => {
            eprintln!("usage: workload pause|echo|httpbin|hostname-echo");
            return ExitCode::from(2);
        }
    }
    match endings.wait() {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Starts everything a role serves.
fn start(role: Role) -> io::Result<()> {
    let listener = listen("PORT", PORT)?;
    let local = listener.local_addr()?;
    if role == Role::Echo {
        let socket = UdpSocket::bind(local)?;
        thread::spawn(move || send_back(&socket));
    }
    println!("listening on {local}");
    thread::spawn(move || {
        serve(&listener, move |stream, client| {
            converse(stream, client, role)
        });
    });
    if let Some(directory) = env::var_os("TLS_DIRECTORY") {
        let configuration = tls::configuration(directory.as_ref())?;
        let listener = listen("TLS_PORT", TLS_PORT)?;
        println!("listening for TLS on {}", listener.local_addr()?);
        thread::spawn(move || {
            serve(&listener, move |stream, client| {
                converse(tls::accept(&configuration, stream)?, client, role)
            });
        });
    }
    Ok(())
}

/// Listens on every address of both families, or of IPv4 alone where the kernel has no IPv6.
fn listen(variable: &str, port: u16) -> io::Result<TcpListener> {
    let port = env::var(variable)
        .ok()
        .and_then(|port| port.parse().ok())
        .unwrap_or(port);
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

/// Returns datagrams to their senders for ever; what is longer than the buffer comes back cut.
fn send_back(socket: &UdpSocket) {
    let mut datagram = [0; 2048];
    loop {
        match socket.recv_from(&mut datagram) {
            Ok((length, client)) => {
                // A client that went away needs no answer.
                let _ = socket.send_to(datagram.get(..length).unwrap_or_default(), client);
            }
            // An ICMP error of an earlier answer, or out of memory.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Accepts for ever; each connection has its thread.
fn serve(
    listener: &TcpListener,
    converse: impl Fn(TcpStream, SocketAddr) -> io::Result<()> + Clone + Send + 'static,
) {
    loop {
        match listener.accept() {
            Ok((stream, client)) => {
                let converse = converse.clone();
                thread::spawn(move || {
                    // A client that went away needs no answer.
                    let _ = stream
                        .set_read_timeout(Some(PATIENCE))
                        .and_then(|()| stream.set_nodelay(true))
                        .and_then(|()| converse(stream, client));
                });
            }
            // Out of descriptors, or the client left before it was accepted.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Answers the requests of one connection until the client or a fault ends it.
fn converse(stream: impl Read + Write, client: SocketAddr, role: Role) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader)? {
        println!("{} {} from {client}", request.method, request.path);
        let answer = role.answer(&request, client);
        thread::sleep(answer.delay);
        reader.get_mut().write_all(&answer.bytes(&request))?;
        reader.get_mut().flush()?;
        if request.close {
            break;
        }
    }
    Ok(())
}
