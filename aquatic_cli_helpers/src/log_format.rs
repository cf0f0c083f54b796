//! Formats of log lines: text for people, JSON for programs, and priorities for the journal of systemd.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use aquatic_common::config::LogFormat;
use log::Level;

/// A format that has been decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Time, level and message.
    Text,
    /// An object per line.
    Json,
    /// A priority and the message.
    Journal,
}

impl Format {
    /// The format that a configuration asks for, given where standard error goes.
    pub(crate) fn of(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
            LogFormat::Journal => Self::Journal,
            LogFormat::Auto if is_journal(env::var("JOURNAL_STREAM").ok().as_deref(), stderr_file()) => {
                Self::Journal
            }
            LogFormat::Auto => Self::Text,
        }
    }
}

/// Device and inode of standard error.
fn stderr_file() -> Option<(u64, u64)> {
    let file = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
    file.metadata().ok().map(|data| (data.dev(), data.ino()))
}

/// Whether a file is the one that the service manager has connected to the journal, as the variable tells
/// it ("DEVICE:INODE"). The variable alone does not show that: it is inherited by programs whose standard
/// error goes elsewhere.
fn is_journal(variable: Option<&str>, file: Option<(u64, u64)>) -> bool {
    let parsed = variable.and_then(|text| {
        let (device, inode) = text.split_once(':')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    });
    parsed.is_some() && parsed == file
}

/// A message for the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// Seconds since 1970.
    time: u64,
    level: Level,
    /// The module that the message comes from.
    target: &'a str,
    text: &'a str,
}

impl<'a> Message<'a> {
    /// A message with the present time.
    #[allow(clippy::disallowed_methods, reason = "the calendar, for people and programs that read the log")]
    pub(crate) fn now(level: Level, target: &'a str, text: &'a str) -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Self { time, level, target, text }
    }

    /// The line, or the lines, of the message in a format, with their ends.
    pub(crate) fn line(&self, format: Format) -> Vec<u8> {
        let Self { time, level, target, text } = *self;
        let line = match format {
            Format::Text => format!("{} {level:<5} {text}\n", timestamp(time)),
            Format::Json => format!(
                "{{\"time\":\"{}\",\"level\":\"{}\",\"target\":{},\"message\":{}}}\n",
                timestamp(time),
                level.as_str().to_lowercase(),
                quoted(target),
                quoted(text)
            ),
            Format::Journal => {
                let priority = priority(level);
                // Each line is an entry of its own.
                text.lines().map(|line| format!("<{priority}>{line}\n")).collect()
            }
        };
        line.into_bytes()
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The priority of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// A time in UTC (RFC 3339), as "2026-11-26T03:35:39Z".
fn timestamp(time: u64) -> String {
    let (days, second) = (time / 86_400, time % 86_400);
    // Years from March to February, so that the leap day is the last one, in eras of 400 years.
    let since_march = days + 719_468;
    let (era, day) = (since_march / 146_097, since_march % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    format!(
        "{:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z",
        era * 400 + year,
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: Format, level: Level, text: &str) -> String {
        let message = Message { time: 1_795_664_139, level, target: "aquatic_udp::service", text };
        String::from_utf8(message.line(format)).unwrap()
    }

    #[test]
    fn each_format_has_its_lines() {
        assert_eq!(line(Format::Text, Level::Warn, "a"), "2026-11-26T03:35:39Z WARN  a\n");
        assert_eq!(
            line(Format::Json, Level::Info, "say \"hi\"\n\u{1b}[1m"),
            "{\"time\":\"2026-11-26T03:35:39Z\",\"level\":\"info\",\"target\":\"aquatic_udp::service\",\
             \"message\":\"say \\\"hi\\\"\\n\\u001b[1m\"}\n"
        );
        assert_eq!(line(Format::Journal, Level::Error, "first\nsecond"), "<3>first\n<3>second\n");
        assert_eq!(line(Format::Journal, Level::Trace, "x"), "<7>x\n");
    }

    #[test]
    fn times_are_dates_of_the_calendar() {
        for (time, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp(time), date);
        }
    }

    #[test]
    fn the_journal_is_recognized_by_its_file() {
        assert!(is_journal(Some("8:12345"), Some((8, 12345))));
        for (variable, file) in [
            (None, Some((8, 12345))),
            (Some("8:12345"), None),
            (Some("8:12345"), Some((8, 1))),
            (Some(""), None),
            (Some("8"), Some((8, 12345))),
        ] {
            assert!(!is_journal(variable, file), "{variable:?}");
        }
    }
}
