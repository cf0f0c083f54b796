//! Execution of the flags: printing, checking, or running the program.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use aquatic_common::ConfigurationError;
use aquatic_common::config::{LogFormat, LogLevel};
use aquatic_common::settings::{Configuration, Scope, Whole, WithEnvironment};

use crate::exit::ExitStatus;
use crate::flags::ConfigFlags;
use crate::load::load;
use crate::{logger, print};

/// Prints the default configuration, checks a configuration, or loads one, starts the log and runs the
/// service with it until it returns, as the flags request. Errors are written to standard error.
pub fn run<C: Configuration>(flags: &ConfigFlags, service: impl FnOnce(C) -> anyhow::Result<()>) -> ExitCode {
    run_scoped(flags, &Whole, service)
}

/// As [`run`], for a program that reads only a part of the configuration: only this part is printed, and only
/// its combinations of values are checked.
pub fn run_scoped<C: Configuration>(
    flags: &ConfigFlags,
    scope: &impl Scope<C>,
    service: impl FnOnce(C) -> anyhow::Result<()>,
) -> ExitCode {
    if flags.print_config {
        return print_toml(print::default_config(scope)).into();
    }
    if flags.check_config {
        // What a start would warn of.
        logger::start(LogLevel::Warn, LogFormat::Auto);
    }
    let (path, set) = (flags.config.as_deref(), &flags.set);
    let loaded =
        if flags.check_config { load(path, set, &WithEnvironment(scope)) } else { load(path, set, scope) };
    let status = match loaded {
        Ok(config) => start(flags, config, scope, service),
        Err(error) => {
            complain(&error);
            ExitStatus::BadConfiguration
        }
    };
    status.into()
}

fn start<C: Configuration>(
    flags: &ConfigFlags,
    config: C,
    scope: &impl Scope<C>,
    service: impl FnOnce(C) -> anyhow::Result<()>,
) -> ExitStatus {
    if flags.print_parsed_config {
        let printed = print_toml(print::parsed_config(&config, scope));
        if printed != ExitStatus::Success {
            return printed;
        }
    }
    if flags.check_config {
        logger::flush();
        // Below a printed configuration as a comment, so that the whole output is TOML.
        let prefix = if flags.print_parsed_config { "# " } else { "" };
        return print_to_stdout(format!("{prefix}configuration is valid\n").as_bytes());
    }
    logger::start(config.log_level(), config.log_format());
    match service(config) {
        Ok(()) => {
            logger::flush();
            ExitStatus::Success
        }
        Err(error) => {
            complain(&format_args!("{error:#}"));
            status_of(&error)
        }
    }
}

/// Exit status for an error of a service.
fn status_of(error: &anyhow::Error) -> ExitStatus {
    if error.chain().any(|cause| cause.is::<ConfigurationError>()) {
        ExitStatus::BadConfiguration
    } else {
        ExitStatus::Failure
    }
}

fn print_toml(text: Result<String, toml::ser::Error>) -> ExitStatus {
    match text {
        Ok(text) => print_to_stdout(text.as_bytes()),
        Err(error) => {
            complain(&format_args!("the configuration cannot be written as TOML: {error}"));
            ExitStatus::Failure
        }
    }
}

/// Writes a text to standard output. A reader that has closed the pipe, as `| head` does, is no failure.
pub fn print_to_stdout(text: &[u8]) -> ExitStatus {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => ExitStatus::Success,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitStatus::Success,
        Err(error) => {
            complain(&format_args!("cannot write to standard output: {error}"));
            ExitStatus::Failure
        }
    }
}

/// Writes an error to standard error. If that fails, the exit code still reports the failure.
pub fn complain(error: &dyn fmt::Display) {
    logger::write_last(&error.to_string());
}
