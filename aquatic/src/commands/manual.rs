//! `aquatic man`: a manual page for the program and one for each subcommand.

use std::fs;
use std::io;
use std::path::PathBuf;

use aquatic_cli_helpers::{ExitStatus, complain};
use clap::{Args, CommandFactory};
use clap_mangen::Man;

use crate::Cli;

/// Flags of `aquatic man`.
#[derive(Debug, Args)]
pub(crate) struct Manual {
    /// Directory for the pages, which is created if it does not exist
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

impl Manual {
    /// Writes the pages.
    pub(crate) fn run(&self) -> ExitStatus {
        match self.write() {
            Ok(()) => ExitStatus::Success,
            Err(error) => {
                let directory = self.directory.display();
                complain(&format_args!(
                    "cannot write the manual pages into {directory}: {error}. Name a directory that this user may \
                     write to"
                ));
                ExitStatus::Failure
            }
        }
    }

    fn write(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        pages(Cli::command())?
            .into_iter()
            .try_for_each(|(name, text)| fs::write(self.directory.join(name), text))
    }
}

/// Name and text of each page.
fn pages(program: clap::Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    // What the program was built from belongs to a build, not to the manual.
    let mut program = program.long_version(None::<&str>);
    program.build();
    let mut pages = Vec::new();
    let mut commands = vec![program];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        let page = Man::new(command);
        let mut text = Vec::new();
        page.render(&mut text)?;
        pages.push((page.get_filename(), text));
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_and_its_subcommands_have_pages() {
        let pages = pages(Cli::command()).unwrap();
        let text = |name: &str| {
            let page = pages.iter().find(|(file, _)| file == name);
            String::from_utf8(page.unwrap_or_else(|| panic!("no {name}")).1.clone()).unwrap()
        };
        assert!(text("aquatic.1").contains("aquatic\\-udp(1)"), "{}", text("aquatic.1"));
        assert!(text("aquatic-udp.1").contains("\\-\\-check\\-config"));
        assert!(pages.iter().all(|(name, _)| !name.contains("completions")));
    }
}
