//! From text to a configuration, or to everything that is wrong with it. Pure.
//!
//! The declared entries say which keys there are. Whether a value fits its key is found out by reading a configuration
//! that holds nothing but this key, so that one bad value does not hide the next.

use std::collections::BTreeMap;
use std::fmt;

use aquatic_common::settings::{Configuration, Entry, Meta, join_key};
use serde::Deserialize;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Table, Value};

use crate::expected;
use crate::flags::Override;
use crate::nearest::{nearest, split};

/// Most syntax errors reported: behind the first few, the parser is guessing.
const MAX_SYNTAX_ERRORS: usize = 3;

/// Where something was set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// A line of the file, counted from 1.
    Line(usize),
    /// A flag.
    Set,
    /// Nowhere: it is the default.
    Default,
}

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    place: Place,
    text: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Line(line) => write!(f, "line {line}: {}", self.text),
            Place::Set => write!(f, "--set {}", self.text),
            Place::Default => f.write_str(&self.text),
        }
    }
}

/// Reads a configuration from the text of a file and what is set on top of it.
pub(crate) fn config<C: Configuration>(text: &str, overrides: &[Override]) -> Result<C, Vec<Found>> {
    let table = parse(text)?;
    let entries = C::entries();
    let mut reader = Reader::new(text, &entries);
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
                found.push(Found { place: value.place.clone(), text: format!("{}: {text}", value.name) });
            }
        }
    }
    match merged.try_into::<C>() {
        Ok(config) => judge(config, &values, found),
        Err(error) => {
            found.push(Found { place: Place::Default, text: error.message().to_owned() });
            found.sort();
            Err(found)
        }
    }
}

/// Checks values against bounds, and against each other if all of them could be read: a relation with a value that is
/// not the one the operator wrote would only mislead.
fn judge<C: Configuration>(
    config: C,
    values: &BTreeMap<String, Written>,
    mut found: Vec<Found>,
) -> Result<C, Vec<Found>> {
    let mut problems = Vec::new();
    config.check("", None, &mut problems);
    if found.is_empty() {
        config.check_relations(&mut problems);
    }
    for problem in problems {
        let place = values.get(&problem.key).map_or(Place::Default, |value| value.place.clone());
        found.push(Found { place, text: problem.to_string() });
    }
    found.sort();
    if found.is_empty() { Ok(config) } else { Err(found) }
}

fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, Vec<Found>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table);
    }
    let found = errors.iter().take(MAX_SYNTAX_ERRORS).map(|error| {
        let offset = error.span().map_or(text.len(), |span| span.start);
        Found { place: Place::Line(line(text, offset)), text: format!("not TOML: {}", error.message()) }
    });
    Err(found.collect())
}

/// The number of the line that holds the byte at `offset`.
fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

/// A value somebody wrote for a known key.
struct Written {
    name: String,
    meta: Meta,
    value: Value,
    place: Place,
}

/// Collects values of known keys, and complaints about unknown ones.
struct Reader<'a> {
    text: &'a str,
    entries: &'a [Entry],
    /// Full names of all keys and sections.
    names: Vec<String>,
    /// By full name; of two values for one key, the later one counts.
    values: BTreeMap<String, Written>,
    found: Vec<Found>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, entries: &'a [Entry]) -> Self {
        let mut names = Vec::new();
        collect_names("", entries, &mut names);
        Self { text, entries, names, values: BTreeMap::new(), found: Vec::new() }
    }

    fn table(&mut self, table: &Spanned<DeTable<'_>>, section: &str, entries: &[Entry]) {
        for (key, value) in table.get_ref() {
            let name = join_key(section, key.get_ref());
            let place = Place::Line(line(self.text, key.span().start));
            match (entries.iter().find(|entry| entry.meta().key == key.get_ref()), value.get_ref()) {
                (None, DeValue::Table(_)) => self.unknown(place, &name, "section", entries),
                (None, _) => self.unknown(place, &name, "key", entries),
                (Some(Entry::Section(_, inner)), DeValue::Table(table)) => {
                    let table = Spanned::new(value.span(), table.clone());
                    self.table(&table, &name, inner);
                }
                (Some(Entry::Section(..)), _) => {
                    let text = format!("{name}: is a section: write [{name}] and the keys below it");
                    self.found.push(Found { place, text });
                }
                (Some(Entry::Value(_)), DeValue::Table(_)) => {
                    let text = format!("{name}: is a key, not a section: write {name} = VALUE");
                    self.found.push(Found { place, text });
                }
                (Some(Entry::Value(meta)), _) => self.value(name, meta, value, place),
            }
        }
    }

    fn value(&mut self, name: String, meta: &Meta, value: &Spanned<DeValue<'_>>, place: Place) {
        match Value::deserialize(ValueDeserializer::from(value.clone())) {
            Ok(value) => {
                self.values.insert(name.clone(), Written { name, meta: meta.clone(), value, place });
            }
            Err(error) => self.found.push(Found { place, text: format!("{name}: {}", error.message()) }),
        }
    }

    fn set(&mut self, set: &Override, defaults: &Table) {
        let place = Place::Set;
        match lookup(self.entries, &set.key) {
            Some(Entry::Value(meta)) => {
                let value = override_value(&set.value, find(defaults, &set.key));
                let written = Written { name: set.key.clone(), meta: meta.clone(), value, place };
                self.values.insert(set.key.clone(), written);
            }
            Some(Entry::Section(..)) => {
                let text = format!("{}: is a section: name one of its keys", set.key);
                self.found.push(Found { place, text });
            }
            None => {
                let (section, _) = split(&set.key);
                match lookup(self.entries, section) {
                    Some(Entry::Section(_, inner)) => self.unknown(place, &set.key, "key", inner),
                    _ => self.unknown(place, &set.key, "key", self.entries),
                }
            }
        }
    }

    /// Complains about an unknown key or section whose section has the known `siblings`.
    fn unknown(&mut self, place: Place, name: &str, what: &str, siblings: &[Entry]) {
        let (section, key) = split(name);
        let within = if section.is_empty() { String::new() } else { format!(" in section [{section}]") };
        let offers = nearest(name, self.names.iter().map(String::as_str));
        let help = if offers.is_empty() {
            let keys: Vec<&str> = siblings.iter().map(|entry| entry.meta().key).collect();
            format!("choose from {}", keys.join(", "))
        } else {
            format!("did you mean {}?", offers.join(" or "))
        };
        let misplaced = !section.is_empty() && offers.first().is_some_and(|offer| !offer.contains('.'));
        let hint = if misplaced { " That one stands above the first [section]." } else { "" };
        self.found
            .push(Found { place, text: format!("{name}: unknown {what} {key:?}{within}; {help}{hint}") });
    }
}

/// A value from the command line. Where the key holds text, quotes may be left out.
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

/// The entry with a full name.
fn lookup<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
    let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
    let entry = entries.iter().find(|entry| entry.meta().key == first)?;
    match (entry, rest) {
        (_, None) => Some(entry),
        (Entry::Section(_, inner), Some(rest)) => lookup(inner, rest),
        (Entry::Value(_), Some(_)) => None,
    }
}

/// The value with a full name.
fn find<'a>(table: &'a Table, name: &str) -> Option<&'a Value> {
    match name.split_once('.') {
        None => table.get(name),
        Some((first, rest)) => find(table.get(first)?.as_table()?, rest),
    }
}

/// Puts a value under its full name.
fn insert(table: &mut Table, name: &str, value: Value) {
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
