//! The side thread with the control socket. One thread serves all connections: nothing it does takes long,
//! and what has to be waited for is asked again.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aquatic_common::config::ControlConfig;
use aquatic_net::tcp::LocalListener;
use aquatic_runtime::privileges::heir;
use aquatic_runtime::{Engine, Serving, mailboxes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::controller::{Answer, Controlled, Controller, Pending};
use super::core::CoreControl;
use super::line::{LineDecoder, MAX_LINE, TooLong};
use super::reply::{ErrorCode, Failure, Outcome, line};
use super::request::Request;
use super::socket::{Place, place};
use crate::config::TrackerConfig;

/// Maximum number of connections.
const MAX_CONNECTIONS: usize = 16;

/// Commands for a core that it has not received yet.
const MAX_COMMANDS: usize = 2 * MAX_CONNECTIONS;

/// Time after which a connection ends that sends no request, or does not receive a reply.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// Longest wait before it is looked whether connections are idle.
const POLL: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Time between two looks at what is waited for.
const PENDING_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Bytes received at once.
const READ_SIZE: usize = MAX_LINE;

/// Opens the control socket, if the configuration wants one, and has the engine serve it. Has it hand over
/// what is decided by hand, in any case. Returns each core's part, in core order.
///
/// # Errors
/// A socket that cannot be made, with what to do about it.
pub(crate) fn open(
    config: &TrackerConfig,
    parts: Controlled,
    engine: &mut Engine,
) -> anyhow::Result<Option<Vec<CoreControl>>> {
    engine.hand_over_by_hand(Arc::new(parts.by_hand.clone()));
    let path = match place(config) {
        Place::At(path) => path,
        Place::Off => return Ok(None),
        Place::NoStateDirectory => {
            log::debug!(
                "no control socket: there is no state_directory, and {} is relative",
                ControlConfig::socket_path
            );
            return Ok(None);
        }
    };
    // The state directory is locked, so what listens there is the predecessor that an upgrade replaces.
    let is_own = config.control.socket_path.is_relative();
    let (cores, receivers) =
        mailboxes(engine.cores(), MAX_COMMANDS).context("cannot make the mailboxes of the control socket")?;
    let serving = engine.serving();
    let sockets = (engine.listeners(), serving);
    let LocalListener { socket, file } =
        LocalListener::bind(&path, heir(&config.privileges), is_own, sockets)
            .map_err(aquatic_net::tcp::UnixBindError::classified)
            .with_context(|| format!("{} cannot be used", ControlConfig::socket_path))?;
    engine.add_periodic(file);
    log::info!("control socket: {}, for \"aquatic ctl\"", path.display());
    let server = Server {
        listener: socket,
        connections: Vec::new(),
        controller: Controller::new(parts, cores),
        cannot_accept: false,
        serving: engine.serving(),
    };
    engine.add_side_thread("aquatic-control", move || server.run());
    Ok(Some(receivers.into_iter().map(CoreControl).collect()))
}

struct Server {
    listener: UnixListener,
    connections: Vec<Connection<UnixStream>>,
    controller: Controller,
    /// Whether the last accept has failed for want of descriptors.
    cannot_accept: bool,
    serving: Serving,
}

impl Server {
    /// Serves connections for as long as the process serves.
    fn run(mut self) {
        self.serving.until_begun();
        loop {
            self.wait();
            if self.serving.is_elsewhere() {
                break;
            }
            let now = self.controller.now();
            self.accept(now);
            for connection in self.connections.iter_mut().filter(|connection| !connection.ended) {
                connection.advance(now, &mut |request| self.controller.execute(request));
            }
            self.connections.retain(|connection| !connection.ended);
        }
        // Their clients find the process that has taken over behind the same path.
        drop((self.listener, self.connections));
        loop {
            std::thread::park();
        }
    }

    /// Waits until something can be received, sent or accepted, or is to be looked at again. Ends connections
    /// whose client has gone: what is pending for them is given up.
    fn wait(&mut self) {
        let is_pending = self.connections.iter().any(|connection| connection.pending.is_some());
        let timeout = if is_pending || self.cannot_accept { PENDING_POLL } else { POLL };
        let accepting = if self.cannot_accept { PollFlags::empty() } else { PollFlags::IN };
        let mut fds = vec![PollFd::new(&self.listener, accepting)];
        let interests = self.connections.iter();
        fds.extend(interests.map(|connection| PollFd::new(&connection.stream, connection.interest())));
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, Some(&timeout));
        let gone = |fd: &PollFd<'_>| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR);
        let gone: Vec<bool> = fds.iter().skip(1).map(gone).collect();
        for (connection, gone) in self.connections.iter_mut().zip(gone) {
            connection.ended |= gone && connection.pending.is_some();
        }
    }

    fn accept(&mut self, now: Duration) {
        self.cannot_accept = false;
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // No descriptor is left: the listener stays readable, so it is not waited for meanwhile.
                    self.cannot_accept = true;
                    return;
                }
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.connections.len() >= MAX_CONNECTIONS {
                let text = format!("{MAX_CONNECTIONS} connections are open; end one of them and try again");
                // It has an empty buffer, into which this fits.
                let _ = stream.write_all(&line(Err(Failure::new(ErrorCode::Limit, text))));
                continue;
            }
            self.connections.push(Connection::new(stream, now));
        }
    }
}

/// A connection. It has one request at a time: the next one is read once the reply has been sent.
struct Connection<S> {
    stream: S,
    decoder: LineDecoder,
    pending: Option<Pending>,
    unsent: Vec<u8>,
    /// Whether it ends once everything is sent.
    ending: bool,
    ended: bool,
    /// When something was last received or sent.
    active: Duration,
}

impl<S> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl<S: Read + Write> Connection<S> {
    fn new(stream: S, now: Duration) -> Self {
        Self {
            stream,
            decoder: LineDecoder::default(),
            pending: None,
            unsent: Vec::new(),
            ending: false,
            ended: false,
            active: now,
        }
    }

    /// What to wait for. While a request is pending, only for its end.
    fn interest(&self) -> PollFlags {
        if !self.unsent.is_empty() {
            PollFlags::OUT
        } else if self.pending.is_some() {
            PollFlags::empty()
        } else {
            PollFlags::IN
        }
    }

    /// Does what can be done without waiting.
    fn advance(&mut self, now: Duration, execute: &mut impl FnMut(Request) -> Answer) {
        loop {
            if !self.send(now) {
                break;
            }
            if self.ending {
                self.ended = true;
            }
            if self.ended {
                return;
            }
            if let Some(pending) = &mut self.pending {
                let Some(outcome) = pending(now) else { return };
                self.pending = None;
                self.reply(outcome);
                continue;
            }
            match self.decoder.take() {
                Ok(Some(text)) => self.begin(&text, execute),
                Ok(None) if self.receive(now) => {}
                Ok(None) => break,
                Err(TooLong) => {
                    let text = format!("a request has at most {MAX_LINE} bytes");
                    self.reply(Err(Failure::new(ErrorCode::BadRequest, text)));
                    self.ending = true;
                }
            }
        }
        if now.saturating_sub(self.active) >= IDLE_LIMIT {
            self.ended = true;
        }
    }

    fn begin(&mut self, text: &[u8], execute: &mut impl FnMut(Request) -> Answer) {
        if text.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let answer = parse(text).map_or_else(|failure| Answer::Now(Err(failure)), execute);
        match answer {
            Answer::Now(outcome) => self.reply(outcome),
            Answer::Later(pending) => self.pending = Some(pending),
        }
    }

    fn reply(&mut self, outcome: Outcome) {
        self.unsent.extend_from_slice(&line(outcome));
    }

    /// Receives something. Returns whether there was anything.
    fn receive(&mut self, now: Duration) -> bool {
        let mut bytes = [0; READ_SIZE];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.ended = true,
            Ok(len) => {
                self.active = now;
                self.decoder.feed(bytes.get(..len).unwrap_or_default());
                return true;
            }
            Err(error) if is_temporary(&error) => {}
            Err(_) => self.ended = true,
        }
        false
    }

    /// Sends what can be sent. Returns whether everything is.
    fn send(&mut self, now: Duration) -> bool {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => {
                    self.active = now;
                    self.unsent.drain(..sent.min(self.unsent.len()));
                }
                Err(error) if is_temporary(&error) => return false,
                Err(_) => {
                    self.ended = true;
                    self.unsent.clear();
                }
            }
        }
        true
    }
}

/// Reads a request, which is an object: the decoder would take a list of its members as well.
fn parse(text: &[u8]) -> Result<Request, Failure> {
    let parsed = if text.trim_ascii_start().starts_with(b"{") {
        serde_json::from_slice(text).map_err(|error| error.to_string())
    } else {
        Err("it is no JSON object".to_owned())
    };
    parsed.map_err(|error| {
        let text = format!("this is no request: {error}. docs/control.md lists the commands");
        Failure::new(ErrorCode::BadRequest, text)
    })
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::super::reply::members;
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn connection() -> (Connection<UnixStream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Connection::new(ours, NOW), theirs)
    }

    fn echo(request: Request) -> Answer {
        Answer::Now(Ok(members(serde_json::to_value(request).unwrap())))
    }

    fn received(stream: &mut UnixStream) -> String {
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn requests_are_answered_in_order_whatever_comes_between() {
        let (mut connection, mut client) = connection();
        client.write_all(b"{\"command\":\"status\"}\n\n{\"comm").unwrap();
        connection.advance(NOW, &mut echo);
        client
            .write_all(b"and\":\"bans\"}\r\ngarbage\n\xff\xfe\n[\"status\"]\n{\"command\":\"reload\"}\n")
            .unwrap();
        connection.advance(NOW, &mut echo);
        let text = received(&mut client);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert!(lines[0].contains("status") && lines[1].contains("bans") && lines[5].contains("reload"));
        assert!(lines[2..5].iter().all(|line| line.contains("bad_request") && line.contains("control.md")));
        assert!(!connection.ended);
        drop(client);
        connection.advance(NOW, &mut echo);
        assert!(connection.ended);
    }

    #[test]
    fn a_line_that_is_too_long_ends_the_connection_with_a_reason() {
        let (mut connection, mut client) = connection();
        client.write_all(&vec![b'x'; MAX_LINE + 1]).unwrap();
        connection.advance(NOW, &mut echo);
        assert!(connection.ended && received(&mut client).contains("at most 4096 bytes"));
    }

    #[test]
    fn a_client_that_reads_nothing_is_waited_for_with_bounded_memory() {
        let (mut connection, mut client) = connection();
        let mut asked = 0;
        while client.write_all(b"{\"command\":\"status\"}\n").is_ok() && asked < 200_000 {
            asked += 1;
            if asked % 64 == 0 {
                connection.advance(NOW, &mut |_| {
                    Answer::Now(Ok(members(serde_json::json!({"text": "x".repeat(10_000)}))))
                });
            }
        }
        assert!(asked < 200_000, "the client is not read any more");
        assert!(connection.unsent.len() < 20_000 && !connection.decoder.is_empty());
        connection.advance(NOW + IDLE_LIMIT, &mut echo);
        assert!(connection.ended);
    }

    #[test]
    fn what_is_pending_is_asked_again_and_dropped_with_the_connection() {
        let (mut connection, mut client) = connection();
        client.write_all(b"{\"command\":\"reload\"}\n{\"command\":\"bans\"}\n").unwrap();
        let mut execute = |request| {
            if let Request::Reload {} = request {
                Answer::Later(Box::new(|now| {
                    (now > NOW).then(|| Ok(members(serde_json::json!({"done": true}))))
                }))
            } else {
                echo(request)
            }
        };
        connection.advance(NOW, &mut execute);
        assert!(connection.pending.is_some() && received(&mut client).is_empty());
        connection.advance(NOW * 2, &mut execute);
        let text = received(&mut client);
        assert!(text.starts_with("{\"done\":true") && text.contains("bans"), "{text}");
    }
}
