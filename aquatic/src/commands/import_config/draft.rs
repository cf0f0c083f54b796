//! The configuration that is being written.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

use aquatic_common::Family;
use aquatic_common::config::{CleaningConfig, NetworkConfig, ProtocolConfig};
use aquatic_common::settings::{Configuration, Entry, Meta, Scope, Settings, join_key};
use aquatic_common::time::shorten;
use aquatic_http::HttpConfig;
use aquatic_udp::UdpConfig;
use aquatic_ws::WsConfig;
use toml::{Table, Value};

use super::{ImportError, Imported, Program};
use crate::config::{Mode, TrackerConfig};

/// Longest line of a comment in the written file.
const LINE: usize = 110;

/// Values by full name of their keys, and what could not be carried over.
#[derive(Debug, Default)]
pub(super) struct Draft {
    values: BTreeMap<String, Set>,
    notes: Vec<String>,
    sources: Vec<String>,
    source: String,
    /// Switches that a process has once: key, whether it was on, and the program.
    switches: Vec<(&'static str, bool, String)>,
    /// Whether the current program encrypts its connections.
    pub(super) encryption: Encryption,
    /// Addresses of all programs.
    listeners: Vec<(SocketAddr, Encryption)>,
}

/// Whether connections to a listening address are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encryption {
    /// The program has no TLS.
    #[default]
    Any,
    /// TCP without TLS.
    Plain,
    /// TLS.
    Tls,
}

/// A value and the program and key that it comes from.
#[derive(Debug)]
struct Set {
    value: Value,
    origin: String,
}

impl Draft {
    /// Starts with the configuration of a further program.
    pub(super) fn start(&mut self, name: &str, program: Program) {
        self.sources.push(format!("{name} ({program})"));
        self.source = program.to_string();
    }

    /// Sets a key to the value that `former` had. If the key was already set, by another program, the larger
    /// number is kept, and the first value of any other kind. Numbers are brought within the bounds of the
    /// key. Both are noted.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>, former: &str) {
        let origin = format!("{former} of {}", self.source);
        self.set_from(key, value.into(), origin);
    }

    /// As [`Self::set`], with the whole origin.
    fn set_from(&mut self, key: &str, value: Value, origin: String) {
        let value = self.within_bounds(key, value, &origin);
        let new = Set { value, origin };
        let Some(old) = self.values.get(key) else {
            self.values.insert(key.to_owned(), new);
            return;
        };
        if old.value == new.value {
            return;
        }
        let takes_new =
            matches!((&old.value, &new.value), (Value::Integer(old), Value::Integer(new)) if new > old);
        let (kept, dropped) = if takes_new { (&new, old) } else { (old, &new) };
        let note = format!(
            "{key} is {}, from {}; {} was {}. {}",
            kept.value,
            kept.origin,
            dropped.origin,
            dropped.value,
            if self.sources.len() > 1 {
                "Both programs share this setting now."
            } else {
                "The setting has one value only."
            }
        );
        self.notes.push(note);
        if takes_new {
            self.values.insert(key.to_owned(), new);
        }
    }

    /// The value that a key was set to.
    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).map(|set| &set.value)
    }

    /// The number that a key has or will have by default.
    fn number(&self, key: &str, default: u32) -> u32 {
        self.get(key)
            .and_then(Value::as_integer)
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(default)
    }

    /// Adds something to listen at.
    pub(super) fn listen(&mut self, address: SocketAddr) {
        self.listeners.push((address, self.encryption));
    }

    /// Notes that a setting has no counterpart, and what to do instead.
    pub(super) fn note(&mut self, former: &str, text: &str) {
        self.notes.push(format!("{former} of {}: {text}", self.source));
    }

    /// Remembers whether the program had something on that applies to all programs now.
    pub(super) fn switch(&mut self, key: &'static str, is_on: bool) {
        self.switches.push((key, is_on, self.source.clone()));
    }

    /// Notes what was on in some programs and applies to the others now.
    fn note_switches(&mut self) {
        let mut switches = std::mem::take(&mut self.switches);
        switches.sort_by_key(|(key, ..)| *key);
        for same in switches.chunk_by(|(one, ..), (other, ..)| one == other) {
            let of = |wanted| {
                let programs = same.iter().filter(|(_, is_on, _)| *is_on == wanted);
                programs.map(|(.., program)| program.as_str()).collect::<Vec<_>>().join(" and ")
            };
            let (on, off) = (of(true), of(false));
            if let (Some((key, ..)), false, false) = (same.first(), on.is_empty(), off.is_empty()) {
                self.notes.push(format!("{key} of {on} applies to what was {off} as well now."));
            }
        }
    }

    fn within_bounds(&mut self, key: &str, value: Value, origin: &str) -> Value {
        let bounds = meta(key).and_then(|meta| meta.bounds);
        let (Value::Integer(number), Some(bounds)) = (&value, bounds) else { return value };
        let number = *number;
        let low = i64::try_from(*bounds.start()).unwrap_or(i64::MAX);
        let high = i64::try_from(*bounds.end()).unwrap_or(i64::MAX);
        let clamped = number.clamp(low, high);
        if clamped != number {
            self.notes
                .push(format!("{key} is {clamped}: {origin} was {number}, and {low} to {high} is possible."));
        }
        Value::Integer(clamped)
    }

    /// The written configuration.
    ///
    /// # Errors
    /// A value of the wrong type, or a combination of values that the tracker would not accept.
    pub(super) fn finish(mut self, programs: &[Program]) -> Result<Imported, ImportError> {
        self.enable(programs);
        self.write_addresses();
        self.note_switches();
        self.relate();
        let config = self.parse()?;
        let mut problems = config.problems();
        Scope::check_relations(&Mode::All, &config, &mut problems);
        problems.dedup();
        if !problems.is_empty() {
            let list: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
            return Err(ImportError(format!(
                "The converted configuration would not be valid; change the former one accordingly:{}",
                list.concat()
            )));
        }
        Ok(Imported { text: self.render(), notes: self.notes })
    }

    /// Switches the protocols off that no source served.
    fn enable(&mut self, programs: &[Program]) {
        if programs.contains(&Program::Opentracker) {
            return;
        }
        for (key, program) in [
            (UdpConfig::enable, Program::Udp),
            (HttpConfig::enable, Program::Http),
            (WsConfig::enable, Program::Ws),
        ] {
            if !programs.contains(&program) {
                self.set_from(key, false.into(), format!("the absence of a configuration of {program}"));
            }
        }
    }

    fn write_addresses(&mut self) {
        const ORIGIN: &str = "the listening addresses";
        let listeners = std::mem::take(&mut self.listeners);
        if listeners.is_empty() {
            return;
        }
        let has = |wanted| listeners.iter().any(|(_, encryption)| *encryption == wanted);
        let is_apart = has(Encryption::Tls) && has(Encryption::Plain);
        let is_tls = |encryption: Encryption| is_apart && encryption == Encryption::Tls;
        let of = |family: Family, tls: bool| {
            let mut list = Vec::new();
            for (address, encryption) in &listeners {
                let is_of = Family::of(address.ip()) == family && is_tls(*encryption) == tls;
                if is_of && !list.contains(address) {
                    list.push(*address);
                }
            }
            list
        };
        for (family, key, tls_key, switch) in [
            (
                Family::V4,
                NetworkConfig::address_ipv4,
                NetworkConfig::tls_address_ipv4,
                NetworkConfig::use_ipv4,
            ),
            (
                Family::V6,
                NetworkConfig::address_ipv6,
                NetworkConfig::tls_address_ipv6,
                NetworkConfig::use_ipv6,
            ),
        ] {
            let (mut shared, tls) = (of(family, false), of(family, true));
            if shared.is_empty() && tls.is_empty() {
                self.set_from(switch, false.into(), ORIGIN.to_owned());
                continue;
            }
            if shared.is_empty() {
                shared.extend(
                    listeners.iter().find(|(_, of)| !is_tls(*of)).map(|(other, _)| any(family, *other)),
                );
                let text = format!(
                    "{key} has {} besides: it cannot be empty while {tls_key} is used.",
                    list(&shared)
                );
                self.notes.push(text);
            }
            self.set_from(key, list(&shared), ORIGIN.to_owned());
            if !tls.is_empty() {
                self.set_from(tls_key, list(&tls), ORIGIN.to_owned());
            }
        }
        self.note_shared_addresses(&listeners, is_apart);
    }

    /// Notes that programs which listened at different addresses share them.
    fn note_shared_addresses(&mut self, listeners: &[(SocketAddr, Encryption)], is_apart: bool) {
        let differ =
            listeners.iter().any(|(address, _)| Some(address) != listeners.first().map(|(first, _)| first));
        if self.sources.len() < 2 || !differ {
            return;
        }
        let mut text =
            "The programs share their addresses now: each protocol is served at the addresses of all."
                .to_owned();
        if is_apart {
            text.push_str(
                " Those with TLS are in network.tls_address_ipv4 and tls_address_ipv6, without UDP.",
            );
        }
        self.notes.push(text);
    }

    /// Adapts values that depend on others.
    fn relate(&mut self) {
        let protocol = ProtocolConfig::default();
        let interval = self.number(ProtocolConfig::peer_announce_interval, protocol.peer_announce_interval);
        let age = self.number(CleaningConfig::max_peer_age, CleaningConfig::default().max_peer_age);
        self.at_least_twice(
            (CleaningConfig::max_peer_age, age),
            (ProtocolConfig::peer_announce_interval, interval),
        );
        let ws = WsConfig::default();
        let interval = (
            WsConfig::peer_announce_interval,
            self.number(WsConfig::peer_announce_interval, ws.peer_announce_interval),
        );
        for (key, default) in [
            ("ws.cleaning.max_peer_age", ws.cleaning.max_peer_age),
            ("ws.client.max_announce_idle", ws.client.max_announce_idle),
        ] {
            let value = self.number(key, default);
            self.at_least_twice((key, value), interval);
        }
        let interval = self.number(ProtocolConfig::peer_announce_interval, protocol.peer_announce_interval);
        let shortest = shorten(interval, protocol.announce_interval_jitter, u32::MAX);
        if HttpConfig::default().min_announce_interval > shortest {
            self.set_from(
                HttpConfig::min_announce_interval,
                shortest.into(),
                format!("the shortest interval that {} allows", ProtocolConfig::peer_announce_interval),
            );
        }
    }

    /// Raises a peer age to twice the interval.
    fn at_least_twice(&mut self, (key, age): (&str, u32), (interval_key, interval): (&str, u32)) {
        let shortest = interval.saturating_mul(2);
        if age < shortest {
            let note = format!(
                "{key} is {shortest}, twice {interval_key}: {age} s would end between two announces."
            );
            self.notes.push(note);
            let value = Value::from(shortest);
            self.values.insert(key.to_owned(), Set { value, origin: format!("twice {interval_key}") });
        }
    }

    fn parse(&self) -> Result<TrackerConfig, ImportError> {
        let mut table = Table::new();
        for (key, set) in &self.values {
            insert(&mut table, key, set.value.clone());
            let mut alone = Table::new();
            insert(&mut alone, key, set.value.clone());
            alone.try_into::<TrackerConfig>().map_err(|error| {
                ImportError(format!(
                    "{}: {} is no value for {key}: {}",
                    set.origin,
                    set.value,
                    error.message()
                ))
            })?;
        }
        table.try_into().map_err(|error: toml::de::Error| ImportError(error.message().to_owned()))
    }

    fn render(&self) -> String {
        let mut out = String::new();
        comment(
            &mut out,
            "# ",
            &format!("Configuration of aquatic, converted from {}.", self.sources.join(", ")),
        );
        comment(
            &mut out,
            "# ",
            "Start with: aquatic all -c THIS_FILE. Keys that are not here have their defaults: aquatic all -p",
        );
        if !self.notes.is_empty() {
            out.push_str("#\n# What is different now:\n");
        }
        for note in &self.notes {
            comment(&mut out, "# - ", note);
        }
        if self.values.keys().any(|key| !key.contains('.')) {
            out.push('\n');
        }
        section(&mut out, "", &TrackerConfig::entries(), &self.values);
        out
    }
}

/// All addresses of a family, with the port of an address.
fn any(family: Family, of: SocketAddr) -> SocketAddr {
    match family {
        Family::V4 => SocketAddr::from(([0; 4], of.port())),
        Family::V6 => SocketAddr::from(([0_u16; 8], of.port())),
    }
}

/// One address, or a list of several.
fn list(addresses: &[SocketAddr]) -> Value {
    match addresses {
        [one] => Value::from(one.to_string()),
        several => several.iter().map(|address| Value::from(address.to_string())).collect::<Vec<_>>().into(),
    }
}

/// Writes the keys of a section that were set, then the sections inside it, in the order of declaration.
fn section(out: &mut String, name: &str, entries: &[Entry], values: &BTreeMap<String, Set>) {
    for entry in entries {
        let key = join_key(name, entry.meta().key);
        if let (Entry::Value(meta), Some(set)) = (entry, values.get(&key)) {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# From {}", set.origin);
            let _ = writeln!(out, "{} = {}", meta.key, set.value);
        }
    }
    for entry in entries {
        let Entry::Section(meta, inner) = entry else { continue };
        let name = join_key(name, meta.key);
        let prefix = format!("{name}.");
        if values.keys().any(|key| key.starts_with(&prefix)) {
            if inner.iter().any(|entry| values.contains_key(&join_key(&name, entry.meta().key))) {
                let _ = writeln!(out, "\n[{name}]");
            }
            section(out, &name, inner, values);
        }
    }
}

/// Writes a comment, wrapped at spaces.
fn comment(out: &mut String, mark: &str, text: &str) {
    let mut line = mark.to_owned();
    let mut is_empty = true;
    for word in text.split(' ') {
        if !is_empty && line.len() + 1 + word.len() > LINE {
            out.push_str(&line);
            out.push('\n');
            line = format!("#{}", " ".repeat(mark.len() - 1));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    out.push_str(&line);
    out.push('\n');
}

/// The declaration of a key.
fn meta(key: &str) -> Option<Meta> {
    fn find(entries: &[Entry], key: &str) -> Option<Meta> {
        let (first, rest) = match key.split_once('.') {
            Some((first, rest)) => (first, Some(rest)),
            None => (key, None),
        };
        let entry = entries.iter().find(|entry| entry.meta().key == first)?;
        match (entry, rest) {
            (Entry::Value(meta), None) => Some(meta.clone()),
            (Entry::Section(_, inner), Some(rest)) => find(inner, rest),
            (Entry::Value(_), Some(_)) | (Entry::Section(..), None) => None,
        }
    }
    find(&TrackerConfig::entries(), key)
}

/// Inserts a value by the full name of its key.
fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Some(inner) = inner.as_table_mut() {
                insert(inner, rest, value);
            }
        }
    }
}
