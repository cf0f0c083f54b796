//! Processors, and how packets are spread over them.

use aquatic_cli_helpers::report::{Remedies, Row};
use aquatic_runtime::cores::{self, CorePlanError};

use super::limits::{list, workers};
use super::{Rows, unit};
use crate::asked::Asked;
use crate::machine::{Machine, NetworkCard};

pub(crate) fn check(machine: &Machine, asked: &Asked) -> Vec<Row> {
    let mut rows = Rows::new("processors");
    cores(machine, asked, &mut rows);
    let planned = planned(machine, asked);
    machine.cards.iter().for_each(|card| queues(card, &planned, &mut rows));
    rows.rows
}

fn cores(machine: &Machine, asked: &Asked, rows: &mut Rows) {
    const CHECK: &str = "workers";
    let process = &machine.process;
    match cores::plan(asked.workers, &asked.cpus, &process.processors, process.quota) {
        Ok(plan) => match plan.throttled_to {
            Some(quota) => {
                let text = format!(
                    "{} workers share a quota of {quota} processors, so the kernel stops all of them for part of the \
                     time",
                    plan.cpus.len()
                );
                rows.advice(CHECK, text).set(format!("workers = {quota}"));
            }
            None => {
                let text = format!("{} workers on the processors {}", plan.cpus.len(), list(&plan.cpus));
                rows.ok(CHECK, text);
            }
        },
        Err(error) => refused(&error, asked, rows.fault(CHECK, error.to_string())),
    }
    if let Some(quota) = process.quota.filter(|quota| quota.time < quota.period) {
        let percent = quota.time.saturating_mul(100) / quota.period.max(1);
        let text = format!("the control group allows {percent} % of a processor, and clients wait meanwhile");
        rows.advice("processor_quota", text).run(unit("CPUQuota="));
    }
}

/// Adds what makes the workers and processors possible.
fn refused(error: &CorePlanError, asked: &Asked, remedy: &mut Remedies) {
    match error {
        CorePlanError::TooMany { .. } | CorePlanError::TooManyForList { .. } => {
            remedy.set("workers = 0".to_owned());
        }
        CorePlanError::NotAllowed { allowed, .. } => {
            remedy.set("cpus = \"\"".to_owned());
            if asked.workers > allowed.numbers().len() {
                remedy.set("workers = 0".to_owned());
            }
        }
        // No setting helps; the text says where to look.
        CorePlanError::Unknown => {}
    }
}

/// Processors of the workers, or as many as the configuration asks for if there is no such plan.
fn planned(machine: &Machine, asked: &Asked) -> Vec<usize> {
    let process = &machine.process;
    match cores::plan(asked.workers, &asked.cpus, &process.processors, process.quota) {
        Ok(plan) => plan.cpus,
        Err(_) => (0..workers(machine, asked)).collect(),
    }
}

/// Mask of processors as the kernel reads it: groups of 32 bits in hexadecimal, separated by commas, the
/// highest first.
fn mask(cpus: &[usize]) -> String {
    let mut groups = vec![0_u32; cpus.iter().max().map_or(1, |cpu| cpu / 32 + 1)];
    for cpu in cpus {
        if let Some(group) = groups.get_mut(cpu / 32) {
            *group |= 1 << (cpu % 32);
        }
    }
    let (last, rest) = groups.split_last().unwrap_or((&0, &[]));
    let rest = rest.iter().rev().map(|group| format!(",{group:08x}"));
    format!("{last:x}{}", rest.collect::<String>())
}

fn queues(card: &NetworkCard, cpus: &[usize], rows: &mut Rows) {
    const CHECK: &str = "receive_queues";
    let workers = cpus.len();
    let NetworkCard { name, queues, spread } = card;
    let plural = if *queues == 1 { "" } else { "s" };
    if *queues < workers && !spread {
        let text = format!(
            "{name} has {queues} receive queue{plural} for {workers} workers: the processors of the queues do the \
             kernel's part for all of them. Use more queues, or spread the packets (RPS)"
        );
        let remedy = rows.advice(CHECK, text);
        remedy.run(format!("ethtool -L {name} combined {workers}"));
        let mask = mask(cpus);
        remedy.run(format!("echo {mask} | tee /sys/class/net/{name}/queues/rx-*/rps_cpus"));
    } else {
        let how = if *spread { ", spread over processors (RPS)" } else { "" };
        rows.ok(CHECK, format!("{name} has {queues} receive queue{plural}{how}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_groups_of_32_processors() {
        for (cpus, text) in [
            (&[0, 1][..], "3"),
            (&[2, 5], "24"),
            (&[31], "80000000"),
            (&[0, 32], "1,00000001"),
            (&[70], "40,00000000,00000000"),
        ] {
            assert_eq!(mask(cpus), text, "{cpus:?}");
        }
        let forty: Vec<usize> = (0..40).collect();
        assert_eq!(mask(&forty), "ff,ffffffff");
    }
}
