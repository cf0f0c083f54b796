//! Parsing and validation of configurations. Pure.
//!
//! The declared entries are the known keys. Each value is validated by deserializing a configuration that
//! contains only this value, so that one bad value does not hide the next.

use std::collections::BTreeMap;
use std::fmt;

use aquatic_common::settings::{Configuration, Entry, FormerKey, Meta, Scope, join_key};
use serde::Deserialize;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Table, Value};

use crate::expected;
use crate::flags::Override;
use crate::nearest::{nearest, split};

/// Maximum number of syntax errors reported: those after the first few are often consequences of them.
const MAX_SYNTAX_ERRORS: usize = 3;

/// Origin of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    /// A line of the file, counted from 1.
    Line(usize),
    /// A flag.
    Set,
    /// The default.
    Default,
}

/// A fault of a configuration and its origin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    origin: Origin,
    text: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Line(line) => write!(f, "line {line}: {}", self.text),
            Origin::Set => write!(f, "--set {}", self.text),
            Origin::Default => f.write_str(&self.text),
        }
    }
}

/// Reads a configuration from the text of a file and the overrides of the command line. Combinations of
/// values are checked as far as `scope` reads them.
pub(crate) fn config<C: Configuration>(
    text: &str,
    overrides: &[Override],
    scope: &impl Scope<C>,
) -> Result<C, Vec<Found>> {
    let table = parse(text)?;
    let entries = C::entries();
    let reads = |key: &str| scope.reads(key);
    let mut reader = Reader::new(text, &entries, C::former_keys(), &reads);
    reader.table(&table, "", &entries);
    let defaults = Table::try_from(C::default()).unwrap_or_default();
    for set in overrides {
        reader.set(set, &defaults);
    }
    let Reader { values, mut found, .. } = reader;

    let mut merged = Table::new();
    for value in values.values() {
        let mut alone = Table::new();
        insert(&mut alone, &value.name, value.value.clone());
        match alone.try_into::<C>() {
            Ok(_) => insert(&mut merged, &value.name, value.value.clone()),
            Err(error) => {
                let default = find(&defaults, &value.name);
                let text = expected::complain(&value.meta, &value.value, default, error.message());
                found.push(Found { origin: value.origin.clone(), text: format!("{}: {text}", value.name) });
            }
        }
    }
    match merged.try_into::<C>() {
        Ok(config) => validate(config, scope, &values, found),
        Err(error) => {
            found.push(Found { origin: Origin::Default, text: error.message().to_owned() });
            found.sort();
            Err(found)
        }
    }
}

/// Checks the bounds of the values, and their combinations if all of them could be read: a problem of a
/// combination with a value that the operator did not write would mislead.
fn validate<C: Configuration>(
    config: C,
    scope: &impl Scope<C>,
    values: &BTreeMap<String, Written>,
    mut found: Vec<Found>,
) -> Result<C, Vec<Found>> {
    let mut problems = Vec::new();
    config.check("", None, &mut problems);
    if found.is_empty() {
        scope.check_relations(&config, &mut problems);
    }
    for problem in problems {
        let origin = values.get(&problem.key).map_or(Origin::Default, |value| value.origin.clone());
        found.push(Found { origin, text: problem.to_string() });
    }
    found.sort();
    if found.is_empty() { Ok(config) } else { Err(found) }
}

fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, Vec<Found>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table);
    }
    if let Some(number) = yaml_line(text) {
        let origin = Origin::Line(number);
        let text = "not TOML but YAML: write key = value, with text in quotes, and [section] above the keys of a section";
        return Err(vec![Found { origin, text: text.to_owned() }]);
    }
    let found = errors.iter().take(MAX_SYNTAX_ERRORS).map(|error| {
        let offset = error.span().map_or(text.len(), |span| span.start);
        Found { origin: Origin::Line(line(text, offset)), text: format!("not TOML: {}", error.message()) }
    });
    Err(found.collect())
}

/// The number of the first line that is no comment, if that begins like YAML: a key and a colon.
fn yaml_line(text: &str) -> Option<usize> {
    let is_empty = |line: &str| line.is_empty() || line.starts_with('#') || line == "---";
    let text = text.trim_start_matches('\u{feff}');
    let (number, line) = (1..).zip(text.lines().map(str::trim)).find(|(_, line)| !is_empty(line))?;
    let (key, value) = line.split_once(':')?;
    let key = key.trim().trim_matches('"');
    let is_key = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    (is_key && !key.is_empty() && (value.is_empty() || value.starts_with(' '))).then_some(number)
}

/// Whether a text has a key with a value. Headers of sections are none.
pub(crate) fn has_keys(text: &str) -> bool {
    parse(text).is_ok_and(|table| has_value(table.get_ref()))
}

fn has_value(table: &DeTable<'_>) -> bool {
    table.values().any(|value| value.get_ref().as_table().is_none_or(has_value))
}

/// Number of the line that contains the byte at `offset`.
fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

/// A value that is set for a known key.
struct Written {
    name: String,
    meta: Meta,
    value: Value,
    origin: Origin,
}

/// Collects the values of known keys and the faults of unknown ones.
struct Reader<'a> {
    text: &'a str,
    entries: &'a [Entry],
    former_keys: &'static [FormerKey],
    /// Whether the program reads a key.
    reads: &'a dyn Fn(&str) -> bool,
    /// Full names of all keys and sections.
    names: Vec<String>,
    /// By full name. A later value of a key replaces an earlier one.
    values: BTreeMap<String, Written>,
    found: Vec<Found>,
}

impl<'a> Reader<'a> {
    fn new(
        text: &'a str,
        entries: &'a [Entry],
        former_keys: &'static [FormerKey],
        reads: &'a dyn Fn(&str) -> bool,
    ) -> Self {
        let mut names = Vec::new();
        collect_names("", entries, &mut names);
        Self { text, entries, former_keys, reads, names, values: BTreeMap::new(), found: Vec::new() }
    }

    fn table(&mut self, table: &Spanned<DeTable<'_>>, section: &str, entries: &[Entry]) {
        for (key, value) in table.get_ref() {
            let name = join_key(section, key.get_ref());
            let origin = Origin::Line(line(self.text, key.span().start));
            match (entries.iter().find(|entry| entry.meta().key == key.get_ref()), value.get_ref()) {
                (None, DeValue::Table(table)) => self.unknown_section(origin, &name, table, entries),
                (None, _) => self.unknown(origin, &name, "key", entries),
                (Some(Entry::Section(_, inner)), DeValue::Table(table)) => {
                    let table = Spanned::new(value.span(), table.clone());
                    self.table(&table, &name, inner);
                }
                (Some(Entry::Section(..)), _) => {
                    let text = format!("{name}: is a section: write [{name}] and the keys below it");
                    self.found.push(Found { origin, text });
                }
                (Some(Entry::Value(_)), DeValue::Table(_)) => {
                    let text = format!("{name}: is a key, not a section: write {name} = VALUE");
                    self.found.push(Found { origin, text });
                }
                (Some(Entry::Value(meta)), _) => self.value(name, meta, value, origin),
            }
        }
    }

    fn value(&mut self, name: String, meta: &Meta, value: &Spanned<DeValue<'_>>, origin: Origin) {
        if let Some(number) = beyond_64_bits(value.get_ref()) {
            let text = format!("{name}: {}", expected::complain_about_huge(meta, number));
            self.found.push(Found { origin, text });
            return;
        }
        match Value::deserialize(ValueDeserializer::from(value.clone())) {
            Ok(value) => {
                self.values.insert(name.clone(), Written { name, meta: meta.clone(), value, origin });
            }
            Err(error) => self.found.push(Found { origin, text: format!("{name}: {}", error.message()) }),
        }
    }

    fn set(&mut self, set: &Override, defaults: &Table) {
        let origin = Origin::Set;
        match lookup(self.entries, &set.key) {
            Some(Entry::Value(meta)) if is_huge_integer(&set.value) && meta.bounds.is_some() => {
                let text = format!("{}: {}", set.key, expected::complain_about_huge(meta, &set.value));
                self.found.push(Found { origin, text });
            }
            Some(Entry::Value(meta)) => {
                let value = override_value(&set.value, find(defaults, &set.key));
                let written = Written { name: set.key.clone(), meta: meta.clone(), value, origin };
                self.values.insert(set.key.clone(), written);
            }
            Some(Entry::Section(..)) => {
                let text = format!("{}: is a section: name one of its keys", set.key);
                self.found.push(Found { origin, text });
            }
            None => {
                let (section, _) = split(&set.key);
                match lookup(self.entries, section) {
                    Some(Entry::Section(_, inner)) => self.unknown(origin, &set.key, "key", inner),
                    _ => self.unknown(origin, &set.key, "key", self.entries),
                }
            }
        }
    }

    /// Reports an unknown section. A former section is reported key by key if its keys have different
    /// successors.
    fn unknown_section(&mut self, origin: Origin, name: &str, table: &DeTable<'_>, siblings: &[Entry]) {
        let prefix = format!("{name}.");
        let is_split = self.former_keys.iter().any(|former| former.name.starts_with(&prefix));
        if !is_split || table.is_empty() {
            self.unknown(origin, name, "section", siblings);
            return;
        }
        for (key, _) in table {
            let origin = Origin::Line(line(self.text, key.span().start));
            self.unknown(origin, &join_key(name, key.get_ref()), "key", siblings);
        }
    }

    /// Successors of a key or section of earlier programs and versions, as text.
    fn successors(&self, name: &str) -> Option<String> {
        let former = |name| self.former_keys.iter().find(|former| former.name == name);
        let Some(former) = former(name) else {
            let (section, _) = split(name);
            let successor = former(section)?.successors.first()?;
            return Some(format!("section [{section}] was replaced by [{successor}]"));
        };
        let read: Vec<&str> = former.successors.iter().copied().filter(|key| (self.reads)(key)).collect();
        let successors = if read.is_empty() { former.successors } else { &read };
        Some(match successors {
            [] => "it no longer exists; leave it out".to_owned(),
            successors => format!("it was replaced by {}", successors.join(" and ")),
        })
    }

    /// Reports an unknown key or section. `siblings` are the known entries of its section.
    fn unknown(&mut self, origin: Origin, name: &str, what: &str, siblings: &[Entry]) {
        let (section, key) = split(name);
        let within = if section.is_empty() { String::new() } else { format!(" in section [{section}]") };
        if let Some(successors) = self.successors(name) {
            let text = format!("{name}: unknown {what} {key:?}{within}; {successors}");
            self.found.push(Found { origin, text });
            return;
        }
        let offers = nearest(name, self.names.iter().map(String::as_str));
        let help = if offers.is_empty() {
            let keys: Vec<&str> = siblings.iter().map(|entry| entry.meta().key).collect();
            format!("choose from {}", keys.join(", "))
        } else {
            format!("did you mean {}?", offers.join(" or "))
        };
        let misplaced = !section.is_empty() && offers.first().is_some_and(|offer| !offer.contains('.'));
        let hint = if misplaced { " It belongs above the first [section]." } else { "" };
        self.found
            .push(Found { origin, text: format!("{name}: unknown {what} {key:?}{within}; {help}{hint}") });
    }
}

/// The digits of an integer that does not fit in 64 bits, which TOML values cannot hold.
fn beyond_64_bits<'a>(value: &'a DeValue<'_>) -> Option<&'a str> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).is_err().then(|| integer.as_str())
}

/// Whether a text is an integer that does not fit in 64 bits.
fn is_huge_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_integer && text.parse::<i64>().is_err()
}

/// A value from the command line. Quotes around text may be left out.
fn override_value(text: &str, default: Option<&Value>) -> Value {
    let parsed = ValueDeserializer::parse(text).and_then(Value::deserialize).ok();
    match (parsed, default) {
        (Some(value @ (Value::String(_) | Value::Array(_))), _) => value,
        (_, Some(Value::String(_))) | (None, _) => Value::String(text.to_owned()),
        (Some(value), _) => value,
    }
}

fn collect_names(section: &str, entries: &[Entry], names: &mut Vec<String>) {
    for entry in entries {
        let name = join_key(section, entry.meta().key);
        if let Entry::Section(_, inner) = entry {
            collect_names(&name, inner, names);
        }
        names.push(name);
    }
}

/// The entry with the full name `name`.
fn lookup<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
    let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
    let entry = entries.iter().find(|entry| entry.meta().key == first)?;
    match (entry, rest) {
        (_, None) => Some(entry),
        (Entry::Section(_, inner), Some(rest)) => lookup(inner, rest),
        (Entry::Value(_), Some(_)) => None,
    }
}

/// Whether there is a key or section with the full name `name`.
pub(crate) fn exists(entries: &[Entry], name: &str) -> bool {
    lookup(entries, name).is_some()
}

/// The value with the full name `name`.
fn find<'a>(table: &'a Table, name: &str) -> Option<&'a Value> {
    match name.split_once('.') {
        None => table.get(name),
        Some((first, rest)) => find(table.get(first)?.as_table()?, rest),
    }
}

/// Inserts a value by its full name.
pub(crate) fn insert(table: &mut Table, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            table.insert(name.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
