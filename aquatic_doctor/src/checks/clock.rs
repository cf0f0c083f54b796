//! The clock of the machine.

use aquatic_cli_helpers::report::Row;

use super::Rows;
use crate::machine::Machine;

/// Earliest time that a clock can show: the beginning of 2026.
const EARLIEST: i64 = 1_767_225_600;

pub(crate) fn check(machine: &Machine) -> Vec<Row> {
    const CHECK: &str = "clock";
    let mut rows = Rows::new("clock");
    let remedy = || "timedatectl set-ntp true".to_owned();
    match machine.trials.clock {
        _ if machine.trials.now < EARLIEST => {
            let text =
                "it shows a time in the past, so certificates are taken for invalid, and saved peers for old";
            rows.fault(CHECK, text).run(remedy());
        }
        Some(clock) if clock.synchronised => {
            rows.ok(CHECK, format!("synchronised, off by at most {} ms", clock.max_error / 1000));
        }
        Some(_) => {
            let text = "not synchronised with a time server: once it is off, certificates are renewed too late, and \
                        saved peers get a wrong age";
            rows.advice(CHECK, text).run(remedy());
        }
        None => {
            rows.advice(CHECK, "the kernel does not tell whether it is synchronised").run(remedy());
        }
    }
    rows.rows
}
