use super::*;

fn connections() -> Connections {
    let mut config = WsConfig::default();
    config.client.max_unsent_bytes = 1000;
    config.client.max_message_rate = 2;
    config.client.max_message_burst = 5;
    Connections::new(3, ConnectionLimits::new(&config))
}

fn tick(connections: &mut Connections, times: u32) {
    (0..times).for_each(|_| {
        connections.tick();
    });
}

#[test]
fn an_id_is_not_reused() {
    let mut connections = connections();
    let first = connections.open(Family::V4);
    assert!(connections.close(first).is_some());
    let second = connections.open(Family::V6);
    assert_eq!((first.slot, second.core), (second.slot, 3));
    assert!(connections.get(first).is_none() && connections.close(first).is_none());
    assert_eq!(connections.push(first, 1, |_| panic!("the connection has ended")), Err(QueueError::Closed));
    assert_eq!(connections.push(second, 1, |out| out.push(1)), Ok(Family::V6));
}

#[test]
fn a_silent_client_is_pinged_and_then_disconnected() {
    let mut connections = connections();
    let id = connections.open(Family::V4);
    tick(&mut connections, 37);
    assert!(connections.get(id).unwrap().send_queue.is_empty());
    tick(&mut connections, 1);
    assert_eq!(connections.get(id).unwrap().send_queue.unsent(), [0x89, 0]);
    connections.data_sent(id, 2);
    tick(&mut connections, 37);
    assert_eq!(connections.get(id).unwrap().end, None);
    connections.data_received(id, false, 0);
    tick(&mut connections, 38);
    connections.data_sent(id, 2);
    tick(&mut connections, 37);
    assert_eq!(connections.get(id).unwrap().end, None);
    tick(&mut connections, 1);
    assert_eq!(connections.get(id).unwrap().end, Some(End::Silent));
}

#[test]
fn a_probe_must_be_answered() {
    let mut connections = connections();
    let (dead, alive) = (connections.open(Family::V4), connections.open(Family::V4));
    for id in [dead, alive] {
        connections.probe(id);
        assert_eq!(connections.get(id).unwrap().send_queue.unsent(), [0x89, 0]);
        connections.probe(id);
        connections.data_sent(id, 2);
        assert!(connections.get(id).unwrap().send_queue.is_empty(), "one ping is enough");
    }
    connections.data_received(alive, false, 0);
    let slow = connections.open(Family::V4);
    connections.push(slow, 100, |out| out.resize(100, 0)).unwrap();
    connections.probe(slow);
    for _ in 0..=PROBE_TIMEOUT {
        connections.data_sent(slow, 1);
        tick(&mut connections, 1);
    }
    assert_eq!(connections.get(dead).unwrap().end, Some(End::ProbeFailed));
    assert_eq!(connections.get(alive).unwrap().end, None);
    assert_eq!(connections.get(slow).unwrap().end, None, "the client receives what precedes the ping");
}

#[test]
fn connections_that_exceed_a_time_limit_end() {
    let mut connections = connections();
    let (slow, blocked) = (connections.open(Family::V4), connections.open(Family::V4));
    connections.data_received(slow, true, 0);
    connections.push(blocked, 1, |out| out.push(1)).unwrap();
    tick(&mut connections, 6);
    connections.data_received(slow, true, 0);
    tick(&mut connections, 5);
    assert_eq!(connections.get(slow).unwrap().end, Some(End::SlowSender), "although bytes keep arriving");
    tick(&mut connections, 20);
    assert_eq!(connections.get(blocked).unwrap().end, Some(End::SlowReceiver));
    let idle = connections.open(Family::V4);
    for _ in 0..601 {
        connections.data_received(idle, false, 0);
        tick(&mut connections, 1);
    }
    assert_eq!(connections.get(idle).unwrap().end, Some(End::NoAnnounce));
}

#[test]
fn messages_that_follow_each_other_are_not_late() {
    let mut connections = connections();
    let id = connections.open(Family::V4);
    for _ in 0..100 {
        connections.frame_received(id, true);
        connections.data_received(id, true, 0);
        tick(&mut connections, 1);
    }
    assert_eq!(connections.get(id).unwrap().end, None);
    tick(&mut connections, 11);
    assert_eq!(connections.get(id).unwrap().end, Some(End::SlowSender), "the last of them");
}

#[test]
fn time_in_which_a_connection_is_not_read_from_is_not_the_clients() {
    let mut connections = connections();
    let id = connections.open(Family::V4);
    let rate = connections.limits.rate;
    for _ in 0..40 * rate {
        connections.frame_received(id, true);
    }
    connections.data_received(id, true, 0);
    connections.probe(id);
    for _ in 0..30 {
        assert!(!connections.get(id).unwrap().may_read());
        connections.data_sent(id, PING_LENGTH);
        tick(&mut connections, 1);
    }
    assert_eq!(connections.get(id).unwrap().end, None);
    tick(&mut connections, 30);
    assert!(connections.get(id).unwrap().end.is_some(), "now it is read from");
}

#[test]
fn a_full_queue_ends_the_connection_unless_relays_filled_it() {
    let mut connections = connections();
    let id = connections.open(Family::V4);
    assert!(connections.push_relay(id, 750, |out| out.resize(750, 0)).is_ok());
    for _ in 0..100 {
        assert_eq!(connections.push_relay(id, 1, |_| panic!("the queue is full")), Err(QueueError::Full));
    }
    assert!(connections.push(id, 250, |out| out.resize(1000, 0)).is_ok());
    assert_eq!(connections.get(id).unwrap().end, None);
    assert_eq!(connections.push(id, 1, |_| panic!("the queue is full")), Err(QueueError::Full));
    assert_eq!(connections.get(id).unwrap().end, Some(End::SendQueueFull));
}

#[test]
fn reading_stops_while_many_requests_are_pending() {
    let mut connections = connections();
    let id = connections.open(Family::V4);
    (0..MAX_PENDING_REQUESTS).for_each(|_| connections.request_sent(id));
    assert!(!connections.get(id).unwrap().may_read());
    connections.response_received(id);
    assert!(connections.get(id).unwrap().may_read());
    connections.request_sent(id);
    assert_eq!(connections.tick(), 0, "this is not the rate limit");
    assert!(connections.get(id).unwrap().may_read(), "lost responses do not block reading");
}

#[test]
fn messages_are_read_at_the_configured_rate() {
    let mut connections = connections();
    let id = connections.open(Family::V4);
    let read = |connections: &mut Connections| {
        let mut count = 0;
        while connections.get(id).unwrap().may_read() {
            connections.frame_received(id, true);
            count += 1;
        }
        count
    };
    assert_eq!(read(&mut connections), 5);
    tick(&mut connections, 1);
    assert_eq!(read(&mut connections), 2);
    tick(&mut connections, 100);
    assert_eq!(read(&mut connections), 5);
}

#[test]
fn frames_that_complete_no_message_count_and_end_the_connection() {
    let mut connections = connections();
    let id = connections.open(Family::V4);
    for _ in 0..3 {
        (0..MAX_FRAMES_PER_MESSAGE).for_each(|_| connections.frame_received(id, false));
        connections.frame_received(id, true);
    }
    assert_eq!(connections.get(id).unwrap().end, None);
    assert!(!connections.get(id).unwrap().may_read(), "all frames count against the rate");
    (0..MAX_FRAMES_PER_MESSAGE).for_each(|_| connections.frame_received(id, false));
    assert_eq!(connections.get(id).unwrap().end, None);
    connections.frame_received(id, false);
    assert_eq!(connections.get(id).unwrap().end, Some(End::FrameFlood));
}

#[test]
fn slow_receivers_leave_room_for_the_replies_to_others() {
    const ALL: usize = 40_000;
    let mut connections = connections();
    connections.limits.send_queue.max_bytes = 10_000;
    connections.set_max_unsent(Some(ALL));
    let slow: Vec<_> = (0..100).map(|_| connections.open(Family::V4)).collect();
    let mut queued = 0;
    for _ in 0..200 {
        for &id in &slow {
            queued += usize::from(connections.push_relay(id, 50, |out| out.extend([0; 50])).is_ok()) * 50;
        }
    }
    assert!((ALL / 2..=ALL).contains(&queued), "{queued}");
    assert_eq!(connections.unsent, queued);
    // What one may have beyond an even share is no longer given.
    assert_eq!(connections.push_relay(slow[0], 50, |_| ()), Err(QueueError::Full));
    let other = connections.open(Family::V4);
    assert_eq!(connections.push(other, 100, |out| out.extend([0; 100])), Ok(Family::V4));
    connections.data_sent(other, 100);
    let before = connections.unsent;
    connections.tick();
    assert_eq!((before, connections.unsent), (queued, queued));
    slow.into_iter().for_each(|id| drop(connections.close(id)));
    assert_eq!(connections.unsent, 0);
}

#[test]
fn what_others_send_does_not_keep_a_client_from_being_read() {
    let mut connections = Connections::new(3, ConnectionLimits::new(&WsConfig::default()));
    let id = connections.open(Family::V4);
    for length in [30_000, 3000, 30] {
        while connections.push_relay(id, length, |out| out.resize(out.len() + length, 0)).is_ok() {}
    }
    let mut read = 0;
    loop {
        let readable = connections.readable(id);
        if readable == 0 {
            break;
        }
        read += readable;
        // The longest replies there are, in as many messages as there may be.
        for _ in 0..(readable / SHORTEST_REQUEST).max(1) {
            let length = SHORTEST_REQUEST.min(readable) * REPLY_TO_REQUEST;
            let pushed = connections.push(id, length, |out| out.resize(out.len() + length, 0));
            assert_eq!(pushed, Ok(Family::V4), "after {read} bytes");
        }
    }
    assert!(read >= 8192, "{read}");
    // It reads slowly, and is not read from until it has received some replies.
    for _ in 0..200 {
        tick(&mut connections, 1);
        connections.data_sent(id, 1);
    }
    let connection = connections.get(id).unwrap();
    assert_eq!(connection.end, None);
    let unsent = connection.send_queue.len();
    connections.data_sent(id, unsent);
    assert!(connections.readable(id) > 0);
    tick(&mut connections, 80);
    assert!(connections.get(id).unwrap().end.is_some(), "now it is the client's silence");
}

#[test]
fn a_rate_limit_that_is_lifted_does_not_stay_with_those_above_it() {
    let mut connections = connections();
    let id = connections.open(Family::V4);
    (0..100).for_each(|_| connections.frame_received(id, true));
    assert_eq!(connections.readable(id), 0);
    let limits = ConnectionLimits { rate: 0, ..connections.limits };
    connections.set_limits(limits);
    tick(&mut connections, 1);
    assert!(connections.readable(id) > 0);
}

#[test]
fn incomplete_messages_are_bounded_together() {
    const ALL: usize = 200_000;
    let mut connections = connections();
    connections.set_max_unsent(Some(ALL));
    let mut slow = Vec::new();
    for _ in 0..8 {
        let id = connections.open(Family::V4);
        connections.data_received(id, true, 20_000);
        slow.push(id);
        if connections.partial <= ALL / 2 {
            tick(&mut connections, 1);
        }
    }
    assert_eq!(connections.partial, 160_000);
    let other = connections.open(Family::V4);
    assert!(slow.iter().all(|&id| connections.readable(id) == 0));
    assert!((1..=SMALL_MESSAGE).contains(&connections.readable(other)), "short messages are received");
    tick(&mut connections, 1);
    let ends: Vec<_> = slow.iter().map(|&id| connections.get(id).unwrap().end).collect();
    let (ended, left) = ends.split_at(3);
    assert!(ended.iter().all(|end| *end == Some(End::PartialMessage)), "the oldest: {ends:?}");
    assert!(left.iter().all(Option::is_none), "{ends:?}");
    slow.drain(..3).for_each(|id| drop(connections.close(id)));
    assert!(connections.partial <= ALL / 2 && connections.readable(slow[0]) > 0);
}

#[test]
fn empty_queues_take_relays_only_while_all_have_room() {
    let mut connections = connections();
    connections.set_max_unsent(Some(100_000));
    let ids: Vec<_> = (0..10).map(|_| connections.open(Family::V4)).collect();
    let pushed = ids.iter().map(|&id| connections.push_relay(id, 30_000, |out| out.resize(30_000, 0)));
    assert_eq!(pushed.filter(Result::is_ok).count(), 3);
    assert_eq!(connections.push(ids[9], 30_000, |out| out.resize(30_000, 0)), Ok(Family::V4), "a reply");
}
