//! What runs in the lab's pods: `pause` only waits, `echo` is a web server that says who asks and
//! who answers, and sends every datagram back. Called as `workload pause` or `workload echo`, or under those names.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, thread};

use nix::sys::signal::{SigSet, Signal};

/// The port `echo` listens on unless `PORT` names another.
const PORT: u16 = 8080;
/// A request's head and body may be this long; longer ones end the connection.
const LIMIT: u64 = 64 * 1024;
/// A client that says nothing for so long is let go.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let mut words = env::args().map(|word| word.rsplit('/').next().unwrap_or_default().to_owned());
    let role = words.find(|word| word == "pause" || word == "echo");
    // A process with number 1 dies of no signal it has not asked for: wait for them by hand. Blocked
    // before any thread starts, so that no thread takes them first.
    let mut endings = SigSet::empty();
    endings.add(Signal::SIGTERM);
    endings.add(Signal::SIGINT);
    if endings.thread_block().is_err() {
        return ExitCode::FAILURE;
    }
    match role.as_deref() {
        Some("pause") => {}
        Some("echo") => match listen() {
            Ok((listener, socket)) => {
                thread::spawn(move || serve(&listener));
                thread::spawn(move || send_back(&socket));
            }
            Err(error) => {
                eprintln!("cannot listen: {error}");
                return ExitCode::FAILURE;
            }
        },
        _ => {
            eprintln!("usage: workload pause|echo");
            return ExitCode::from(2);
        }
    }
    match endings.wait() {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Listens on every address of both families, or of IPv4 alone where the kernel has no IPv6.
fn listen() -> io::Result<(TcpListener, UdpSocket)> {
    let port = env::var("PORT")
        .ok()
        .and_then(|port| port.parse().ok())
        .unwrap_or(PORT);
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    let local = listener.local_addr()?;
    let socket = UdpSocket::bind(local)?;
    println!("listening on {local}");
    Ok((listener, socket))
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
fn serve(listener: &TcpListener) {
    loop {
        match listener.accept() {
            Ok((stream, client)) => {
                thread::spawn(move || {
                    // A client that went away needs no answer.
                    let _ = converse(&stream, client);
                });
            }
            // Out of descriptors, or the client left before it was accepted.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Answers the requests of one connection until the client or a fault ends it.
fn converse(stream: &TcpStream, client: SocketAddr) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader)? {
        println!("{} {} from {client}", request.method, request.path);
        (&*stream).write_all(&answer(&request, client))?;
        if request.close {
            break;
        }
    }
    Ok(())
}

/// What is read of a request.
struct Request {
    method: String,
    path: String,
    close: bool,
}

impl Request {
    /// Reads one request with its body; `None` at the end of the connection.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = reader.take(LIMIT);
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let path = words.next().unwrap_or_default().to_owned();
        let mut close = words.next() != Some("HTTP/1.1");
        let mut length = 0;
        loop {
            let mut line = String::new();
            if head.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "connection" => close = value.eq_ignore_ascii_case("close"),
                "content-length" => {
                    length = value.parse().map_err(|_| io::ErrorKind::InvalidData)?;
                }
                _ => {}
            }
        }
        if length > LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        io::copy(&mut reader.take(length), &mut io::sink())?;
        Ok(Some(Self {
            method,
            path,
            close,
        }))
    }
}

/// The whole answer: `/status/NNN` sets the status, everything else is 200.
fn answer(request: &Request, client: SocketAddr) -> Vec<u8> {
    let status = request
        .path
        .strip_prefix("/status/")
        .and_then(|code| code.parse::<u16>().ok());
    let status = status
        .filter(|code| (200..=599).contains(code))
        .unwrap_or(200);
    let told = |name: &str| env::var(name).unwrap_or_default();
    let body = format!(
        "pod: {}\nnode: {}\nclient: {}\nport: {}\npath: {}\n",
        told("HOSTNAME"),
        told("NODE_NAME"),
        client.ip().to_canonical(),
        client.port(),
        request.path,
    );
    let connection = if request.close { "close" } else { "keep-alive" };
    let mut answer = format!(
        "HTTP/1.1 {status} Lab\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
        body.len(),
    );
    if request.method != "HEAD" {
        answer.push_str(&body);
    }
    answer.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_with_its_body() {
        let bytes = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyzGET /b HTTP/1.0\r\n\r\n";
        let mut reader = BufReader::new(bytes.as_slice());
        let first = Request::read(&mut reader).unwrap().unwrap();
        assert_eq!(
            (first.method.as_str(), first.path.as_str(), first.close),
            ("POST", "/a", false)
        );
        let second = Request::read(&mut reader).unwrap().unwrap();
        assert_eq!((second.path.as_str(), second.close), ("/b", true));
        assert!(Request::read(&mut reader).unwrap().is_none());
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let bytes = vec![b'a'; 200_000];
        assert!(Request::read(&mut BufReader::new(bytes.as_slice())).is_err());
    }

    #[test]
    fn the_answer_names_the_client_and_the_status() {
        let request = Request {
            method: "GET".into(),
            path: "/status/503".into(),
            close: true,
        };
        let text =
            String::from_utf8(answer(&request, "[::ffff:192.0.2.1]:9".parse().unwrap())).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        assert!(text.contains("client: 192.0.2.1\n"), "{text}");
    }
}
