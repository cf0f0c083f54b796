//! Inline tasks, and tasks of the executor beside them.

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use aquatic_runtime::readiness::Mode;

use crate::scenarios::{TestCore, keep_busy, say, udp};

/// An inline task on core 0 wakes a task of the executor for each datagram of core 1.
pub(crate) async fn wakes(core: TestCore) {
    const DATAGRAMS: u32 = 30;
    static TARGET: OnceLock<SocketAddr> = OnceLock::new();
    if core.index() == 1 {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..DATAGRAMS {
            core.sleep(Duration::from_millis(5)).await;
            while TARGET.get().is_none() {
                core.sleep(Duration::from_millis(5)).await;
            }
            sender.send_to(&[1], TARGET.get().unwrap()).unwrap();
        }
        return core.stopping().await;
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    TARGET.set(socket.local_addr().unwrap()).unwrap();
    let source = core.readiness().register(socket, Mode::Level).unwrap();
    let waiting = Rc::new(RefCell::new(None::<Waker>));
    let woken = Rc::new(Cell::new(0));
    let (shown, count) = (Rc::clone(&waiting), Rc::clone(&woken));
    core.spawn(std::future::poll_fn(move |context| {
        shown.replace(Some(context.waker().clone()));
        count.set(count.get() + 1);
        Poll::Pending
    }));
    let task_core = Rc::clone(&core);
    core.spawn_inline(async move {
        let mut late = 0;
        for number in 0..DATAGRAMS {
            source.readable().await.unwrap();
            // It has run when it was started and after each datagram so far.
            late += u32::from(woken.get() != number + 1);
            source.get_ref().recv(&mut [0]).unwrap();
            let waker = waiting.borrow_mut().take();
            waker.into_iter().for_each(|waker| task_core.wake(waker));
        }
        say(&format!("{late} of {DATAGRAMS} wake-ups were late"));
    });
    core.stopping().await;
}

/// A deadline comes while an inline task works whose last look at the clock was before it. Nothing else
/// happens on core 0, so its next wait must not be without end.
pub(crate) async fn deadline(core: TestCore) {
    const ROUNDS: u32 = 5;
    const DEADLINE: Duration = Duration::from_millis(80);
    static TARGET: OnceLock<SocketAddr> = OnceLock::new();
    static ROUND: AtomicU32 = AtomicU32::new(0);
    if core.index() == 1 {
        let sender = udp();
        for round in 1..=ROUNDS {
            while ROUND.load(Ordering::Acquire) < round {
                core.sleep(Duration::from_millis(1)).await;
            }
            core.sleep(DEADLINE / 2).await;
            sender.send_to(&[1], TARGET.get().unwrap()).unwrap();
        }
        return core.stopping().await;
    }
    let socket = udp();
    TARGET.set(socket.local_addr().unwrap()).unwrap();
    let source = core.readiness().register(socket, Mode::Level).unwrap();
    let inline_core = Rc::clone(&core);
    core.spawn_inline(async move {
        loop {
            source.readable().await.unwrap();
            source.get_ref().recv(&mut [0]).unwrap();
            keep_busy(Duration::from_millis(1));
            inline_core.tick();
            keep_busy(DEADLINE);
            inline_core.yield_now().await;
        }
    });
    for round in 1..=ROUNDS {
        ROUND.store(round, Ordering::Release);
        core.sleep(DEADLINE).await;
    }
    say(&format!("all {ROUNDS} deadlines were kept"));
    core.stopping().await;
}
