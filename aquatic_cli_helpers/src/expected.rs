//! Error texts for values that do not fit their key.

use std::net::SocketAddr;

use aquatic_common::settings::Meta;
use toml::Value;

use crate::nearest::nearest;
use crate::print::choices_text;

/// Maximum length of a value in a message, in characters.
const MAX_SHOWN: usize = 60;

/// Error text for an integer that does not fit in 64 bits.
pub(crate) fn complain_about_huge(meta: &Meta, number: &str) -> String {
    match &meta.bounds {
        Some(bounds) => {
            let shown = shorten(number);
            format!("{shown} is out of bounds, choose from {} to {}", bounds.start(), bounds.end())
        }
        None => format!("the number {} does not fit in 64 bits", shorten(number)),
    }
}

/// Error text for a value that does not fit a key. The default of the key shows its type. `reason` is the
/// error of the deserializer, which is used where it says more than the type.
pub(crate) fn complain(meta: &Meta, value: &Value, default: Option<&Value>, reason: &str) -> String {
    let got = describe(value);
    match (default, value) {
        _ if !meta.choices.is_empty() => not_a_choice(meta.choices, value),
        (Some(Value::Integer(_)), Value::Integer(number)) => match &meta.bounds {
            Some(bounds) => {
                format!("{number} is out of bounds, choose from {} to {}", bounds.start(), bounds.end())
            }
            None => format!("{number} does not fit: {reason}"),
        },
        (Some(Value::Integer(_)), _) => match &meta.bounds {
            Some(bounds) => {
                format!("expected a whole number from {} to {}, got {got}", bounds.start(), bounds.end())
            }
            None => format!("expected a whole number, got {got}"),
        },
        (Some(Value::Boolean(_)), _) => format!("expected true or false, got {got}"),
        (Some(Value::Float(_)), _) => format!("expected a number, got {got}"),
        (Some(Value::String(default)), _) if is_address(default) && !value.is_array() => {
            format!("expected an address with a port such as \"{default}\", got {got}")
        }
        (Some(Value::String(default)), _) if !value.is_str() && !is_address(default) => {
            format!("expected text in quotes, got {got}")
        }
        (Some(Value::Array(_)), Value::String(text)) if text.len() <= MAX_SHOWN => {
            let items = text.split(',').map(|item| Value::from(item.trim())).collect();
            format!("expected a list, got {got}: write {}", Value::Array(items))
        }
        (Some(Value::Array(_)), _) if !value.is_array() => format!("expected a list, got {got}"),
        _ => reason.to_owned(),
    }
}

fn not_a_choice(choices: &[&str], value: &Value) -> String {
    let all = choices_text(choices);
    let offers = value.as_str().map_or_else(Vec::new, |text| nearest(text, choices.iter().copied()));
    let hint =
        if offers.is_empty() { String::new() } else { format!("; did you mean {}?", choices_text(&offers)) };
    format!("expected one of {all}, got {}{hint}", describe(value))
}

fn is_address(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok()
}

fn describe(value: &Value) -> String {
    let kind = match value {
        Value::String(_) => "the text",
        Value::Integer(_) | Value::Float(_) => "the number",
        Value::Boolean(_) => "the switch",
        Value::Datetime(_) => "the date or time",
        Value::Array(_) => "the list",
        Value::Table(_) => "the section",
    };
    format!("{kind} {}", shorten(&in_one_line(value)))
}

/// A value as it may stand in a configuration, without the lines of TOML's long texts.
fn in_one_line(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(in_one_line).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Table(table) => {
            let entries: Vec<String> =
                table.iter().map(|(key, value)| format!("{key:?} = {}", in_one_line(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => value.to_string(),
    }
}

fn shorten(text: &str) -> String {
    let shown: String = text.chars().take(MAX_SHOWN).collect();
    let dots = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown}{dots}")
}
