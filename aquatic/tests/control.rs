//! `aquatic ctl` with a real tracker.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;
use support::{REPLY, Tracker, eventually, service};
use tempfile::TempDir;

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

struct Controlled {
    tracker: Tracker,
    directory: TempDir,
}

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn ctl(args: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_aquatic")).arg("ctl").args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Controlled {
    /// A tracker for UDP and HTTP with a state directory, a configuration file in it, and these settings.
    fn start(settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = format!("state_directory={}", directory.path().display());
        let settings =
            [
                &[
                    "workers=2",
                    "network.use_ipv6=false",
                    "network.address_ipv4=127.0.0.1:0",
                    "ws.enable=false",
                ][..],
                &[state.as_str()],
                settings,
            ]
            .concat();
        let file = directory.path().join("tracker.toml");
        std::fs::write(&file, "log_level = 'info'\n").unwrap();
        let mut tracker = Tracker::start(2, service("all", &settings).arg("-c").arg(file));
        // The control socket comes after the others.
        tracker.wait_for_log("ready: ");
        Self { tracker, directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// Runs a command that works, and returns what it prints.
    fn ctl(&self, words: &str) -> String {
        let run = self.try_ctl(words);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{words}: {}", run.stdout);
        run.stdout
    }

    fn try_ctl(&self, words: &str) -> Run {
        let socket = self.socket();
        let mut args = vec!["-s", socket.to_str().unwrap()];
        args.extend(words.split_whitespace());
        ctl(&args)
    }

    /// The reply to a command.
    fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.ctl(&format!("{words} --json"))).unwrap()
    }

    fn http(&self) -> SocketAddr {
        // UDP listens first.
        self.tracker.addresses[1]
    }

    /// Announces over HTTP and returns the reply, or nothing if the connection is refused.
    fn announce(&self, hash: &str, port: u16) -> String {
        let bytes: Vec<String> = (0..20).map(|at| format!("%{}", &hash[2 * at..2 * at + 2])).collect();
        let query = format!("info_hash={}&peer_id=-TR0000-abcdefghijkl&port={port}&left=1", bytes.concat());
        let mut response = Vec::new();
        if let Ok(mut stream) = TcpStream::connect(self.http()) {
            stream.set_read_timeout(Some(REPLY)).unwrap();
            let head = format!("GET /announce?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.read_to_end(&mut response);
        }
        String::from_utf8_lossy(&response).into_owned()
    }
}

#[test]
fn status_and_torrents_are_shown() {
    let running = Controlled::start(&[]);
    let data = std::fs::metadata(running.socket()).unwrap();
    assert_eq!(data.mode() & 0o777, 0o600);
    for port in 7001..7004 {
        assert!(running.announce(HASH, port).contains("interval"));
    }
    running.announce(&HASH.replace('0', "f"), 7001);
    let status = eventually(|| running.json("status"), |status| status["swarms"][0]["leechers"] == 4);
    assert_eq!((&status["state"], &status["mode"]), (&"serving".into(), &"all".into()));
    assert_eq!(status["requests"][0]["count"], 4, "{status}");
    assert!(running.ctl("status").contains("2 torrents, 0 seeders, 4 leechers"));
    let top = running.json("top torrents -n 1");
    assert_eq!(top["torrents"][0]["info_hash"], HASH);
    assert_eq!(top["torrents"][0]["leechers"], 3);
    // A core that is kept from running for a while counts as well.
    assert!(top["longest_step_us"].as_u64().unwrap() < 10_000_000);
    assert!(running.ctl("top torrents").starts_with("info hash"));
    let torrent = running.json(&format!("torrent magnet:?xt=urn:btih:{HASH}"));
    assert_eq!(torrent["swarms"][0]["leechers"], 3, "{torrent}");
    assert_eq!((&torrent["served"], &torrent["by_hand"]), (&true.into(), &Value::Null));
    assert!(running.ctl(&format!("torrent {}", "a".repeat(40))).contains("no peer has announced it"));
    assert!(running.ctl("connections").contains("accepted"));
}

#[test]
fn networks_and_clients_are_ranked_by_their_requests() {
    let running = Controlled::start(&[]);
    let (socket, address) = (running.socket(), running.http());
    let counting = std::thread::spawn(move || {
        ctl(&["-s", socket.to_str().unwrap(), "top", "prefixes", "--seconds", "2", "--json"])
    });
    eventually(|| running.announce(HASH, 7001), |_| counting.is_finished());
    let top: Value = serde_json::from_str(&counting.join().unwrap().stdout).unwrap();
    assert_eq!(top["prefixes"][0]["network"], "127.0.0.0/24", "{top} {address}");
    assert_eq!(top["prefixes"][0]["count"], top["total"]);
    let clients = running.ctl("top clients --seconds 1");
    assert!(clients.contains("0 requests in 1 s"), "{clients}");
    let run = running.try_ctl("top clients --seconds 61");
    assert_eq!(run.code, Some(2));
}

#[test]
fn torrents_are_denied_and_allowed_by_hand() {
    let mut running = Controlled::start(&[]);
    assert!(running.announce(HASH, 7001).contains("interval"));
    assert_eq!(running.ctl(&format!("deny {HASH}")), format!("{HASH} is not served from now on\n"));
    assert!(running.announce(HASH, 7001).contains("does not serve this torrent"));
    running.ctl("reload");
    assert!(running.announce(HASH, 7001).contains("does not serve this torrent"), "it outlasts a reload");
    assert!(running.ctl(&format!("torrent {HASH}")).contains("denied by hand"));
    assert!(running.ctl("bans").contains(&format!("denied   {HASH}")));
    assert_eq!(running.ctl(&format!("reset {HASH}")), format!("{HASH} is served from now on\n"));
    assert!(running.announce(HASH, 7001).contains("interval"));
    let run = running.try_ctl(&format!("reset {HASH}"));
    assert_eq!(run.code, Some(3));
    assert!(run.stderr.contains("nothing is decided by hand") && run.stderr.contains("ctl bans"));
    running.tracker.wait_for_log("is denied by hand");
}

#[test]
fn networks_are_blocked_by_hand_over_every_protocol() {
    let running = Controlled::start(&[]);
    // Datagrams may be lost. Replies to earlier ones reach other sockets.
    let connects = |datagrams: usize| {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        udp.connect(running.tracker.address()).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let connect = [&0x0417_2710_1980_u64.to_be_bytes()[..], &[0; 4], &7_u32.to_be_bytes()].concat();
        (0..datagrams).any(|_| {
            udp.send(&connect).unwrap();
            udp.recv(&mut [0; 64]).is_ok()
        })
    };
    assert!(connects(200));
    assert!(running.ctl("ban 127.0.0.0/8 for 1h").contains("127.0.0.0/8 is blocked for 1 h 0 min"));
    assert!(!connects(2), "UDP is silent");
    assert_eq!(running.announce(HASH, 7001), "", "TCP is closed");
    assert!(running.ctl("bans").contains("127.0.0.0/8"));
    running.ctl("unban 127.0.0.0/8");
    assert!(connects(200) && running.announce(HASH, 7001).contains("interval"));
    running.ctl("ban 127.0.0.1 for 1s");
    eventually(|| running.announce(HASH, 7001), |reply| reply.contains("interval"));
    let run = running.try_ctl("unban 127.0.0.1");
    assert!(run.code == Some(3) && run.stderr.contains("is not blocked by hand"), "{}", run.stderr);
    let run = running.try_ctl("ban 0.0.0.0/0");
    assert!(run.code == Some(2) && run.stderr.contains("is everybody"), "{}", run.stderr);
}

#[test]
fn breakers_are_set_by_hand() {
    let running = Controlled::start(&[]);
    assert!(running.announce(HASH, 7001).contains("interval"));
    let open = running.json("breaker open --protocol http --family ipv4");
    let breakers = open["breakers"].as_array().unwrap();
    let http = breakers.iter().find(|row| row["protocol"] == "http" && row["family"] == "ipv4").unwrap();
    assert_eq!((&http["state"], &http["mode"]), (&"open".into(), &"open".into()));
    eventually(|| running.announce(HASH, 7001), |reply| !reply.contains("interval"));
    running.ctl("breaker automatic");
    eventually(|| running.announce(HASH, 7001), |reply| reply.contains("interval"));
    assert!(running.ctl("breaker").contains("automatic"));
    let run = running.try_ctl("breaker open --protocol ws");
    assert!(run.code == Some(3) && !run.stderr.is_empty(), "{}", run.stderr);
}

#[test]
fn the_log_level_changes_until_a_reload() {
    let mut running = Controlled::start(&[]);
    assert!(running.ctl("log trace").contains("trace until the next reload"));
    running.announce(HASH, 7001);
    running.tracker.wait_for_log("http: announce");
    assert_eq!(running.json("status")["log_level"], "trace");
    running.ctl("reload");
    assert_eq!(running.json("status")["log_level"], "info");
}

#[test]
fn reloads_tell_what_came_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list.txt");
    std::fs::write(&path, format!("{HASH}\n")).unwrap();
    let list = format!("access_list.path={}", path.display());
    let running = Controlled::start(&["access_list.mode=deny", &list]);
    assert!(running.ctl("reload").contains("reloaded as well: access list"));
    std::fs::write(&path, "nonsense\n").unwrap();
    let run = running.try_ctl("reload");
    assert_eq!(run.code, Some(3));
    assert!(run.stderr.contains("but not: access list"), "{}", run.stderr);
}

#[test]
fn a_list_that_could_not_be_loaded_is_switched_off_again() {
    let mut running = Controlled::start(&[]);
    let file = running.directory.path().join("tracker.toml");
    let reload = |running: &Controlled, text: &str| {
        std::fs::write(&file, format!("log_level = 'info'\n{text}")).unwrap();
        running.try_ctl("reload")
    };
    let run = reload(&running, "access_list = { mode = 'allow', path = '/nonexistent' }\n");
    assert!(run.code == Some(3) && run.stderr.contains("but not: access list"), "{run:?}");
    #[allow(clippy::disallowed_methods, reason = "the time is what is tested")]
    let begin = std::time::Instant::now();
    let run = reload(&running, "");
    assert!(run.code == Some(0) && run.stdout.contains("2 applied"), "{run:?}");
    assert!(begin.elapsed() < REPLY, "{:?}", begin.elapsed());
    // What is blocked by hand is no list that could be reloaded.
    running.ctl("ban 192.0.2.9");
    running.tracker.wait_for_log("an address or network in 192.0.2.0/24 is blocked until the tracker stops");
    let run = reload(&running, "");
    assert!(run.code == Some(0) && !run.stdout.contains("block list"), "{run:?}");
    running.ctl("ban 198.51.100.0/24");
    running.tracker.wait_for_log("control: 198.51.100.0/24 is blocked until the tracker stops");
    let run = reload(&running, "network.tcp_backlog = 99\n");
    assert!(run.code == Some(0) && run.stdout.contains("--check-config"), "{run:?}");
}

#[test]
fn a_snapshot_is_saved_on_request() {
    let running = Controlled::start(&[]);
    running.announce(HASH, 7001);
    let saves = || running.try_ctl("snapshot").stdout;
    // At first it may still be loading one.
    eventually(saves, |text| text.starts_with("snapshot saved"));
    assert!(running.directory.path().join("snapshot").exists());
}

#[test]
fn garbage_and_crowds_are_refused() {
    let running = Controlled::start(&[]);
    let connect = || {
        let stream = UnixStream::connect(running.socket()).unwrap();
        stream.set_read_timeout(Some(REPLY)).unwrap();
        stream
    };
    let mut stream = connect();
    stream.write_all(&[b'x'; 8192]).unwrap();
    let mut text = String::new();
    // What was not received resets the connection.
    let _ = stream.read_to_string(&mut text);
    assert!(text.contains("bad_request") && text.contains("4096"), "{text}");
    let crowd: Vec<UnixStream> = (0..16).map(|_| connect()).collect();
    let full = eventually(|| running.try_ctl("status"), |run| run.code == Some(3));
    assert!(full.stderr.contains("16 connections are open"), "{}", full.stderr);
    drop(crowd);
    eventually(|| running.try_ctl("status"), |run| run.code == Some(0));
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {} {}", self.code, self.stdout, self.stderr)
    }
}

#[test]
fn a_drain_turns_clients_away_and_ends() {
    let running = Controlled::start(&[]);
    let idle = TcpStream::connect(running.http()).unwrap();
    let health = |address: SocketAddr| {
        let mut response = String::new();
        if let Ok(mut stream) = TcpStream::connect(address) {
            let _ = stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let _ = stream.read_to_string(&mut response);
        }
        response
    };
    let address = running.http();
    assert!(health(address).starts_with("HTTP/1.1 200"));
    assert!(running.ctl("drain --notice 2s --limit 20s").contains("accepted for 2 s"));
    let unhealthy = eventually(|| health(address), |text| !text.starts_with("HTTP/1.1 200"));
    assert!(unhealthy.starts_with("HTTP/1.1 503") && unhealthy.contains("draining"), "{unhealthy}");
    eventually(|| TcpStream::connect(address).is_err(), |is_closed| *is_closed);
    drop(idle);
    let socket = running.socket();
    let (code, _, log) = running.tracker.end_within(Duration::from_secs(60));
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("drained: no connection is left"), "{log}");
    assert!(!socket.exists());
}

/// A terminal of 80 columns and 24 rows.
struct Terminal {
    ours: File,
    theirs: File,
}

impl Terminal {
    fn open() -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&theirs, size).unwrap();
        Self { ours: ours.into(), theirs }
    }

    /// Whether lines are edited and echoed, as they are for a shell.
    fn is_for_people(&self) -> bool {
        tcgetattr(&self.theirs).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// Starts to watch a tracker, and waits until something is shown.
    fn watch(&mut self, running: &Controlled) -> Child {
        let theirs = || Stdio::from(self.theirs.try_clone().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_aquatic"))
            .args(["ctl", "-s", running.socket().to_str().unwrap(), "watch"])
            .env("NO_COLOR", "1")
            .stdin(theirs())
            .stdout(theirs())
            .stderr(theirs())
            .spawn()
            .unwrap();
        let shown = self.read_until("q quits");
        for text in ["\u{1b}[?1049h", "aquatic ", "core 0 ", "REQUESTS", "SWARMS"] {
            assert!(shown.contains(text), "{text:?} is not in {shown:?}");
        }
        assert!(!shown.contains("\u{1b}[1m"), "no colours");
        assert!(!self.is_for_people());
        child
    }

    fn read_until(&mut self, wanted: &str) -> String {
        let mut text = String::new();
        while !text.contains(wanted) {
            let mut bytes = [0; 4096];
            let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
            let mut fds = [rustix::event::PollFd::new(&self.ours, rustix::event::PollFlags::IN)];
            assert_eq!(rustix::event::poll(&mut fds, Some(&limit)), Ok(1), "{wanted:?} is not in {text:?}");
            let len = self.ours.read(&mut bytes).unwrap();
            text.push_str(&String::from_utf8_lossy(&bytes[..len]));
        }
        text
    }
}

#[test]
fn watching_leaves_the_terminal_as_it_was() {
    let running = Controlled::start(&[]);
    for ending in ["q", "\u{3}", "TERM"] {
        let mut terminal = Terminal::open();
        assert!(terminal.is_for_people());
        let mut child = terminal.watch(&running);
        if ending == "TERM" {
            Command::new("sh").args(["-c", "kill -s TERM \"$0\"", &child.id().to_string()]).status().unwrap();
        } else {
            terminal.ours.write_all(ending.as_bytes()).unwrap();
        }
        terminal.read_until("\u{1b}[?1049l");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{ending:?}");
        assert!(terminal.is_for_people(), "{ending:?}");
    }
    let run = running.try_ctl("watch");
    assert!(run.code == Some(3) && run.stderr.contains("is no terminal"), "{}", run.stderr);
}

#[test]
fn without_a_socket_it_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    let run = ctl(&["-s", socket.to_str().unwrap(), "status"]);
    assert_eq!(run.code, Some(3));
    assert!(run.stderr.contains("there is no socket") && run.stderr.contains("control.socket_path"));
    let file = directory.path().join("tracker.toml");
    std::fs::write(&file, "").unwrap();
    let run = ctl(&["-c", file.to_str().unwrap(), "status"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("set state_directory"), "{}", run.stderr);
    let run = ctl(&["torrent", "00"]);
    assert!(run.code == Some(2) && run.stderr.contains("is no info hash"), "{}", run.stderr);
}

#[test]
fn a_tracker_that_is_stopped_is_reported_within_seconds() {
    let running = Controlled::start(&[]);
    running.tracker.signal("STOP");
    let run = running.try_ctl("status");
    running.tracker.signal("CONT");
    assert_eq!(run.code, Some(3));
    assert!(run.stderr.contains("does not respond: no reply after 5 s"), "{}", run.stderr);
    eventually(|| running.try_ctl("status"), |run| run.code == Some(0));
}

#[test]
fn a_wrong_command_line_is_told_from_a_refusal() {
    let running = Controlled::start(&[]);
    for (words, code, text) in [
        ("ban foo", 2, "neither an address nor a network"),
        ("ban 127.0.0.1/33", 2, "127.0.0.1/33"),
        ("deny zz", 2, "is no info hash"),
        ("--cluster status", 2, "about one tracker"),
        ("unban 192.0.2.1", 3, "is not blocked by hand"),
        ("--cluster reload", 3, "is no node of a cluster"),
    ] {
        let run = running.try_ctl(words);
        assert!(run.code == Some(code) && run.stderr.contains(text), "{words}: {run:?}");
    }
}
