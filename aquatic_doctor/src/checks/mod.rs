//! The checks, by subject. Each is a pure function of the machine and of what is asked of it.

pub(crate) mod addresses;
pub(crate) mod certificate;
pub(crate) mod clock;
pub(crate) mod cluster;
pub(crate) mod conntrack;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod processors;
pub(crate) mod tcp;
pub(crate) mod udp;
pub(crate) mod xdp;

use aquatic_cli_helpers::report::{Remedies, Row, Verdict};

/// Rows of one group.
struct Rows {
    group: &'static str,
    rows: Vec<Row>,
}

impl Rows {
    fn new(group: &'static str) -> Self {
        Self { group, rows: Vec::new() }
    }

    fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.rows.push(Row::new(self.group, check, Verdict::Ok, text));
    }

    fn advice(&mut self, check: &'static str, text: impl Into<String>) -> &mut Remedies {
        self.push(check, Verdict::Advice, text)
    }

    fn fault(&mut self, check: &'static str, text: impl Into<String>) -> &mut Remedies {
        self.push(check, Verdict::Fault, text)
    }

    /// Adds a row and returns its remedy, to be filled.
    fn push(&mut self, check: &'static str, verdict: Verdict, text: impl Into<String>) -> &mut Remedies {
        self.rows.push(Row::new(self.group, check, verdict, text));
        // The row has just been pushed.
        match self.rows.last_mut() {
            Some(row) => &mut row.remedy,
            None => unreachable!("a row was pushed"),
        }
    }
}

/// Command that sets a sysctl until the next start of the machine.
fn sysctl(name: &str, value: impl std::fmt::Display) -> String {
    format!("sysctl -w {name}={value}")
}

/// Command that sets a directive of the tracker's unit.
fn unit(directive: &str) -> String {
    format!("systemctl edit aquatic    # [Service] {directive}")
}

/// Bytes as MiB, rounded up.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
