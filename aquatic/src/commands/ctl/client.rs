//! The client's end of the control socket.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aquatic_common::config::ControlConfig;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use serde_json::Value;

use crate::control::Request;

/// Longest wait until the tracker takes a connection or a request in, and for replies that it gives at once.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(5);

/// Maximum size of a reply in bytes.
const MAX_REPLY: u64 = 16 * 1024 * 1024;

/// A connection to a tracker.
#[derive(Debug)]
pub(super) struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

/// Why a tracker has not done what it was asked for.
#[derive(Debug)]
pub(super) enum ClientError {
    /// The socket cannot be connected to.
    Unreachable(PathBuf, io::Error),
    /// The connection has ended without a reply.
    Broken(PathBuf, io::Error),
    /// There is no reply after so long.
    Silent(PathBuf, Duration),
    /// What came back is no reply.
    Nonsense(PathBuf),
    /// The tracker has said no.
    Refused(Value),
}

impl ClientError {
    /// The error of a wait that has reached its limit; `None` for other errors.
    fn silence(path: &Path, error: &io::Error, waited: Duration) -> Option<Self> {
        (error.kind() == io::ErrorKind::WouldBlock).then(|| Self::Silent(path.to_owned(), waited))
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = ControlConfig::socket_path;
        match self {
            Self::Unreachable(path, error) => {
                let is = |kind| error.kind() == kind;
                let remedy = if is(io::ErrorKind::NotFound) {
                    format!(
                        "there is no socket. Is the tracker running, with a state_directory or {key}? Name its \
                         configuration with -c or its socket with -s"
                    )
                } else if is(io::ErrorKind::PermissionDenied) {
                    let owner = owner(path).map_or_else(
                        || "the user that the tracker runs as".to_owned(),
                        |uid| format!("the user with the id {uid}"),
                    );
                    format!("permission denied. Only {owner} and root can use it; try sudo")
                } else if is(io::ErrorKind::ConnectionRefused) && !is_socket(path) {
                    format!(
                        "it is no socket. Name the socket of the tracker with -s, or its configuration ({key}) with -c"
                    )
                } else if is(io::ErrorKind::ConnectionRefused) {
                    "nobody listens there any more: the tracker has ended. Start it and try again".to_owned()
                } else {
                    error.to_string()
                };
                write!(f, "cannot reach the tracker at {}: {remedy}", path.display())
            }
            Self::Broken(path, error) => write!(
                f,
                "the tracker at {} has not replied: {error}. It may have stopped; its log tells why",
                path.display()
            ),
            Self::Silent(path, waited) => write!(
                f,
                "the tracker at {} does not respond: no reply after {} s. It is stopped (SIGSTOP), is starting, or the \
                 machine is overloaded; its log or \"ps -o stat= -C aquatic\" tells more",
                path.display(),
                waited.as_secs()
            ),
            Self::Nonsense(path) => {
                write!(
                    f,
                    "what listens at {} is no tracker of this version: {key} says where it is",
                    path.display()
                )
            }
            Self::Refused(reply) => {
                f.write_str(reply["error"]["message"].as_str().unwrap_or("the tracker gives no reason"))
            }
        }
    }
}

/// The user that a socket belongs to, if its directory may be read.
fn owner(path: &Path) -> Option<u32> {
    std::fs::symlink_metadata(path).ok().map(|data| data.uid())
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| data.file_type().is_socket())
}

impl Client {
    /// Connects to the socket at a path.
    pub(super) fn connect(path: &Path) -> Result<Self, ClientError> {
        let connect = || {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            // The time holds for connecting as well: a tracker that is stopped leaves connections waiting.
            set_socket_timeout(&socket, Timeout::Send, Some(RESPONSE_DEADLINE))?;
            rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(UnixStream::from(socket))
        };
        let stream = connect().map_err(|error: io::Error| {
            ClientError::silence(path, &error, RESPONSE_DEADLINE)
                .unwrap_or_else(|| ClientError::Unreachable(path.to_owned(), error))
        })?;
        Ok(Self { path: path.to_owned(), stream: BufReader::new(stream) })
    }

    /// Sends a request and returns the reply, if the tracker has done what it asks for.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Value, ClientError> {
        let deadline = RESPONSE_DEADLINE + request.longest_work();
        let broken = |path: &Path, error: io::Error| {
            ClientError::silence(path, &error, deadline)
                .unwrap_or_else(|| ClientError::Broken(path.to_owned(), error))
        };
        let limited = self.stream.get_ref().set_read_timeout(Some(deadline));
        limited.map_err(|error| broken(&self.path, error))?;
        let mut line = serde_json::to_vec(request).map_err(|error| broken(&self.path, error.into()))?;
        line.push(b'\n');
        // A tracker that has no room replies at once, and ends the connection before it has read anything.
        let sent = self.stream.get_mut().write_all(&line);
        let mut text = Vec::new();
        let read = self.stream.by_ref().take(MAX_REPLY).read_until(b'\n', &mut text);
        if text.is_empty() {
            let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(broken(&self.path, read.err().or_else(|| sent.err()).unwrap_or_else(ended)));
        }
        let reply: Value =
            serde_json::from_slice(&text).map_err(|_| ClientError::Nonsense(self.path.clone()))?;
        match reply["ok"].as_bool() {
            Some(true) => Ok(reply),
            Some(false) => Err(ClientError::Refused(reply)),
            None => Err(ClientError::Nonsense(self.path.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn what_cannot_be_reached_is_explained() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let error = Client::connect(&path).unwrap_err().to_string();
        assert!(error.contains("there is no socket") && error.contains("-s"), "{error}");
        drop(UnixListener::bind(&path).unwrap());
        let error = Client::connect(&path).unwrap_err().to_string();
        assert!(error.contains("the tracker has ended"), "{error}");
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let uid = rustix::process::getuid().as_raw();
        let error = ClientError::Unreachable(path, denied).to_string();
        assert!(error.contains(&format!("id {uid} and root")), "{error}");
    }

    #[test]
    fn a_tracker_that_is_stopped_does_not_respond() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        // Connections wait in the kernel, as many as there is room for.
        let _listener = UnixListener::bind(&path).unwrap();
        let mut client = Client::connect(&path).unwrap();
        let error = client.ask(&Request::Status {}).unwrap_err().to_string();
        assert!(error.contains("does not respond: no reply after 5 s"), "{error}");
        assert_eq!(Request::Snapshot {}.longest_work(), Duration::from_secs(120));
    }

    #[test]
    fn replies_are_told_from_refusals_and_from_nonsense() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            for reply in ["{\"ok\":true}\n", "{\"ok\":false,\"error\":{\"message\":\"no\"}}\n", "hello\n", ""]
            {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut request).unwrap();
                assert_eq!(request, "{\"command\":\"status\"}\n");
                stream.write_all(reply.as_bytes()).unwrap();
            }
        });
        let ask = || Client::connect(&path).unwrap().ask(&Request::Status {});
        assert_eq!(ask().unwrap()["ok"], true);
        assert_eq!(ask().unwrap_err().to_string(), "no");
        assert!(ask().unwrap_err().to_string().contains("no tracker of this version"));
        assert!(ask().unwrap_err().to_string().contains("has not replied"));
        server.join().unwrap();
    }
}
