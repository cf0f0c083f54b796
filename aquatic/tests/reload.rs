//! Reload of the configuration by the running program, and the check of what it names.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use support::{Ends, REPLY, Tracker, fetch, metric, service};
use tempfile::TempDir;

/// Settings of all tests, over those of the file.
const USUAL: [&str; 5] = [
    "workers=1",
    "network.use_ipv6=false",
    "network.address_ipv4=127.0.0.1:0",
    "metrics.enable=true",
    "metrics.address=127.0.0.1:0",
];

const A: &str = "0123456789abcdef0123456789abcdef01234567";
const B: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// A tracker with a configuration file.
struct Fixture {
    tracker: Tracker,
    metrics: SocketAddr,
    directory: TempDir,
}

impl Fixture {
    fn start(name: &str, text: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), name, text)
    }

    fn start_in(directory: TempDir, name: &str, text: &str) -> Self {
        let config = directory.path().join("tracker.toml");
        fs::write(&config, text).unwrap();
        let mut command = service(name, &USUAL);
        command.arg("-c").arg(config);
        // One over UDP, HTTP and WebTorrent each.
        let listeners = if name == "all" { 3 } else { 1 };
        let tracker = Tracker::start(listeners, &mut command);
        let metrics = tracker.metrics.unwrap();
        Self { tracker, metrics, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Replaces the configuration file as a whole.
    fn write(&self, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path("tracker.toml")).unwrap();
    }

    fn reload(&mut self, text: &str) {
        self.write(text);
        self.tracker.signal("HUP");
    }

    /// Waits until this many reloads of the configuration are counted as done and failed.
    fn wait_for_reloads(&self, done: f64, failed: f64) {
        let count =
            |outcome| metric(self.metrics, &format!("aquatic_config_reloads_total{{outcome=\"{outcome}\"}}"));
        until("the number of reloads", || (count("done"), count("failed")) == (done, failed));
    }

    /// Reply to an announce over HTTP.
    fn announce(&self, info_hash: &str) -> String {
        let escaped: String = (0..20).map(|at| format!("%{}", &info_hash[2 * at..2 * at + 2])).collect();
        let query = format!("info_hash={escaped}&peer_id=-TR4050-abcdefghijkl&port=1000&left=1&compact=1");
        fetch(self.tracker.address(), &format!("/announce?{query}"))
    }
}

/// Polls until something holds.
#[allow(clippy::disallowed_methods, reason = "the test waits for another process")]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{what} does not become true");
}

#[test]
fn settings_change_and_those_that_cannot_are_named() {
    let before = "[protocol]\npeer_announce_interval = 1800\nannounce_interval_jitter = 0\n";
    let mut fixture = Fixture::start("http", before);
    let reply = fixture.announce(A);
    assert!(reply.contains("8:intervali1800e") && reply.contains("12:min intervali300e"), "{reply}");
    fixture.reload(
        "cleaning.max_peer_age = 2000\nnetwork.tcp_backlog = 99\nlimits.max_torrents = 1\n\
         limits.refused_ports = \"900-950,940-999\"\nlimits.max_peers_per_address = 9\n\
         protocol = { peer_announce_interval = 900, announce_interval_jitter = 0 }\n\
         http = { min_announce_interval = 60, max_response_peers = 1000, max_request_size = 4096 }\n",
    );
    for line in [
        "INFO  cleaning.max_peer_age changed from 3600 to 2000",
        "INFO  http.max_response_peers changed from 50 to 1000",
        "INFO  http.min_announce_interval changed from 300 to 60",
        "INFO  limits.max_torrents changed from 100000000 to 1",
        "INFO  limits.refused_ports changed from \"\" to \"900-999\"",
        "INFO  protocol.peer_announce_interval changed from 1800 to 900",
        "WARN  http.max_request_size has changed; restart to apply",
        "WARN  limits.max_peers_per_address has changed; restart to apply",
        "WARN  network.tcp_backlog has changed; restart to apply",
        "INFO  configuration reloaded: 6 applied, 3 to be applied by a restart",
    ] {
        fixture.tracker.wait_for_log(line);
    }
    until("the new interval", || {
        let reply = fixture.announce(A);
        reply.contains("8:intervali900e") && reply.contains("12:min intervali60e")
    });
    fixture.announce(B);
    until("the new limit", || {
        metric(
            fixture.metrics,
            "aquatic_not_stored_total{swarms=\"bittorrent\",family=\"ipv4\",reason=\"max_torrents\"",
        ) == 1.0
    });
    fixture.wait_for_reloads(1.0, 0.0);
    fixture.reload(before);
    fixture.tracker.wait_for_log("configuration reloaded: 6 applied, 0 to be applied by a restart");
    fixture.tracker.signal("USR1");
    fixture.tracker.wait_for_log("configuration reloaded: no changes");
    until("the old interval", || fixture.announce(A).contains("8:intervali1800e"));
}

#[test]
fn the_longest_interval_and_the_swarm_that_gets_it_change() {
    let usual = "[protocol]\npeer_announce_interval = 1800\nannounce_interval_jitter = 0\n";
    let mut fixture = Fixture::start("http", usual);
    assert!(fixture.announce(A).contains("8:intervali1800e"));
    fixture.reload(&format!("{usual}max_interval_swarm_size = 2\n"));
    fixture.tracker.wait_for_log("protocol.max_interval_swarm_size changed from 0 to 2");
    until("half of the way to the default", || fixture.announce(A).contains("8:intervali2700e"));
    fixture.reload(&format!("{usual}max_interval_swarm_size = 1\nmax_announce_interval = 3000\n"));
    fixture.tracker.wait_for_log("protocol.max_announce_interval changed from 3600 to 3000");
    until("the longest interval", || fixture.announce(A).contains("8:intervali3000e"));
    fixture.reload(usual);
    until("the usual interval", || fixture.announce(A).contains("8:intervali1800e"));
}

/// Clients are answered, whatever their port; peers that are stored stay until they stop.
#[test]
fn refused_ports_and_local_addresses_change() {
    let mut fixture = Fixture::start("http", "");
    let stored = |fixture: &Fixture| metric(fixture.metrics, "aquatic_peers{");
    let refused = |fixture: &Fixture, reason: &str| {
        metric(
            fixture.metrics,
            &format!("aquatic_not_stored_total{{swarms=\"bittorrent\",family=\"ipv4\",reason=\"{reason}\""),
        )
    };
    let counts_one = |reply: &str| reply.contains("10:incompletei1e");
    assert!(counts_one(&fixture.announce(A)));
    until("the peer", || stored(&fixture) == 1.0);
    for (text, reason) in
        [("refused_ports = '1-1023'", "refused_port"), ("local_addresses = 'refuse'", "local_address")]
    {
        fixture.reload(&format!("limits.{text}\n"));
        until(reason, || counts_one(&fixture.announce(A)) && refused(&fixture, reason) >= 1.0);
    }
    assert!(fixture.announce(B).contains("10:incompletei0e"), "not stored");
    fixture.reload("log_level = 'info'\n");
    until("the second peer", || counts_one(&fixture.announce(B)));
    until("both peers", || stored(&fixture) == 2.0);
    assert_eq!(refused(&fixture, "unusable_address"), 0.0);
}

/// Whether a connect request over UDP gets a reply.
fn connects(tracker: SocketAddr) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    socket.send_to(&[0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 0, 0, 0, 1], tracker).unwrap();
    socket.recv(&mut [0; 100]).is_ok()
}

/// Whether a TCP connection gets a reply.
fn is_served(tracker: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(tracker).unwrap();
    let mut reply = String::new();
    let _ = stream.write_all(b"GET /health HTTP/1.0\r\n\r\n");
    stream.read_to_string(&mut reply).is_ok() && reply.contains("200")
}

#[test]
fn block_list_and_rate_limits_change_with_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blocked");
    let list = format!("block_list_path = {path:?}\n");
    fs::write(&path, "192.0.2.0/24\n").unwrap();
    let mut fixture = Fixture::start_in(directory, "all", &format!("[rate_limits]\n{list}"));
    let (udp, tcp) = (fixture.tracker.addresses[0], fixture.tracker.addresses[1]);
    until("replies of both protocols", || connects(udp) && is_served(tcp));
    assert!(fixture.tracker.start_log.contains("INFO  block list: 1 networks, not served"));
    fs::write(&path, "192.0.2.0/24\n127.0.0.0/8 this machine\n").unwrap();
    fixture.tracker.signal("HUP");
    fixture.tracker.wait_for_log("INFO  block list reloaded: 2 networks");
    assert!(!connects(udp) && !is_served(tcp));
    for (bad, why) in [
        ("nonsense\n", "are not networks to block"),
        ("# maintenance\n", "set rate_limits.allow_empty_block_list to true"),
        ("0.0.0.0/0\n", "line 1: 0.0.0.0/0 is everybody"),
    ] {
        fs::write(&path, bad).unwrap();
        fixture.tracker.signal("HUP");
        let line =
            fixture.tracker.wait_for_log("ERROR block list not reloaded, the previous one stays in use");
        assert!(line.contains(why), "{line}");
        assert!(!connects(udp));
    }
    let failed = || metric(fixture.metrics, "aquatic_block_list_reloads_total{outcome=\"failed\"}");
    until("the failed reloads", || failed() == 3.0);
    fixture.reload(
        "[rate_limits]\nudp_connects = 1\ntcp_connections = 1\ntcp_connections_burst = 1\nexempt = []\n",
    );
    fixture.tracker.wait_for_log("INFO  block list reloaded: 0 networks");
    until("the limit of connects", || !connects(udp));
    until("the limit of connections", || (0..10).any(|_| !is_served(tcp)));
    fixture
        .tracker
        .wait_for_log("WARN  rate limit of TCP connections, core 0: 127.0.0.0/24, and maybe others");
    fixture.reload("[rate_limits]\nmode = 'off'\n");
    until("no limits", || (0..10).all(|_| connects(udp) && is_served(tcp)));
}

#[test]
fn a_file_with_problems_changes_nothing() {
    let good = "[protocol]\nannounce_interval_jitter = 0\n";
    let mut fixture = Fixture::start("http", good);
    fixture.reload(
        "nonsense = 1\nlog_level = 'off'\nlimits.max_peers = 0\nprotocol.peer_announce_interval = 900\n",
    );
    for text in
        ["ERROR configuration not reloaded", "line 1: nonsense: unknown key", "line 3: limits.max_peers: 0"]
    {
        fixture.tracker.wait_for_log(text);
    }
    assert!(fixture.announce(A).contains("8:intervali1800e"));
    fs::remove_file(fixture.path("tracker.toml")).unwrap();
    fixture.tracker.signal("HUP");
    assert!(fixture.tracker.wait_for_log("configuration not reloaded").contains("does not exist"));
    // A later file is compared with what is in effect.
    fixture.reload("[http]\nmax_response_peers = 7\n");
    fixture.tracker.wait_for_log("http.max_response_peers changed from 50 to 7");
    fixture.wait_for_reloads(1.0, 2.0);
}

#[test]
fn what_is_valid_after_a_restart_only_changes_nothing() {
    let mut fixture = Fixture::start("udp", "");
    fixture.reload("[udp]\nmax_reply_size = 1472\nmax_response_peers = 240\n");
    fixture.tracker.wait_for_log("valid after a restart only");
    assert!(fixture.tracker.wait_for_log("udp.max_response_peers").contains("more than udp.max_reply_size"));
    fixture.wait_for_reloads(0.0, 1.0);
}

#[test]
fn access_list_and_certificate_move() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(directory.path().join(format!("{name}.pem")), pair.cert.pem()).unwrap();
        fs::write(directory.path().join(format!("{name}.key")), pair.signing_key.serialize_pem()).unwrap();
    }
    fs::write(directory.path().join("list"), A).unwrap();
    let path = directory.path().to_str().unwrap().to_owned();
    let text = |pair: &str, list: &str| {
        format!(
            "[network]\nenable_tls = true\ntls_address_ipv4 = '127.0.0.1:0'\ntls_certificate_path = \
             '{path}/{pair}.pem'\ntls_private_key_path = '{path}/{pair}.key'\n{list}"
        )
    };
    let mut fixture = Fixture::start_in(directory, "http", &text("one", ""));
    let is_served = |fixture: &Fixture| fixture.announce(A).contains("5:peers");
    assert!(is_served(&fixture));
    let list = format!("[access_list]\nmode = 'deny'\npath = '{path}/list'\n");
    fixture.reload(&text("two", &list));
    fixture.tracker.wait_for_log("access_list.mode changed from \"off\" to \"deny\"");
    assert!(fixture.tracker.wait_for_log("TLS certificate read again").contains("two.pem"));
    until("the deny list", || !is_served(&fixture));

    let missing = format!("[access_list]\nmode = 'allow'\npath = '{path}/none'\n");
    fixture.reload(&text("none", &missing));
    fixture.tracker.wait_for_log("access_list.path changed");
    until("both files are found missing", || {
        let failed =
            |name| metric(fixture.metrics, &format!("aquatic_{name}_reloads_total{{outcome=\"failed\"}}"));
        (failed("access_list"), failed("certificate")) == (1.0, 1.0)
    });
    assert!(!is_served(&fixture), "the previous list stays in use");
}

#[test]
fn a_list_that_is_not_loaded_when_it_is_first_wanted_is_told_to_whoever_reloads() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    let list = directory.path().join("list");
    let hashes: String = (0..50_000).map(|number| format!("{number:040x}\n")).collect();
    fs::write(&list, hashes + "nonsense\n").unwrap();
    let text = |mode| {
        let list = format!("[access_list]\nmode = \"{mode}\"\npath = \"{}\"", list.display());
        format!("state_directory = \"{}\"\n{list}", state.display())
    };
    let fixture = Fixture::start_in(directory, "http", &text("off"));
    let reload = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aquatic"));
        command.arg("ctl").arg("-s").arg(state.join("control.sock")).arg("reload").output().unwrap()
    };
    until("the first reload", || reload().status.success());
    fixture.write(&text("deny"));
    for _ in 0..2 {
        let Output { status, stderr, .. } = reload();
        let told = String::from_utf8(stderr).unwrap();
        assert!(status.code() == Some(3) && told.contains("but not: access list"), "{told}");
    }
    fs::write(&list, format!("{A}\n")).unwrap();
    assert!(reload().status.success());
    fixture.write(&text("off"));
    assert!(reload().status.success());
}

#[test]
fn the_level_of_the_log_changes() {
    let mut fixture = Fixture::start("http", "");
    fixture.reload("log_level = 'warn'\n");
    fixture.tracker.wait_for_log("log_level changed from \"info\" to \"warn\"");
    fixture.tracker.wait_for_log("configuration reloaded");
    fixture.reload("log_level = 'warn'\nnetwork.tcp_backlog = 99\nlimits.max_peers = 9\n");
    let line = fixture.tracker.wait_for_log("");
    assert!(line.contains("network.tcp_backlog has changed"), "{line}");
    fixture.reload("log_level = 'info'\n");
    fixture.tracker.wait_for_log("INFO  log_level changed");
}

#[test]
fn limits_of_connections_change() {
    let mut fixture = Fixture::start("http", "");
    fixture.reload("[connections]\nmax_connection_idle = 1\n");
    fixture.tracker.wait_for_log("connections.max_connection_idle changed from 75 to 1");
    until("a short idle time", || {
        let mut stream = TcpStream::connect(fixture.tracker.address()).unwrap();
        stream.set_read_timeout(Some(REPLY)).unwrap();
        write!(stream, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).is_ok()
    });
}

#[test]
fn more_connections_are_allowed_as_far_as_memory_does() {
    let text = |connections| {
        format!("[connections]\nmax_connections = {connections}\n[limits]\nmax_memory = \"60MiB\"")
    };
    let mut tracker = Fixture::start("all", &text(50));
    let limit = |metrics| metric(metrics, "aquatic_limit{limit=\"connections.max_connections\"}");
    let store = |metrics| metric(metrics, "aquatic_store_budget_bytes");
    let metrics = tracker.metrics;
    until("the limits", || limit(metrics) == 50.0 && store(metrics) > 0.0);
    let before = store(metrics);
    tracker.reload(&text(100));
    until("the new limit", || limit(metrics) == 100.0);
    tracker.reload(&text(5000));
    until("the highest limit", || limit(metrics) > 100.0);
    assert!(limit(metrics) < 5000.0);
    assert!(tracker.tracker.wait_for_log("there will be at most").contains("max_connections = 5000"));
    until("a smaller budget", || store(metrics) < before);
    tracker.reload(&text(50));
    until("the budget of before", || store(metrics).to_bits() == before.to_bits());
}

/// Length of the reply to an announce over UDP.
fn udp_announce(address: SocketAddr, port: u16) -> usize {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(REPLY)).unwrap();
    socket.connect(address).unwrap();
    let mut reply = [0; 2048];
    let connect = [&0x0417_2710_1980_u64.to_be_bytes()[..], &[0; 4], &[1; 4]].concat();
    socket.send(&connect).unwrap();
    assert_eq!(socket.recv(&mut reply).unwrap(), 16);
    let mut announce = [&reply[8..16], &[0, 0, 0, 1], &[2; 4], &[3; 20], &[4; 20]].concat();
    let (downloaded, left, uploaded) = (0_u64, 1_u64, 0_u64);
    [downloaded, left, uploaded].iter().for_each(|bytes| announce.extend(bytes.to_be_bytes()));
    // Event, address and key; then as many peers as the tracker likes.
    announce.extend([0; 12]);
    announce.extend((-1_i32).to_be_bytes());
    announce.extend(port.to_be_bytes());
    socket.send(&announce).unwrap();
    socket.recv(&mut reply).unwrap()
}

#[test]
fn replies_over_udp_change() {
    let mut fixture = Fixture::start("udp", "");
    let address = fixture.tracker.address();
    for port in 1..=5 {
        udp_announce(address, port);
    }
    assert_eq!(udp_announce(address, 1), 20 + 4 * 6);
    fixture.reload("[udp]\nmax_response_peers = 0\n");
    fixture.tracker.wait_for_log("udp.max_response_peers changed from 50 to 0");
    until("a reply without peers", || udp_announce(address, 1) == 20);
}

/// Reply to an announce over WebSocket.
fn ws_announce(address: SocketAddr) -> String {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(REPLY)).unwrap();
    let (mut socket, _) = tungstenite::client(format!("ws://{address}/"), stream).unwrap();
    let announce = format!(
        "{{\"action\":\"announce\",\"info_hash\":\"{0}\",\"peer_id\":\"{0}\",\"left\":1,\"numwant\":0}}",
        "a".repeat(20)
    );
    socket.send(tungstenite::Message::text(announce)).unwrap();
    socket.read().unwrap().into_text().unwrap().to_string()
}

#[test]
fn the_interval_of_webtorrent_changes() {
    let mut fixture = Fixture::start("ws", "[ws]\nannounce_interval_jitter = 0\n");
    let address = fixture.tracker.address();
    let reply = ws_announce(address);
    assert!(reply.contains("\"interval\":120"), "{reply}");
    fixture.reload("[ws]\nannounce_interval_jitter = 0\npeer_announce_interval = 90\nlimits.max_peers = 5\n");
    fixture.tracker.wait_for_log("ws.peer_announce_interval changed from 120 to 90");
    until("the new interval", || ws_announce(address).contains("\"interval\":90"));
}

#[test]
fn changed_files_are_noticed_where_that_is_enabled() {
    let mut fixture = Fixture::start("http", "reload_on_change = true\n");
    fixture.write("reload_on_change = true\nlimits.max_peers = 9\n");
    fixture.tracker.wait_for_log("files have changed, reloading");
    fixture.tracker.wait_for_log("limits.max_peers changed");
    fixture.wait_for_reloads(1.0, 0.0);
}

/// Editors and copies empty a file before they write it.
#[test]
fn a_file_that_is_emptied_for_a_moment_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (denied, blocked) = (path("denied"), path("blocked"));
    fs::write(&denied, A).unwrap();
    fs::write(&blocked, "192.0.2.0/24\n").unwrap();
    let text = format!(
        "reload_on_change = true\naccess_list = {{ mode = 'deny', path = {denied:?} }}\n\
         rate_limits.block_list_path = {blocked:?}\n"
    );
    let mut fixture = Fixture::start_in(directory, "http", &text);
    let file = fixture.path("tracker.toml");
    fs::write(&file, "").unwrap();
    let line =
        fixture.tracker.wait_for_log("ERROR configuration not reloaded, the previous one stays in effect");
    assert!(line.contains(file.to_str().unwrap()) && line.contains("no key"), "{line}");
    fs::write(&file, &text).unwrap();
    fixture.tracker.wait_for_log("files have changed, reloading");
    fixture.tracker.wait_for_log("configuration reloaded: no changes");
    for empty in ["", "\n", "# nothing\n", "[network]\n"] {
        fixture.reload(empty);
        fixture.tracker.wait_for_log("ERROR configuration not reloaded");
    }
    assert!(fixture.announce(A).contains("does not serve this torrent"));
    let failed = "aquatic_config_reloads_total{outcome=\"failed\"}";
    until("the failed reloads", || metric(fixture.metrics, failed) >= 5.0);
    // One key suffices.
    fixture.reload("reload_on_change = false\n");
    fixture.tracker.wait_for_log("access_list.mode changed from \"deny\" to \"off\"");
}

#[test]
fn an_interval_of_snapshots_that_are_not_saved_is_warned_of() {
    let warning = "WARN  snapshot_interval";
    let mut fixture = Fixture::start("udp", "snapshot_interval = 60\n");
    fixture.tracker.wait_for_log("WARN  snapshot_interval = 60 has no effect without state_directory");
    fixture.reload("snapshot_interval = 60\nlog_requests = 1\n");
    fixture.tracker.wait_for_log("configuration reloaded: 1 applied");
    fixture.reload("snapshot_interval = 30\n");
    fixture.tracker.wait_for_log("WARN  snapshot_interval = 30 has no effect without state_directory");
    let state = tempfile::tempdir().unwrap();
    for text in [String::new(), format!("snapshot_interval = 60\nstate_directory = {:?}\n", state.path())] {
        let fixture = Fixture::start("udp", &text);
        fixture.tracker.signal("TERM");
        let start = fixture.tracker.start_log.clone();
        let (_, _, rest) = fixture.tracker.end();
        assert!(!start.contains(warning) && !rest.contains(warning), "{start}{rest}");
    }
}

/// What is missing is the same before and after.
#[test]
fn a_file_that_was_empty_at_the_start_may_stay_so() {
    let mut fixture = Fixture::start("http", "# all defaults\n");
    fixture.tracker.signal("HUP");
    fixture.tracker.wait_for_log("configuration reloaded: no changes");
    fixture.wait_for_reloads(1.0, 0.0);
}

fn check(name: &str, settings: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = service(name, settings).arg("--check-config").ends();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_check_reports_all_that_the_machine_does_not_allow() {
    let (code, stdout, stderr) = check("all", &[]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "configuration is valid\n", ""));

    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let pairs = [(); 2].map(|()| rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap());
    fs::write(path("cert.pem"), pairs[0].cert.pem()).unwrap();
    fs::write(path("key.pem"), pairs[1].signing_key.serialize_pem()).unwrap();
    let settings = [
        "workers=1000".to_owned(),
        "access_list.mode=allow".to_owned(),
        format!("access_list.path={}", path("none")),
        "network.enable_tls=true".to_owned(),
        format!("network.tls_certificate_path={}", path("cert.pem")),
        format!("network.tls_private_key_path={}", path("key.pem")),
        format!("network.unix_socket_path={}", path("none/socket")),
        "network.address_ipv4=192.0.2.1:6969".to_owned(),
        "privileges.drop_privileges=true".to_owned(),
        "privileges.user=no-such-user".to_owned(),
        "privileges.group=no-such-group".to_owned(),
        format!("privileges.chroot_path={}", path("none")),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let (code, stdout, stderr) = check("all", &settings);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    for text in [
        "workers: ",
        "access_list.path: cannot read the access list",
        "does not belong to the first certificate",
        "network.unix_socket_path: ",
        "network.address_ipv4: cannot listen on UDP 192.0.2.1:6969",
        "there is no user \"no-such-user\"",
        "there is no group \"no-such-group\"",
        "privileges.chroot_path: ",
    ] {
        assert!(stderr.contains(text), "{text:?} is not in {stderr}");
    }
    // UDP reads neither certificate nor unix socket.
    let (_, _, stderr) = check("udp", &settings);
    assert!(!stderr.contains("certificate") && !stderr.contains("unix_socket_path"), "{stderr}");

    fs::remove_file(path("cert.pem")).unwrap();
    fs::write(path("key.pem"), "no key").unwrap();
    let (_, _, stderr) = check("ws", &settings);
    for key in
        ["network.tls_certificate_path: cannot read", "network.tls_private_key_path: there is no private key"]
    {
        assert!(stderr.contains(key), "{key:?} is not in {stderr}");
    }
}

#[test]
fn a_start_with_files_or_accounts_that_cannot_be_used_ends_with_code_1() {
    let tls = [
        "network.enable_tls=true",
        "network.tls_certificate_path=/none",
        "network.tls_private_key_path=/none",
    ];
    let user = ["privileges.drop_privileges=true", "privileges.user=no-such-user"];
    let group = ["privileges.drop_privileges=true", "privileges.group=no-such-group"];
    let list = ["access_list.mode=deny", "access_list.path=/none"];
    for (name, settings) in [("http", &tls[..]), ("udp", &user), ("ws", &group), ("all", &list)] {
        let output = service(name, &[&USUAL[..], settings].concat()).ends();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{settings:?}: {log}");
        assert!(log.contains("error: "), "{log}");
    }
}

#[test]
fn files_that_are_lost_with_the_privileges_are_named_at_the_start() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "needs to be root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    fs::write(&path, A).unwrap();
    let set_mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(directory.path(), 0o755);
    let path_setting = format!("access_list.path={}", path.display());
    let settings = ["access_list.mode=deny", &path_setting, "privileges.drop_privileges=true"];
    for (mode, is_named) in [(0o600, true), (0o644, false)] {
        set_mode(&path, mode);
        let tracker = Tracker::start(1, &mut service("udp", &[&USUAL[..], &settings].concat()));
        let warned = tracker.start_log.contains("cannot be reloaded after privileges are dropped");
        assert_eq!(warned, is_named, "{mode:o}: {}", tracker.start_log);
        tracker.signal("TERM");
        assert_eq!(tracker.end().0, Some(0));
    }
}

#[test]
fn what_is_no_regular_file_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (blocked, allowed) = (path("blocked"), path("allowed"));
    fs::write(&blocked, "192.0.2.0/24\n").unwrap();
    fs::write(&allowed, format!("{A}\n")).unwrap();
    let text = format!(
        "rate_limits.block_list_path = {blocked:?}\naccess_list.mode = 'allow'\naccess_list.path = {allowed:?}\n"
    );
    let files = [path("tracker.toml"), blocked, allowed];
    let mut fixture = Fixture::start_in(directory, "http", &text);
    let kept: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    // Reading one without a writer never ends.
    for (file, content) in files.iter().zip(kept) {
        fs::remove_file(file).unwrap();
        let made = Command::new("mkfifo").arg(file).status().unwrap();
        assert!(made.success());
        fixture.tracker.signal("HUP");
        fixture.tracker.wait_for_log("it is not a regular file");
        fs::remove_file(file).unwrap();
        fs::write(file, content).unwrap();
    }
    fixture.tracker.signal("HUP");
    fixture.tracker.wait_for_log("block list reloaded: 1 networks");
    fixture.tracker.signal("TERM");
    assert_eq!(fixture.tracker.end().0, Some(0));
}

#[test]
fn a_start_that_fails_is_not_called_ready() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none/torrents.csv");
    let exports = format!("exports.path={}", missing.display());
    let checked = service("udp", &[&USUAL[..], &[&exports]].concat()).arg("--check-config").ends();
    let told = String::from_utf8(checked.stdout).unwrap() + &String::from_utf8(checked.stderr).unwrap();
    assert!(checked.status.code() == Some(1) && told.contains("exports.path"), "{told}");
    let tls = ["network.enable_tls=true"];
    let checked = service("http", &[&USUAL[..], &tls].concat()).arg("--check-config").ends();
    let told = String::from_utf8(checked.stdout).unwrap() + &String::from_utf8(checked.stderr).unwrap();
    assert!(!told.contains("cannot read"), "empty paths are reported once: {told}");
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "needs to be root");
        return;
    }
    // As nobody, who cannot become somebody else.
    let settings = [&USUAL[..], &["privileges.drop_privileges=true"]].concat();
    let tracker = service("udp", &settings);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(tracker.get_program());
    let output = command.args(tracker.get_args()).ends();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("was not started as root") && !log.contains("ready: "), "{log}");
}
