//! Keeps one core of a scenario from doing anything until another one has done what needs that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aquatic_runtime::Core;

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(5);

static BLOCKED: AtomicBool = AtomicBool::new(false);
static RELEASED: AtomicBool = AtomicBool::new(false);

/// Blocks this core, as a bug would, until another one calls [`release`].
#[allow(clippy::disallowed_methods, reason = "blocking is what is tested")]
pub(crate) fn block() {
    BLOCKED.store(true, Ordering::SeqCst);
    while !RELEASED.load(Ordering::SeqCst) {
        std::thread::sleep(PAUSE);
    }
}

/// Waits until another core is blocked.
pub(crate) async fn until_blocked(core: &Core) {
    while !BLOCKED.load(Ordering::SeqCst) {
        core.sleep(PAUSE).await;
    }
}

/// Ends what blocks another core.
pub(crate) fn release() {
    RELEASED.store(true, Ordering::SeqCst);
}
