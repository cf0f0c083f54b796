//! Declaration of settings: documentation, type, default, unit and bounds of a setting are declared together.
//! The printed default configuration, the check for unknown keys and the check of the bounds are derived from
//! it.
//!
//! ```
//! aquatic_common::settings! {
//!     /// Announces and replies.
//!     pub struct Protocol, section "protocol" {
//!         /// Maximum number of peers in a reply.
//!         pub max_response_peers: usize = 50, unit "peers", in 1..=202;
//!     }
//! }
//!
//! assert_eq!(Protocol::default().max_response_peers, 50);
//! assert_eq!(Protocol::max_response_peers, "protocol.max_response_peers");
//! ```
//!
//! A field whose type is itself declared this way is a section: it needs no default, and without
//! documentation of its own it has that of its type. A section that several programs have with different
//! defaults takes these as a constant parameter: `pub struct Pace<const RATE: u32>`.
//!
//! `section "NAME"` is the full name of the section in the configuration. It gives the type one constant per
//! key, named like the key, that holds the full name of the key. Problems, error texts and log lines refer to
//! keys by these constants only, so that a key that is renamed or moved is renamed everywhere.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::access_list::AccessListMode;
use crate::config::{LogFormat, LogLevel};
use crate::memory_limit::MemoryLimit;
use crate::ports::Ports;
use crate::processors::Processors;

/// Declaration of one key or section.
#[derive(Clone, Debug)]
pub struct Meta {
    /// The key inside its section.
    pub key: &'static str,
    /// Full name that the type of a section declares for itself.
    pub section: Option<&'static str>,
    /// Documentation, one element per line.
    pub doc: &'static [&'static str],
    /// Unit of the value, if it has one.
    pub unit: Option<&'static str>,
    /// Smallest and largest value, if the value is a number with bounds.
    pub bounds: Option<RangeInclusive<u64>>,
    /// The texts the value is chosen from, if it is a choice.
    pub choices: &'static [&'static str],
}

/// A key or a section of a configuration, as declared.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A key that holds a value.
    Value(Meta),
    /// A section and what is in it.
    Section(Meta, Vec<Self>),
}

impl Entry {
    /// What is declared about the key or section itself.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Value(meta) | Self::Section(meta, _) => meta,
        }
    }
}

/// A fault of a value and the key it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Full name of the key, such as `network.use_ipv4`.
    pub key: String,
    /// Cause and remedy.
    pub text: String,
}

impl Problem {
    /// A problem with the named key.
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { key: key.into(), text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

/// A type that a configuration can contain: a value or a whole section.
pub trait Setting {
    /// Declaration of a setting of this type, for `-p` and the check for unknown keys.
    fn describe(meta: Meta) -> Entry
    where
        Self: Sized;

    /// The value as a number, to compare with the declared bounds.
    fn as_number(&self) -> Option<u64> {
        None
    }

    /// Reports values out of bounds. `key` is the full name of this setting.
    fn check(&self, key: &str, bounds: Option<&RangeInclusive<u64>>, problems: &mut Vec<Problem>) {
        if let (Some(number), Some(bounds)) = (self.as_number(), bounds)
            && !bounds.contains(&number)
        {
            let text =
                format!("{number} is out of bounds, choose from {} to {}", bounds.start(), bounds.end());
            problems.push(Problem::new(key, text));
        }
    }
}

/// A section of settings. Implemented by the [`settings!`](crate::settings!) macro.
pub trait Settings: Setting + Serialize + for<'de> Deserialize<'de> + Default {
    /// Everything that can be set, in the order of declaration.
    #[must_use]
    fn entries() -> Vec<Entry>;
}

/// A whole configuration file.
pub trait Configuration: Settings {
    /// Reports impossible combinations of values that are each within their bounds.
    fn check_relations(&self, problems: &mut Vec<Problem>);

    /// Level of the log. A configuration with a key `log_level` returns it here.
    #[must_use]
    fn log_level(&self) -> LogLevel {
        LogLevel::default()
    }

    /// Format of the log. A configuration with a key `log_format` returns it here.
    #[must_use]
    fn log_format(&self) -> LogFormat {
        LogFormat::default()
    }

    /// Keys and sections of earlier programs and versions, for the error about an unknown key.
    #[must_use]
    fn former_keys() -> &'static [FormerKey] {
        &[]
    }

    /// All problems of the values, those with bounds first.
    #[must_use]
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.check("", None, &mut problems);
        self.check_relations(&mut problems);
        problems
    }
}

/// A key or section that is unknown now.
#[derive(Clone, Copy, Debug)]
pub struct FormerKey {
    /// Full name it had.
    pub name: &'static str,
    /// Full names of its successors: several if it was split, or if it had a different meaning in each
    /// program. Empty if the setting no longer exists.
    pub successors: &'static [&'static str],
}

/// The part of a configuration that a program reads. The rest may be in the file, must be known and within
/// its bounds, and has no effect.
pub trait Scope<C: Configuration> {
    /// Whether the program reads a key, given by its full name.
    fn reads(&self, key: &str) -> bool;

    /// Reports impossible combinations of values that the program reads.
    fn check_relations(&self, config: &C, problems: &mut Vec<Problem>);

    /// Reports values that this machine does not allow: files that cannot be used, accounts, processors and
    /// addresses that do not exist. For a configuration whose relations hold.
    fn check_environment(&self, config: &C, problems: &mut Vec<Problem>) {
        let _ = (config, problems);
    }
}

/// A scope whose relations include the environment.
#[derive(Clone, Copy, Debug)]
pub struct WithEnvironment<'a, S>(pub &'a S);

impl<C: Configuration, S: Scope<C>> Scope<C> for WithEnvironment<'_, S> {
    fn reads(&self, key: &str) -> bool {
        self.0.reads(key)
    }

    fn check_relations(&self, config: &C, problems: &mut Vec<Problem>) {
        self.0.check_relations(config, problems);
        self.0.check_environment(config, problems);
    }
}

/// The scope of a program that reads its whole configuration.
#[derive(Clone, Copy, Debug)]
pub struct Whole;

impl<C: Configuration> Scope<C> for Whole {
    fn reads(&self, _key: &str) -> bool {
        true
    }

    fn check_relations(&self, config: &C, problems: &mut Vec<Problem>) {
        config.check_relations(problems);
    }
}

/// Joins a section's full name and a key.
#[must_use]
pub fn join_key(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

macro_rules! number_settings {
    ($($number:ty),*) => {$(
        impl Setting for $number {
            fn describe(meta: Meta) -> Entry {
                Entry::Value(meta)
            }

            fn as_number(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )*};
}

macro_rules! plain_settings {
    ($($plain:ty),*) => {$(
        impl Setting for $plain {
            fn describe(meta: Meta) -> Entry {
                Entry::Value(meta)
            }
        }
    )*};
}

number_settings!(u8, u16, u32, u64, usize);
plain_settings!(
    bool,
    f64,
    String,
    Vec<String>,
    PathBuf,
    SocketAddr,
    Addresses,
    MemoryLimit,
    Processors,
    Ports
);

impl Setting for AccessListMode {
    fn describe(meta: Meta) -> Entry {
        Entry::Value(Meta { choices: &["off", "allow", "deny"], ..meta })
    }
}

/// One address or several: `"0.0.0.0:6969"` or `["192.0.2.1:6969", "192.0.2.2:6969"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(pub Vec<SocketAddr>);

impl Serialize for Addresses {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AddressesVisitor)
    }
}

struct AddressesVisitor;

impl<'de> serde::de::Visitor<'de> for AddressesVisitor {
    type Value = Addresses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"ADDRESS:PORT\" or a list of them")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Addresses, E> {
        Ok(Addresses(vec![parse_address(text)?]))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Addresses, A::Error> {
        let mut addresses = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            addresses.push(parse_address(&text)?);
        }
        Ok(Addresses(addresses))
    }
}

fn parse_address<E: serde::de::Error>(text: &str) -> Result<SocketAddr, E> {
    text.parse().map_err(|_| {
        E::custom(format!(
            "{text:?} is not an address with a port; write \"192.0.2.1:6969\" or \"[2001:db8::1]:6969\""
        ))
    })
}

/// Declares a section of settings; see the module documentation.
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $section_doc:literal])*
        $vis:vis struct $name:ident $(<const $parameter:ident: $parameter_type:ty>)? $(, section $section:literal)? {
            $(
                $(#[doc = $doc:literal])*
                pub $key:ident: $type:ty $(= $default:expr)? $(, unit $unit:literal)? $(, in $bounds:expr)?;
            )*
        }
    ) => {
        $(#[doc = $section_doc])*
        // The documentation is what operators read: [network] names a section there, not an item.
        #[allow(rustdoc::broken_intra_doc_links, reason = "texts for operators are no links")]
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        // The empty bound keeps serde from deriving one from a constant parameter.
        #[serde(default, deny_unknown_fields, bound = "")]
        $vis struct $name $(<const $parameter: $parameter_type>)? {
            $(
                $(#[doc = $doc])*
                #[allow(missing_docs, reason = "a section without documentation here has that of its type")]
                pub $key: $type,
            )*
        }

        $crate::__setting_keys!($name $([$section])? $($key)*);

        impl $(<const $parameter: $parameter_type>)? Default for $name $(<$parameter>)? {
            fn default() -> Self {
                Self { $( $key: $crate::__setting_default!($($default)?), )* }
            }
        }

        impl $(<const $parameter: $parameter_type>)? $crate::settings::Settings for $name $(<$parameter>)? {
            fn entries() -> Vec<$crate::settings::Entry> {
                vec![$(
                    <$type as $crate::settings::Setting>::describe($crate::settings::Meta {
                        key: stringify!($key),
                        section: None,
                        doc: &[$($doc),*],
                        unit: $crate::__setting_option!($($unit)?),
                        bounds: $crate::__setting_option!($($bounds)?),
                        choices: &[],
                    }),
                )*]
            }
        }

        impl $(<const $parameter: $parameter_type>)? $crate::settings::Setting for $name $(<$parameter>)? {
            fn describe(meta: $crate::settings::Meta) -> $crate::settings::Entry {
                let entries = <Self as $crate::settings::Settings>::entries();
                let doc = if meta.doc.is_empty() { &[$($section_doc),*] } else { meta.doc };
                let section = $crate::__setting_option!($($section)?);
                $crate::settings::Entry::Section($crate::settings::Meta { doc, section, ..meta }, entries)
            }

            fn check(
                &self,
                section: &str,
                _bounds: Option<&std::ops::RangeInclusive<u64>>,
                problems: &mut Vec<$crate::settings::Problem>,
            ) {
                $(
                    let key = $crate::settings::join_key(section, stringify!($key));
                    let bounds: Option<std::ops::RangeInclusive<u64>> =
                        $crate::__setting_option!($($bounds)?);
                    $crate::settings::Setting::check(&self.$key, &key, bounds.as_ref(), problems);
                )*
            }
        }
    };
}

/// Declares an enum whose variants are the values a setting is chosen from, written in lower case.
#[macro_export]
macro_rules! choice {
    (
        $(#[$enum_attr:meta])*
        $vis:vis enum $name:ident {
            $( $(#[$attr:meta])* $variant:ident = $text:literal, )*
        }
    ) => {
        $(#[$enum_attr])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, ::serde::Serialize, ::serde::Deserialize)]
        $vis enum $name {
            $( $(#[$attr])* #[serde(rename = $text)] $variant, )*
        }

        impl $crate::settings::Setting for $name {
            fn describe(meta: $crate::settings::Meta) -> $crate::settings::Entry {
                $crate::settings::Entry::Value($crate::settings::Meta {
                    choices: &[$($text),*],
                    ..meta
                })
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __setting_keys {
    ($name:ident [$section:literal] $($key:ident)*) => {
        #[allow(
            dead_code,
            non_upper_case_globals,
            unreachable_pub,
            reason = "one constant per key, named like the key and as visible"
        )]
        impl $name {
            $(
                #[doc = concat!("Full name of the key: `", $section, ".", stringify!($key), "`.")]
                pub const $key: &'static str = concat!($section, ".", stringify!($key));
            )*
        }
    };
    ($name:ident $($key:ident)*) => {};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __setting_default {
    () => {
        Default::default()
    };
    ($default:expr) => {
        $default
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __setting_option {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::settings! {
        /// A test section.
        struct Inner, section "inner" {
            /// Number of things.
            pub count: u16 = 5, unit "things", in 1..=10;
        }
    }

    crate::settings! {
        /// A test configuration.
        struct Outer {
            /// A switch.
            pub on: bool = true;
            /// Where.
            pub address: Addresses = Addresses(vec!["127.0.0.1:1".parse().unwrap()]);
            /// Inside.
            pub inner: Inner;
            /// With another default.
            pub many: Several<7>;
        }
    }

    crate::settings! {
        /// A section with a default of the outer's choice.
        struct Several<const COUNT: u16> {
            /// How many.
            pub count: u16 = COUNT, unit "things", in 1..=10;
        }
    }

    impl Configuration for Outer {
        fn check_relations(&self, problems: &mut Vec<Problem>) {
            if self.on && self.inner.count == 7 {
                problems.push(Problem::new("on", "not with seven"));
            }
        }
    }

    #[test]
    fn default_round_trips() {
        let text = toml::to_string(&Outer::default()).unwrap();
        assert_eq!(toml::from_str::<Outer>(&text).unwrap(), Outer::default());
        let empty: Outer = toml::from_str("[inner]\n[many]").unwrap();
        assert_eq!((empty.inner.count, empty.many.count), (5, 7));
    }

    #[test]
    fn bounds_and_relations_are_reported_by_full_name() {
        let outer: Outer = toml::from_str("inner.count = 11").unwrap();
        let problems = outer.problems();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].to_string(), "inner.count: 11 is out of bounds, choose from 1 to 10");
        let outer: Outer = toml::from_str("inner.count = 7").unwrap();
        assert_eq!(outer.problems(), [Problem::new("on", "not with seven")]);
    }

    #[test]
    fn entries_carry_declaration() {
        let entries = Outer::entries();
        let Entry::Section(meta, inner) = &entries[2] else { panic!("a section") };
        assert_eq!((meta.key, meta.section), ("inner", Some("inner")));
        assert_eq!(Inner::count, "inner.count");
        let Entry::Value(count) = &inner[0] else { panic!("a value") };
        assert_eq!((count.unit, count.bounds.clone()), (Some("things"), Some(1..=10)));
    }

    #[test]
    fn one_address_or_several() {
        let one: Outer = toml::from_str("address = '0.0.0.0:6969'").unwrap();
        assert_eq!(one.address.0.len(), 1);
        let two: Outer = toml::from_str("address = ['0.0.0.0:6969', '[::1]:6969']").unwrap();
        assert_eq!(two.address.0.len(), 2);
        let error = toml::from_str::<Outer>("address = '0.0.0.0'").unwrap_err();
        assert!(error.message().contains("is not an address with a port"), "{error}");
    }
}
