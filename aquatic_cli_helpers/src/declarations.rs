//! What the declaration of a configuration owes its operators. For the tests of programs and services.

use aquatic_common::config::LogLevel;
use aquatic_common::settings::{Configuration, Entry, join_key};
use toml::{Table, Value};

use crate::flags::Override;
use crate::{check, print};

/// Everything missing from a configuration's declaration: keys without documentation, whole numbers without bounds,
/// defaults that are not valid, a printed default that does not parse back, a log level that is not passed on.
#[must_use]
pub fn faults<C: Configuration + PartialEq>() -> Vec<String> {
    let mut faults = Vec::new();
    let defaults = match Table::try_from(C::default()) {
        Ok(defaults) => defaults,
        Err(error) => return vec![format!("the default cannot be written as TOML: {error}")],
    };
    entry_faults("", &C::entries(), &defaults, &mut faults);
    faults
        .extend(C::default().problems().iter().map(|problem| format!("the default is not valid: {problem}")));
    match print::default_config::<C>().map(|text| check::config::<C>(&text, &[])) {
        Ok(Ok(parsed)) if parsed == C::default() => (),
        Ok(Ok(_)) => faults.push("the printed default parses to something else".to_owned()),
        Ok(Err(found)) => faults.extend(found.iter().map(|found| format!("printed default: {found}"))),
        Err(error) => faults.push(error.to_string()),
    }
    if C::entries().iter().any(|entry| entry.meta().key == "log_level") {
        let set = Override { key: "log_level".to_owned(), value: "trace".to_owned() };
        match check::config::<C>("", &[set]) {
            Ok(config) if config.log_level() == LogLevel::Trace => (),
            _ => faults.push("log_level: Configuration::log_level does not return it".to_owned()),
        }
    }
    faults
}

fn entry_faults(section: &str, entries: &[Entry], defaults: &Table, faults: &mut Vec<String>) {
    for entry in entries {
        let meta = entry.meta();
        let name = join_key(section, meta.key);
        if meta.doc.iter().all(|line| line.trim().is_empty()) {
            faults.push(format!("{name}: no documentation"));
        }
        match (entry, defaults.get(meta.key)) {
            (Entry::Section(_, inner), Some(Value::Table(table))) => {
                entry_faults(&name, inner, table, faults)
            }
            (Entry::Section(..), _) => faults.push(format!("{name}: not a section in the default")),
            (Entry::Value(_), Some(Value::Integer(_))) if meta.bounds.is_none() => {
                faults.push(format!("{name}: a number without bounds"));
            }
            (Entry::Value(_), _) => (),
        }
    }
}
