//! Processors, and how packets are spread over them.

use aquatic_cli_helpers::report::Row;
use aquatic_runtime::cores;

use super::limits::{list, workers};
use super::{Rows, unit};
use crate::asked::Asked;
use crate::machine::{Machine, NetworkCard};

pub(crate) fn check(machine: &Machine, asked: &Asked) -> Vec<Row> {
    let mut rows = Rows::new("processors");
    cores(machine, asked, &mut rows);
    machine.cards.iter().for_each(|card| queues(card, workers(machine, asked), &mut rows));
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
        Err(error) => {
            rows.fault(CHECK, error.to_string()).set("workers = 0".to_owned());
        }
    }
    if let Some(quota) = process.quota.filter(|quota| quota.time < quota.period) {
        let percent = quota.time.saturating_mul(100) / quota.period.max(1);
        let text = format!("the control group allows {percent} % of a processor, and clients wait meanwhile");
        rows.advice("processor_quota", text).run(unit("CPUQuota="));
    }
}

fn queues(card: &NetworkCard, workers: usize, rows: &mut Rows) {
    const CHECK: &str = "receive_queues";
    let NetworkCard { name, queues, spread } = card;
    let plural = if *queues == 1 { "" } else { "s" };
    if *queues < workers && !spread {
        let mask = if workers >= 64 { u64::MAX } else { (1 << workers) - 1 };
        let text = format!(
            "{name} has {queues} receive queue{plural} for {workers} workers: the processors of the queues do the \
             kernel's part for all of them. Use more queues, or spread the packets (RPS)"
        );
        let remedy = rows.advice(CHECK, text);
        remedy.run(format!("ethtool -L {name} combined {workers}"));
        remedy.run(format!("echo {mask:x} | tee /sys/class/net/{name}/queues/rx-*/rps_cpus"));
    } else {
        let how = if *spread { ", spread over processors (RPS)" } else { "" };
        rows.ok(CHECK, format!("{name} has {queues} receive queue{plural}{how}"));
    }
}
