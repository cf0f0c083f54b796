//! Requests over HTTPS to a server that has to be trusted, one connection each.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::clock::Deadline;
use crate::resolve;
use crate::response::{self, BodyOf, Response};
use crate::target::Target;
use crate::tls::explain;
use crate::transport::{Connection, Timed, unreachable};

/// Method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: the reply has no body.
    Head,
    /// POST.
    Post,
}

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
        }
    }
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Method.
    pub method: Method,
    /// Header fields beside `Host`, `Connection` and `Content-Length`.
    pub headers: &'a [(&'a str, &'a str)],
    /// Body; empty for none.
    pub body: &'a [u8],
}

/// Client of servers whose certificate an authority has signed that is trusted. Copies share sessions.
#[derive(Clone, Debug)]
pub struct HttpsClient {
    config: Arc<ClientConfig>,
    timeout: Duration,
}

impl HttpsClient {
    /// A client that trusts these authorities. A request and its reply may take as long as the timeout, and
    /// finding the addresses and connecting to each as long again.
    ///
    /// # Errors
    /// TLS itself cannot be set up.
    pub fn new(roots: RootCertStore, timeout: Duration) -> Result<Self, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), timeout })
    }

    /// Sends a request and receives the reply, whatever its status. Redirects are not followed.
    ///
    /// # Errors
    /// The server cannot be found, reached or trusted, does not reply in time, or not in HTTP. The text says
    /// which of these.
    pub fn exchange(&self, target: &Target, request: &Request<'_>) -> io::Result<Response> {
        let addresses = resolve(target, self.timeout).map_err(io::Error::other)?;
        let socket = self.connect(&addresses)?;
        let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        let mut connection = Connection::with_tls(socket, tls).map_err(|error| distrusted(&error))?;
        connection.write_all(&head(target, request))?;
        connection.write_all(request.body)?;
        connection.flush()?;
        response::receive(
            &mut connection,
            if request.method == Method::Head { BodyOf::Nothing } else { BodyOf::Reply },
        )
    }

    /// Connects to the first address that accepts.
    fn connect(&self, addresses: &[SocketAddr]) -> io::Result<Timed> {
        let mut last = io::Error::other("the server has no address");
        for address in addresses {
            match TcpStream::connect_timeout(address, self.timeout) {
                Ok(socket) => {
                    let _ = socket.set_nodelay(true);
                    return Ok(Timed::new(socket, Deadline::after(self.timeout)));
                }
                Err(error) => {
                    let text = format!("{address}: {}", unreachable(&error).text());
                    last = io::Error::new(error.kind(), text);
                }
            }
        }
        Err(last)
    }
}

/// Says why the certificate of a server is not trusted, if that is what has failed.
fn distrusted(error: &io::Error) -> io::Error {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let text = match fault {
        Some(fault @ rustls::Error::InvalidCertificate(_)) => {
            format!("the certificate of the server is not trusted: {}", explain(fault))
        }
        _ => failed_handshake(error),
    };
    io::Error::new(error.kind(), text)
}

/// What is said of a TLS handshake that has failed.
pub(crate) fn failed_handshake(error: &io::Error) -> String {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match fault {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            "this port does not speak TLS; try http:// or ws://".to_owned()
        }
        _ => format!("the TLS handshake failed: {error}"),
    }
}

fn head(target: &Target, request: &Request<'_>) -> Vec<u8> {
    let Request { method, headers, body } = request;
    let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", method.name(), target.path, target.authority())
        .into_bytes();
    for (name, value) in *headers {
        head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    let length = body.len();
    head.extend_from_slice(format!("Content-Length: {length}\r\nConnection: close\r\n\r\n").as_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Scheme;

    #[test]
    fn requests_are_framed() {
        let target =
            Target { scheme: Scheme::Https, host: "::1".to_owned(), port: 443, path: "/a?b".to_owned() };
        let request = Request { method: Method::Post, headers: &[("A", "b")], body: b"xy" };
        assert_eq!(
            String::from_utf8(head(&target, &request)).unwrap(),
            "POST /a?b HTTP/1.1\r\nHost: [::1]\r\nA: b\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
        );
    }
}
