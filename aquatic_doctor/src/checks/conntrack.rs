//! Connection tracking of the firewall: each client takes an entry of its table.

use aquatic_cli_helpers::report::{Remedies, Row};

use super::{Rows, sysctl};
use crate::asked::{Asked, Transport};
use crate::firewall::exempts;
use crate::machine::Machine;

/// Shares of the table in percent, from which on its fill is worth advice, and is a fault.
const FULL: u64 = 50;
const NEARLY_FULL: u64 = 90;

/// Size of the table that operators of large trackers use.
const LARGE_TABLE: u64 = 2_097_152;

pub(crate) fn check(machine: &Machine, asked: &Asked) -> Vec<Row> {
    let mut rows = Rows::new("connection tracking");
    let Some((entries, max)) = machine.conntrack else {
        rows.ok("conntrack_table", "not loaded");
        return rows.rows;
    };
    table(machine, (entries, max), &mut rows);
    exemption(machine, entries, asked, &mut rows);
    rows.rows
}

fn table(machine: &Machine, (entries, max): (u64, u64), rows: &mut Rows) {
    const CHECK: &str = "conntrack_table";
    let percent = entries.saturating_mul(100) / max.max(1);
    let larger = || sysctl("net.netfilter.nf_conntrack_max", max.saturating_mul(2).max(LARGE_TABLE));
    let drops = machine.conntrack_drops;
    if percent >= NEARLY_FULL {
        let text =
            format!("{entries} of {max} entries: once the table is full, packets of new clients are dropped");
        rows.fault(CHECK, text).run(larger());
    } else if percent >= FULL {
        rows.advice(CHECK, format!("{entries} of {max} entries")).run(larger());
    } else if drops > 0 {
        let text = format!(
            "{entries} of {max} entries now, but {drops} packets since the start of the machine found it full"
        );
        rows.advice(CHECK, text).run(larger());
    } else {
        rows.ok(CHECK, format!("{entries} of {max} entries"));
    }
}

fn exemption(machine: &Machine, entries: u64, asked: &Asked, rows: &mut Rows) {
    const CHECK: &str = "conntrack_exemption";
    let Some(rules) = &machine.trials.firewall else {
        if entries > 0 {
            let text = "the rules of the firewall cannot be read, as root with nft or iptables they can; the ports of \
                        the tracker should be exempt";
            exempt(&asked.ports(), rows.advice(CHECK, text));
        } else {
            rows.ok(CHECK, "nothing is tracked");
        }
        return;
    };
    let tracked: Vec<(Transport, u16)> = asked
        .ports()
        .into_iter()
        .filter(|(transport, port)| !exempts(rules, transport.name(), *port))
        .collect();
    if tracked.is_empty() || entries == 0 {
        let text =
            if tracked.is_empty() { "the ports of the tracker are exempt" } else { "nothing is tracked" };
        rows.ok(CHECK, text);
        return;
    }
    let ports: Vec<String> =
        tracked.iter().map(|(transport, port)| format!("{port}/{}", transport.name())).collect();
    let text = format!(
        "each client of {} takes an entry of the table, and time of a processor. Exempt the ports; the firewall must \
         then accept them without regard to their state",
        ports.join(", ")
    );
    exempt(&tracked, rows.advice(CHECK, text));
}

/// Commands that exempt ports, in both directions.
fn exempt(ports: &[(Transport, u16)], remedy: &mut Remedies) {
    if ports.is_empty() {
        return;
    }
    for (chain, hook) in [("pre", "prerouting"), ("out", "output")] {
        remedy.run(format!(
            "nft \"add table inet aquatic; add chain inet aquatic {chain} {{ type filter hook {hook} priority raw; }}\""
        ));
    }
    for (transport, port) in ports {
        let transport = transport.name();
        remedy.run(format!("nft add rule inet aquatic pre {transport} dport {port} notrack"));
        remedy.run(format!("nft add rule inet aquatic out {transport} sport {port} notrack"));
    }
}
