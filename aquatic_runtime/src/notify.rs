//! Messages to a service manager (`sd_notify`): what the process is doing, and that it is alive.
//!
//! The protocol is a datagram of `NAME=value` lines to the unix socket in `NOTIFY_SOCKET`. The socket is
//! connected at start, so it stays reachable after the root directory has changed. Without the variable
//! nothing is sent.
//!
//! Descriptors go along with a message. The service manager keeps those of listening sockets while the
//! process is restarted (`FileDescriptorStoreMax=`), and passes them to the next one, see
//! [`listeners`](crate::listeners).

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::Timespec;

use crate::listeners::ListenSocket;

/// Time that the service manager is asked to wait for the end, from each message on.
const STOP_EXTENSION: Duration = Duration::from_secs(15);

/// Longest wait for the service manager to have read what was sent before, or to have room for more.
const MANAGER_DEADLINE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Period in which the process can show that it is alive.
const SHORTEST_WATCHDOG: Duration = Duration::from_secs(3);

/// A connection to the service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    socket: Option<UnixDatagram>,
    /// Time within which the service manager wants to hear from the process.
    watchdog: Option<Duration>,
    failed: bool,
    /// Another process speaks to the service manager.
    muted: bool,
}

impl Notifier {
    /// Connects to the service manager that the environment names. A socket that cannot be used is logged.
    pub(crate) fn from_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        let socket = match connect(&name) {
            Ok(socket) => socket,
            Err(error) => {
                log::warn!(
                    "the service manager is not told that the tracker has started: NOTIFY_SOCKET = {}: {error}",
                    name.display()
                );
                return Self::default();
            }
        };
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|_| is_ours).map(Duration::from_micros);
        if let Some(watchdog) = watchdog.filter(|watchdog| *watchdog < SHORTEST_WATCHDOG) {
            log::warn!(
                "WatchdogSec= is {watchdog:?}, but the tracker shows once a second that it is alive; set it to {} s or \
                 more",
                SHORTEST_WATCHDOG.as_secs()
            );
        }
        Self { socket: Some(socket), watchdog, failed: false, muted: false }
    }

    /// Sends nothing from now on, until this process takes over.
    pub(crate) fn mute(&mut self) {
        self.muted = true;
    }

    pub(crate) fn unmute(&mut self) {
        self.muted = false;
    }

    /// Another process is the main one from now on.
    pub(crate) fn give_up_to(&mut self, pid: u32) {
        self.send(&format!("MAINPID={pid}"));
        self.mute();
    }

    /// All cores serve, or serve with what has been reloaded.
    pub(crate) fn ready(&mut self) {
        self.send("READY=1\nSTATUS=serving");
    }

    /// Files are being read again; [`ready`](Self::ready) follows. `now` is that of the monotonic clock.
    pub(crate) fn reloading(&mut self, now: Duration) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reloading", now.as_micros()));
    }

    /// The process has been told to stop.
    pub(crate) fn stopping(&mut self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// The stop is going on and takes longer.
    pub(crate) fn still_stopping(&mut self) {
        let micros = STOP_EXTENSION.as_micros();
        self.send(&format!("EXTEND_TIMEOUT_USEC={micros}\nSTATUS=saving before the stop"));
    }

    /// All cores respond. To be called at least once a second while that is so.
    pub(crate) fn alive(&mut self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    /// Has the service manager keep listening sockets for the next process, if the unit says so
    /// (`FileDescriptorStoreMax=`). Unix sockets are left out: their file is made anew.
    pub(crate) fn store(&mut self, sockets: &[ListenSocket]) {
        let most = number("FDSTORE").unwrap_or(0);
        let sockets: Vec<&ListenSocket> = sockets.iter().filter(|socket| !socket.is_unix()).collect();
        if self.socket.is_none() || self.muted || most == 0 {
            return;
        }
        if (sockets.len() as u64) > most {
            log::warn!(
                "there are {} listening sockets, but the service manager keeps {most} only, so it is given none; set \
                 FileDescriptorStoreMax={} in the unit",
                sockets.len(),
                sockets.len()
            );
            return;
        }
        for socket in &sockets {
            self.send_with(&format!("FDSTORE=1\nFDNAME={}", socket.name()), Some(socket.as_fd()));
        }
        log::info!(
            "the service manager keeps {} listening socket(s) while the tracker restarts",
            sockets.len()
        );
    }

    /// Has the service manager close the descriptors that it keeps by these names, and waits until it has.
    pub(crate) fn forget<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for name in names.filter(|name| !name.is_empty()) {
            self.send_with(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None);
        }
        let Ok((reading, writing)) = pipe_with(PipeFlags::CLOEXEC) else { return };
        self.send_with("BARRIER=1", Some(writing.as_fd()));
        drop(writing);
        // The other end is closed once all messages before have been read; without a service manager at once.
        let _ = poll(&mut [PollFd::new(&reading, PollFlags::empty())], Some(&MANAGER_DEADLINE));
    }

    /// Sends a message, if need be once there is room for it.
    fn send_with(&mut self, message: &str, descriptor: Option<BorrowedFd<'_>>) {
        let Some(socket) = &self.socket else { return };
        let sent = loop {
            match send_message(socket, message, descriptor) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => break sent,
            }
            if poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&MANAGER_DEADLINE)) != Ok(1) {
                break Err(io::ErrorKind::TimedOut.into());
            }
        };
        if let Err(error) = sent {
            log::warn!("the service manager does not take a message ({message:?}): {error}");
        }
    }

    fn send(&mut self, message: &str) {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.muted) else { return };
        let sent = socket.send(message.as_bytes());
        if let (Err(error), false) = (&sent, self.failed) {
            log::warn!("the service manager cannot be told what the tracker is doing: {error}");
        }
        self.failed = sent.is_err();
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn send_message(socket: &UnixDatagram, message: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    sendmsg(socket, &[IoSlice::new(message.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A service manager that does not read must not delay the main thread.
    socket.set_nonblocking(true)?;
    match name.as_bytes().split_first() {
        Some((b'@', name)) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        _ => socket.connect(name)?,
    }
    Ok(socket)
}
