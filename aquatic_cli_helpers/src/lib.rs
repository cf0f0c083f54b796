//! Start-up of the programs of the workspace: flags, loading and printing of a configuration, the log, and
//! exit codes. Knows nothing of trackers, protocols, sockets or threads.
//!
//! A program declares its configuration with `aquatic_common::settings!` and hands a function to [`run()`]:
//!
//! ```no_run
//! use aquatic_cli_helpers::{ConfigFlags, run};
//! use aquatic_common::settings::{Configuration, Problem};
//! use clap::Parser;
//!
//! aquatic_common::settings! {
//!     /// Settings of a greeter.
//!     pub struct Greeting {
//!         /// How often to greet.
//!         pub times: u32 = 1, unit "greetings", in 1..=10;
//!     }
//! }
//!
//! impl Configuration for Greeting {
//!     fn check_relations(&self, _problems: &mut Vec<Problem>) {}
//! }
//!
//! /// Greets.
//! #[derive(Parser)]
//! #[command(version)]
//! struct Cli {
//!     #[command(flatten)]
//!     flags: ConfigFlags,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     let cli = Cli::parse();
//!     run(&cli.flags, |config: Greeting| {
//!         log::info!("greeting {} times", config.times);
//!         Ok(())
//!     })
//! }
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod changes;
mod check;
pub mod declarations;
mod exit;
mod expected;
mod flags;
mod load;
mod log_format;
mod log_queue;
pub mod logger;
mod nearest;
pub mod print;
pub mod report;
mod run;

pub use exit::ExitStatus;
pub use flags::{ConfigFlags, Override};
pub use load::{LoadError, Loaded, MAX_FILE_BYTES, load, load_noting, load_text};
pub use run::{complain, print_to_stdout, run, run_scoped};
