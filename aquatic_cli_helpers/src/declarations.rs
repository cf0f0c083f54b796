//! Completeness of the declaration of a configuration. For the tests of programs.

use aquatic_common::config::LogLevel;
use aquatic_common::settings::{Configuration, Entry, Whole, join_key};
use toml::{Table, Value};

use crate::flags::Override;
use crate::{check, print};

/// The faults of a configuration's declaration: keys without documentation, whole numbers without bounds,
/// sections that declare another name than they have, defaults that are not valid, a printed default that
/// does not parse back, former keys that exist or whose successors do not, a log level that is not returned.
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
    match print::default_config::<C>(&Whole).map(|text| check::config::<C>(&text, &[], &Whole)) {
        Ok(Ok(parsed)) if parsed == C::default() => (),
        Ok(Ok(_)) => faults.push("the printed default parses to something else".to_owned()),
        Ok(Err(found)) => faults.extend(found.iter().map(|found| format!("printed default: {found}"))),
        Err(error) => faults.push(error.to_string()),
    }
    for former in C::former_keys() {
        if check::exists(&C::entries(), former.name) {
            faults.push(format!("{}: is a former key, but exists", former.name));
        }
        let missing = former.successors.iter().filter(|key| !check::exists(&C::entries(), key));
        faults.extend(missing.map(|key| format!("{}: its successor {key} does not exist", former.name)));
    }
    if C::entries().iter().any(|entry| entry.meta().key == "log_level") {
        let set = Override { key: "log_level".to_owned(), value: "trace".to_owned() };
        match check::config::<C>("", &[set], &Whole) {
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
        if let Some(declared) = meta.section.filter(|declared| *declared != name) {
            faults.push(format!("{name}: the section declares the name {declared}"));
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
