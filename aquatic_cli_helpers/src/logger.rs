//! Log: one line per message on standard error, with time and level. A thread of its own writes
//! (`log_queue`).

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use aquatic_common::config::LogLevel;
use env_logger::{Builder, Logger, Target, WriteStyle};
use log::{LevelFilter, Log, Metadata, Record};

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
pub fn start(level: LogLevel) {
    let mut builder = builder();
    if let Some(queue) = queue() {
        builder.target(Target::Pipe(Box::new(queue.clone())));
    }
    let started = log::set_boxed_logger(Box::new(QueuedLogger(builder.build())));
    set_level(level);
    if started.is_err() {
        log::debug!("logging had been started before");
    }
}

/// Changes the level.
pub fn set_level(level: LogLevel) {
    log::set_max_level(filter(level));
}

/// Queue of everything that is written to standard error; `None` if its thread cannot be started.
fn queue() -> Option<&'static LogQueue> {
    static QUEUE: OnceLock<Option<LogQueue>> = OnceLock::new();
    QUEUE.get_or_init(|| LogQueue::start(io::stderr()).ok()).as_ref()
}

/// Writes a line to standard error, behind all messages, and waits a moment until it is written.
pub(crate) fn write_last(line: &str) {
    match queue() {
        Some(queue) => {
            queue.push(line.as_bytes());
            flush();
        }
        None => {
            let _ = io::stderr().write_all(line.as_bytes());
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
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .filter_level(LevelFilter::Warn)
        .filter_module("aquatic", LevelFilter::Trace)
        .filter_module(NOT_FOR_OPERATORS, LevelFilter::Error)
        .target(Target::Stderr)
        .write_style(if io::stderr().is_terminal() { WriteStyle::Always } else { WriteStyle::Never })
        .format(|out, record| {
            let level_style = out.default_level_style(record.level());
            let level = record.level();
            writeln!(
                out,
                "{} {level_style}{level:<5}{level_style:#} {}",
                out.timestamp_seconds(),
                record.args()
            )
        });
    builder
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
    use log::{Level, Record};

    use super::*;

    #[test]
    fn libraries_only_speak_of_what_operators_can_use() {
        let passes = |level: LogLevel, target: &str, said: Level| {
            let record = Record::builder().target(target).level(said).build();
            said <= filter(level) && builder().build().matches(&record)
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
