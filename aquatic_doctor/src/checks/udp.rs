//! Buffers and queues of UDP.

use aquatic_cli_helpers::report::Row;

use super::limits::workers;
use super::{Rows, mib, sysctl};
use crate::asked::{Asked, Transport};
use crate::machine::Machine;

/// Packets dropped of a thousand received from which on it is worth a row.
const DROPS_PER_MILLE: u64 = 1;

pub(crate) fn check(machine: &Machine, asked: &Asked) -> Vec<Row> {
    let mut rows = Rows::new("UDP");
    if asked.serves(Transport::Udp) {
        receive_buffer(machine, asked, &mut rows);
        drops(machine, asked, &mut rows);
        memory(machine, asked, &mut rows);
    }
    backlog(machine, &mut rows);
    rows.rows
}

fn receive_buffer(machine: &Machine, asked: &Asked, rows: &mut Rows) {
    const CHECK: &str = "receive_buffer";
    let wanted = asked.receive_buffer;
    match machine.rmem_max {
        Some(max) if max < wanted && machine.process.may_exceed_buffers => {
            rows.ok(CHECK, format!("{wanted} bytes: the tracker may exceed net.core.rmem_max = {max}"));
        }
        Some(max) if max < wanted => {
            let text = format!(
                "udp.socket_recv_buffer_size = {wanted}, but net.core.rmem_max = {max} limits it: more packets are \
                 dropped in bursts"
            );
            rows.advice(CHECK, text).run(sysctl("net.core.rmem_max", wanted));
        }
        _ if wanted == 0 => rows.ok(CHECK, "that of the system"),
        _ => rows.ok(CHECK, format!("{wanted} bytes")),
    }
}

fn drops(machine: &Machine, asked: &Asked, rows: &mut Rows) {
    const CHECK: &str = "dropped_packets";
    let (received, dropped) = machine.udp_received;
    if dropped.saturating_mul(1000) > received.saturating_add(dropped).saturating_mul(DROPS_PER_MILLE) {
        let text = format!(
            "{dropped} of {} UDP packets since the start of the machine did not fit into a receive buffer. Add \
             workers, or allow larger buffers",
            received.saturating_add(dropped)
        );
        let larger = asked.receive_buffer.saturating_mul(2).max(4_000_000);
        let remedy = rows.advice(CHECK, text);
        remedy.run(sysctl("net.core.rmem_max", larger));
        remedy.set(format!("udp.socket_recv_buffer_size = {larger}"));
    } else {
        rows.ok(CHECK, format!("{dropped} of {} since the start", received.saturating_add(dropped)));
    }
}

fn memory(machine: &Machine, asked: &Asked, rows: &mut Rows) {
    const CHECK: &str = "udp_memory";
    let sockets = asked.listeners.iter().filter(|listener| listener.transport == Transport::Udp).count();
    // The kernel counts twice the size of a buffer, for its own data.
    let buffers =
        asked.receive_buffer.saturating_mul(2).saturating_mul((sockets * workers(machine, asked)) as u64);
    match machine.udp_memory {
        Some(limit) if limit < buffers => {
            let text = format!(
                "the receive buffers can take {} MiB, but net.ipv4.udp_mem allows {} MiB for all sockets",
                mib(buffers),
                mib(limit)
            );
            let pages = buffers / crate::sys::page_size();
            let value = format!("\"{} {pages} {}\"", pages / 2, pages.saturating_mul(2));
            rows.advice(CHECK, text).run(sysctl("net.ipv4.udp_mem", value));
        }
        Some(limit) => rows.ok(CHECK, format!("{} MiB of {} MiB", mib(buffers), mib(limit))),
        None => {}
    }
}

fn backlog(machine: &Machine, rows: &mut Rows) {
    let (Some(max), dropped) = (machine.netdev_backlog, machine.backlog_drops) else { return };
    if dropped > 0 {
        let text = format!(
            "{dropped} packets since the start of the machine were dropped before they reached a socket \
             (net.core.netdev_max_backlog = {max})"
        );
        rows.advice("packet_backlog", text)
            .run(sysctl("net.core.netdev_max_backlog", max.saturating_mul(10).min(100_000)));
    } else {
        rows.ok("packet_backlog", format!("no packet dropped (net.core.netdev_max_backlog = {max})"));
    }
}
