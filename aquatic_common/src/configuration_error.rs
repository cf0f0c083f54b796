//! Start-up errors that only a human can remedy.

use std::error::Error;
use std::fmt;

/// Wraps a start-up error that goes away only when the configuration is changed, or a file or system account
/// it names: starting again is pointless. A program that finds one in the chain of causes ends with its exit
/// code for a bad configuration.
#[derive(Debug)]
pub struct ConfigurationError(Box<dyn Error + Send + Sync>);

impl ConfigurationError {
    /// Marks the error.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for ConfigurationError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
