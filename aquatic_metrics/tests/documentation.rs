//! docs/metrics.md lists every metric.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use aquatic_metrics::exposition::{exposed_name, type_of};
use aquatic_metrics::{Kind, names};

const BEGIN: &str = "<!-- The table is made from aquatic_metrics/src/names.rs: see CONTRIBUTING.md. -->\n\n";

fn table() -> String {
    let mut table = String::from("| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n");
    for metric in names::ALL {
        let of_each_core = matches!(metric.kind, Kind::CounterPerCore | Kind::GaugePerCore).then_some("core");
        let labels: Vec<_> = metric.labels.iter().copied().chain(of_each_core).collect();
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let (name, kind, help) = (exposed_name(metric), type_of(metric.kind), metric.help);
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    table
}

#[test]
fn all_metrics_are_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, documented) = text.split_once(BEGIN).unwrap();
    if documented == table() {
        return;
    }
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, format!("{before}{BEGIN}{}", table())).unwrap();
        return;
    }
    panic!(
        "docs/metrics.md is out of date: UPDATE_DOCS=1 cargo test -p aquatic_metrics --test documentation"
    );
}
