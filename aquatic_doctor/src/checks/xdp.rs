//! What AF_XDP needs.

use aquatic_cli_helpers::report::Row;
use aquatic_runtime::startup::parse_release;

use super::{Rows, unit};
use crate::asked::Asked;
use crate::machine::{Interface, Machine};

/// Locked memory of each queue in bytes.
const LOCKED_PER_QUEUE: u64 = 4 << 20;

/// Type of Ethernet interfaces in /sys/class/net/NAME/type.
const ETHERNET: u64 = 1;

/// First kernel whose links hold XDP programs.
const KERNEL: (u32, u32) = (5, 9);

pub(crate) fn check(machine: &Machine, asked: &Asked) -> Vec<Row> {
    let mut rows = Rows::new("UDP");
    if let Some(name) = &asked.xdp {
        check_xdp(machine, name, &mut rows);
    }
    rows.rows
}

/// All but a wrong name is advice: sockets serve everything without AF_XDP.
fn check_xdp(machine: &Machine, name: &str, rows: &mut Rows) {
    const CHECK: &str = "xdp";
    let Some(interface) = machine.interfaces.iter().find(|interface| interface.name == name) else {
        let text = format!("network.xdp_interface = \"{name}\": there is no such interface");
        rows.fault(CHECK, text).run("ip link show".to_owned());
        return;
    };
    if interface.kind.is_some_and(|kind| kind != ETHERNET) {
        let text = format!("{name} is no Ethernet interface, so sockets serve UDP");
        rows.advice(CHECK, text).set("network.xdp_interface = \"\"".to_owned());
    } else if parse_release(&machine.kernel).is_some_and(|kernel| kernel < KERNEL) {
        let text = format!("Linux {} is too old for AF_XDP, so sockets serve UDP", machine.kernel);
        rows.advice(CHECK, text).set("network.xdp_interface = \"\"".to_owned());
    } else if machine.process.tracker.is_none() && !machine.process.may_attach {
        let text = format!("this process may not attach a program to {name}, so sockets serve UDP");
        rows.advice(CHECK, text)
            .run(unit("AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK"));
    } else if let Some(limit) = too_low(machine, interface) {
        let text = format!(
            "{} queues of {name} lock {} MiB, but the limit is {} KiB, so sockets serve some of them",
            interface.queues,
            (LOCKED_PER_QUEUE * interface.queues as u64) >> 20,
            limit / 1024
        );
        rows.advice(CHECK, text).run(unit("LimitMEMLOCK=infinity"));
    } else {
        let held_back = match interface.hold_back {
            [0, _] | [_, 0] => "are not held back".to_owned(),
            [_, nanoseconds] => format!("are held back for {} us", nanoseconds / 1000),
        };
        rows.ok(CHECK, format!("{name}, {} queue(s), whose interrupts {held_back}", interface.queues));
    }
}

/// The limit of locked memory, if it is too low for the queues.
fn too_low(machine: &Machine, interface: &Interface) -> Option<u64> {
    let (_, hard) = machine.process.locked_memory?;
    let is_exempt =
        machine.process.tracker.is_some() || machine.process.may_lock || machine.process.may_raise;
    hard.filter(|&limit| !is_exempt && limit < LOCKED_PER_QUEUE * interface.queues as u64)
}
