//! What is wrong with a machine that runs the tracker, or is about to, before its users notice.
//!
//! A check is a pure function of a [`Machine`], a snapshot of what the system says about itself, and of
//! [`Asked`], what the configuration asks of it. Reading is thin: files below a root directory, which tests
//! choose, and a few [`Trials`] that no file can tell. Nothing here changes the machine or sends a packet.
//!
//! Out of scope: the configuration itself, which `--check-config` checks, and what clients see from outside,
//! which `aquatic_probe` finds out.

#![warn(missing_docs)]

mod asked;
mod checks;
mod firewall;
mod machine;
mod names;
mod parse;
mod sockets;
mod sys;
mod trust;

use aquatic_cli_helpers::report::Row;

pub use asked::{AcmeAsked, Asked, Listener, MemoryAsked, NatsServerAsked, Transport};
pub use firewall::read_rules;
pub use machine::{Interface, Machine, NetworkCard, Process, Span, Trials, running_tracker};
pub use names::{Name, resolve};
pub use sockets::Holder;
pub use sys::{Clock, clock};

/// Rows of all checks of a machine, by group.
#[must_use]
pub fn diagnose(machine: &Machine, asked: &Asked) -> Vec<Row> {
    let mut rows = checks::limits::check(machine, asked);
    rows.extend(checks::processors::check(machine, asked));
    rows.extend(checks::memory::check(machine, asked));
    rows.extend(checks::udp::check(machine, asked));
    rows.extend(checks::xdp::check(machine, asked));
    rows.extend(checks::tcp::check(machine, asked));
    rows.extend(checks::conntrack::check(machine, asked));
    rows.extend(checks::addresses::check(machine, asked));
    rows.extend(checks::certificate::check(machine, asked));
    rows.extend(checks::cluster::check(asked));
    rows.extend(checks::clock::check(machine));
    rows
}

#[cfg(test)]
mod tests;
