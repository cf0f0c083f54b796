//! Log on standard error, in a format for people, programs or the journal (`log_format`). A thread of its own
//! writes (`log_queue`).

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use aquatic_common::config::{LogFormat, LogLevel};
use env_logger::{Builder, Logger, Target, WriteStyle};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::log_format::{Format, Message};
use crate::log_queue::LogQueue;

/// Longest wait for the reader of standard error when the process ends.
const FLUSH_DEADLINE: Duration = Duration::from_millis(500);

/// Where a library warns, over several lines and in its own terms, of what changes nothing: it could not have
/// a buffer for files registered with the kernel, because the processes of this user have locked what they
/// may. No file is read by way of that buffer, and whether enough memory can be locked is found out at start.
const NOT_FOR_OPERATORS: &str = "glommio::sys::uring";

/// Starts logging. The level applies to the tracker's own messages; of other libraries only warnings and
/// errors are let through, whatever the level, because their lower levels are written for their authors.
///
/// A second call changes the level only.
pub fn start(level: LogLevel, format: LogFormat) {
    let mut builder = builder(*FORMAT.get_or_init(|| Format::of(format)));
    if let Some(queue) = queue() {
        builder.target(Target::Pipe(Box::new(queue.clone())));
    }
    let started = log::set_boxed_logger(Box::new(QueuedLogger(builder.build())));
    set_level(level);
    if started.is_err() {
        log::debug!("logging had been started before");
    }
}

/// Format of everything that is written to standard error from now on.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// The format in use, or the one that would be if none is configured.
fn format() -> Format {
    FORMAT.get().copied().unwrap_or_else(|| Format::of(LogFormat::Auto))
}

/// Changes the level.
pub fn set_level(level: LogLevel) {
    log::set_max_level(filter(level));
}

/// Queue of everything that is written to standard error; `None` if its thread cannot be started.
fn queue() -> Option<&'static LogQueue> {
    static QUEUE: OnceLock<Option<LogQueue>> = OnceLock::new();
    QUEUE.get_or_init(|| LogQueue::start(io::stderr(), lost_lines).ok()).as_ref()
}

/// What is written in place of lines that were lost.
fn lost_lines(count: u64) -> Vec<u8> {
    let text = format!("{count} log lines were lost: standard error was not read");
    Message::now(Level::Warn, module_path!(), &text).line(format())
}

/// Writes why the program ends to standard error, behind all messages, and waits a moment until it is
/// written.
pub(crate) fn write_last(text: &str) {
    let line = match format() {
        Format::Text => format!("error: {text}\n").into_bytes(),
        format @ (Format::Json | Format::Journal) => {
            Message::now(Level::Error, module_path!(), text).line(format)
        }
    };
    match queue() {
        Some(queue) => {
            queue.push(&line);
            flush();
        }
        None => {
            let _ = io::stderr().write_all(&line);
        }
    }
}

/// Waits a moment until all messages are written.
pub(crate) fn flush() {
    if let Some(queue) = queue() {
        queue.flush(FLUSH_DEADLINE);
    }
}

/// Formats messages into the queue.
struct QueuedLogger(Logger);

impl Log for QueuedLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.0.log(record);
    }

    fn flush(&self) {
        flush();
    }
}

/// A logger that passes everything an operator can use; the level is applied before messages reach it.
fn builder(format: Format) -> Builder {
    let mut builder = Builder::new();
    builder
        .filter_level(LevelFilter::Warn)
        .filter_module("aquatic", LevelFilter::Trace)
        .filter_module(NOT_FOR_OPERATORS, LevelFilter::Error)
        .target(Target::Stderr)
        .write_style(if has_colors() { WriteStyle::Always } else { WriteStyle::Never })
        .format(move |out, record| {
            let level = record.level();
            match format {
                Format::Text => {
                    let style = out.default_level_style(level);
                    let time = out.timestamp_seconds();
                    writeln!(out, "{time} {style}{level:<5}{style:#} {}", record.args())
                }
                Format::Json | Format::Journal => {
                    let text = record.args().to_string();
                    out.write_all(&Message::now(level, record.target(), &text).line(format))
                }
            }
        });
    builder
}

/// Whether the log is coloured: on a terminal, unless that is not wanted (<https://no-color.org>).
fn has_colors() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::Off,
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_only_speak_of_what_operators_can_use() {
        let passes = |level: LogLevel, target: &str, said: Level| {
            let record = Record::builder().target(target).level(said).build();
            said <= filter(level) && builder(Format::Text).build().matches(&record)
        };
        for (target, said, expected) in [
            ("aquatic_udp::service", Level::Debug, [true, false]),
            ("rustls::conn", Level::Warn, [true, false]),
            ("rustls::conn", Level::Info, [false, false]),
            ("glommio", Level::Error, [true, true]),
            ("glommio::sys::uring", Level::Warn, [false, false]),
            ("glommio::sys::uring", Level::Error, [true, true]),
        ] {
            let got = [LogLevel::Debug, LogLevel::Error].map(|level| passes(level, target, said));
            assert_eq!(got, expected, "{target}, {said}");
        }
        assert!(!passes(LogLevel::Off, "aquatic", Level::Error));
    }
}
