//! Conversion of configurations of other trackers: aquatic 0.9 and opentracker. Pure: text in, text out.

mod aquatic_0_9;
mod command;
mod draft;
mod opentracker;
#[cfg(test)]
mod tests;

use std::fmt;

use aquatic_cli_helpers::load_text;
use clap::ValueEnum;

use draft::Draft;

use crate::config::{Mode, TrackerConfig};

pub(crate) use command::ImportConfig;

/// Program whose configuration is converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// aquatic_udp 0.9
    Udp,
    /// aquatic_http 0.9
    Http,
    /// aquatic_ws 0.9
    Ws,
    /// opentracker
    Opentracker,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "aquatic_udp 0.9",
            Self::Http => "aquatic_http 0.9",
            Self::Ws => "aquatic_ws 0.9",
            Self::Opentracker => "opentracker",
        })
    }
}

/// A configuration file to convert.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// Name of the file, for messages.
    pub name: &'a str,
    /// Its content.
    pub text: &'a str,
    /// The program that read it; `None` to tell by its keys.
    pub program: Option<Program>,
}

/// A converted configuration.
#[derive(Debug)]
pub(crate) struct Imported {
    /// Configuration file of this tracker, with all notes as comments.
    pub text: String,
    /// What could not be carried over as it was, one sentence or more each.
    pub notes: Vec<String>,
}

/// A configuration that cannot be converted, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ImportError(String);

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ImportError {}

/// Converts one configuration, or several of programs that become one tracker.
///
/// # Errors
/// A text that is not the configuration of a known program, or that this program would not have read.
pub(crate) fn import(sources: &[Source<'_>]) -> Result<Imported, ImportError> {
    let mut draft = Draft::default();
    let mut programs = Vec::new();
    for source in sources {
        let program = match source.program {
            Some(program) => program,
            None => recognise(source)?,
        };
        if programs.contains(&program) {
            return Err(source.error(format!(
                "is a second configuration of {program}; convert it by itself, for a second tracker"
            )));
        }
        let is_opentracker = |program: &Program| *program == Program::Opentracker;
        if let Some(other) = programs.iter().find(|other| is_opentracker(other) != is_opentracker(&program)) {
            return Err(source.error(format!(
                "is a configuration of {program}, which does not become one tracker with {other}; convert it by itself"
            )));
        }
        programs.push(program);
        draft.start(source.name, program);
        match program {
            Program::Opentracker => opentracker::convert(source.text, &mut draft),
            Program::Udp | Program::Http | Program::Ws => {
                let table = source.text.parse().map_err(|error: toml::de::Error| {
                    source.error(format!("is not TOML: {}", error.message()))
                })?;
                aquatic_0_9::convert(program, &table, &mut draft);
            }
        }
    }
    draft.finish(&programs)
}

/// The program whose keys a text has.
fn recognise(source: &Source<'_>) -> Result<Program, ImportError> {
    if let Ok(table) = source.text.parse::<toml::Table>() {
        if let Some(program) = aquatic_0_9::recognise(&table) {
            return Ok(program);
        }
        if !table.is_empty() && load_text::<TrackerConfig>(source.text, &Mode::All).is_ok() {
            return Err(source.error(
                "is a configuration of this tracker already: use it with -c. If another program has read it, name the program \
                 with --from"
                    .to_owned(),
            ));
        }
    } else if opentracker::recognise(source.text) {
        return Ok(Program::Opentracker);
    }
    Err(source.error(
        "is not recognised as a configuration of aquatic_udp, aquatic_http or aquatic_ws 0.9, or of opentracker; name \
         the program with --from"
            .to_owned(),
    ))
}

impl Source<'_> {
    fn error(&self, text: String) -> ImportError {
        ImportError(format!("{} {text}", self.name))
    }
}
