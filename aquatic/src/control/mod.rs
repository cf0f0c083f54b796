//! The control socket: `aquatic ctl` asks the running tracker and commands it. The protocol is documented in
//! `docs/control.md`.
//!
//! - `request`, `reply`, `line`: the protocol. Pure.
//! - `by_hand`: what commands decide, which a successor takes over.
//! - `server`: the side thread with the socket and its connections.
//! - `controller`: what each command does; `status`: what the tracker tells about itself.
//! - `core`: a core's part, in steps that are too short to delay requests.
//! - `spreading`: commands for all nodes of a cluster.
//! - `socket`: where the socket is.

mod by_hand;
mod controller;
mod core;
mod line;
#[cfg(test)]
mod properties;
mod reply;
mod request;
mod server;
mod socket;
mod spreading;
mod status;

pub(crate) use self::controller::Controlled;
pub(crate) use self::core::{CoreControl, CoreParts};
pub(crate) use self::request::{
    BadArgument, BreakerFamily, BreakerProtocol, BreakerSetting, DEFAULT_COUNTING, MAX_COUNTING, MAX_TOP,
    RankedBy, Request, TopOf, parse_duration, parse_info_hash, parse_network,
};
pub(crate) use self::server::open;
pub(crate) use self::socket::{Place, check, check_path, place};
pub(crate) use self::spreading::{NOT_SPREADABLE, is_spreadable, receiver};
