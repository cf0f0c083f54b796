//! `aquatic import-config`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use aquatic_cli_helpers::{ExitStatus, MAX_FILE_BYTES, complain, print_to_stdout};
use aquatic_common::files::without_byte_order_mark;
use clap::Args;

use super::{Program, Source, import};

const EXAMPLES: &str = "\
Examples:
  aquatic import-config aquatic-udp.toml -o tracker.toml
  aquatic import-config udp.toml http.toml ws.toml -o tracker.toml   Three trackers become one
  aquatic import-config /etc/opentracker/opentracker.conf            Look at the result first

What could not be carried over stands at the top of the written file.";

/// Arguments of `aquatic import-config`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES, disable_version_flag = true)]
pub(crate) struct ImportConfig {
    /// Configurations of aquatic_udp, aquatic_http and aquatic_ws 0.9, or one of opentracker
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Program that the files are of, if their keys do not tell
    #[arg(long, value_name = "PROGRAM")]
    from: Option<Program>,

    /// Write the configuration to this file, which must not exist, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl ImportConfig {
    /// Converts the files. Notes and errors are written to standard error.
    pub(crate) fn run(&self) -> ExitStatus {
        self.convert().unwrap_or_else(|error| {
            complain(&format_args!("{error:#}"));
            ExitStatus::BadConfiguration
        })
    }

    fn convert(&self) -> anyhow::Result<ExitStatus> {
        let mut texts = Vec::new();
        for path in &self.files {
            texts.push((path.display().to_string(), read(path)?));
        }
        let sources: Vec<Source<'_>> =
            texts.iter().map(|(name, text)| Source { name, text, program: self.from }).collect();
        let imported = import(&sources)?;
        let Some(path) = &self.output else { return Ok(print_to_stdout(imported.text.as_bytes())) };
        write_new(path, &imported.text)?;
        let (path, notes) = (path.display(), imported.notes.len());
        let told = match notes {
            0 => format!("{path} is written; start with: aquatic all -c {path}\n"),
            _ => format!(
                "{path} is written; read its {notes} note(s), then start with: aquatic all -c {path}\n"
            ),
        };
        Ok(print_to_stdout(told.as_bytes()))
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let unreadable = || format!("{} cannot be read", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .with_context(unreadable)?;
    anyhow::ensure!(
        bytes.len() as u64 <= MAX_FILE_BYTES,
        "{} is longer than {MAX_FILE_BYTES} bytes",
        path.display()
    );
    String::from_utf8(without_byte_order_mark(&bytes).to_vec())
        .with_context(|| format!("{} is not UTF-8 text", path.display()))
}

fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = File::create_new(path).and_then(|mut file| {
        let result = file.write_all(text.as_bytes());
        if result.is_err() {
            // The error that is reported is the first one.
            let _ = fs::remove_file(path);
        }
        result
    });
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            anyhow::bail!("{} exists; remove it, or name another file with --output", path.display())
        }
        other => other.with_context(|| format!("{} cannot be written", path.display())),
    }
}
