//! Limits of the process, and io_uring.

use aquatic_cli_helpers::report::Row;
use aquatic_common::processors::Processors;
use aquatic_runtime::cores;
use aquatic_runtime::startup::{Limit, locked_memory_needed, locked_memory_wanted, own_files};

use super::{Rows, sysctl, unit};
use crate::asked::{Asked, Transport};
use crate::machine::Machine;

/// Number of workers that the machine allows, and that the configuration asks for.
pub(super) fn workers(machine: &Machine, asked: &Asked) -> usize {
    let process = &machine.process;
    match cores::plan(asked.workers, &asked.cpus, &process.processors, process.quota) {
        Ok(plan) => plan.cpus.len(),
        // --check-config reports it.
        Err(_) => asked.workers.max(process.processors.len()).max(1),
    }
}

pub(crate) fn check(machine: &Machine, asked: &Asked) -> Vec<Row> {
    let mut rows = Rows::new("limits of the process");
    io_uring(machine, &mut rows);
    open_files(machine, asked, &mut rows);
    locked_memory(machine, asked, &mut rows);
    rows.rows
}

/// Whose limits are looked at.
fn whose(machine: &Machine) -> String {
    match machine.process.tracker {
        Some(pid) => format!("the running tracker (process {pid})"),
        None => "this shell".to_owned(),
    }
}

fn io_uring(machine: &Machine, rows: &mut Rows) {
    match (&machine.trials.io_uring, machine.process.tracker) {
        (_, Some(_)) => rows.ok("io_uring", "works: the tracker is running"),
        (None, None) => rows.ok("io_uring", format!("works, Linux {}", machine.kernel)),
        (Some(why), None) => {
            let remedy = rows.fault("io_uring", why.clone());
            if why.contains("io_uring_disabled") {
                remedy.run(sysctl("kernel.io_uring_disabled", 0));
            } else if why.contains("seccomp") {
                remedy.run("docker run --security-opt seccomp=PROFILE.json …".to_owned());
            }
        }
    }
}

fn open_files(machine: &Machine, asked: &Asked, rows: &mut Rows) {
    const CHECK: &str = "open_files";
    let workers = workers(machine, asked);
    let listeners = asked.listeners.len() + usize::from(asked.unix_socket);
    let connections = if asked.serves(Transport::Tcp) { asked.max_connections } else { 0 };
    let own = own_files(workers, listeners);
    let needed = own.saturating_add(connections);
    let Some((_, hard)) = machine.process.open_files else {
        rows.advice(CHECK, "the limit of open files is unknown: /proc is not mounted");
        return;
    };
    let whose = whose(machine);
    let set = unit(&format!("LimitNOFILE={needed}"));
    match hard {
        Some(hard) if connections > 0 && hard <= own => {
            let text = format!("{whose} may open {hard} files only, which leaves none for connections");
            rows.fault(CHECK, text).run(set);
        }
        Some(hard) if hard < own => {
            let text = format!("{whose} may open {hard} files only, but the tracker itself needs {own}");
            rows.fault(CHECK, text).run(set);
        }
        Some(hard) if hard < needed => {
            let text = format!(
                "{whose} may open {hard} files, so there will be at most {} connections instead of {connections}",
                hard.saturating_sub(own)
            );
            rows.advice(CHECK, text).run(set);
        }
        hard => rows.ok(CHECK, format!("{whose} may open {}; {needed} needed", Limit(hard))),
    }
    for (name, limit) in [("fs.file-max", machine.files.0), ("fs.nr_open", machine.files.1)] {
        if let Some(limit) = limit.filter(|&limit| limit < needed) {
            let text = format!("{name} = {limit} is less than the {needed} files that the tracker may open");
            rows.advice("open_files_of_system", text).run(sysctl(name, needed.saturating_mul(2)));
        }
    }
}

fn locked_memory(machine: &Machine, asked: &Asked, rows: &mut Rows) {
    const CHECK: &str = "locked_memory";
    let workers = workers(machine, asked);
    let (needed, wanted) = (locked_memory_needed(workers, &machine.kernel), locked_memory_wanted(workers));
    let Some((_, hard)) = machine.process.locked_memory else {
        rows.advice(CHECK, "the limit of locked memory is unknown: /proc is not mounted");
        return;
    };
    let whose = whose(machine);
    match hard {
        Some(hard) if hard < wanted && machine.process.may_raise => {
            rows.ok(CHECK, format!("{} KiB, which the tracker raises to {} KiB", hard / 1024, wanted / 1024));
        }
        Some(hard) if hard < needed => {
            let text = format!(
                "{whose} may lock {} KiB, but io_uring needs {} KiB for {workers} workers",
                hard / 1024,
                needed.div_ceil(1024)
            );
            rows.fault(CHECK, text).run(unit("LimitMEMLOCK=infinity"));
        }
        Some(hard) if hard < wanted => {
            let text = format!(
                "{whose} may lock {} KiB; {} KiB would be better for {workers} workers",
                hard / 1024,
                wanted / 1024
            );
            rows.advice(CHECK, text).run(unit("LimitMEMLOCK=infinity"));
        }
        Some(hard) => rows.ok(CHECK, format!("{} KiB; {} KiB needed", hard / 1024, wanted / 1024)),
        None => rows.ok(CHECK, format!("unlimited; {} KiB needed", wanted / 1024)),
    }
}

/// A list of processors as text.
pub(super) fn list(processors: &[usize]) -> String {
    processors.iter().copied().collect::<Processors>().to_string()
}
