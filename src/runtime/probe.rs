//! One attempt to get an HTTP answer from an app. Runs on an `op-N` thread.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::domain::HealthPath;
use crate::limits;

/// Whether something at `address` answers `GET /` with an HTTP status line; where a `path` is given, it is asked for that, and the status
/// must be below 400. A connection alone proves nothing: the engine's port proxy accepts before the app listens.
///
/// # Blocks
/// At most [`limits::PROBE_MAX`] to connect and as long again per read.
#[must_use]
pub fn answers_http(address: SocketAddr, path: Option<&HealthPath>) -> bool {
    let Ok(head) = attempt(address, path.map_or("/", HealthPath::as_str)) else { return false };
    // RFC 9112 §4: HTTP/1.1 SP 3DIGIT
    let is_well = || matches!(head.get(8..12), Some([b' ', b'2' | b'3', ..]));
    head.starts_with(b"HTTP/") && (path.is_none() || is_well())
}

fn attempt(address: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, limits::PROBE_MAX)?;
    stream.set_read_timeout(Some(limits::PROBE_MAX))?;
    stream.set_write_timeout(Some(limits::PROBE_MAX))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: muelle-probe\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::with_capacity(16);
    while head.len() < 12 {
        let mut buffer = [0; 16];
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        head.extend_from_slice(&buffer[..n]);
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_an_http_status_line_is_an_answer() {
        let health = HealthPath::parse("/health").unwrap();
        for (said, path, answers) in [
            (&b"HTTP/1.1 500 x\r\n\r\n"[..], None, true),
            (b"HTTP/1.1 500 x\r\n\r\n", Some(&health), false),
            (b"HTTP/1.0 204\r\n\r\n", Some(&health), true),
            (b"HTTP/1.1 302 x\r\n\r\n", Some(&health), true),
            (b"-ERR unknown", None, false),
            (b"", None, false),
            (b"HT", None, false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let app = crate::threads::spawn("app", 64 * 1024, move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).unwrap() > 0);
                stream.write_all(said).unwrap();
            })
            .unwrap();
            assert_eq!(answers_http(address, path), answers, "{said:?}");
            drop(app);
            assert!(!answers_http(address, path), "nobody listens any more");
        }
    }
}
