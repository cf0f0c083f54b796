use std::path::PathBuf;

use aquatic_common::config::{AccessListConfig, CleaningConfig, LogLevel, check_peer_age};
use aquatic_common::settings::{Addresses, Problem, Whole};

use super::*;
use crate::declarations;
use crate::print::{default_config, parsed_config};

aquatic_common::settings! {
    struct Network {
        /// Serve IPv4.
        pub use_ipv4: bool = true;
        /// Serve IPv6.
        pub use_ipv6: bool = true;
        /// Where to listen.
        pub address: Addresses = Addresses(vec!["0.0.0.0:6969".parse().unwrap()]);
    }
}

aquatic_common::settings! {
    struct Protocol {
        /// Time between two announces.
        /// Clients follow it.
        pub peer_announce_interval: u32 = 1800, unit "seconds", in 60..=86_400;
        /// Most peers in a reply.
        pub max_response_peers: usize = 50, unit "peers", in 1..=202;
        /// Share of something.
        pub share: f64 = 0.5;
        /// Who is trusted.
        pub trusted: Vec<String> = Vec::new();
    }
}

aquatic_common::settings! {
    struct Config {
        /// How packets are sent and received.
        pub network: Network;
        /// Threads; 0 for one per core.
        pub workers: usize = 0, in 0..=1024;
        /// What is logged.
        pub log_level: LogLevel = LogLevel::Info;
        /// What is said to clients.
        pub protocol: Protocol;
        /// What is forgotten.
        pub cleaning: CleaningConfig;
        pub access_list: AccessListConfig;
    }
}

impl Configuration for Config {
    fn check_relations(&self, problems: &mut Vec<Problem>) {
        let interval = ("protocol.peer_announce_interval", self.protocol.peer_announce_interval);
        check_peer_age((CleaningConfig::max_peer_age, self.cleaning.max_peer_age), interval, problems);
    }

    fn former_keys() -> &'static [FormerKey] {
        &[
            FormerKey { name: "network.bind", successors: &["network.address"] },
            FormerKey {
                name: "network.peers",
                successors: &["protocol.max_response_peers", "protocol.share"],
            },
            FormerKey { name: "network.mtu", successors: &[] },
            FormerKey { name: "expiry", successors: &["cleaning"] },
            FormerKey { name: "tracker.threads", successors: &["workers"] },
        ]
    }

    fn log_level(&self) -> LogLevel {
        self.log_level
    }
}

fn read(text: &str) -> Result<Config, Vec<Found>> {
    config(text, &[], &Whole)
}

/// The complaints about a text, one per line.
fn complaints(text: &str) -> String {
    complaints_with(text, &[])
}

fn complaints_with(text: &str, overrides: &[&str]) -> String {
    let overrides: Vec<Override> = overrides.iter().map(|set| set.parse().unwrap()).collect();
    let found = config::<Config>(text, &overrides, &Whole).expect_err("something wrong");
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn nothing_is_the_default() {
    assert_eq!(read("").unwrap(), Config::default());
    assert_eq!(read("\u{feff}# nothing\r\n\r\n").unwrap(), Config::default());
}

#[test]
fn the_declaration_owes_nothing() {
    assert_eq!(declarations::faults::<Config>(), [""; 0]);
}

#[test]
fn printed_default_has_comments_units_bounds_and_choices() {
    let text = default_config::<Config>(&Whole).unwrap();
    let expected = "\
# Every key may be left out. The values below are the defaults.

# Threads; 0 for one per core.
# From 0 to 1024.
workers = 0

# What is logged.
# One of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\".
log_level = \"info\"

# How packets are sent and received.
[network]

# Serve IPv4.
use_ipv4 = true
";
    assert!(text.starts_with(expected), "{text}");
    let interval = "
# Time between two announces.
# Clients follow it.
# From 60 to 86400 seconds.
peer_announce_interval = 1800
";
    assert!(text.contains(interval), "{text}");
    assert!(text.contains("\n# Torrents that are served. SIGHUP reloads the list.\n[access_list]\n"));
}

#[test]
fn parsed_config_shows_what_differs_and_parses_back() {
    let config =
        read("workers = 3\nprotocol.share = 1\nnetwork.address = ['[::1]:1', '127.0.0.1:2']").unwrap();
    let text = parsed_config(&config, &Whole).unwrap();
    assert!(text.contains("workers = 3 # default: 0\n"), "{text}");
    assert!(text.contains("share = 1.0 # default: 0.5\n"), "{text}");
    assert!(
        text.contains("address = [\"[::1]:1\", \"127.0.0.1:2\"] # default: \"0.0.0.0:6969\"\n"),
        "{text}"
    );
    assert!(text.contains("use_ipv4 = true\n"), "{text}");
    assert_eq!(read(&text).unwrap(), config);
}

#[test]
fn unknown_keys_are_named_with_the_nearest_valid_one() {
    let text = "workers = 1\n\n[network]\nuse_ip4 = false\n";
    let expected = "line 4: network.use_ip4: unknown key \"use_ip4\" in section [network]; \
                    did you mean network.use_ipv4?";
    assert_eq!(complaints(text), expected);
    let expected = "line 1: use_ipv4: unknown key \"use_ipv4\"; did you mean network.use_ipv4?";
    assert_eq!(complaints("use_ipv4 = false"), expected);
    let expected = "line 2: protocol.workers: unknown key \"workers\" in section [protocol]; \
                    did you mean workers? It belongs above the first [section].";
    assert_eq!(complaints("[protocol]\nworkers = 2"), expected);
    let expected = "line 1: socket_workers: unknown key \"socket_workers\"; did you mean workers?";
    assert_eq!(complaints("socket_workers = 2"), expected);
    let expected = "line 1: network.ttl: unknown key \"ttl\" in section [network]; \
                    choose from use_ipv4, use_ipv6, address";
    assert_eq!(complaints("network.ttl = 2"), expected);
}

#[test]
fn unknown_sections_are_named_once() {
    let expected = "line 2: netwrok: unknown section \"netwrok\"; did you mean network?";
    assert_eq!(complaints("\n[netwrok]\nuse_ipv4 = 1\nuse_ipv6 = 1"), expected);
    let expected = "line 1: tls: unknown section \"tls\"; \
                    choose from network, workers, log_level, protocol, cleaning, access_list";
    assert_eq!(complaints("[tls]\ncert = 1"), expected);
}

#[test]
fn sections_and_keys_are_told_apart() {
    let expected = "line 1: network: is a section: write [network] and the keys below it";
    assert_eq!(complaints("network = 5"), expected);
    assert_eq!(complaints("[[network]]"), expected);
    assert_eq!(complaints("[workers]"), "line 1: workers: is a key, not a section: write workers = VALUE");
}

#[test]
fn values_of_the_wrong_type_are_told_what_is_expected() {
    for (text, expected) in [
        ("workers = '4'", "workers: expected a whole number from 0 to 1024, got the text \"4\""),
        ("workers = 1.5", "workers: expected a whole number from 0 to 1024, got the number 1.5"),
        ("network.use_ipv4 = 1", "network.use_ipv4: expected true or false, got the number 1"),
        (
            "network.use_ipv4 = [\"a\\nb\", 1]",
            "network.use_ipv4: expected true or false, got the list [\"a\\nb\", 1]",
        ),
        (
            "network.use_ipv4 = [{ a = \"b\\nc\" }]",
            "network.use_ipv4: expected true or false, got the list [{\"a\" = \"b\\nc\"}]",
        ),
        ("protocol.share = true", "protocol.share: expected a number, got the switch true"),
        (
            "protocol.trusted = '10.0.0.1'",
            "protocol.trusted: expected a list, got the text \"10.0.0.1\": write [\"10.0.0.1\"]",
        ),
        (
            "protocol.trusted = '10.0.0.1, ::1'",
            "protocol.trusted: expected a list, got the text \"10.0.0.1, ::1\": write [\"10.0.0.1\", \"::1\"]",
        ),
        ("protocol.trusted = 10", "protocol.trusted: expected a list, got the number 10"),
        ("access_list.path = 5", "access_list.path: expected text in quotes, got the number 5"),
        (
            "log_level = 'inf'",
            "log_level: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", \
             got the text \"inf\"; did you mean \"info\"?",
        ),
        (
            "access_list.mode = true",
            "access_list.mode: expected one of \"off\", \"allow\", \"deny\", got the switch true",
        ),
        (
            "network.address = '0.0.0.0'",
            "network.address: expected an address with a port such as \"0.0.0.0:6969\", got the text \"0.0.0.0\"",
        ),
        (
            "network.address = ['1.2.3.4:1', '::1:2']",
            "network.address: \"::1:2\" is not an address with a port; write \"192.0.2.1:6969\" or \
             \"[2001:db8::1]:6969\"",
        ),
    ] {
        assert_eq!(complaints(text), format!("line 1: {expected}"));
    }
}

#[test]
fn numbers_out_of_bounds_are_told_the_bounds() {
    for number in ["0", "203", "-1", "9223372036854775807"] {
        let expected =
            format!("line 2: protocol.max_response_peers: {number} is out of bounds, choose from 1 to 202");
        assert_eq!(complaints(&format!("[protocol]\nmax_response_peers = {number}")), expected);
    }
    for number in ["9223372036854775808", "-99999999999999999999", "0x8000000000000000"] {
        let found = complaints(&format!("workers = {number}"));
        let digits = number.trim_start_matches("0x");
        assert_eq!(found, format!("line 1: workers: {digits} is out of bounds, choose from 0 to 1024"));
    }
    let found = complaints_with("", &["workers=99999999999999999999"]);
    let expected = "--set workers: 99999999999999999999 is out of bounds, choose from 0 to 1024";
    assert_eq!(found, expected);
    let found = complaints("access_list.path = 99999999999999999999");
    let expected = "line 1: access_list.path: the number 99999999999999999999 does not fit in 64 bits";
    assert_eq!(found, expected);
    let set = |path: &str| config::<Config>("", &[path.parse().unwrap()], &Whole).unwrap();
    let path = "99999999999999999999";
    assert_eq!(set(&format!("access_list.path={path}")).access_list.path, PathBuf::from(path));
}

#[test]
fn former_keys_are_reported_with_their_successors() {
    for (text, expected) in [
        (
            "network.bind = 1",
            "network.bind: unknown key \"bind\" in section [network]; it was replaced by network.address",
        ),
        (
            "network.peers = 1",
            "network.peers: unknown key \"peers\" in section [network]; it was replaced by \
             protocol.max_response_peers and protocol.share",
        ),
        (
            "network.mtu = 1",
            "network.mtu: unknown key \"mtu\" in section [network]; it no longer exists; leave it out",
        ),
        ("expiry.age = 1", "expiry: unknown section \"expiry\"; it was replaced by cleaning"),
        (
            "[tracker]\nthreads = 1",
            "tracker.threads: unknown key \"threads\" in section [tracker]; it was replaced by workers",
        ),
    ] {
        let line = 1 + text.matches('\n').count();
        assert_eq!(complaints(text), format!("line {line}: {expected}"));
    }
    let found = complaints_with("", &["expiry.age=1"]);
    let expected = "--set expiry.age: unknown key \"age\" in section [expiry]; section [expiry] was replaced by \
                    [cleaning]";
    assert_eq!(found, expected);
}

/// Reads everything except the sections `[cleaning]` and `[access_list]`, and `protocol.share`.
struct Part;

impl Scope<Config> for Part {
    fn reads(&self, key: &str) -> bool {
        !key.starts_with("cleaning.") && !key.starts_with("access_list.") && key != "protocol.share"
    }

    fn check_relations(&self, _config: &Config, _problems: &mut Vec<Problem>) {}
}

#[test]
fn what_a_program_does_not_read_is_not_printed() {
    let text = default_config::<Config>(&Part).unwrap();
    assert!(text.contains("[network]") && text.contains("max_response_peers"), "{text}");
    for absent in ["cleaning", "access_list", "share"] {
        assert!(!text.contains(absent), "{text}");
    }
}

#[test]
fn what_a_program_does_not_read_is_checked_by_itself_only() {
    let read = |text| config(text, &[], &Part).map_err(|found| found[0].to_string());
    let related = read("protocol.peer_announce_interval = 3000").unwrap();
    assert_eq!(related.protocol.peer_announce_interval, 3000);
    assert_eq!(read("cleaning.intervall = 1").unwrap_err().split(';').count(), 2);
    let error = read("cleaning.interval = 0").unwrap_err();
    assert_eq!(error, "line 1: cleaning.interval: 0 is out of bounds, choose from 1 to 3600");
    let error = read("network.peers = 1").unwrap_err();
    assert!(error.ends_with("replaced by protocol.max_response_peers"), "{error}");
}

#[test]
fn relations_are_checked_and_point_to_the_line() {
    let text = "[protocol]\npeer_announce_interval = 3000\n[cleaning]\nmax_peer_age = 4000\n";
    let found = complaints(text);
    assert!(found.starts_with("line 4: cleaning.max_peer_age: 4000 s is less than twice"), "{found}");
    let found = complaints("[protocol]\npeer_announce_interval = 3000\n");
    assert!(found.starts_with("cleaning.max_peer_age: 3600 s is less than twice"), "{found}");
}

#[test]
fn everything_wrong_is_said_at_once_in_order() {
    let text = "\
workers = 5000
[protocol]
share = 'a'
[network]
use_ipv7 = true
address = 'localhost'
[cleaning]
interval = 0
";
    let found = complaints_with(text, &["statistics.interval=5", "cleaning.interval=off"]);
    let expected = "\
line 1: workers: 5000 is out of bounds, choose from 0 to 1024
line 3: protocol.share: expected a number, got the text \"a\"
line 5: network.use_ipv7: unknown key \"use_ipv7\" in section [network]; did you mean network.use_ipv4 or \
                    network.use_ipv6?
line 6: network.address: expected an address with a port such as \"0.0.0.0:6969\", got the text \"localhost\"
--set cleaning.interval: expected a whole number from 1 to 3600, got the text \"off\"
--set statistics.interval: unknown key \"interval\" in section [statistics]; did you mean cleaning.interval?";
    assert_eq!(found, expected);
}

#[test]
fn syntax_errors_have_lines() {
    let found = complaints("workers = 1\n\nlog_level = info\n");
    assert!(found.starts_with("line 3: not TOML: "), "{found}");
    let found = complaints("workers = 1\nworkers = 2\n");
    assert_eq!(found, "line 2: not TOML: duplicate key");
    let yaml = "line 3: not TOML but YAML: write key = value, with text in quotes, and [section] above the keys of a \
                section";
    assert_eq!(complaints("---\n# a comment\nworkers: 1\nnetwork:\n  mtu: 2\n"), yaml);
    assert_eq!(complaints("\u{feff}\n\nnetwork:\n  mtu: 2\n"), yaml);
    assert_eq!(complaints("# a comment\n\n\"log-level\" : info\n"), yaml);
    assert!(complaints(": x\n").starts_with("line 1: not TOML: "));
}

#[test]
fn overrides_win_and_need_no_quotes_around_text() {
    let set = |sets: &[&str]| {
        let overrides: Vec<Override> = sets.iter().map(|set| set.parse().unwrap()).collect();
        config::<Config>("workers = 2\nnetwork.use_ipv6 = true", &overrides, &Whole).unwrap()
    };
    assert_eq!(set(&["workers=3", "workers=4"]).workers, 4);
    assert!(!set(&["network.use_ipv6=false"]).network.use_ipv6);
    assert_eq!(set(&["network.address=127.0.0.1:0"]).network.address.0.len(), 1);
    assert_eq!(set(&["network.address=['127.0.0.1:0', '[::1]:0']"]).network.address.0.len(), 2);
    assert_eq!(set(&["log_level=debug"]).log_level, LogLevel::Debug);
    assert_eq!(set(&["log_level=\"debug\""]).log_level, LogLevel::Debug);
    assert_eq!(set(&["access_list.path=1"]).access_list.path, PathBuf::from("1"));
    assert_eq!(set(&["access_list.path="]).access_list.path, PathBuf::new());
    assert_eq!(set(&["workers=2"]).workers, 2);
}

#[test]
fn overrides_are_checked_like_the_file() {
    let found = complaints_with("", &["workers=1\nx=2"]);
    assert_eq!(found, "--set workers: expected a whole number from 0 to 1024, got the text \"1\\nx=2\"");
    let found = complaints_with("", &["network=1"]);
    assert_eq!(found, "--set network: is a section: name one of its keys");
    let found = complaints_with("", &["cleaning.max_peer_age=60"]);
    assert!(found.starts_with("--set cleaning.max_peer_age: 60 s is less than twice"), "{found}");
}

#[test]
fn faults_of_a_declaration_are_found() {
    aquatic_common::settings! {
        struct Moved, section "elsewhere" {
            /// A switch.
            pub on: bool = false;
        }
    }
    aquatic_common::settings! {
        struct Careless {
            pub silent: bool = false;
            /// Unbounded.
            pub unbounded: u32 = 5;
            /// Out of its own bounds.
            pub outside: u32 = 5, in 6..=7;
            /// Not passed on.
            pub log_level: LogLevel = LogLevel::Info;
            /// Not where it declares to be.
            pub moved: Moved;
        }
    }
    impl Configuration for Careless {
        fn check_relations(&self, _problems: &mut Vec<Problem>) {}

        fn former_keys() -> &'static [FormerKey] {
            &[FormerKey { name: "silent", successors: &["absent"] }]
        }
    }
    let faults = declarations::faults::<Careless>();
    let named: Vec<&str> =
        faults.iter().filter_map(|fault| fault.split_once(": ").map(|(name, _)| name)).collect();
    let expected = [
        "silent",
        "unbounded",
        "moved",
        "the default is not valid",
        "printed default",
        "silent",
        "silent",
        "log_level",
    ];
    assert_eq!(named, expected, "{faults:?}");
}
