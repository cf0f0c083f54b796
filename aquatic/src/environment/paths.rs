//! Files that the tracker makes at a path that something else has in the configuration.

use std::fs;
use std::path::{Path, PathBuf};

use aquatic_common::ConfigurationError;
use aquatic_common::config::{
    AccessListConfig, AcmeConfig, ClusterConfig, ControlConfig, ExportsConfig, NetworkConfig,
    RateLimitsConfig,
};
use aquatic_common::settings::Problem;
use aquatic_runtime::state_directory::{self, names};

use crate::config::{Mode, TrackerConfig};
use crate::control::{Place, place};

/// Ends a start with a configuration that has the tracker replace what it needs.
///
/// # Errors
/// All such paths.
pub(crate) fn refuse_conflicts(
    config: &TrackerConfig,
    mode: Mode,
    config_file: Option<&Path>,
) -> Result<(), ConfigurationError> {
    let mut problems = Vec::new();
    check(config, mode, config_file, &mut problems);
    if problems.is_empty() {
        return Ok(());
    }
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(ConfigurationError::new(problems.join("; ")))
}

/// Reports paths of exports and sockets that lead to another file of the configuration.
pub(crate) fn check(
    config: &TrackerConfig,
    mode: Mode,
    config_file: Option<&Path>,
    problems: &mut Vec<Problem>,
) {
    let made = made(config, mode);
    let mut others = read(config, config_file);
    others.extend(kept(config));
    for (index, (key, path)) in made.iter().enumerate() {
        // Another path is needed in any case.
        if problems.iter().any(|problem| problem.key == *key) {
            continue;
        }
        let real = resolved(path);
        let made = made.iter().skip(index + 1).map(|(key, path)| ((*key).to_owned(), path));
        let others = others.iter().map(|(what, path)| (what.clone(), path));
        for (what, _) in made.chain(others).filter(|(_, other)| resolved(other) == real) {
            let path = path.display();
            let text = format!("\"{path}\", which the tracker makes, is {what} as well; choose another path");
            problems.push(Problem::new(*key, text));
        }
    }
}

/// Files that the tracker makes or replaces, by their keys.
fn made(config: &TrackerConfig, mode: Mode) -> Vec<(&'static str, PathBuf)> {
    let export = &config.exports.path;
    let mut made = vec![(ExportsConfig::path, export.clone())];
    if !export.as_os_str().is_empty() {
        made.extend(names::MEANWHILE.map(|suffix| (ExportsConfig::path, with_suffix(export, suffix))));
    }
    if config.serves_tcp(mode) {
        made.push((NetworkConfig::unix_socket_path, config.network.unix_socket_path.clone()));
    }
    if let Place::At(path) = place(config) {
        made.push((ControlConfig::socket_path, path));
    }
    made.retain(|(_, path)| !path.as_os_str().is_empty());
    made
}

/// Files that the tracker reads, with what they are. Those that a reload may begin to use are among them.
fn read(config: &TrackerConfig, config_file: Option<&Path>) -> Vec<(String, PathBuf)> {
    let TrackerConfig { network, acme, cluster, .. } = config;
    let named = [
        (AccessListConfig::path, &config.access_list.path),
        (RateLimitsConfig::block_list_path, &config.rate_limits.block_list_path),
        (NetworkConfig::tls_certificate_path, &network.tls_certificate_path),
        (NetworkConfig::tls_private_key_path, &network.tls_private_key_path),
        (AcmeConfig::external_account_key_path, &acme.external_account_key_path),
        (AcmeConfig::root_certificates_path, &acme.root_certificates_path),
        (ClusterConfig::secret_file, &cluster.secret_file),
        (ClusterConfig::credentials_file, &cluster.credentials_file),
        (ClusterConfig::nkey_file, &cluster.nkey_file),
        (ClusterConfig::ca_file, &cluster.ca_file),
        (ClusterConfig::certificate_file, &cluster.certificate_file),
        (ClusterConfig::key_file, &cluster.key_file),
    ];
    let named = named.into_iter().filter(|(_, path)| !path.as_os_str().is_empty());
    let file = config_file.map(|path| ("the configuration file".to_owned(), path.to_owned()));
    file.into_iter().chain(named.map(|(key, path)| (key.to_owned(), path.clone()))).collect()
}

/// Files of the state directory.
fn kept(config: &TrackerConfig) -> impl Iterator<Item = (String, PathBuf)> {
    let directory = Some(&config.state_directory).filter(|path| !path.as_os_str().is_empty());
    let file = |directory: &PathBuf, name: &str| {
        (format!("the file {name} of {}", state_directory::KEY), directory.join(name))
    };
    directory.into_iter().flat_map(move |directory| {
        let named = names::READ.into_iter().chain(names::WRITTEN);
        let written = named.clone().map(|name| format!("{name}{}", names::MEANWHILE[0]));
        named.map(ToOwned::to_owned).chain(written).map(move |name| file(directory, &name))
    })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// The path without links and relative parts, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(real) = fs::canonicalize(path) {
        return real;
    }
    let parent =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    match (fs::canonicalize(parent), path.file_name()) {
        (Ok(directory), Some(name)) => directory.join(name),
        (Ok(_) | Err(_), _) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(change: impl Fn(&mut TrackerConfig, &Path)) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path();
        fs::write(own.join("tracker.toml"), "").unwrap();
        std::os::unix::fs::symlink(own, own.join("self")).unwrap();
        let mut config = TrackerConfig { state_directory: own.to_owned(), ..TrackerConfig::default() };
        change(&mut config, own);
        let mut problems = Vec::new();
        check(&config, Mode::All, Some(&own.join("tracker.toml")), &mut problems);
        problems.into_iter().map(|problem| format!("{}: {}", problem.key, problem.text)).collect()
    }

    #[test]
    fn a_file_that_the_tracker_makes_is_no_other_one() {
        assert!(found(|_, _| ()).is_empty());
        let exported = |name: &str| found(|config, own| config.exports.path = own.join(name));
        assert!(exported("scrape.gz").is_empty());
        for (name, what) in [
            ("tracker.toml", "the configuration file"),
            ("self/tracker.toml", "the configuration file"),
            ("self/../../nowhere/keys", ""),
            ("keys", "the file keys of state_directory"),
            ("self/snapshot", "the file snapshot of state_directory"),
            ("status.unusable", "the file status.unusable of state_directory"),
            ("pid", "the file pid of state_directory"),
            ("control.sock", "control.socket_path"),
            ("keys.new", "the file keys.new of state_directory"),
        ] {
            let found = exported(name);
            assert_eq!(found.len(), usize::from(!what.is_empty()), "{name}: {found:?}");
            assert!(found.iter().all(|text| text.contains(what) && text.starts_with("exports.path: ")));
        }
        let list = found(|config, own| {
            config.access_list.path = own.join("list");
            config.exports.path = own.join("self/list");
        });
        assert!(list.len() == 1 && list[0].contains("access_list.path"), "{list:?}");
        for meanwhile in ["list.new", "list.scratch"] {
            let list = found(|config, own| {
                config.access_list.path = own.join(meanwhile);
                config.exports.path = own.join("list");
            });
            assert!(list.len() == 1 && list[0].contains(meanwhile), "{list:?}");
        }
        let socket = found(|config, own| {
            config.network.unix_socket_path = own.join("list.new");
            config.exports.path = own.join("list");
        });
        assert!(socket.len() == 1 && socket[0].contains("network.unix_socket_path"), "{socket:?}");
    }

    #[test]
    fn sockets_are_named_once() {
        let sockets = found(|config, own| config.network.unix_socket_path = own.join("control.sock"));
        assert!(sockets.len() == 1, "{sockets:?}");
        assert!(sockets[0].starts_with("network.unix_socket_path: "), "{sockets:?}");
        assert!(sockets[0].contains("is control.socket_path as well"), "{sockets:?}");
        // One file may hold certificate and key.
        let pair = found(|config, own| {
            config.network.tls_certificate_path = own.join("both.pem");
            config.network.tls_private_key_path = own.join("both.pem");
        });
        assert!(pair.is_empty(), "{pair:?}");
    }
}
