//! The log: one line per message on standard error, with time and level.

use std::io::Write;

use aquatic_common::config::LogLevel;
use env_logger::{Builder, Target};
use log::LevelFilter;

/// Where a library warns, over several lines and in its own terms, of what changes nothing: it could not have a buffer
/// for files registered with the kernel, because the processes of this user have locked what they may. No file is read
/// by way of that buffer, and whether enough memory can be locked is found out at start.
const NOT_FOR_OPERATORS: &str = "glommio::sys::uring";

/// Starts logging. The level applies to the tracker's own messages; of other libraries only warnings and errors are
/// let through, whatever the level, because their lower levels are written for their authors.
///
/// A second call changes the level only.
pub fn start(level: LogLevel) {
    let started = builder().try_init();
    set_level(level);
    if started.is_err() {
        log::debug!("logging had been started before");
    }
}

/// Changes the level.
pub fn set_level(level: LogLevel) {
    log::set_max_level(filter(level));
}

/// A logger that passes everything an operator can use; the level is applied before messages reach it.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .filter_level(LevelFilter::Warn)
        .filter_module("aquatic", LevelFilter::Trace)
        .filter_module(NOT_FOR_OPERATORS, LevelFilter::Error)
        .target(Target::Stderr)
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
