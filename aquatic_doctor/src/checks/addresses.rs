//! Ports, addresses, routes and names.

use std::net::{IpAddr, Ipv6Addr};

use aquatic_cli_helpers::report::Row;
use aquatic_common::{AddressKind, Family};

use super::{Rows, sysctl};
use crate::asked::{Asked, Listener, Transport};
use crate::machine::Machine;
use crate::names::Name;
use crate::sockets::Holder;

pub(crate) fn check(machine: &Machine, asked: &Asked) -> Vec<Row> {
    let mut rows = Rows::new("addresses and names");
    ports(machine, asked, &mut rows);
    ephemeral(machine, asked, &mut rows);
    ipv4(machine, asked, &mut rows);
    ipv6(machine, asked, &mut rows);
    machine.trials.names.iter().for_each(|name| names(name, machine, asked, &mut rows));
    rows.rows
}

const fn label(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn show(listener: Listener) -> String {
    format!("{} ({})", listener.address, listener.transport.name().to_uppercase())
}

fn ports(machine: &Machine, asked: &Asked, rows: &mut Rows) {
    const CHECK: &str = "ports";
    for holder in &machine.holders {
        let what = show(holder.asked);
        match holder {
            Holder { process: Some((pid, _)), .. } if holder.tracker().is_some() => {
                rows.ok(CHECK, format!("{what}: the tracker is running (process {pid})"));
            }
            Holder { process, held, asked, is_certain: false } => {
                let who = process.as_ref().map_or_else(
                    || "another process".to_owned(),
                    |(pid, name)| format!("{name} (process {pid})"),
                );
                let text = format!(
                    "{what}: {who} listens on {}, which takes IPv4 as well unless it is limited to IPv6 (IPV6_V6ONLY)",
                    held.address
                );
                let (flag, port) = (flag(*asked), held.address.port());
                rows.advice(CHECK, text)
                    .run(format!("ss -{flag}lpne sport = :{port}    # v6only:1 leaves IPv4 to others"));
            }
            Holder { process: Some((1, name)), held, .. } => {
                let text = format!("{what}: {name} (process 1) listens on {} for a service", held.address);
                rows.fault(CHECK, text).run("systemctl list-sockets    # stop the socket unit".to_owned());
            }
            Holder { process: Some((pid, name)), held, .. } => {
                let text = format!("{what}: {name} (process {pid}) listens on {} already", held.address);
                rows.fault(CHECK, text).run(format!("kill {pid}    # or choose another port in [network]"));
            }
            Holder { process: None, held, asked, .. } => {
                let text = format!(
                    "{what}: another process listens on {} already; root can see which",
                    held.address
                );
                let (flag, port) = (flag(*asked), held.address.port());
                rows.fault(CHECK, text).run(format!("ss -{flag}lpn sport = :{port}"));
            }
        }
    }
    if machine.holders.is_empty() {
        let ports: Vec<String> =
            asked.ports().iter().map(|(transport, port)| format!("{port}/{}", transport.name())).collect();
        rows.ok(
            CHECK,
            format!("free: {}", if ports.is_empty() { "any".to_owned() } else { ports.join(", ") }),
        );
    }
}

/// Option of ss(8) for the transport.
fn flag(listener: Listener) -> char {
    if listener.transport == Transport::Udp { 'u' } else { 't' }
}

/// Reports ports that the kernel may give to any program that connects somewhere while the tracker is down.
fn ephemeral(machine: &Machine, asked: &Asked, rows: &mut Rows) {
    let Some(span) = machine.ephemeral else { return };
    let mut ports: Vec<u16> = asked.ports().into_iter().map(|(_, port)| port).collect();
    ports.extend(asked.endpoints.iter().map(|address| address.port()).filter(|&port| port != 0));
    ports.sort_unstable();
    ports.dedup();
    let is_reserved = |port: u64| machine.reserved.iter().any(|span| span.contains(port));
    ports.retain(|&port| span.contains(port.into()) && !is_reserved(port.into()));
    if ports.is_empty() {
        return;
    }
    let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let text = format!(
        "the kernel may give port {list} to another program's connection while the tracker restarts, which then cannot \
         start"
    );
    rows.advice("ephemeral_ports", text).run(sysctl("net.ipv4.ip_local_reserved_ports", list));
}

fn ipv4(machine: &Machine, asked: &Asked, rows: &mut Rows) {
    const CHECK: &str = "ipv4";
    if !asked.serves_family(Family::V4) || only_local(asked, Family::V4) {
        return;
    }
    let (addresses, has_route) = &machine.ipv4;
    match (addresses.first(), has_route) {
        (None, _) => {
            let text = "this machine has no IPv4 address but loopback";
            rows.advice(CHECK, text).run("ip -4 address".to_owned());
        }
        (Some(_), false) => {
            let text = "there is no default route, so replies only reach the networks of this machine";
            rows.advice(CHECK, text).run("ip -4 route".to_owned());
        }
        (Some(first), true) => {
            let is_global = addresses.iter().any(|&ip| AddressKind::of(ip.into()) == AddressKind::Public);
            let behind = if is_global { "" } else { "; private, so a router must forward the port" };
            rows.ok(CHECK, format!("{first}{behind}"));
        }
    }
}

/// Whether a family is served on loopback addresses only.
fn only_local(asked: &Asked, family: Family) -> bool {
    asked.listeners_for(family).all(|listener| listener.address.ip().is_loopback())
}

fn is_global(ip: Ipv6Addr) -> bool {
    AddressKind::of(ip.into()) == AddressKind::Public
}

fn ipv6(machine: &Machine, asked: &Asked, rows: &mut Rows) {
    const CHECK: &str = "ipv6";
    let (addresses, has_route) = &machine.ipv6;
    let global = addresses.iter().find(|ip| is_global(**ip));
    if !asked.serves_family(Family::V6) {
        if let Some(ip) = global.filter(|_| *has_route) {
            let text =
                format!("this machine has {ip}, but network.use_ipv6 is false; a fifth of clients use IPv6");
            rows.advice(CHECK, text).set("network.use_ipv6 = true".to_owned());
        }
        return;
    }
    if only_local(asked, Family::V6) {
        return;
    }
    match (global, has_route) {
        _ if machine.ipv6_disabled => {
            let text = "IPv6 is switched off on this machine, so those clients are not served";
            let remedy = rows.advice(CHECK, text);
            remedy.run(sysctl("net.ipv6.conf.all.disable_ipv6", 0));
            remedy.set("network.use_ipv6 = false    # to leave it off".to_owned());
        }
        (None, _) if addresses.is_empty() => {
            let text = "this machine has no IPv6 address but loopback and link-local ones";
            rows.advice(CHECK, text).run("ip -6 address".to_owned());
        }
        (None, _) => {
            let text = "this machine has private IPv6 addresses only, which clients cannot reach";
            rows.advice(CHECK, text).run("ip -6 address".to_owned());
        }
        (Some(ip), false) => {
            let text = format!(
                "this machine has {ip} but no default route: clients wait for replies that never come, and list \
                 sites try IPv6 first"
            );
            rows.fault(CHECK, text).run("ip -6 route".to_owned());
        }
        (Some(ip), true) => rows.ok(CHECK, ip.to_string()),
    }
}

fn names(name: &Name, machine: &Machine, asked: &Asked, rows: &mut Rows) {
    const CHECK: &str = "name";
    let host = &name.name;
    let addresses = match &name.addresses {
        Ok(addresses) if !addresses.is_empty() => addresses,
        Ok(_) => {
            rows.fault(CHECK, format!("{host} has no address")).run(format!("getent ahosts {host}"));
            return;
        }
        Err(error) => {
            let text = format!("{host} cannot be resolved: {error}");
            rows.fault(CHECK, text).run(format!("getent ahosts {host}"));
            return;
        }
    };
    let literal = host.parse::<IpAddr>().ok().map(Family::of);
    for family in Family::ALL {
        // An address has no records of the other family.
        if literal.is_some_and(|own| own != family) {
            continue;
        }
        let of_name: Vec<IpAddr> = addresses.iter().copied().filter(|ip| Family::of(*ip) == family).collect();
        of_family(host, family, &of_name, machine, asked, rows);
    }
}

/// Compares the addresses of a name with those of this machine.
fn of_family(
    host: &str,
    family: Family,
    of_name: &[IpAddr],
    machine: &Machine,
    asked: &Asked,
    rows: &mut Rows,
) {
    let (check, record) = if family == Family::V4 { ("name_ipv4", "A") } else { ("name_ipv6", "AAAA") };
    let own: Vec<IpAddr> = match family {
        Family::V4 => machine.ipv4.0.iter().map(|&ip| ip.into()).collect(),
        Family::V6 => machine.ipv6.0.iter().map(|&ip| ip.into()).collect(),
    };
    let has_global = own.iter().any(|ip| AddressKind::of(*ip) == AddressKind::Public);
    let serves = asked.serves_family(family);
    let list = of_name.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let elsewhere = of_name.iter().find(|ip| !own.contains(ip) && !ip.is_loopback());
    let look = format!("getent ahosts {host}");
    // UDP sockets for IPv6 accept IPv6 only, whatever `only_ipv6` says.
    let udp_is_left_out = asked.dual_stack
        && asked.serves(Transport::Udp)
        && asked.listeners_for(family).all(|listener| listener.transport == Transport::Tcp);
    match (of_name.is_empty(), serves) {
        (false, false) => {
            let text = format!(
                "{host} has {record} records ({list}), but the tracker does not serve {}: those clients, and list \
                 sites, find it dead",
                label(family)
            );
            rows.fault(check, text).set(format!("network.use_{} = true", family.name()));
        }
        (false, true) if udp_is_left_out => {
            let text = format!(
                "{host} has {record} records ({list}), but the tracker serves {} over TCP only: UDP needs a socket of \
                 its own for each family",
                label(family)
            );
            let remedy = rows.advice(check, text);
            remedy.set("network.use_ipv4 = true".to_owned());
            remedy.set("network.only_ipv6 = true".to_owned());
        }
        (true, true) if has_global => {
            let text = format!("{host} has no {record} record, so no client comes over {}", label(family));
            rows.advice(check, text).run(look);
        }
        (true, _) => {}
        (false, true) => match elsewhere.filter(|_| has_global) {
            Some(ip) => {
                let text = format!("{host} is {ip}, which is not an address of this machine");
                rows.advice(check, text).run(look);
            }
            None => rows.ok(check, format!("{host} is {list}")),
        },
    }
}
