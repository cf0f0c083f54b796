//! Tests of deadlines and eviction.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;
use crate::tcp::counters::Protocols;
use aquatic_metrics::Registry;

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn deadlines() -> Rc<DeadlineTable> {
    let limits =
        Deadlines { idle: Duration::from_secs(10), head: Duration::from_secs(1), ..Deadlines::default() };
    Rc::new(DeadlineTable::new(
        limits,
        true,
        Counters::new(&Registry::default().core(0), Protocols { first: "test", upgraded: "test" }),
    ))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Lets time pass in the usual steps.
fn pass(deadlines: &DeadlineTable, time: Duration) {
    let end = deadlines.swept.get() + time;
    while deadlines.swept.get() + SWEEP_INTERVAL <= end {
        deadlines.sweep(deadlines.swept.get() + SWEEP_INTERVAL);
    }
}

#[test]
fn a_deadline_is_met_late_by_a_sweep_at_most_and_never_early() {
    let deadlines = deadlines();
    deadlines.sweep(seconds(100));
    for (limit, sweeps) in [(1000, 5), (999, 5), (1, 2), (1001, 6), (250, 2)] {
        let deadline = deadlines.open();
        deadline.enter_for(Phase::Head, Duration::from_millis(limit));
        // The phase may have begun immediately before a sweep, so the first one does not count.
        pass(&deadlines, SWEEP_INTERVAL * (sweeps - 1));
        assert!(!deadline.expired(), "{limit}");
        pass(&deadlines, SWEEP_INTERVAL);
        assert!(deadline.expired(), "{limit}");
        deadline.close();
    }
}

#[test]
fn a_core_that_stood_still_does_not_end_connections() {
    let deadlines = deadlines();
    let deadline = deadlines.open();
    deadline.enter(Phase::Head);
    deadlines.sweep(seconds(500));
    for at in 0..100 {
        deadlines.sweep(seconds(500) + Duration::from_millis(at));
    }
    assert!(!deadline.expired());
}

#[test]
fn late_sweeps_do_not_put_off_deadlines() {
    let deadlines = deadlines();
    deadlines.sweep(seconds(100));
    let deadline = deadlines.open();
    deadline.enter_for(Phase::Head, seconds(10));
    let (mut time, late) = (seconds(100), Duration::from_millis(60));
    while !deadline.expired() {
        time += deadlines.until_sweep(time) + late;
        deadlines.sweep(time);
    }
    let took = time - seconds(100);
    assert!(took >= seconds(10) && took <= seconds(10) + SWEEP_INTERVAL + late, "{took:?}");
}

#[test]
fn running_out_wakes_once_and_is_counted_by_phase() {
    let deadlines = deadlines();
    let (deadline, woken) = (deadlines.open(), Arc::new(Woken::default()));
    deadline.enter(Phase::Head);
    deadline.watch(&Context::from_waker(&Waker::from(Arc::clone(&woken))));
    deadline.check().unwrap();
    pass(&deadlines, seconds(10));
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(deadline.check().unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(deadlines.counters.protocol.timeouts[Phase::Head as usize].get(), 1);
    deadline.enter(Phase::Answer);
    assert!(deadline.expired(), "what is over stays over");
}

#[test]
fn a_hold_that_outlives_its_connection_does_nothing() {
    let deadlines = deadlines();
    let first = deadlines.open();
    let outliving = first.clone();
    first.close();
    assert!(outliving.expired() && deadlines.len() == 0);
    let second = deadlines.open();
    outliving.end();
    outliving.close();
    assert!(!second.expired() && deadlines.len() == 1);
    assert_eq!(deadlines.counters.protocol.open.get(), 1);
}

#[test]
fn a_stop_ends_what_is_idle_and_hurries_the_rest() {
    let deadlines = deadlines();
    let (idle, busy) = (deadlines.open(), deadlines.open());
    idle.enter(Phase::Idle);
    busy.enter(Phase::Answer);
    pass(&deadlines, seconds(1));
    deadlines.stop();
    assert!(idle.expired() && !busy.expired() && busy.is_stopping());
    pass(&deadlines, seconds(2));
    assert!(!busy.expired());
    busy.enter(Phase::Answer);
    pass(&deadlines, seconds(2));
    assert!(busy.expired(), "a new phase gives no more time");
    let late = deadlines.open();
    late.enter(Phase::Idle);
    assert!(late.expired());
    assert!(deadlines.counters.protocol.timeouts[Phase::Idle as usize].get() == 0, "a stop is no timeout");
}
#[test]
fn leaving_spreads_the_ends_of_idle_connections_and_leaves_requests_alone() {
    let deadlines = deadlines();
    let handles: Vec<_> = (0..9).map(|_| deadlines.open()).collect();
    handles[..8].iter().for_each(|handle| handle.enter_for(Phase::Idle, seconds(1000)));
    handles[8].enter_for(Phase::Answer, seconds(1000));
    let mut shares = (0..8).map(|nth| f64::from(nth) / 8.0);
    deadlines.end_over(seconds(8), || shares.next().unwrap());
    assert!(handles.iter().all(|handle| handle.is_stopping() && !handle.expired()));
    for second in 0..8 {
        pass(&deadlines, seconds(1));
        let ended = handles[..8].iter().filter(|handle| handle.expired()).count();
        assert!(ended == second + 1 || ended == second, "{ended} after {second} s");
    }
    let late = deadlines.open();
    late.enter(Phase::Idle);
    assert!(!late.expired() && !handles[8].expired());
    pass(&deadlines, seconds(3));
    assert!(late.expired() && handles[8].expired());
    assert!(deadlines.counters.protocol.timeouts[Phase::Idle as usize].get() == 0);
}

#[test]
fn the_longest_wait_is_evicted_first() {
    let deadlines = deadlines();
    let handles: Vec<_> = (0..6).map(|_| deadlines.open()).collect();
    let ended = || (0..6).filter(|&nth| handles[nth].expired()).collect::<Vec<_>>();
    handles[1].enter(Phase::Answer);
    handles[2].enter(Phase::Linger);
    handles[3].enter(Phase::Idle);
    assert!(!deadlines.evict_oldest_waiter(), "all have just come");
    pass(&deadlines, SWEEP_INTERVAL);
    handles[0].enter(Phase::Idle);
    handles[3].client_has_acted();
    pass(&deadlines, SWEEP_INTERVAL);
    handles[2].wait();
    assert!(deadlines.evict_oldest_waiter() && deadlines.evict_oldest_waiter());
    assert_eq!(ended(), [4, 5], "the others do not wait, or have begun later");
    assert!(!deadlines.evict_oldest_waiter());
    pass(&deadlines, SWEEP_INTERVAL);
    assert!(deadlines.evict_oldest_waiter() && !deadlines.evict_oldest_waiter());
    assert_eq!(ended(), [0, 4, 5]);
    pass(&deadlines, SWEEP_INTERVAL);
    assert!(deadlines.evict_oldest_waiter() && !deadlines.evict_oldest_waiter());
    assert_eq!(ended(), [0, 2, 4, 5]);
    assert_eq!(deadlines.counters.evicted_connections.get(), 4);
    assert!(deadlines.counters.protocol.timeouts.iter().all(|timeouts| timeouts.get() == 0));

    handles[1].enter(Phase::Head);
    handles.iter().for_each(DeadlineHandle::close);
    assert_eq!(deadlines.waiting.borrow().len(), 0);
}

#[test]
fn a_connection_that_waits_again_is_queued_again() {
    let deadlines = deadlines();
    let handles: Vec<_> = (0..500).map(|_| deadlines.open()).collect();
    for round in 0..5 {
        handles.iter().skip(round).step_by(7).for_each(|deadline| deadline.enter(Phase::Idle));
        pass(&deadlines, SWEEP_INTERVAL);
    }
    pass(&deadlines, SWEEP_INTERVAL);
    let waited = |nth: usize| if nth % 7 < 5 { nth % 7 } else { 0 };
    let mut last = 0;
    for _ in 0..500 {
        let before: Vec<_> = handles.iter().map(DeadlineHandle::expired).collect();
        assert!(deadlines.evict_oldest_waiter());
        let ended = (0..500).find(|&nth| handles[nth].expired() != before[nth]).unwrap();
        assert!(waited(ended) >= last, "{ended}");
        last = waited(ended);
    }
    assert!(!deadlines.evict_oldest_waiter() && deadlines.waiting.borrow().len() == 0);
}

#[test]
fn where_silence_is_usual_only_handshakes_are_evicted() {
    let counters = Counters::new(&Registry::default().core(0), Protocols { first: "test", upgraded: "test" });
    let deadlines = Rc::new(DeadlineTable::new(Deadlines::default(), false, counters));
    let (idle, shaking) = (deadlines.open(), deadlines.open());
    idle.enter(Phase::Idle);
    pass(&deadlines, seconds(1));
    assert!(deadlines.evict_oldest_waiter() && !deadlines.evict_oldest_waiter());
    assert!(shaking.expired() && !idle.expired());
}

#[test]
fn an_address_with_too_many_connections_loses_its_longest_wait() {
    let deadlines = deadlines();
    let (ours, theirs) = (AddressKey::of([192, 0, 2, 1].into()), AddressKey::of([192, 0, 2, 2].into()));
    let handles: Vec<_> = (0..4).map(|_| deadlines.open()).collect();
    handles.iter().for_each(|handle| handle.enter(Phase::Idle));
    handles[0].set_address(theirs);
    handles[1..].iter().for_each(|handle| handle.set_address(ours));
    assert!(!deadlines.evict_oldest_waiter_of(ours), "all have just come");
    pass(&deadlines, seconds(1));
    handles[1].enter(Phase::Answer);
    assert!(deadlines.evict_oldest_waiter_of(ours));
    assert!(handles[2].expired() && !handles[0].expired() && !handles[3].expired());
    assert!(deadlines.evict_oldest_waiter_of(ours) && !deadlines.evict_oldest_waiter_of(ours));
    assert!(!handles[1].expired(), "it does not wait for its client");
    handles[1].enter(Phase::Idle);
    assert!(!deadlines.evict_oldest_waiter_of(ours), "not before it has waited");
    assert!(deadlines.evict_oldest_waiter_of(theirs), "the search is not given up for other addresses");
    pass(&deadlines, seconds(1));
    assert!(deadlines.evict_oldest_waiter_of(ours) && handles[1].expired());
    assert_eq!(deadlines.counters.evicted_for_address.get(), 4);
}

#[test]
fn upgraded_connections_are_not_in_the_way_of_eviction() {
    let deadlines = deadlines();
    deadlines.sweep(seconds(100));
    let address = AddressKey::of([192, 0, 2, 1].into());
    let upgraded: Vec<DeadlineHandle> = (0..MAX_ADDRESS_SCAN + 1).map(|_| deadlines.open()).collect();
    for deadline in &upgraded {
        deadline.enter_service();
        deadline.upgrade();
    }
    let idle = [(); 2].map(|()| deadlines.open());
    for deadline in &idle {
        deadline.set_address(address);
        deadline.enter(Phase::Idle);
    }
    pass(&deadlines, seconds(2));
    assert!(deadlines.evict_oldest_waiter_of(address), "behind more of them than are looked at");
    assert!(deadlines.evict_oldest_waiter());
    assert!(idle.iter().all(DeadlineHandle::expired));
    assert!(!upgraded.iter().any(DeadlineHandle::expired));
}

#[test]
fn upgraded_connections_are_counted_apart_and_have_no_deadline() {
    let deadlines = deadlines();
    let (http, upgraded) = (deadlines.open(), deadlines.open());
    http.enter(Phase::Answer);
    upgraded.upgrade();
    upgraded.upgrade();
    let open = |deadlines: &DeadlineTable| {
        (deadlines.counters.protocol.open.get(), deadlines.counters.upgraded.open.get())
    };
    assert_eq!(open(&deadlines), (1, 1));
    pass(&deadlines, seconds(100_000));
    assert!(http.expired() && !upgraded.expired());
    upgraded.close();
    assert_eq!(open(&deadlines), (1, 0));
    let late = deadlines.open();
    late.upgrade();
    deadlines.stop();
    pass(&deadlines, seconds(4));
    assert!(late.expired(), "a stop has a deadline for it");
}

#[test]
fn new_connections_are_read_from_once_before_they_end() {
    for stop in [DeadlineTable::drain, DeadlineTable::stop] {
        let deadlines = deadlines();
        let [fresh, silent, idle] = [(); 3].map(|()| deadlines.open());
        fresh.enter_service();
        silent.enter_service();
        idle.enter_service();
        idle.enter(Phase::Idle);
        stop(&deadlines);
        assert!(idle.expired() && !fresh.expired() && !silent.expired());
        let late = deadlines.open();
        late.enter_service();
        assert!(!late.expired());
        fresh.enter(Phase::Answer);
        pass(&deadlines, FIRST_READ + 2 * SWEEP_INTERVAL);
        assert!(!fresh.expired() && silent.expired() && late.expired());
        fresh.enter(Phase::Idle);
        assert!(fresh.expired(), "its reply was the last");
    }
}

#[test]
fn a_client_that_does_not_take_its_reply_makes_room() {
    let deadlines = deadlines();
    let [blocked, moving, lingering] = [(); 3].map(|()| deadlines.open());
    for handle in [&blocked, &moving] {
        handle.enter(Phase::Answer);
        assert!(handle.wait_for_room());
    }
    lingering.enter(Phase::Linger);
    assert!(!lingering.wait_for_room());
    moving.client_has_acted();
    pass(&deadlines, 2 * SWEEP_INTERVAL);
    assert!(deadlines.evict_oldest_waiter() && deadlines.evict_oldest_waiter());
    assert!(!deadlines.evict_oldest_waiter());
    assert!(blocked.expired() && lingering.expired() && !moving.expired());
}
