//! The user that the tracker runs as changes.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::support::{Tracker, skip};
use crate::{Home, is_root, refused, set_mode};

/// User and group without rights, as most systems have them.
const NOBODY: u32 = 65_534;

/// The names of the files that a tracker leaves, with their owners.
fn owners(home: &Home) -> Vec<(String, u32)> {
    let mut files: Vec<(String, u32)> = fs::read_dir(home.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().uid()))
        .collect();
    files.sort();
    files
}

/// Runs a tracker until it has saved its state.
fn run(home: &Home, command: &mut Command) -> String {
    let mut tracker = Tracker::start(1, command);
    tracker.wait_for_log("snapshot");
    let log = tracker.start_log.clone();
    tracker.signal("TERM");
    assert_eq!(tracker.end().0, Some(0), "{:?}", owners(home));
    log
}

/// Has a command run as a user without rights, if it may run the program.
fn as_nobody(mut command: Command) -> Option<Command> {
    command.uid(NOBODY).gid(NOBODY);
    let works = Command::new(command.get_program()).arg("--version").uid(NOBODY).gid(NOBODY).output();
    works.is_ok_and(|output| output.status.success()).then_some(command)
}

#[test]
fn a_run_as_root_leaves_the_state_to_the_owner_of_the_directory() {
    if !is_root() {
        return skip("root");
    }
    let home = Home::new();
    chown(home.directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    run(&home, &mut home.command(&["workers=1"]));
    let files = owners(&home);
    assert!(files.iter().any(|(name, _)| name == "keys") && files.iter().any(|(name, _)| name == "snapshot"));
    assert!(files.iter().all(|(_, owner)| *owner == NOBODY), "{files:?}");
    let log = run(&home, &mut home.command(&["workers=1"]));
    assert!(log.contains("connection ids stay valid"), "{log}");
    let Some(mut command) = as_nobody(home.command(&["workers=1"])) else {
        return skip("program that everyone may run");
    };
    let log = run(&home, &mut command);
    assert!(log.contains("connection ids stay valid"), "{log}");
}

#[test]
fn state_that_cannot_be_read_for_want_of_rights_ends_the_start_and_stays() {
    if !is_root() {
        return skip("root");
    }
    let home = Home::new();
    run(&home, &mut home.command(&["workers=1"]));
    let [keys, snapshot] = ["keys", "snapshot"].map(|name| home.path(name));
    chown(home.directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let before = [&keys, &snapshot].map(|path| fs::read(path).unwrap());
    let mut refusals = vec![home.command(&["privileges.drop_privileges=true", "privileges.user=nobody"])];
    set_mode(home.directory.path(), 0o700);
    refusals.extend(as_nobody(home.command(&[])));
    for (index, command) in refusals.iter_mut().enumerate() {
        for _ in ["start", "check"] {
            let (code, log) = refused(command);
            assert_eq!(code, Some(1), "{log}");
            assert!(log.contains("state_directory") && log.contains("the owner is root"), "{log}");
            assert!(log.contains("chown nobody") && log.contains(snapshot.to_str().unwrap()), "{log}");
            // Root reads the keys before it gives its privileges up.
            assert_eq!(log.contains(keys.to_str().unwrap()), index == 1, "{log}");
            command.arg("--check-config");
        }
    }
    assert_eq!([&keys, &snapshot].map(|path| fs::read(path).unwrap()), before);
    assert!(owners(&home).iter().all(|(name, _)| !name.contains("unusable")));
}
