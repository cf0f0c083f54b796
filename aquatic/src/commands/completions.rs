//! `aquatic completions`: what a shell completes on the command line.

use aquatic_cli_helpers::{ExitStatus, print_to_stdout};
use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

use crate::Cli;

/// Flags of `aquatic completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    shell: SupportedShell,
}

/// Shells whose completions are tested.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SupportedShell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    /// Prints the completions.
    pub(crate) fn run(&self) -> ExitStatus {
        print_to_stdout(&completions(self.shell))
    }
}

fn completions(shell: SupportedShell) -> Vec<u8> {
    let shell = match shell {
        SupportedShell::Bash => Shell::Bash,
        SupportedShell::Zsh => Shell::Zsh,
        SupportedShell::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    generate(shell, &mut Cli::command(), "aquatic", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_subcommands_and_flags() {
        for shell in SupportedShell::value_variants() {
            let text = String::from_utf8(completions(*shell)).unwrap();
            for word in ["udp", "check-config"] {
                assert!(text.contains(word), "{shell:?}: {word}");
            }
        }
    }
}
