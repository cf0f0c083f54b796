//! Load test against test trackers in the same process: correct ones, faulty ones, and none.
#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

#[path = "../../aquatic_load_engine/tests/support/reports.rs"]
mod reports;
#[path = "../../aquatic_load_engine/tests/support/running.rs"]
mod running;
mod tracker;

use std::net::TcpListener;

use aquatic_load_engine::interrupt::Interrupt;
use aquatic_load_engine::report::{Failure, KindReport, Outcome, Report};
use aquatic_load_engine::settings::{ArrivalsConfig, Mode};
use aquatic_ws_load_test::config::{Config, Leave, WebSocketClient};
use aquatic_ws_load_test::run;
use reports::{note, violated};
use running::data;
use tracker::{Behaviour, Tracker};

const CLIENTS: [WebSocketClient; 2] = [WebSocketClient::Fast, WebSocketClient::Library];

fn config(tracker: &Tracker) -> Config {
    let mut config = Config { server_address: tracker.address, warm_up: 0, duration: 1, ..Config::default() };
    config.population.torrents = 3;
    config.connections.count = 18;
    config.connections.opening = 8;
    config.requests.weight_announce = 10;
    config.requests.offers = 3;
    config.requests.sdp_length = 700;
    config.closed.window = 6;
    config
}

fn test_with(tls: bool, behaviour: Behaviour, change: impl FnOnce(&mut Config)) -> (Outcome, Tracker) {
    let tracker = tracker::start(behaviour, tls);
    let mut config = config(&tracker);
    config.tls.enable = tls;
    change(&mut config);
    (run(config, &Interrupt::default()).unwrap(), tracker)
}

fn test(behaviour: Behaviour, change: impl FnOnce(&mut Config)) -> (Outcome, Tracker) {
    test_with(false, behaviour, change)
}

/// Tests both implementations of WebSocket at the same time.
fn with_each_client(test: impl Fn(WebSocketClient) + Sync) {
    std::thread::scope(|scope| {
        for client in CLIENTS {
            let test = &test;
            scope.spawn(move || test(client));
        }
    });
}

fn kind<'a>(report: &'a Report, name: &str) -> &'a KindReport {
    report.kinds.iter().find(|kind| kind.kind == name).unwrap()
}

/// A load phase in which everything came to what it should.
fn assert_passed(outcome: &Outcome) {
    outcome.verdict().unwrap();
    let load = outcome.phases.last().unwrap();
    for name in ["announce", "offer", "answer", "scrape"] {
        let kind = kind(load, name);
        assert_eq!((kind.sent, kind.errors, kind.lost), (kind.answered, 0, 0), "{name}: {outcome}");
        assert!(kind.answered > 0 && kind.latency.count == kind.answered, "{name}: {outcome}");
    }
    assert!(kind(load, "offer").answered > kind(load, "announce").answered, "{outcome}");
}

#[test]
fn honest_tracker_passes() {
    for client in CLIENTS {
        let (outcome, tracker) = test(Behaviour::Honest, |config| config.connections.websocket = client);
        assert_passed(&outcome);
        let names: Vec<_> = outcome.phases.iter().map(|phase| phase.phase).collect();
        assert_eq!(names, ["connecting", "load"]);
        assert_eq!(note(&outcome.phases[0], "connections opened"), 18);
        assert_eq!(kind(&outcome.phases[0], "connect").answered, 18);
        assert_eq!(note(&outcome.phases[1], "relays too late to be verified"), 0);
        assert_eq!(tracker.state.lock().unwrap().connections, 18);
    }
}

#[test]
fn several_torrents_and_threads() {
    let (outcome, tracker) = test(Behaviour::Honest, |config| {
        config.connections.torrents = 2;
        config.population.torrents = 5;
        config.threads = 2;
    });
    assert_passed(&outcome);
    assert_eq!(tracker.state.lock().unwrap().most_peers, 36);
}

#[test]
fn connections_are_no_receivers_of_their_own_offers() {
    let (outcome, tracker) = test(Behaviour::Honest, |config| {
        config.connections.count = 3;
        config.connections.torrents = 3;
    });
    outcome.verdict().unwrap();
    let offers = kind(&outcome.phases[1], "offer");
    assert_eq!((offers.sent, offers.lost), (offers.answered, 0), "{outcome}");
    assert_eq!(tracker.state.lock().unwrap().most_peers, 9);
}

#[test]
fn messages_may_be_fragmented_binary_frames_between_pings() {
    for client in CLIENTS {
        let (outcome, _tracker) = test(Behaviour::Roundabout, |config| config.connections.websocket = client);
        assert_passed(&outcome);
        assert!(note(&outcome.phases[1], "pings received") > 10);
    }
}

#[test]
fn replies_to_answers_are_told_from_replies_to_announces() {
    let (outcome, _tracker) = test(Behaviour::Talkative, |config| config.requests.weight_scrape = 10);
    assert_passed(&outcome);
    let load = &outcome.phases[1];
    assert!(note(load, "replies to answers") >= kind(load, "answer").answered, "{outcome}");
    // Messages of the tracker all count.
    let replies = load.kinds.iter().map(|kind| kind.answered).sum::<u64>() + note(load, "replies to answers");
    assert!(load.responses_per_second > 0.8 * replies as f64, "{outcome}");
}

#[test]
fn offers_are_answered_with_the_configured_probability() {
    let (outcome, _tracker) = test(Behaviour::Honest, |config| config.requests.answer_probability = 0.5);
    outcome.verdict().unwrap();
    let load = &outcome.phases[1];
    let share = kind(load, "answer").sent as f64 / kind(load, "offer").answered as f64;
    assert!((0.3..0.7).contains(&share), "{outcome}");
}

#[test]
fn encrypted_connections() {
    for client in CLIENTS {
        for verify in [false, true] {
            let (outcome, _tracker) = test_with(true, Behaviour::Honest, |config| {
                config.connections.websocket = client;
                config.tls.verify_certificate = verify;
                config.tls.ca_path = data("ca.pem").into();
            });
            assert_passed(&outcome);
            assert_eq!(note(&outcome.phases[0], "full TLS handshakes"), 18);
        }
        let (outcome, _tracker) = test_with(true, Behaviour::Honest, |config| {
            config.connections.websocket = client;
            config.tls.verify_certificate = true;
            config.tls.ca_path = data("ca.pem").into();
            config.tls.server_name = "elsewhere.example".to_owned();
        });
        assert_eq!(note(&outcome.phases[0], "connections with a TLS error"), 180, "ten tries each");
        assert_eq!(outcome.verdict(), Err(Failure::NothingServed));
    }
}

#[test]
fn open_loop_keeps_the_rate() {
    let (outcome, _tracker) = test(Behaviour::Honest, |config| {
        config.mode = Mode::Open;
        config.open.rate = 60;
        config.duration = 2;
        config.requests.weight_scrape = 0;
    });
    outcome.verdict().unwrap();
    assert!((80..160).contains(&kind(&outcome.phases[1], "announce").sent), "{outcome}");
}

#[test]
fn requests_in_flight_are_bounded_by_the_window() {
    let (outcome, _tracker) = test(Behaviour::Dozing, |config| config.requests.timeout = 2000);
    let kinds = &outcome.phases[1].kinds;
    let sent: u64 =
        kinds.iter().filter(|kind| ["announce", "scrape"].contains(&kind.kind)).map(|kind| kind.sent).sum();
    assert_eq!(sent, 6, "the test is over before the first are given up: {outcome}");
}

#[test]
fn idle_connections_announce_once_and_are_held() {
    for client in CLIENTS {
        let (outcome, tracker) = test(Behaviour::Honest, |config| {
            config.connections.websocket = client;
            config.idle.enable = true;
            config.idle.hold = 0;
            config.connections.count = 60;
        });
        outcome.verdict().unwrap();
        let report = &outcome.phases[0];
        assert_eq!((report.phase, kind(report, "announce").answered), ("idle", 60));
        assert_eq!(note(report, "connections open at the end"), 60);
        assert!(kind(report, "answer").answered > 60, "{outcome}");
        assert_eq!(tracker.state.lock().unwrap().most_peers, 60);
    }
}

#[test]
fn clients_leave_in_the_configured_way() {
    for client in CLIENTS {
        for leave in [Leave::Stopped, Leave::Close, Leave::Abrupt, Leave::Mixed] {
            let (outcome, tracker) = test(Behaviour::Honest, |config| {
                config.connections.websocket = client;
                config.churn.connections = 60;
                config.churn.leave = leave;
                config.connections.torrents = 2;
            });
            outcome.verdict().unwrap();
            let report = &outcome.phases[0];
            assert_eq!(
                (report.phase, note(report, "clients that came and went")),
                ("churn", 60),
                "{outcome}"
            );
            assert_eq!((kind(report, "connect").answered, note(report, "connections opened")), (60, 60));
            let hub = tracker.state.lock().unwrap();
            assert_eq!(hub.connections, 60);
            let (stopped, goodbyes) = match leave {
                Leave::Stopped => (120..=120, 60..=60),
                Leave::Close => (0..=0, 60..=60),
                Leave::Abrupt => (0..=0, 0..=0),
                Leave::Mixed => (20..=60, 30..=50),
            };
            assert!(stopped.contains(&hub.stopped), "{leave:?}: {}", hub.stopped);
            assert!(goodbyes.contains(&hub.goodbyes), "{leave:?}: {}", hub.goodbyes);
        }
    }
}

#[test]
fn clients_are_started_at_a_rate_and_stay() {
    let (outcome, tracker) = test(Behaviour::Honest, |config| {
        config.churn.connections = 30;
        config.churn.rate = 30;
        config.open.arrivals = ArrivalsConfig::Even;
        config.churn.stay = 300;
    });
    let report = &outcome.phases[0];
    assert_eq!(note(report, "clients that came and went"), 30, "{outcome}");
    // The last one comes 29 thirtieths of a second after the first.
    assert!((0.96 + 0.3..20.0).contains(&report.seconds), "{outcome}");
    let most = tracker.state.lock().unwrap().most_peers;
    assert!((3..=18).contains(&most), "{most}");
}

#[test]
fn refusals_are_errors_and_lost_connections_are_replaced() {
    let (outcome, _tracker) = test(Behaviour::Moody, |_| {});
    let announces = kind(&outcome.phases[1], "announce");
    assert!(announces.errors > 5 && announces.answered > 5, "{outcome}");
    assert_eq!(outcome.phases[1].error_texts, ["not now"]);
    assert!(matches!(outcome.verdict(), Err(Failure::Refused { kind: "announce", .. })), "{outcome}");
    let (outcome, tracker) = test(Behaviour::Rude, |config| config.duration = 2);
    assert!(violated(&outcome).is_empty(), "{outcome}");
    let load = &outcome.phases[1];
    assert!(
        note(load, "connections closed by the tracker") > 5 && kind(load, "announce").lost > 5,
        "{outcome}"
    );
    assert!(tracker.state.lock().unwrap().connections > 25, "{outcome}");
}

#[test]
fn violations_are_reported() {
    for (behaviour, violations) in [
        (Behaviour::Faker, &["wrong Sec-WebSocket-Accept"][..]),
        (Behaviour::Masking, &["invalid WebSocket frame"]),
        (Behaviour::Confused, &["message about a torrent the peer has not joined"]),
        (Behaviour::Echoing, &["offer relayed to its sender"]),
        (Behaviour::Repeating, &["offer relayed twice"]),
        (Behaviour::Partial, &["two offers of an announce relayed to one peer"]),
        (Behaviour::Mixing, &["message about a torrent the peer has not joined"]),
        (Behaviour::Forging, &["offer that no peer made"]),
        (Behaviour::Swapping, &["offer modified in transit"]),
        (Behaviour::Cutting, &["offer modified in transit"]),
        (Behaviour::Misdirecting, &["answer relayed to the wrong peer"]),
        (Behaviour::Insisting, &["answer relayed twice"]),
        (Behaviour::Impersonating, &["answer modified in transit"]),
        (Behaviour::Lying, &["scrape reply contains a torrent not requested"]),
    ] {
        with_each_client(|client| {
            let (outcome, _tracker) = test(behaviour, |config| config.connections.websocket = client);
            assert_eq!(violated(&outcome), violations, "{client:?}, {behaviour:?}: {outcome}");
            assert!(matches!(outcome.verdict(), Err(Failure::Violations(_))));
        });
    }
}

#[test]
fn trackers_that_relay_no_offers_fail() {
    let (outcome, _tracker) = test(Behaviour::Withholding, |_| {});
    assert!(matches!(outcome.verdict(), Err(Failure::Lost { kind: "offer", .. })), "{outcome}");
    let (outcome, _tracker) = test(Behaviour::Withholding, |config| {
        config.verdict.max_lost_share = 1.0;
        config.verdict.min_replies_checked = 1;
    });
    assert_eq!(outcome.verdict(), Err(Failure::NotChecked { checked: 0, min: 1 }), "{outcome}");
}

#[test]
fn trackers_that_serve_nothing_fail() {
    with_each_client(|client| {
        let (outcome, _tracker) = test(Behaviour::NotFound, |config| config.connections.websocket = client);
        assert_eq!(outcome.phases[0].error_texts, ["status 404"]);
        assert_eq!(note(&outcome.phases[0], "upgrades refused"), 180, "ten tries each");
        assert_eq!(
            outcome.verdict(),
            Err(Failure::Refused { kind: "connect", refused: 180, responses: 180 })
        );
        for (behaviour, violations) in
            [(Behaviour::Silent, &[][..]), (Behaviour::Babbling, &["invalid message"])]
        {
            let (outcome, _tracker) = test(behaviour, |config| {
                config.connections.websocket = client;
                config.requests.timeout = 50;
            });
            assert_eq!(violated(&outcome), violations);
            let first = &outcome.phases[0];
            assert!(note(first, "connections closed after a response timeout") > 18, "{outcome}");
            assert_eq!(note(first, "connections abandoned after repeated failures"), 18, "{outcome}");
        }
    });
}

#[test]
fn refused_connections_are_reported() {
    with_each_client(|client| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut config = Config { server_address: address, duration: 1, ..Config::default() };
        config.connections.count = 4;
        config.connections.websocket = client;
        let outcome = run(config, &Interrupt::default()).unwrap();
        assert_eq!(note(&outcome.phases[0], "connections refused"), 40, "{outcome}");
        assert_eq!(outcome.verdict(), Err(Failure::NothingServed));
    });
}
