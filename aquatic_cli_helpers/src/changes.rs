//! Differences between two configurations, for programs that reload theirs.

use std::collections::BTreeMap;

use aquatic_common::settings::{Configuration, join_key};
use toml::{Table, Value};

use crate::check::insert;

/// A key whose value differs between two configurations.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Full name of the key.
    pub key: String,
    /// The value of the first configuration.
    pub old: Value,
    /// The value of the second configuration.
    pub new: Value,
}

/// The keys whose values differ, in alphabetical order.
///
/// # Errors
/// A configuration that cannot be written as TOML.
pub fn changes<C: Configuration>(old: &C, new: &C) -> Result<Vec<Change>, toml::ser::Error> {
    let (old, mut new) = (values(old)?, values(new)?);
    let pairs = old.into_iter().filter_map(|(key, old)| new.remove(&key).map(|new| Change { key, old, new }));
    Ok(pairs.filter(|change| change.old != change.new).collect())
}

/// A configuration with the values of `new` for the keys that `adopts` selects, and those of `old` for all
/// others.
///
/// # Errors
/// A configuration that cannot be written as TOML.
pub fn adopt<C: Configuration>(
    old: &C,
    new: &C,
    adopts: impl Fn(&str) -> bool,
) -> Result<C, Box<dyn std::error::Error + Send + Sync>> {
    let mut merged = Table::try_from(old)?;
    for (key, value) in values(new)?.into_iter().filter(|(key, _)| adopts(key)) {
        insert(&mut merged, &key, value);
    }
    Ok(merged.try_into()?)
}

/// Values by the full names of their keys.
fn values<C: Configuration>(config: &C) -> Result<BTreeMap<String, Value>, toml::ser::Error> {
    let mut values = BTreeMap::new();
    collect("", Table::try_from(config)?, &mut values);
    Ok(values)
}

fn collect(section: &str, table: Table, values: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let name = join_key(section, &key);
        if let Value::Table(inner) = value {
            collect(&name, inner, values);
        } else {
            values.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use aquatic_common::settings::Problem;

    use super::*;

    aquatic_common::settings! {
        /// A section.
        struct Inner {
            /// Names.
            pub names: Vec<String> = Vec::new();
            /// A number.
            pub number: u8 = 1, in 1..=9;
        }
    }

    aquatic_common::settings! {
        /// A configuration.
        struct Config {
            /// A switch.
            pub on: bool = false;
            /// Inside.
            pub inner: Inner;
        }
    }

    impl Configuration for Config {
        fn check_relations(&self, _problems: &mut Vec<Problem>) {}
    }

    #[test]
    fn changed_keys_are_found_and_adopted_one_by_one() {
        let old = Config::default();
        assert_eq!(changes(&old, &old.clone()).unwrap(), []);
        let inner = Inner { names: vec!["a".to_owned()], number: 2 };
        let new = Config { on: true, inner };
        let found = changes(&old, &new).unwrap();
        let shown: Vec<String> =
            found.iter().map(|change| format!("{}: {} to {}", change.key, change.old, change.new)).collect();
        assert_eq!(shown, ["inner.names: [] to [\"a\"]", "inner.number: 1 to 2", "on: false to true"]);
        let merged = adopt(&old, &new, |key| key.starts_with("inner.")).unwrap();
        assert_eq!(merged, Config { on: false, ..new });
    }
}
