//! Messages to a service manager (`sd_notify`): what the process is doing, and that it is alive.
//!
//! The protocol is a datagram of `NAME=value` lines to the unix socket in `NOTIFY_SOCKET`. The socket is
//! connected at start, so it stays reachable after the root directory has changed. Without the variable
//! nothing is sent.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Time that the service manager is asked to wait for the end, from each message on.
const STOP_EXTENSION: Duration = Duration::from_secs(15);

/// Period in which the process can show that it is alive.
const SHORTEST_WATCHDOG: Duration = Duration::from_secs(3);

/// A connection to the service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    socket: Option<UnixDatagram>,
    /// Time within which the service manager wants to hear from the process.
    watchdog: Option<Duration>,
    failed: bool,
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
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|_| is_ours).map(Duration::from_micros);
        if let Some(watchdog) = watchdog.filter(|watchdog| *watchdog < SHORTEST_WATCHDOG) {
            log::warn!(
                "WatchdogSec= is {watchdog:?}, but the tracker shows once a second that it is alive; set it to {} s or \
                 more",
                SHORTEST_WATCHDOG.as_secs()
            );
        }
        Self { socket: Some(socket), watchdog, failed: false }
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

    fn send(&mut self, message: &str) {
        let Some(socket) = &self.socket else { return };
        let sent = socket.send(message.as_bytes());
        if let (Err(error), false) = (&sent, self.failed) {
            log::warn!("the service manager cannot be told what the tracker is doing: {error}");
        }
        self.failed = sent.is_err();
    }
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
