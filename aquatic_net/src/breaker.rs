//! The breakers of all protocols and families: one state for the process, decided in the main thread or by
//! hand, and told to every core through its mailbox.
//!
//! [`Breakers`] is the handle for any thread. [`BreakerWatch`] has the main thread judge the load, from the
//! gauges of the cores. [`CoreBreakers`] is what the services of a core ask.

mod busy;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aquatic_common::{Breaker, BreakerEvent, BreakerMode, BreakerRules, BreakerState, Family};
use aquatic_metrics::{Counter, Gauge, Registry, names};
use aquatic_runtime::{Broadcast, Core, MailboxReceiver, Periodic, broadcast};

use busy::BusyCores;

/// Changes that a core has not received yet.
const MAX_CHANGES: usize = 16;

/// A protocol with a breaker for each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// HTTP and HTTPS.
    Http,
    /// WebTorrent over WebSocket.
    Ws,
}

impl Protocol {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Udp, Self::Http, Self::Ws];

    /// Value of the label `protocol` in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Ws => "ws",
        }
    }

    /// What log lines call it.
    const fn title(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Http => "HTTP",
            Self::Ws => "WebTorrent",
        }
    }
}

/// The protocols and families whose breaker is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenBreakers(u8);

impl OpenBreakers {
    const fn bit(protocol: Protocol, family: Family) -> u8 {
        let family = match family {
            Family::V4 => 0,
            Family::V6 => 1,
        };
        1 << (protocol as u8 * 2 + family)
    }

    /// The same with one more that is open.
    #[must_use]
    pub const fn with(self, protocol: Protocol, family: Family) -> Self {
        Self(self.0 | Self::bit(protocol, family))
    }

    /// Whether a breaker is open.
    #[inline]
    #[must_use]
    pub const fn is_open(self, protocol: Protocol, family: Family) -> bool {
        self.0 & Self::bit(protocol, family) != 0
    }
}

/// The breakers as the services of one core see them.
#[derive(Clone, Debug, Default)]
pub struct CoreBreakers(Rc<Cell<OpenBreakers>>);

impl CoreBreakers {
    /// Breakers that follow what the mailbox of a core receives; all are closed at first.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn attach(receiver: MailboxReceiver<OpenBreakers>, core: &Rc<Core>) -> io::Result<Self> {
        let breakers = Self::default();
        let changing = breakers.clone();
        receiver.attach(core, move |open| changing.set(open))?;
        Ok(breakers)
    }

    /// Replaces what is open.
    pub fn set(&self, open: OpenBreakers) {
        self.0.set(open);
    }

    /// Whether a breaker is open.
    #[inline]
    #[must_use]
    pub fn is_open(&self, protocol: Protocol, family: Family) -> bool {
        self.0.get().is_open(protocol, family)
    }

    /// Whether the breaker for the family of a client is open.
    #[inline]
    #[must_use]
    pub fn refuses(&self, protocol: Protocol, client: IpAddr) -> bool {
        self.0.get() != OpenBreakers::default() && self.is_open(protocol, Family::of(client))
    }
}

/// What is known of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerStatus {
    /// Protocol.
    pub protocol: Protocol,
    /// Address family.
    pub family: Family,
    /// Who decides about it.
    pub mode: BreakerMode,
    /// Whether the protocol is served.
    pub state: BreakerState,
    /// Time since it came into this state, to a second.
    pub age: Duration,
}

/// Why a breaker cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotServed(pub Protocol);

impl fmt::Display for NotServed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this process does not serve {}, so it has no breaker for it", self.0.title())
    }
}

impl std::error::Error for NotServed {}

struct Entry {
    protocol: Protocol,
    family: Family,
    breaker: Breaker,
    open: Gauge,
    opened_by_hand: Counter,
    opened_by_overload: Counter,
}

impl Entry {
    fn is(&self, protocol: Protocol, family: Family) -> bool {
        (self.protocol, self.family) == (protocol, family)
    }

    /// Shows, counts and logs what a change has led to.
    fn tell(&self, event: Option<BreakerEvent>) {
        self.open.set(self.breaker.is_open().into());
        let Some(event) = event else { return };
        match event {
            BreakerEvent::OpenedByHand => self.opened_by_hand.add(1),
            BreakerEvent::Opened { .. } => self.opened_by_overload.add(1),
            BreakerEvent::ClosedByHand | BreakerEvent::Trial(_) | BreakerEvent::Closed => {}
        }
        log::warn!("breaker of {} ({}) {event}", self.protocol.title(), self.family.name());
    }
}

struct State {
    entries: Vec<Entry>,
    rules: BreakerRules,
    now: Duration,
    /// Whether a core has not been told of the last change, because its mailbox was full.
    is_unsent: bool,
}

struct Shared {
    state: Mutex<State>,
    cores: Broadcast<OpenBreakers>,
}

/// All breakers of the process. Can be cloned and used by any thread.
#[derive(Clone)]
pub struct Breakers(Arc<Shared>);

impl fmt::Debug for Breakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breakers").finish_non_exhaustive()
    }
}

impl Breakers {
    /// Closed breakers for the protocols that are served, and what tells each core, in core order.
    ///
    /// # Errors
    /// Those of `eventfd`, such as too many open files.
    pub fn new(
        protocols: &[Protocol],
        rules: BreakerRules,
        registry: &Registry,
        cores: usize,
    ) -> io::Result<(Self, Vec<MailboxReceiver<OpenBreakers>>)> {
        let metrics = registry.main_thread();
        let entry = |protocol: Protocol, family: Family| {
            let labels = [("protocol", protocol.name()), ("family", family.name())];
            let opened =
                |cause| metrics.counter(&names::BREAKER_OPENED, &[labels[0], labels[1], ("cause", cause)]);
            Entry {
                protocol,
                family,
                breaker: Breaker::new(rules),
                open: metrics.gauge(&names::BREAKER_OPEN, &labels),
                opened_by_hand: opened("hand"),
                opened_by_overload: opened("overload"),
            }
        };
        let entries =
            protocols.iter().flat_map(|&protocol| Family::ALL.map(|family| entry(protocol, family)));
        let state = State { entries: entries.collect(), rules, now: Duration::ZERO, is_unsent: false };
        let (cores, receivers) = broadcast(cores, MAX_CHANGES)?;
        Ok((Self(Arc::new(Shared { state: Mutex::new(state), cores })), receivers))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a breaker by hand, or returns it to the load. Cores follow at once.
    ///
    /// # Errors
    /// A protocol that this process does not serve.
    pub fn set(&self, protocol: Protocol, family: Family, mode: BreakerMode) -> Result<(), NotServed> {
        let mut state = self.state();
        let now = state.now;
        let entry =
            state.entries.iter_mut().find(|entry| entry.is(protocol, family)).ok_or(NotServed(protocol))?;
        let event = entry.breaker.set_mode(mode, now);
        entry.tell(event);
        self.send(&mut state);
        Ok(())
    }

    /// All breakers, by protocol and family.
    #[must_use]
    pub fn status(&self) -> Vec<BreakerStatus> {
        let state = self.state();
        let status = |&Entry { protocol, family, ref breaker, .. }: &Entry| BreakerStatus {
            protocol,
            family,
            mode: breaker.mode(),
            state: breaker.state(),
            age: state.now.saturating_sub(breaker.since()),
        };
        state.entries.iter().map(status).collect()
    }

    /// Replaces the rules of all breakers.
    pub fn set_rules(&self, rules: BreakerRules) {
        let mut state = self.state();
        state.rules = rules;
        state.entries.iter_mut().for_each(|entry| entry.breaker.set_rules(rules));
    }

    /// Share of its time at which a core counts as overloaded; `None` if it does not.
    fn busy_percent(&self) -> Option<u32> {
        let rules = self.state().rules;
        rules.busy_percent.filter(|_| rules.open_after.is_some())
    }

    /// Takes in the time and what is overloaded.
    fn observe(&self, now: Duration, is_overloaded: impl Fn(Protocol, Family) -> bool) {
        let mut state = self.state();
        state.now = now;
        let mut has_changed = state.is_unsent;
        for entry in &mut state.entries {
            let event = entry.breaker.observe(now, is_overloaded(entry.protocol, entry.family));
            has_changed |= event.is_some();
            entry.tell(event);
        }
        if has_changed {
            self.send(&mut state);
        }
    }

    /// Tells all cores what is open. A core whose mailbox is full is told again a second later.
    fn send(&self, state: &mut State) {
        let open = state.entries.iter().filter(|entry| entry.breaker.is_open());
        let open = open.fold(OpenBreakers::default(), |all, entry| all.with(entry.protocol, entry.family));
        state.is_unsent = !self.0.cores.send(&open).is_empty();
    }
}

/// Has the main thread judge the load of all protocols once a second.
#[derive(Debug)]
pub struct BreakerWatch {
    breakers: Breakers,
    registry: Registry,
    cores: u64,
    busy: BusyCores,
}

impl BreakerWatch {
    /// A watch over these breakers, from `now` on.
    #[must_use]
    pub fn new(breakers: &Breakers, registry: &Registry, cores: usize, now: Duration) -> Self {
        breakers.state().now = now;
        Self {
            breakers: breakers.clone(),
            registry: registry.clone(),
            cores: cores as u64,
            busy: BusyCores::default(),
        }
    }
}

impl Periodic for BreakerWatch {
    fn tick(&mut self, now: Duration) {
        let samples = self.registry.samples();
        let overloaded: Vec<_> =
            samples.iter().filter(|sample| sample.metric.name == names::OVERLOADED.name).collect();
        let keeps_busy = match self.breakers.busy_percent() {
            Some(percent) => self.busy.observe(now, &samples, percent, self.cores),
            None => {
                self.busy.clear();
                None
            }
        };
        self.breakers.observe(now, |protocol, family| {
            let of = overloaded.iter().filter(|sample| {
                sample.label("protocol") == Some(protocol.name())
                    && sample.label("family") == Some(family.name())
            });
            let cores: u64 = of.map(|sample| sample.value).sum();
            // Several listeners of a core may be overloaded.
            cores > 0 && cores * 2 >= self.cores || keeps_busy == Some((protocol, family))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules() -> BreakerRules {
        BreakerRules { open_after: Some(SECOND * 5), pause: SECOND * 30, busy_percent: Some(90) }
    }

    #[test]
    fn each_protocol_and_family_has_a_bit() {
        let mut all = OpenBreakers::default();
        for protocol in Protocol::ALL {
            for family in Family::ALL {
                assert!(!all.is_open(protocol, family));
                all = all.with(protocol, family);
                assert!(all.is_open(protocol, family));
            }
        }
        let breakers = CoreBreakers::default();
        breakers.set(OpenBreakers::default().with(Protocol::Http, Family::V6));
        assert!(breakers.refuses(Protocol::Http, "2001:db8::1".parse().unwrap()));
        assert!(!breakers.refuses(Protocol::Http, "192.0.2.1".parse().unwrap()));
        assert!(!breakers.refuses(Protocol::Ws, "2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn the_hand_and_the_load_open_breakers_which_shows_and_is_counted() {
        let registry = Registry::default();
        let (breakers, _receivers) = Breakers::new(&[Protocol::Udp], rules(), &registry, 2).unwrap();
        let refused = breakers.set(Protocol::Ws, Family::V4, BreakerMode::Open).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "this process does not serve WebTorrent, so it has no breaker for it"
        );
        let overloaded =
            registry.core(0).gauge(&names::OVERLOADED, &[("protocol", "udp"), ("family", "ipv6")]);
        let mut watch = BreakerWatch::new(&breakers, &registry, 2, Duration::ZERO);
        let run = |watch: &mut BreakerWatch, seconds: std::ops::Range<u32>| {
            seconds.for_each(|at| watch.tick(SECOND * at));
        };
        run(&mut watch, 0..20);
        breakers.set(Protocol::Udp, Family::V4, BreakerMode::Open).unwrap();
        overloaded.set(1);
        run(&mut watch, 20..30);
        let states: Vec<_> =
            breakers.status().iter().map(|status| (status.family, status.mode, status.state)).collect();
        let (by_hand, by_load) = (BreakerMode::Open, BreakerMode::Automatic);
        assert_eq!(
            states,
            [(Family::V4, by_hand, BreakerState::Open), (Family::V6, by_load, BreakerState::Open)]
        );
        assert_eq!(breakers.status()[0].age, SECOND * 10);
        assert_eq!(registry.sum(&names::BREAKER_OPEN), 2);
        assert_eq!(registry.sum(&names::BREAKER_OPENED), 2);
        breakers.set(Protocol::Udp, Family::V4, BreakerMode::Automatic).unwrap();
        assert_eq!(registry.sum(&names::BREAKER_OPEN), 1);
    }

    #[test]
    fn fewer_than_half_of_the_cores_open_nothing() {
        let registry = Registry::default();
        let (breakers, _receivers) = Breakers::new(&[Protocol::Udp], rules(), &registry, 3).unwrap();
        registry.core(0).gauge(&names::OVERLOADED, &[("protocol", "udp"), ("family", "ipv4")]).set(1);
        let mut watch = BreakerWatch::new(&breakers, &registry, 3, Duration::ZERO);
        (0..100).for_each(|at| watch.tick(SECOND * at));
        assert_eq!(registry.sum(&names::BREAKER_OPEN), 0);
    }

    #[test]
    fn cores_that_are_busy_with_http_open_its_breaker() {
        let registry = Registry::default();
        let served = [Protocol::Udp, Protocol::Http];
        let (breakers, _receivers) = Breakers::new(&served, rules(), &registry, 1).unwrap();
        let busy = registry.core(0).counter(&names::CORE_BUSY_TIME, &[]);
        let labels = [("protocol", "http"), ("family", "ipv4"), ("action", "announce")];
        let requests = registry.core(0).counter(&names::REQUESTS, &labels);
        let mut watch = BreakerWatch::new(&breakers, &registry, 1, Duration::ZERO);
        let mut run = |seconds: std::ops::Range<u32>, percent: u64| {
            for at in seconds {
                busy.add(percent * 10_000_000);
                requests.add(1000);
                watch.tick(SECOND * at);
            }
            breakers.status().into_iter().filter(|status| status.state == BreakerState::Open).count()
        };
        assert_eq!(run(0..20, 89), 0);
        assert_eq!(run(20..24, 100), 0, "not for long enough");
        assert_eq!(run(24..30, 100), 1, "only that of the family that asks");
        assert_eq!(run(30..120, 20), 0, "closed again");
        breakers.set_rules(BreakerRules { busy_percent: None, ..rules() });
        assert_eq!(run(120..200, 100), 0);
    }

    #[test]
    fn a_core_whose_mailbox_was_full_is_told_again() {
        let (breakers, _receivers) =
            Breakers::new(&[Protocol::Udp], rules(), &Registry::default(), 1).unwrap();
        for at in 0..=MAX_CHANGES {
            let mode = if at % 2 == 0 { BreakerMode::Open } else { BreakerMode::Closed };
            breakers.set(Protocol::Udp, Family::V4, mode).unwrap();
        }
        assert!(breakers.state().is_unsent);
    }
}
