//! Queues and ports of TCP.

use aquatic_cli_helpers::report::Row;

use super::{Rows, sysctl};
use crate::asked::{Asked, Transport};
use crate::machine::Machine;

/// Share of the maximum of connections in TIME_WAIT from which on it is worth a row, in percent.
const TIME_WAIT_SHARE: u64 = 80;

pub(crate) fn check(machine: &Machine, asked: &Asked) -> Vec<Row> {
    let mut rows = Rows::new("TCP");
    if asked.serves(Transport::Tcp) {
        backlog(machine, asked, &mut rows);
        syn_cookies(machine, &mut rows);
        time_wait(machine, &mut rows);
        proxy(machine, asked, &mut rows);
    }
    rows.rows
}

fn backlog(machine: &Machine, asked: &Asked, rows: &mut Rows) {
    const CHECK: &str = "accept_queue";
    let wanted = asked.backlog;
    match machine.somaxconn {
        Some(max) if max < wanted => {
            let text = format!(
                "network.tcp_backlog = {wanted}, but net.core.somaxconn = {max} limits it: connections are dropped in \
                 bursts"
            );
            rows.advice(CHECK, text).run(sysctl("net.core.somaxconn", wanted));
        }
        _ => rows.ok(CHECK, format!("{wanted} connections per worker and address")),
    }
    if machine.listen_overflows > 0 {
        let text = format!(
            "{} connections since the start of the machine came while a queue was full; of any program, the tracker \
             or others",
            machine.listen_overflows
        );
        let larger = wanted.max(machine.somaxconn.unwrap_or(0)).saturating_mul(2).min(65_535);
        let remedy = rows.advice("accept_queue_overflows", text);
        remedy.run(sysctl("net.core.somaxconn", larger));
        remedy.set(format!("network.tcp_backlog = {larger}"));
    }
}

fn syn_cookies(machine: &Machine, rows: &mut Rows) {
    const CHECK: &str = "syn_cookies";
    match machine.syn_cookies {
        Some(0) => {
            let text = "off: forged SYN packets can fill the queue and keep clients out";
            rows.advice(CHECK, text).run(sysctl("net.ipv4.tcp_syncookies", 1));
        }
        Some(_) => rows.ok(CHECK, "on"),
        None => {}
    }
}

fn time_wait(machine: &Machine, rows: &mut Rows) {
    const CHECK: &str = "time_wait";
    let (Some(now), Some(max), overflows) = machine.time_wait else { return };
    if overflows > 0 || now.saturating_mul(100) > max.saturating_mul(TIME_WAIT_SHARE) {
        let text = format!(
            "{now} of at most {max} connections, exceeded {overflows} times since the start of the machine. Late \
             packets of those that are left out can disturb new ones"
        );
        let larger = max.saturating_mul(4).max(262_144);
        rows.advice(CHECK, text).run(sysctl("net.ipv4.tcp_max_tw_buckets", larger));
    } else {
        rows.ok(CHECK, format!("{now} of at most {max} connections"));
    }
}

fn proxy(machine: &Machine, asked: &Asked, rows: &mut Rows) {
    const CHECK: &str = "proxy_ports";
    let Some(ports) = machine.ephemeral.filter(|_| asked.proxied) else { return };
    if ports.count() < asked.max_connections && !asked.unix_socket {
        let text = format!(
            "a proxy on this machine has {} ports for connections to the tracker, less than \
             connections.max_connections = {}. A unix socket needs no ports",
            ports.count(),
            asked.max_connections
        );
        let remedy = rows.advice(CHECK, text);
        remedy.set("network.unix_socket_path = \"/run/aquatic/http.sock\"".to_owned());
        remedy.run(sysctl("net.ipv4.ip_local_port_range", "\"1024 65535\""));
    } else {
        rows.ok(CHECK, format!("{} ports for connections of a proxy", ports.count()));
    }
}
