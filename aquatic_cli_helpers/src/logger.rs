//! The log: one line per message on standard error, with time and level.

use std::io::Write;

use aquatic_common::config::LogLevel;
use env_logger::{Builder, Target};
use log::LevelFilter;

/// Starts logging. The level applies to the tracker's own messages; of other libraries only warnings and errors are
/// let through, whatever the level, because their lower levels are written for their authors.
///
/// A second call changes nothing: the first level stays.
pub fn start(level: LogLevel) {
    let level = filter(level);
    let started = Builder::new()
        .filter_level(level.min(LevelFilter::Warn))
        .filter_module("aquatic", level)
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
        })
        .try_init();
    if started.is_err() {
        log::debug!("logging had been started before; its level stays");
    }
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
