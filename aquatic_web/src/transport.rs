//! What a session needs of a connection and of its core.

use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use aquatic_common::Seconds;
use aquatic_net::tcp::{Connection, Phase};
use aquatic_runtime::Core;
use futures_lite::{AsyncRead, AsyncWrite};

/// A connection.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Address of the client, or of the proxy it comes through; `None` for a unix socket.
    fn peer(&self) -> Option<IpAddr>;

    /// Sets the deadline by what the connection is doing.
    fn enter(&self, phase: Phase);

    /// Whether the process is stopping, so that the next reply should be the last.
    fn is_stopping(&self) -> bool;

    /// Counts the connection to an address that a proxy has named. Returns whether that address may have
    /// another one.
    fn charge_address(&mut self, client: IpAddr) -> bool;

    /// Announces that the connection is closed after what is sent from now on.
    fn announce_end(&self);

    /// Closes the connection.
    fn close(self) -> impl Future<Output = ()>;

    /// Closes the connection while the client may still be sending.
    fn close_lingering(self) -> impl Future<Output = ()>;
}

impl Transport for Connection {
    fn peer(&self) -> Option<IpAddr> {
        Self::peer(self).ip()
    }

    fn enter(&self, phase: Phase) {
        self.deadline().enter(phase);
    }

    fn is_stopping(&self) -> bool {
        self.deadline().is_stopping()
    }

    fn charge_address(&mut self, client: IpAddr) -> bool {
        self.charge_address(client)
    }

    fn announce_end(&self) {
        Self::announce_end(self);
    }

    fn close(self) -> impl Future<Output = ()> {
        Self::close(self)
    }

    fn close_lingering(self) -> impl Future<Output = ()> {
        Self::close_lingering(self)
    }
}

/// The core that a session runs on.
pub trait Runtime: Clone + 'static {
    /// Time of the current batch of events.
    fn now(&self) -> Seconds;

    /// Reads the clock. Time since some epoch.
    fn tick(&self) -> Duration;

    /// Lets other tasks run.
    fn yield_now(&self) -> impl Future<Output = ()>;
}

impl Runtime for Rc<Core> {
    fn now(&self) -> Seconds {
        Core::now(self)
    }

    fn tick(&self) -> Duration {
        Core::tick(self)
    }

    fn yield_now(&self) -> impl Future<Output = ()> {
        Core::yield_now(self)
    }
}
