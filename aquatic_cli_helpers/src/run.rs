//! From flags to a running service and an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use aquatic_common::settings::Configuration;

use crate::exit::ExitStatus;
use crate::flags::ConfigFlags;
use crate::load::load;
use crate::{logger, print};

/// Does what the flags ask for: prints the default configuration, checks a configuration, or loads one, starts the log
/// and runs the service with it until it returns. What goes wrong is said on standard error.
pub fn run<C: Configuration>(flags: &ConfigFlags, service: impl FnOnce(C) -> anyhow::Result<()>) -> ExitCode {
    let status = if flags.print_config {
        print_to_stdout(print::default_config::<C>())
    } else {
        match load::<C>(flags.config.as_deref(), &flags.set) {
            Ok(config) => start(flags, config, service),
            Err(error) => {
                complain(&error);
                ExitStatus::BadConfiguration
            }
        }
    };
    status.into()
}

fn start<C: Configuration>(
    flags: &ConfigFlags,
    config: C,
    service: impl FnOnce(C) -> anyhow::Result<()>,
) -> ExitStatus {
    if flags.print_parsed_config {
        let printed = print_to_stdout(print::parsed_config(&config));
        if printed != ExitStatus::Success {
            return printed;
        }
    }
    if flags.check_config {
        return ExitStatus::Success;
    }
    logger::start(config.log_level());
    match service(config) {
        Ok(()) => ExitStatus::Success,
        Err(error) => {
            complain(&format_args!("{error:#}"));
            ExitStatus::Failure
        }
    }
}

fn print_to_stdout(text: Result<String, toml::ser::Error>) -> ExitStatus {
    let text = match text {
        Ok(text) => text,
        Err(error) => {
            complain(&format_args!("the configuration cannot be written as TOML: {error}"));
            return ExitStatus::Failure;
        }
    };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitStatus::Success,
        // Whoever reads has seen enough, as with `| head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitStatus::Success,
        Err(error) => {
            complain(&format_args!("cannot write to standard output: {error}"));
            ExitStatus::Failure
        }
    }
}

/// Nothing is left to do about a standard error that cannot be written to; the exit code still tells.
fn complain(error: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "error: {error}");
}
