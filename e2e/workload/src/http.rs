//! What is read of a request.

use std::io::{self, BufRead, Read as _};

/// A request's head and body may be this long, in bytes; longer ones end the connection.
const LIMIT: u64 = 64 * 1024;

/// A request, without its body.
pub struct Request {
    /// As `GET`.
    pub method: String,
    /// As `/headers?a=b`.
    pub path: String,
    /// Every header in order, names as the client wrote them.
    pub headers: Vec<(String, String)>,
    /// Whether the connection ends with the answer.
    pub close: bool,
}

impl Request {
    /// Reads one request with its body; `None` at the end of the connection.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
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
        let mut headers = Vec::new();
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
            headers.push((name.to_owned(), value.to_owned()));
        }
        if length > LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        io::copy(&mut reader.take(length), &mut io::sink())?;
        Ok(Some(Self {
            method,
            path,
            headers,
            close,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn a_request_is_read_with_its_body() {
        let bytes =
            b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nX-A: b: c\r\n\r\nxyzGET /b HTTP/1.0\r\n\r\n";
        let mut reader = BufReader::new(bytes.as_slice());
        let first = Request::read(&mut reader).unwrap().unwrap();
        assert_eq!(
            (first.method.as_str(), first.path.as_str(), first.close),
            ("POST", "/a", false)
        );
        let last = first.headers.last().unwrap();
        assert_eq!((last.0.as_str(), last.1.as_str()), ("X-A", "b: c"));
        let second = Request::read(&mut reader).unwrap().unwrap();
        assert_eq!((second.path.as_str(), second.close), ("/b", true));
        assert!(Request::read(&mut reader).unwrap().is_none());
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let bytes = vec![b'a'; 200_000];
        assert!(Request::read(&mut BufReader::new(bytes.as_slice())).is_err());
    }
}
