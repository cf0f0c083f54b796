//! Where the control socket is.

use std::path::{Path, PathBuf};

use aquatic_common::config::ControlConfig;
use aquatic_common::settings::Problem;
use aquatic_net::tcp::check_unix_socket;

use crate::config::TrackerConfig;

/// Where the configuration puts the control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At this path.
    At(PathBuf),
    /// Nowhere: it is switched off.
    Off,
    /// Nowhere: the path is relative, and there is no state directory.
    NoStateDirectory,
}

/// Where the control socket of a tracker with this configuration is.
pub(crate) fn place(config: &TrackerConfig) -> Place {
    let path = &config.control.socket_path;
    if path.as_os_str().is_empty() {
        Place::Off
    } else if path.is_absolute() {
        Place::At(path.clone())
    } else if config.state_directory.as_os_str().is_empty() {
        Place::NoStateDirectory
    } else {
        Place::At(config.state_directory.join(path))
    }
}

/// Reports a path that is relative to nothing. The default is so without a state directory, and means that
/// there is no socket.
pub(crate) fn check_path(config: &TrackerConfig, problems: &mut Vec<Problem>) {
    let path = &config.control.socket_path;
    if place(config) == Place::NoStateDirectory && path != Path::new(ControlConfig::DEFAULT_NAME) {
        let text = format!(
            "\"{}\" is relative to state_directory, which is empty; write a path that begins with /",
            path.display()
        );
        problems.push(Problem::new(ControlConfig::socket_path, text));
    }
}

/// Reports a path at which this machine does not allow a socket.
pub(crate) fn check(config: &TrackerConfig, problems: &mut Vec<Problem>) {
    if let Place::At(path) = place(config)
        && let Err(error) = check_unix_socket(&path)
    {
        problems.push(Problem::new(ControlConfig::socket_path, error.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(state: &str, path: &str) -> (Place, usize) {
        let control = ControlConfig { socket_path: path.into() };
        let config = TrackerConfig { state_directory: state.into(), control, ..TrackerConfig::default() };
        let mut problems = Vec::new();
        check_path(&config, &mut problems);
        check(&config, &mut problems);
        (place(&config), problems.len())
    }

    #[test]
    fn relative_paths_are_in_the_state_directory() {
        let default = TrackerConfig::default();
        assert_eq!(default.control.socket_path, Path::new(ControlConfig::DEFAULT_NAME));
        assert_eq!(placed("", "control.sock"), (Place::NoStateDirectory, 0));
        assert_eq!(placed("/tmp", "control.sock"), (Place::At("/tmp/control.sock".into()), 0));
        assert_eq!(placed("/tmp", ""), (Place::Off, 0));
        assert_eq!(placed("", "/tmp/other"), (Place::At("/tmp/other".into()), 0));
        assert_eq!(placed("", "other.sock"), (Place::NoStateDirectory, 1));
        assert_eq!(placed("/nonexistent", "other.sock").1, 1);
    }
}
