//! docs/configuration.md, which lists every key. It is made from the declarations.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use aquatic_cli_helpers::print::range_text;
use aquatic_common::settings::{Entry, Meta, Settings, join_key};
use toml::{Table, Value};

use super::*;

const BEGIN: &str =
    "<!-- What follows is made from the declarations of the settings: see CONTRIBUTING.md. -->\n";

/// The part of the page after the introduction.
fn reference() -> String {
    let mut text = String::from("\n## Top level\n");
    let defaults = Table::try_from(TrackerConfig::default()).unwrap();
    section("", &TrackerConfig::entries(), &defaults, &mut text);
    text
}

fn section(name: &str, entries: &[Entry], defaults: &Table, out: &mut String) {
    for entry in entries {
        if let Entry::Value(meta) = entry {
            key(&join_key(name, meta.key), meta, defaults.get(meta.key), out);
        }
    }
    for entry in entries {
        if let Entry::Section(meta, inner) = entry {
            let name = join_key(name, meta.key);
            writeln!(out, "\n## [{name}]\n\n{}", paragraph(meta)).unwrap();
            let none = Table::new();
            let defaults = defaults.get(meta.key).and_then(Value::as_table).unwrap_or(&none);
            section(&name, inner, defaults, out);
        }
    }
}

fn key(name: &str, meta: &Meta, default: Option<&Value>, out: &mut String) {
    let default = default.map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
    let range = range_text(meta).map(|range| format!(" {range}.")).unwrap_or_default();
    let applies = match applies(name) {
        Applies::OnReload => "applied by a reload",
        Applies::OnRestart => "applied by a restart",
    };
    writeln!(out, "\n### {name}\n\nDefault: {default}; {applies}{}.{range}\n", readers(name)).unwrap();
    writeln!(out, "{}", paragraph(meta)).unwrap();
}

/// The subcommands that read a key, if not all do.
fn readers(key: &str) -> String {
    let modes = [Mode::Udp, Mode::Http, Mode::Ws, Mode::All];
    let readers: Vec<_> = modes.into_iter().filter(|mode| mode.reads(key)).map(Mode::name).collect();
    if readers.len() == modes.len() {
        return String::new();
    }
    format!("; read by `{}`", readers.join("`, `"))
}

fn paragraph(meta: &Meta) -> String {
    let lines: Vec<&str> = meta.doc.iter().map(|line| line.trim()).collect();
    lines.join("\n")
}

#[test]
fn all_keys_are_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, documented) = text.split_once(BEGIN).unwrap();
    if documented == reference() {
        return;
    }
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, format!("{before}{BEGIN}{}", reference())).unwrap();
        return;
    }
    panic!(
        "docs/configuration.md is out of date: UPDATE_DOCS=1 cargo test -p aquatic --bin aquatic reference"
    );
}
