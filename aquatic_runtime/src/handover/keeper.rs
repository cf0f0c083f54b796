//! The parent of a successor until that one serves, where there is a service manager.
//!
//! A service manager waits for the end of its children only. A main process that is none is killed at once
//! when the service is stopped, and saves nothing. A process becomes a child of the service manager when its
//! parent ends, but the predecessor cannot end, as it has connections. So the successor starts the program
//! once more and keeps what it has started, and the predecessor ends this keeper before it names the
//! successor as the main process.
//!
//! The keeper ends with the status of the successor. As long as the hand-over has not begun, the successor
//! ends with the keeper: the predecessor knows no other process that it could end.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};

use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};

use super::successor;

/// Environment variable with the number of the keeper, which tells a successor that it has one.
pub(super) const VARIABLE: &str = "AQUATIC_KEEPER";

/// Whether a service manager starts and stops this process.
fn has_service_manager() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some_and(|value| !value.is_empty())
}

/// Makes this process the keeper of a successor, if that needs one, and returns how to end once it has done
/// that. To be called before there are other threads.
#[must_use]
pub fn keep_successor() -> Option<ExitCode> {
    if !has_service_manager() || !successor::has_predecessor() {
        return None;
    }
    let Some(keeper) = env::var_os(VARIABLE) else { return keep() };
    // It has no effect if the keeper has ended before.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    (keeper != Pid::as_raw(getppid()).to_string().as_str()).then_some(ExitCode::FAILURE)
}

/// Starts the program once more and waits for its end. Without an own path the hand-over does without.
fn keep() -> Option<ExitCode> {
    let mut command = Command::new(env::current_exe().ok()?);
    command.args(env::args_os().skip(1)).env(VARIABLE, std::process::id().to_string());
    let status = command.spawn().ok()?.wait();
    Some(status.map_or(ExitCode::FAILURE, end_like))
}

/// Ends this process in the way that another one has ended.
fn end_like(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal().and_then(Signal::from_named_raw) {
        let _ = kill_process(getpid(), signal);
    }
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The successor goes on without its keeper. To be called in the main thread.
pub(crate) fn leave_keeper() {
    let _ = set_parent_process_death_signal(None);
}

/// Ends the keeper of a successor that serves, if it has one, so that the service manager becomes its parent.
pub(super) fn end_keeper(child: &mut Child, successor: u32) {
    if has_service_manager() && child.id() != successor {
        // It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}
