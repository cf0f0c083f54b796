//! How a program ends.

use std::process::ExitCode;

/// Why a program ended, as its exit code tells. A service manager should not restart after the codes 1 and 2:
/// nothing changes until a human has changed something. A panic ends with the code 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Everything went as asked; also after `SIGINT` and `SIGTERM`.
    Success = 0,
    /// The configuration, or a file or account it names, is wrong or cannot be used. Nothing is served.
    BadConfiguration = 1,
    /// The command line is wrong. Nothing was started. This is also clap's code.
    BadUsage = 2,
    /// Start-up failed, or the program had to stop.
    Failure = 3,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}
