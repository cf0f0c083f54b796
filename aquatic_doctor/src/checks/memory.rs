//! Memory of the machine and the bound of the configuration.

use aquatic_cli_helpers::report::Row;

use super::{Rows, mib, unit};
use crate::asked::{Asked, Transport};
use crate::machine::Machine;

pub(crate) fn check(machine: &Machine, asked: &Asked) -> Vec<Row> {
    let mut rows = Rows::new("memory");
    bound(machine, asked, &mut rows);
    large_pages(machine, &mut rows);
    if machine.process.swapped > 0 {
        let text = format!(
            "{} MiB of the tracker are swapped out, and requests for them wait for the disk",
            mib(machine.process.swapped)
        );
        rows.advice("swap", text).run(unit("MemorySwapMax=0"));
    }
    rows.rows
}

fn bound(machine: &Machine, asked: &Asked, rows: &mut Rows) {
    const CHECK: &str = "max_memory";
    let Some(available) = machine.memory else {
        rows.advice(CHECK, "the memory of this machine is unknown, so limits.max_memory has no effect");
        return;
    };
    let Some(memory) = asked.memory else {
        let text = format!(
            "limits.max_memory is \"\", so nothing keeps the tracker within the {} MiB that it may use",
            mib(available)
        );
        rows.advice(CHECK, text).set("limits.max_memory = \"80%\"".to_owned());
        return;
    };
    let total = mib(memory.total);
    if memory.total < memory.least {
        let text = format!("{total} MiB are less than the {} MiB that the tracker needs", mib(memory.least));
        rows.fault(CHECK, text).set(format!("limits.max_memory = \"{}MiB\"", mib(memory.least)));
    } else if memory.total > available {
        let text = format!(
            "{total} MiB are more than the {} MiB that the process may use; the system may end it before",
            mib(available)
        );
        rows.advice(CHECK, text).set("limits.max_memory = \"80%\"".to_owned());
    } else if let Some(free) =
        machine.memory_free.filter(|&free| machine.process.tracker.is_none() && free < memory.total)
    {
        let text = format!(
            "{total} MiB, but {} MiB are free: other programs use the rest, and the system may end the tracker",
            mib(free)
        );
        let remedy = format!("limits.max_memory = \"{}MiB\"", (free / 10 * 9) >> 20);
        rows.advice(CHECK, text).set(remedy);
    } else {
        rows.ok(CHECK, format!("{total} MiB of {} MiB", mib(available)));
    }
    if asked.serves(Transport::Tcp) && memory.connections < asked.max_connections {
        let text = format!(
            "{total} MiB suffice for {} connections; {} are configured",
            memory.connections, asked.max_connections
        );
        let remedy = format!("connections.max_connections = {}", memory.connections);
        rows.advice("memory_of_connections", text).set(remedy);
    }
}

fn large_pages(machine: &Machine, rows: &mut Rows) {
    const CHECK: &str = "large_pages";
    const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let remedy = || format!("echo madvise > {SETTING}");
    match machine.large_pages.as_deref() {
        Some("madvise") => rows.ok(CHECK, "madvise: the tracker makes them where memory is full"),
        Some("always") => {
            let text =
                "always: the kernel also gives whole large pages where little is used, so memory grows";
            rows.advice(CHECK, text).run(remedy());
        }
        Some("never") => {
            let text = "never: with millions of torrents, requests take longer";
            rows.advice(CHECK, text).run(remedy());
        }
        _ => rows.ok(CHECK, "this kernel has none"),
    }
}
