//! Reload of the configuration: reads it again, and applies what can change while the tracker runs.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aquatic_cli_helpers::changes::{Change, adopt, changes};
use aquatic_cli_helpers::{ConfigFlags, Loaded, load_noting, logger};
use aquatic_common::config::LogLevel;
use aquatic_common::files::{self, Stamp};
use aquatic_common::settings::Scope;
use aquatic_metrics::{Counter, names};
use aquatic_runtime::{Engine, Periodic, ReloadTrigger};

use crate::config::{Applies, Mode, TrackerConfig, applies};
use crate::environment;

/// Applies a configuration to a part of the tracker. Returns the cores that could not be told.
type Target = Box<dyn FnMut(&TrackerConfig) -> anyhow::Result<Vec<usize>> + Send>;

/// What came of the last reload; copies share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReloadReport(Arc<Mutex<Report>>);

#[derive(Clone, Debug, Default)]
struct Report {
    reloads: u64,
    /// What has changed, or why nothing has.
    outcome: Option<Result<String, String>>,
}

impl ReloadReport {
    /// Number of reloads so far, and what came of the last one.
    pub(crate) fn get(&self) -> (u64, Option<Result<String, String>>) {
        let Report { reloads, outcome } = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (reloads, outcome)
    }

    fn set(&self, outcome: Result<String, String>) {
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        report.reloads += 1;
        report.outcome = Some(outcome);
    }
}

/// The configuration in effect, and what has to be told when it changes. In the main thread.
pub(crate) struct ConfigReloader {
    flags: ConfigFlags,
    mode: Mode,
    current: TrackerConfig,
    targets: Vec<Target>,
    done: Counter,
    failed: Counter,
    trigger: ReloadTrigger,
    watch: Watch,
    report: ReloadReport,
    /// What the report is going to say once the other files have been read.
    outcome: Option<Result<String, String>>,
}

impl fmt::Debug for ConfigReloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigReloader").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl ConfigReloader {
    /// A reloader of the configuration that the flags name. Nothing is told of changes yet.
    pub(crate) fn new(config: &TrackerConfig, mode: Mode, flags: &ConfigFlags, engine: &Engine) -> Self {
        let metrics = engine.registry().main_thread();
        let outcome = |outcome| metrics.counter(&names::CONFIG_RELOADS, &[("outcome", outcome)]);
        let mut reloader = Self {
            flags: flags.clone(),
            mode,
            current: config.clone(),
            targets: Vec::new(),
            done: outcome("done"),
            failed: outcome("failed"),
            trigger: engine.reload_trigger(),
            watch: Watch::default(),
            report: ReloadReport::default(),
            outcome: None,
        };
        // With a new root directory, other files will have these paths.
        if config.privileges.chroot_path.as_os_str().is_empty() {
            reloader.watch = Watch::of(reloader.files());
        }
        reloader
    }

    /// Adds what is told of changes. `apply` returns the cores whose mailbox is full.
    pub(crate) fn add(
        &mut self,
        apply: impl FnMut(&TrackerConfig) -> anyhow::Result<Vec<usize>> + Send + 'static,
    ) {
        self.targets.push(Box::new(apply));
    }

    /// What came of the last reload.
    pub(crate) fn report(&self) -> ReloadReport {
        self.report.clone()
    }

    /// Reads the configuration again and applies it. Returns what has changed. After an error, nothing has.
    fn try_reload(&mut self) -> anyhow::Result<String> {
        let path = self.flags.config.as_deref();
        // At a start, the configuration may come through a pipe.
        if let Some(path) = path
            && let Err(error) = files::about_regular(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            anyhow::bail!("configuration file {} cannot be read: {error}", path.display());
        }
        let Loaded { config: new, has_keys } = load_noting(path, &self.flags.set, &self.mode)?;
        let mut changes = changes(&self.current, &new)?;
        changes.retain(|change| self.mode.reads(&change.key));
        // Editors and copies empty a file before they write it.
        if let Some(path) = path
            && !has_keys
            && !changes.is_empty()
        {
            anyhow::bail!(
                "there is no key in the configuration file {}, so {} setting(s) would get their defaults. Write the \
                 file again; if the defaults are meant, write one key with its default into it, such as log_level = \
                 \"info\"",
                path.display(),
                changes.len()
            );
        }
        let is_live = |key: &str| applies(key) == Applies::OnReload;
        let next = adopt(&self.current, &new, is_live).map_err(anyhow::Error::from_boxed)?;
        let mut problems = Vec::new();
        self.mode.check_relations(&next, &mut problems);
        if !problems.is_empty() {
            let problems: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
            anyhow::bail!(
                "it is valid after a restart only, because some of the changed keys require one:{}",
                problems.concat()
            );
        }
        let levels = [self.current.log_level, next.log_level];
        logger::set_level(levels.into_iter().max_by_key(|&level| verbosity(level)).unwrap_or_default());
        let changed = !changes.is_empty();
        if changed && next != self.current {
            self.apply(&next);
        }
        let (live, restart): (Vec<Change>, Vec<Change>) =
            changes.into_iter().partition(|change| is_live(&change.key));
        for Change { key, old, new } in &live {
            log::info!("{key} changed from {old} to {new}");
        }
        for Change { key, .. } in &restart {
            log::warn!("{key} has changed; restart to apply");
        }
        let outcome = match (live.len(), restart.len()) {
            (0, 0) => "no changes".to_owned(),
            (live, 0) => format!("{live} applied, 0 to be applied by a restart"),
            (live, restart) => format!(
                "{live} applied, {restart} to be applied by a restart: check first whether this machine allows it, with \
                 --check-config"
            ),
        };
        log::info!("configuration reloaded: {outcome}");
        logger::set_level(next.log_level);
        self.current = next;
        Ok(outcome)
    }

    fn apply(&mut self, next: &TrackerConfig) {
        for target in &mut self.targets {
            match target(next) {
                Ok(full) if full.is_empty() => {}
                Ok(full) => log::error!(
                    "core(s) {full:?} have not received earlier settings yet and keep those they have; reload again \
                     once they respond"
                ),
                Err(error) => log::error!("a part of the configuration is not applied: {error:#}"),
            }
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let files = environment::files(&self.current, self.mode, self.flags.config.as_deref());
        files.into_iter().map(|(_, path)| path).collect()
    }
}

impl Periodic for ConfigReloader {
    fn tick(&mut self, _now: Duration) {
        if self.current.reload_on_change && self.watch.has_settled(&self.files()) {
            log::info!("files have changed, reloading");
            self.trigger.request();
        }
    }

    fn reload_configuration(&mut self) {
        // Before they are read: a change after that is noticed.
        let watched = Watch::of(self.files());
        self.outcome = Some(match self.try_reload() {
            Ok(outcome) => {
                self.done.add(1);
                Ok(outcome)
            }
            Err(error) => {
                self.failed.add(1);
                log::error!("configuration not reloaded, the previous one stays in effect: {error:#}");
                Err(format!("{error:#}"))
            }
        });
        self.watch = watched;
    }

    /// Called after the other files have been read, as this was added last.
    fn reload(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.report.set(outcome);
        }
    }
}

/// Levels in ascending order of messages.
fn verbosity(level: LogLevel) -> u8 {
    match level {
        LogLevel::Off => 0,
        LogLevel::Error => 1,
        LogLevel::Warn => 2,
        LogLevel::Info => 3,
        LogLevel::Debug => 4,
        LogLevel::Trace => 5,
    }
}

/// Files whose changes cause a reload.
#[derive(Debug, Default)]
struct Watch {
    /// As they were when they were read, or first seen.
    seen: Vec<(PathBuf, Option<Stamp>)>,
    /// As they were at the last poll, if that differed.
    changed: Option<Vec<(PathBuf, Option<Stamp>)>>,
}

impl Watch {
    fn of(files: Vec<PathBuf>) -> Self {
        let stamped = |path: PathBuf| {
            let stamp = Stamp::of(&path);
            (path, stamp)
        };
        Self { seen: files.into_iter().map(stamped).collect(), changed: None }
    }

    /// Whether the files have changed and were the same at two polls: a file that is being written is left
    /// alone.
    fn has_settled(&mut self, files: &[PathBuf]) -> bool {
        let now = Self::of(files.to_vec()).seen;
        let is_same_list = now.iter().map(|(path, _)| path).eq(self.seen.iter().map(|(path, _)| path));
        if !is_same_list {
            *self = Self { seen: now, changed: None };
            return false;
        }
        if now == self.seen {
            self.changed = None;
            return false;
        }
        let settled = self.changed.as_ref() == Some(&now);
        if settled {
            *self = Self { seen: now, changed: None };
        } else {
            self.changed = Some(now);
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_changed_file_causes_one_reload_once_it_stays_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let files = ["a", "b"].map(|name| directory.path().join(name)).to_vec();
        let mut watch = Watch::default();
        let mut polls = |count| (0..count).map(|_| watch.has_settled(&files)).collect::<Vec<_>>();
        assert_eq!(polls(3), [false; 3], "files that were missing from the beginning");
        fs::write(&files[0], "1").unwrap();
        assert_eq!(polls(1), [false]);
        fs::write(&files[0], "12").unwrap();
        assert_eq!(polls(3), [false, true, false], "written in two steps");
        fs::remove_file(&files[0]).unwrap();
        assert_eq!(polls(3), [false, true, false]);
        watch = Watch::of(files.clone());
        assert!(!watch.has_settled(&files[..1]), "other files");
    }

    #[test]
    fn levels_are_ordered_by_what_they_show() {
        let levels = [LogLevel::Off, LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug];
        assert!(levels.map(verbosity).is_sorted());
        assert!(verbosity(LogLevel::Trace) > verbosity(LogLevel::Debug));
    }
}
