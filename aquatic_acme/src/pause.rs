//! Sleep, for the thread that has nothing else to do.

use std::thread;
use std::time::Duration;

#[allow(
    clippy::disallowed_methods,
    reason = "the thread of ACME has nothing else to do while an order is under way"
)]
pub(crate) fn sleep(time: Duration) {
    thread::sleep(time);
}
