//! Getting rid of clients before the process stops: load balancers are told first, then no new connections
//! are accepted, and the process stops when the others have ended, or a time has passed.

use std::time::Duration;

use crate::supervise::DrainPlan;

/// A drain in progress. Pure: the time is an argument.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    /// When connections are accepted no more.
    closes: Duration,
    /// When the process stops whatever is left.
    ends: Duration,
    closed: bool,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DrainStep {
    /// Wait.
    Wait,
    /// Accept no more connections.
    Close,
    /// Stop: no connection is left.
    Drained,
    /// Stop: the time is over, and so many connections are left.
    TimedOut(u64),
}

impl Drain {
    pub(crate) fn begin(plan: DrainPlan, now: Duration) -> Self {
        let closes = now + plan.notice;
        Self { closes, ends: closes + plan.limit, closed: false }
    }

    /// To be asked about every second, with the number of open connections.
    pub(crate) fn step(&mut self, now: Duration, connections: u64) -> DrainStep {
        if !self.closed {
            self.closed = now >= self.closes;
            return if self.closed { DrainStep::Close } else { DrainStep::Wait };
        }
        match connections {
            0 => DrainStep::Drained,
            left if now >= self.ends => DrainStep::TimedOut(left),
            _ => DrainStep::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_have_their_time() {
        let at = Duration::from_secs;
        let plan = DrainPlan { notice: at(5), limit: at(60) };
        let mut drain = Drain::begin(plan, at(100));
        assert_eq!(drain.step(at(104), 0), DrainStep::Wait, "load balancers do not know yet");
        assert_eq!(drain.step(at(105), 7), DrainStep::Close);
        assert_eq!(drain.step(at(106), 7), DrainStep::Wait);
        assert_eq!(drain.clone().step(at(107), 0), DrainStep::Drained);
        assert_eq!(drain.step(at(165), 2), DrainStep::TimedOut(2));
    }
}
