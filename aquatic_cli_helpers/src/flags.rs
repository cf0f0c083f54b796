//! The flags that every program has.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args};

/// Flags about the configuration, the same in every program. Use with `#[command(flatten)]`, or as the only
/// arguments of a subcommand.
#[derive(Clone, Debug, Default, Args)]
#[command(disable_version_flag = true)]
pub struct ConfigFlags {
    /// Read the configuration from this TOML file; without it, the defaults serve
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set one key, over what the file says: --set log_level=debug
    #[arg(short, long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Override>,

    /// Print the default configuration, with a comment for every key, and exit
    #[arg(short, long)]
    pub print_config: bool,

    /// Print the configuration in use when starting
    #[arg(short = 'P', long)]
    pub print_parsed_config: bool,

    /// Check the configuration and the files it names, and exit: 0 if valid, 1 with all problems
    #[arg(long, conflicts_with = "print_config")]
    pub check_config: bool,

    /// Print the version and exit
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// One `--set KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Full name of the key, such as `network.use_ipv4`.
    pub key: String,
    /// The value as written: TOML, or plain text where the key holds text.
    pub value: String,
}

impl FromStr for Override {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok(Self { key: key.trim().to_owned(), value: value.trim().to_owned() })
            }
            _ => Err("write KEY=VALUE, such as network.use_ipv6=false"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_have_a_key_and_a_value() {
        let set: Override = "access_list.path = /a=b".parse().unwrap();
        assert_eq!((set.key.as_str(), set.value.as_str()), ("access_list.path", "/a=b"));
        for bad in ["", "workers", "=1", " =1"] {
            assert!(bad.parse::<Override>().is_err(), "{bad:?}");
        }
    }
}
