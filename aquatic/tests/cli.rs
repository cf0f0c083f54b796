//! The real program from outside: flags, what it prints where, exit codes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Output};

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn of(Output { status, stdout, stderr }: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }
}

fn aquatic(args: &[&str]) -> Run {
    Run::of(Command::new(env!("CARGO_BIN_EXE_aquatic")).args(args).output().unwrap())
}

/// Checks a configuration with the given text.
fn check(text: &str) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tracker.toml");
    std::fs::write(&path, text).unwrap();
    aquatic(&["udp", "--check-config", "-c", utf8(&path)])
}

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Asserts that the configuration is refused with code 1, nothing on standard output, and all of `parts` on
/// standard error.
fn assert_refused(run: &Run, parts: &[&str]) {
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert_eq!(run.stdout, "");
    for part in parts {
        assert!(run.stderr.contains(part), "{part:?} is not in:\n{}", run.stderr);
    }
}

#[test]
fn the_printed_default_is_accepted_and_is_the_default() {
    let printed = aquatic(&["udp", "-p"]);
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let checked = check(&printed.stdout);
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tracker.toml");
    std::fs::write(&path, &printed.stdout).unwrap();
    let from_file = aquatic(&["udp", "-P", "--check-config", "-c", utf8(&path)]);
    let from_nothing = aquatic(&["udp", "-P", "--check-config"]);
    assert_eq!(from_file.stdout, from_nothing.stdout);
    assert!(!from_file.stdout.contains("# default:"), "{}", from_file.stdout);
}

#[test]
fn every_printed_key_has_a_comment_above() {
    let printed = aquatic(&["udp", "--print-config"]).stdout;
    let mut above = "";
    let mut keys = 0;
    for line in printed.lines() {
        if !line.is_empty() && !line.starts_with('#') {
            assert!(above.starts_with("# "), "no comment above {line:?}");
            keys += 1;
        }
        above = line;
    }
    assert!(keys > 10, "{printed}");
}

#[test]
fn numbers_are_printed_with_their_bounds_and_units() {
    let printed = aquatic(&["udp", "-p"]).stdout;
    let expected = "\n# From 60 to 43200 seconds.\npeer_announce_interval = 1800\n";
    assert!(printed.contains(expected), "{printed}");
}

#[test]
fn limits_are_printed_with_the_memory_they_allow() {
    for (service, section) in [("udp", "limits"), ("http", "limits"), ("ws", "ws.limits")] {
        let printed = aquatic(&[service, "-p"]).stdout;
        let above = printed.split(&format!("\n[{section}]\n")).next().unwrap().rsplit("\n\n").next().unwrap();
        assert!(above.contains("Worst-case memory: "), "{service}: {above}");
    }
}

#[test]
fn a_file_of_one_subcommand_works_with_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tracker.toml");
    for service in ["udp", "http", "ws"] {
        std::fs::write(&path, aquatic(&[service, "-p"]).stdout).unwrap();
        for other in ["udp", "http", "ws"] {
            let run = aquatic(&[other, "--check-config", "-c", utf8(&path)]);
            assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{service} with {other}");
        }
    }
}

#[test]
fn former_keys_are_named_with_those_that_the_subcommand_reads() {
    let run = check("[network]\naddress = '0.0.0.0:3000'\n[protocol]\nmax_response_peers = 30\n");
    assert_refused(
        &run,
        &[
            "line 2: network.address: unknown key \"address\" in section [network]; it was replaced by \
             network.address_ipv4 and network.address_ipv6",
            "line 4: protocol.max_response_peers: unknown key \"max_response_peers\" in section [protocol]; it was \
             replaced by udp.max_response_peers\n",
        ],
    );
}

#[test]
fn numbers_beyond_64_bits_are_refused_with_the_bounds() {
    let run = check("workers = 99999999999999999999\n");
    assert_refused(&run, &["line 1: workers: 99999999999999999999 is out of bounds, choose from 0 to 1024"]);
}

#[test]
fn processors_are_listed_and_enough_for_the_workers() {
    let run = check("workers = 3\ncpus = '0,2'\n");
    assert_refused(&run, &["line 1: workers: 3 is more than the 2 processor(s) that cpus lists"]);
    let run = check("cpus = '0-'\n");
    assert_refused(&run, &["line 1: cpus: \"0-\" is neither a processor number nor a range"]);
    let run = aquatic(&["udp", "-s", "cpus=1000", "-s", "network.address_ipv4=127.0.0.1:0"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("cpus lists processor 1000"), "{}", run.stderr);
}

#[test]
fn refused_ports_and_the_limit_per_address_have_bounds() {
    let run = check("[limits]\nrefused_ports = '25,http'\n");
    assert_refused(
        &run,
        &["line 2: limits.refused_ports: \"http\" is neither a port from 0 to 65535 nor a range"],
    );
    let run = check("[limits]\nrefused_ports = '25,80-70'\nlocal_addresses = 'never'\n");
    assert_refused(
        &run,
        &["line 2: limits.refused_ports: the range 80-70", "line 3: limits.local_addresses"],
    );
    let run = check("[limits]\nmax_peers_per_address = 0\n");
    assert_refused(
        &run,
        &["line 2: limits.max_peers_per_address: 0 is out of bounds, choose from 1 to 1000000"],
    );
    let run = check("[limits]\nrefused_ports = '0-1023, 6881'\nlocal_addresses = 'accept'\n");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

/// Those that would do nothing, or nothing but harm, are refused by a check and by a start alike.
#[test]
fn settings_that_cannot_be_meant_are_refused_at_the_start_too() {
    for (settings, expected) in [
        (
            &["control.socket_path=x.sock"][..],
            "control.socket_path: \"x.sock\" is relative to state_directory",
        ),
        (&["privileges.drop_privileges=true", "privileges.user=root"], "privileges.user: \"root\" keeps all"),
        (&["limits.refused_ports=0-65535"], "limits.refused_ports: \"0-65535\" has all ports"),
        (&["limits.refused_ports=1-65535"], "limits.refused_ports: \"1-65535\" has all ports"),
    ] {
        let flags = settings.iter().flat_map(|setting| ["-s", setting]);
        let usual = ["udp", "-s", "network.address_ipv4=127.0.0.1:0", "-s", "network.use_ipv6=false"];
        let args: Vec<&str> = usual.into_iter().chain(flags).collect();
        assert_refused(&aquatic(&[&args[..], &["--check-config"]].concat()), &[expected]);
        // A start that succeeds is ended, with another code.
        let limited =
            Command::new("timeout").args(["10", env!("CARGO_BIN_EXE_aquatic")]).args(&args).output();
        let started = Run::of(limited.unwrap());
        assert_refused(&started, &[expected]);
    }
}

#[test]
fn a_good_configuration_passes() {
    let run = check("workers = 1\n[network]\nuse_ipv6 = false\n");
    assert_eq!(
        (run.code, run.stdout.as_str(), run.stderr.as_str()),
        (Some(0), "configuration is valid\n", "")
    );
}

#[test]
fn an_unknown_key_is_named_with_its_section_and_the_nearest_valid_one() {
    let run = check("[network]\nuse_ip4 = true\n");
    assert_refused(&run, &["line 2", "network.use_ip4", "[network]", "did you mean network.use_ipv4?"]);
}

#[test]
fn a_number_out_of_bounds_is_refused_with_the_bounds() {
    let run = check("[protocol]\npeer_announce_interval = 1\n");
    assert_refused(
        &run,
        &["line 2: protocol.peer_announce_interval: 1 is out of bounds, choose from 60 to 43200"],
    );
}

#[test]
fn a_peer_age_below_twice_the_interval_is_refused() {
    let run = check("[protocol]\npeer_announce_interval = 600\n[cleaning]\nmax_peer_age = 1199\n");
    assert_refused(&run, &["line 4: cleaning.max_peer_age", "Set it to 1200 or more"]);
    let run = check("[protocol]\npeer_announce_interval = 600\n[cleaning]\nmax_peer_age = 1200\n");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

#[test]
fn several_problems_are_reported_together() {
    let run = check("worker = 1\n[network]\nuse_ipv4 = 'yes'\n[udp]\nmax_response_peers = -1\n");
    assert_refused(
        &run,
        &[
            "has 3 problems:",
            "line 1: worker: unknown key \"worker\"; did you mean workers?",
            "line 3: network.use_ipv4: expected true or false, got the text \"yes\"",
            "line 5: udp.max_response_peers: -1 is out of bounds",
        ],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.toml");
    let run = aquatic(&["udp", "-c", utf8(&missing)]);
    assert_refused(&run, &["missing.toml does not exist", "--print-config"]);
    let run = aquatic(&["udp", "-c", utf8(directory.path())]);
    assert_refused(&run, &["Is a directory"]);
}

#[test]
fn bad_flags_are_explained_on_stderr_with_code_2() {
    let bad: [&[&str]; 6] = [
        &[],
        &["--nonsense"],
        &["tcp"],
        &["udp", "--nonsense"],
        &["udp", "-c"],
        &["udp", "--set", "workers"],
    ];
    for args in bad {
        let run = aquatic(args);
        assert_eq!(run.code, Some(2), "{args:?}");
        assert_eq!(run.stdout, "", "{args:?}");
        assert!(run.stderr.contains("--help"), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for flag in ["-h", "--help"] {
        let run = aquatic(&[flag]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
        assert!(run.stdout.contains("Examples:"), "{}", run.stdout);
        assert!(aquatic(&["udp", flag]).stdout.contains("--check-config"));
    }
    assert_eq!(aquatic(&["help"]).stdout, aquatic(&["--help"]).stdout);
    assert_eq!(aquatic(&["help", "ctl", "ban"]).stdout, aquatic(&["ctl", "ban", "--help"]).stdout);
    assert_eq!(aquatic(&["help", "nothing"]).code, Some(2));
    for flag in ["-v", "-V", "--version"] {
        for args in [&[flag][..], &["udp", flag]] {
            let run = aquatic(args);
            assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
            let mut lines = run.stdout.lines();
            let first = lines.next().unwrap();
            assert!(first.starts_with("aquatic"), "{}", run.stdout);
            assert!(first.ends_with(env!("CARGO_PKG_VERSION")), "{}", run.stdout);
            let build: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
            let keys: Vec<_> = build.iter().map(|(key, _)| *key).collect();
            let expected: &[&str] = if flag == "--version" { &["commit", "features", "target"] } else { &[] };
            assert_eq!(keys, expected, "{}", run.stdout);
            assert!(build.iter().all(|(_, value)| !value.is_empty()), "{}", run.stdout);
        }
    }
}

#[test]
fn set_goes_over_the_file_and_is_checked_like_it() {
    let run = aquatic(&["udp", "-P", "--check-config", "-s", "workers=2", "--set", "log_level=debug"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.contains("workers = 2 # default: 0\n"), "{}", run.stdout);
    assert!(run.stdout.contains("log_level = \"debug\" # default: \"info\"\n"), "{}", run.stdout);
    let run = aquatic(&["udp", "--set", "workers=5000"]);
    assert_refused(&run, &["--set workers: 5000 is out of bounds, choose from 0 to 1024"]);
}

#[test]
fn a_configuration_of_another_tracker_is_converted() {
    let directory = tempfile::tempdir().unwrap();
    let (former, converted) = (directory.path().join("udp.toml"), directory.path().join("tracker.toml"));
    std::fs::write(&former, "[network]\naddress = \"127.0.0.1:0\"\npoll_timeout_ms = 50\n").unwrap();
    let import = ["import-config", utf8(&former), "-o", utf8(&converted)];
    let run = aquatic(&import);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert!(run.stdout.contains("read its 2 note(s), then start with: aquatic all -c "), "{}", run.stdout);
    let checked = aquatic(&["all", "--check-config", "-c", utf8(&converted)]);
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
    // What exists is not overwritten, and standard output takes the same text.
    assert_refused(&aquatic(&import), &["tracker.toml exists; remove it"]);
    let printed = aquatic(&import[..2]);
    assert_eq!(printed.stdout, std::fs::read_to_string(&converted).unwrap());
    assert_refused(&aquatic(&["import-config", "/proc/none"]), &["/proc/none cannot be read"]);
}

/// What a start would refuse or warn of is told by a check.
#[test]
fn a_check_tells_what_a_start_would() {
    for (text, part) in [
        ("[network]\nxdp_interface = \"nope0\"", "there is no such network interface"),
        ("[network]\naddress_ipv4 = \"224.0.0.1:6969\"", "has a multicast address"),
        ("[network]\naddress_ipv4 = \"255.255.255.255:6969\"", "has the broadcast address"),
        ("[network]\naddress_ipv4 = \"192.0.2.1:6969\"", "192.0.2.1"),
    ] {
        assert_refused(&check(text), &[part]);
    }
    let warned = check("[limits]\nmax_memory = \"1MiB\"");
    assert_eq!((warned.code, warned.stdout.as_str()), (Some(0), "configuration is valid\n"));
    assert!(warned.stderr.contains("more than limits.max_memory allows"), "{}", warned.stderr);
    let proxies = aquatic(&["http", "--check-config", "-s", "proxies.trusted_proxies=[\"0.0.0.0/0\"]"]);
    assert_eq!(proxies.code, Some(0), "{}", proxies.stderr);
    assert!(proxies.stderr.contains("0.0.0.0/0"), "{}", proxies.stderr);
}

#[test]
fn a_configuration_behind_a_fifo_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tracker.toml");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    assert_refused(&aquatic(&["udp", "--check-config", "-c", utf8(&path)]), &["it is a FIFO"]);
}

#[test]
fn a_check_warns_of_what_a_start_warns_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    for (from, to, text) in [(2000, 2001, "has expired"), (2200, 2201, "is not valid yet")] {
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        std::fs::write(path("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let settings = [
            "network.enable_tls=true".to_owned(),
            format!("network.tls_certificate_path={}", utf8(&path("cert.pem"))),
            format!("network.tls_private_key_path={}", utf8(&path("key.pem"))),
            "limits.max_memory=1MiB".to_owned(),
            "proxies.trusted_proxies=[\"0.0.0.0/0\"]".to_owned(),
        ];
        let mut args = vec!["all", "--check-config"];
        settings.iter().for_each(|setting| args.extend(["--set", setting.as_str()]));
        let run = aquatic(&args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), "configuration is valid\n"), "{}", run.stderr);
        for text in [text, "more than limits.max_memory allows", "proxies.trusted_proxies has 0.0.0.0/0"] {
            let lines = run.stderr.lines().filter(|line| line.contains(text) && line.contains("WARN"));
            assert_eq!(lines.count(), 1, "{text}: {}", run.stderr);
        }
    }
}
