//! Configurations as commented TOML.

use std::fmt::Write;

use aquatic_common::settings::{Configuration, Entry, Meta, Scope, join_key};
use toml::{Table, Value};

/// First line of a printed default configuration.
const HEADER: &str = "# Every key may be left out. The values below are the defaults.\n";

/// The part of the default configuration that `scope` reads, with a comment above every key and section:
/// meaning, unit and valid values. Parses back to the default.
pub fn default_config<C: Configuration>(scope: &impl Scope<C>) -> Result<String, toml::ser::Error> {
    let values = Table::try_from(C::default())?;
    let reads = |key: &str| scope.reads(key);
    let mut printer = Printer { out: HEADER.to_owned(), style: Style::Commented, reads: &reads };
    printer.section("", &C::entries(), &values, &Table::new());
    Ok(printer.out)
}

/// The part of a configuration that `scope` reads, without comments, except that a key whose value is not the
/// default has the default beside it.
pub fn parsed_config<C: Configuration>(
    config: &C,
    scope: &impl Scope<C>,
) -> Result<String, toml::ser::Error> {
    let values = Table::try_from(config)?;
    let defaults = Table::try_from(C::default())?;
    let reads = |key: &str| scope.reads(key);
    let mut printer = Printer { out: String::new(), style: Style::Terse, reads: &reads };
    printer.section("", &C::entries(), &values, &defaults);
    Ok(printer.out)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Documentation above every key.
    Commented,
    /// Keys and values, and the defaults that differ.
    Terse,
}

struct Printer<'a> {
    out: String,
    style: Style,
    /// Whether a key is printed.
    reads: &'a dyn Fn(&str) -> bool,
}

impl Printer<'_> {
    /// Prints keys before sections, whatever their order of declaration: in TOML, a key below a section's
    /// header belongs to that section.
    fn section(&mut self, name: &str, entries: &[Entry], values: &Table, defaults: &Table) {
        for entry in entries {
            if let Entry::Value(meta) = entry
                && (self.reads)(&join_key(name, meta.key))
            {
                self.key(meta, values.get(meta.key), defaults.get(meta.key));
            }
        }
        let none = Table::new();
        for entry in entries {
            let name = join_key(name, entry.meta().key);
            if let Entry::Section(meta, inner) = entry
                && self.reads_any(&name, inner)
            {
                self.comment(meta);
                self.line(format_args!("[{name}]"));
                let values = values.get(meta.key).and_then(Value::as_table).unwrap_or(&none);
                let defaults = defaults.get(meta.key).and_then(Value::as_table).unwrap_or(&none);
                self.section(&name, inner, values, defaults);
            }
        }
    }

    /// Whether a key of the section `name` is printed.
    fn reads_any(&self, name: &str, entries: &[Entry]) -> bool {
        entries.iter().any(|entry| {
            let name = join_key(name, entry.meta().key);
            match entry {
                Entry::Value(_) => (self.reads)(&name),
                Entry::Section(_, inner) => self.reads_any(&name, inner),
            }
        })
    }

    fn key(&mut self, meta: &Meta, value: Option<&Value>, default: Option<&Value>) {
        if self.style == Style::Commented {
            self.comment(meta);
        }
        match (value, default) {
            (None, _) => self.line(format_args!("# {} is not set", meta.key)),
            (Some(value), Some(default)) if value != default => {
                self.line(format_args!("{} = {value} # default: {default}", meta.key));
            }
            (Some(value), _) => self.line(format_args!("{} = {value}", meta.key)),
        }
    }

    fn comment(&mut self, meta: &Meta) {
        self.out.push('\n');
        if self.style == Style::Terse {
            return;
        }
        for line in meta.doc {
            self.line(format_args!("#{line}"));
        }
        if let Some(range) = range_text(meta) {
            self.line(format_args!("# {range}."));
        }
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.out, "{text}");
    }
}

/// Valid values of a key in words: `From 60 to 172800 seconds`.
#[must_use]
pub fn range_text(meta: &Meta) -> Option<String> {
    if !meta.choices.is_empty() {
        return Some(format!("One of {}", choices_text(meta.choices)));
    }
    match (&meta.bounds, meta.unit) {
        (Some(bounds), Some(unit)) => Some(format!("From {} to {} {unit}", bounds.start(), bounds.end())),
        (Some(bounds), None) => Some(format!("From {} to {}", bounds.start(), bounds.end())),
        (None, Some(unit)) => Some(format!("In {unit}")),
        (None, None) => None,
    }
}

/// Choices as they are written in TOML: `"off", "allow", "deny"`.
pub(crate) fn choices_text(choices: &[&str]) -> String {
    let quoted: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
    quoted.join(", ")
}
