//! Verdicts of the checks for machines whose files are written here.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use aquatic_cli_helpers::report::{Row, Verdict};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;
use crate::asked::{Listener, Transport};

/// Files of a machine on which nothing is wrong.
const HEALTHY: &[(&str, &str)] = &[
    ("proc/sys/kernel/osrelease", "6.1.0\n"),
    (
        "proc/self/limits",
        "Max open files            1048576              1048576              files\n\
         Max locked memory         unlimited            unlimited            bytes\n",
    ),
    ("proc/self/status", "Name:\tsh\nCapEff:\t0000000000000000\nCpus_allowed_list:\t0-1\n"),
    ("proc/self/cgroup", "0::/\n"),
    ("proc/meminfo", "MemTotal:       4194304 kB\nMemAvailable:   4000000 kB\n"),
    ("proc/sys/fs/file-max", "9223372036854775807\n"),
    ("proc/sys/fs/nr_open", "1048576\n"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    ("proc/sys/net/core/rmem_max", "8000000\n"),
    ("proc/sys/net/ipv4/udp_mem", "100000 200000 300000\n"),
    ("proc/net/snmp", "Udp: InDatagrams RcvbufErrors\nUdp: 1000000 10\n"),
    ("proc/net/softnet_stat", "00001000 00000000 00000000\n"),
    ("proc/sys/net/core/netdev_max_backlog", "1000\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1\n"),
    ("proc/net/netstat", "TcpExt: ListenOverflows TCPTimeWaitOverflow\nTcpExt: 0 0\n"),
    ("proc/net/sockstat", "TCP: inuse 1 orphan 0 tw 10 alloc 1 mem 1\n"),
    ("proc/sys/net/ipv4/tcp_max_tw_buckets", "16384\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768 60999\n"),
    ("proc/sys/net/ipv4/ip_local_reserved_ports", "\n"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "100\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
    ("proc/net/fib_trie", "     |-- 198.51.0.7\n        /32 host LOCAL\n"),
    (
        "proc/net/route",
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
         eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n",
    ),
    ("proc/net/if_inet6", "2a010db8000000000000000000000001 02 40 00 80     eth0\n"),
    (
        "proc/net/ipv6_route",
        "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
         fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n",
    ),
    ("proc/sys/net/ipv6/conf/all/disable_ipv6", "0\n"),
    ("sys/class/net/eth0/operstate", "up\n"),
    ("sys/class/net/eth0/device/vendor", "0x1af4\n"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
    ("sys/class/net/eth0/queues/rx-1/rps_cpus", "0\n"),
    ("sys/class/net/lo/operstate", "unknown\n"),
];

const UDP_6969: &str = "heading\n 0: 00000000:1B39 00000000:0000 07 0:0 0:0 0 0 0 4711 2\n";

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn tree(changes: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in HEALTHY.iter().chain(changes) {
        write(root.path(), path, text);
    }
    root
}

fn asked() -> Asked {
    let listener = |transport, address: &str| Listener { transport, address: address.parse().unwrap() };
    Asked {
        listeners: vec![
            listener(Transport::Udp, "0.0.0.0:6969"),
            listener(Transport::Tcp, "0.0.0.0:6969"),
            listener(Transport::Udp, "[::]:6969"),
            listener(Transport::Tcp, "[::]:6969"),
        ],
        receive_buffer: 2_000_000,
        backlog: 4096,
        max_connections: 100_000,
        memory: Some(MemoryAsked { total: 3 << 30, least: 64 << 20, connections: 100_000 }),
        ..Asked::default()
    }
}

fn trials() -> Trials {
    Trials {
        clock: Some(Clock { synchronised: true, max_error: 1000 }),
        now: 1_780_000_000,
        firewall: Some("udp dport 6969 notrack\ntcp dport 6969 notrack\n".to_owned()),
        ..Trials::default()
    }
}

fn rows(root: &Path, asked: &Asked, trials: Trials) -> Vec<Row> {
    let tracker = running_tracker(root, &asked.listeners);
    diagnose(&Machine::read(root, tracker, &asked.listeners, trials), asked)
}

/// The verdicts other than ok.
fn complaints(rows: &[Row]) -> Vec<(&'static str, Verdict)> {
    let bad = rows.iter().filter(|row| row.verdict != Verdict::Ok);
    bad.map(|row| (row.check, row.verdict)).collect()
}

#[test]
fn nothing_is_said_against_a_healthy_machine() {
    let root = tree(&[]);
    let rows = rows(root.path(), &asked(), trials());
    assert_eq!(complaints(&rows), [], "{rows:#?}");
    let checks = [
        "io_uring",
        "open_files",
        "locked_memory",
        "workers",
        "receive_queues",
        "max_memory",
        "large_pages",
        "receive_buffer",
        "dropped_packets",
        "udp_memory",
        "packet_backlog",
        "accept_queue",
        "syn_cookies",
        "time_wait",
        "conntrack_table",
        "conntrack_exemption",
        "ports",
        "ipv4",
        "ipv6",
        "clock",
    ];
    for check in checks {
        assert!(rows.iter().any(|row| row.check == check), "{check}");
    }
}

/// Path and text of a file, and the checks that complain then.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, Verdict)]);

/// One file that differs from those of a healthy machine, and the complaint that follows.
#[test]
fn each_file_leads_to_its_verdict() {
    use Verdict::{Advice, Fault};
    let limits = |files: &str, locked: &str| {
        format!("Max open files {files} {files} files\nMax locked memory {locked} {locked} bytes\n")
    };
    let status = |capabilities: &str, processors: &str| {
        format!("CapEff:\t{capabilities}\nCpus_allowed_list:\t{processors}\n")
    };
    let few_files = limits("1024", "unlimited");
    let hardly_files = limits("64", "unlimited");
    let (little_locked, less_locked) = (limits("1048576", "65536"), limits("1048576", "524288"));
    let one = status("0", "0");
    let cases: &[Case<'_>] = &[
        ("proc/self/limits", &few_files, &[("open_files", Advice)]),
        ("proc/self/limits", &hardly_files, &[("open_files", Fault)]),
        ("proc/self/limits", &little_locked, &[("locked_memory", Fault)]),
        ("proc/self/limits", &less_locked, &[]),
        ("proc/self/status", &one, &[]),
        ("proc/sys/fs/nr_open", "1024\n", &[("open_files_of_system", Advice)]),
        ("proc/sys/fs/file-max", "1024\n", &[("open_files_of_system", Advice)]),
        ("proc/meminfo", "MemTotal: 2097152 kB\nMemAvailable: 2000000 kB\n", &[("max_memory", Advice)]),
        ("proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 1000000 kB\n", &[("max_memory", Advice)]),
        ("sys/fs/cgroup/memory.max", "1073741824\n", &[("max_memory", Advice)]),
        ("sys/fs/cgroup/cpu.max", "50000 100000\n", &[("processor_quota", Advice)]),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "[always] madvise never\n",
            &[("large_pages", Advice)],
        ),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always madvise [never]\n",
            &[("large_pages", Advice)],
        ),
        ("proc/sys/net/core/rmem_max", "212992\n", &[("receive_buffer", Advice)]),
        ("proc/sys/net/ipv4/udp_mem", "10 20 30\n", &[("udp_memory", Advice)]),
        ("proc/net/snmp", "Udp: InDatagrams RcvbufErrors\nUdp: 1000 10\n", &[("dropped_packets", Advice)]),
        ("proc/net/snmp6", "Udp6InDatagrams 1000\nUdp6RcvbufErrors 20000\n", &[("dropped_packets", Advice)]),
        ("proc/net/softnet_stat", "00001000 00000001 00000000\n", &[("packet_backlog", Advice)]),
        ("proc/sys/net/core/somaxconn", "128\n", &[("accept_queue", Advice)]),
        ("proc/net/netstat", "TcpExt: ListenOverflows\nTcpExt: 7\n", &[("accept_queue_overflows", Advice)]),
        ("proc/net/netstat", "TcpExt: TCPTimeWaitOverflow\nTcpExt: 7\n", &[("time_wait", Advice)]),
        ("proc/net/sockstat", "TCP: inuse 1 tw 16000\n", &[("time_wait", Advice)]),
        ("proc/sys/net/ipv4/tcp_syncookies", "0\n", &[("syn_cookies", Advice)]),
        ("proc/sys/net/ipv4/ip_local_port_range", "1024 65535\n", &[("ephemeral_ports", Advice)]),
        ("proc/sys/net/netfilter/nf_conntrack_count", "140000\n", &[("conntrack_table", Advice)]),
        ("proc/sys/net/netfilter/nf_conntrack_count", "260000\n", &[("conntrack_table", Fault)]),
        ("proc/net/stat/nf_conntrack", "entries drop\n00000001 00000003\n", &[("conntrack_table", Advice)]),
        ("proc/net/fib_trie", "", &[("ipv4", Advice)]),
        ("proc/net/route", "", &[("ipv4", Advice)]),
        ("proc/net/ipv6_route", "", &[("ipv6", Fault)]),
        ("proc/net/if_inet6", "", &[("ipv6", Advice)]),
        ("proc/net/if_inet6", "fd000000000000000000000000000001 02 40 00 80 eth0\n", &[("ipv6", Advice)]),
        ("proc/sys/net/ipv6/conf/all/disable_ipv6", "1\n", &[("ipv6", Advice)]),
        ("proc/net/udp", UDP_6969, &[("ports", Fault)]),
    ];
    for (path, text, expected) in cases {
        let root = tree(&[(path, text)]);
        let rows = rows(root.path(), &asked(), trials());
        assert_eq!(complaints(&rows), *expected, "{path}: {rows:#?}");
        for row in rows.iter().filter(|row| row.verdict != Verdict::Ok) {
            assert!(!row.remedy.0.is_empty(), "{row:?} has no remedy");
        }
    }
}

#[test]
fn without_connections_the_tracker_needs_files_too() {
    let root =
        tree(&[("proc/self/limits", "Max open files 20 20 files\nMax locked memory unlimited unlimited\n")]);
    let mut asked = asked();
    asked.listeners.retain(|listener| listener.transport == Transport::Udp);
    let rows = rows(root.path(), &asked, trials());
    assert_eq!(complaints(&rows), [("open_files", Verdict::Fault)]);
    let row = rows.iter().find(|row| row.check == "open_files").unwrap();
    assert_eq!(row.text, "this shell may open 20 files only, but the tracker itself needs 104");
}

#[test]
fn capabilities_count_as_what_they_allow() {
    let limits = "Max open files 1048576 1048576 files\nMax locked memory 65536 65536 bytes\n";
    let both = format!("CapEff:\t{:016x}\nCpus_allowed_list:\t0-1\n", 1_u64 << 24 | 1 << 12);
    let root = tree(&[
        ("proc/self/limits", limits),
        ("proc/self/status", &both),
        ("proc/sys/net/core/rmem_max", "212992\n"),
    ]);
    assert_eq!(complaints(&rows(root.path(), &asked(), trials())), []);
}

#[test]
fn what_af_xdp_lacks_is_told() {
    let capable = format!("CapEff:\t{:016x}\nCpus_allowed_list:\t0-1\n", 1_u64 << 39 | 1 << 13 | 1 << 12);
    let little = "Max open files 1048576 1048576 files\nMax locked memory 1048576 1048576 bytes\n";
    let verdict = |interface: &str, changes: &[(&str, &str)]| {
        let root = tree(changes);
        let asked = Asked { xdp: Some(interface.to_owned()), ..asked() };
        let rows = rows(root.path(), &asked, trials());
        let row = rows.iter().find(|row| row.check == "xdp").unwrap().clone();
        (row.verdict, row.text)
    };
    let rights: &[(&str, &str)] = &[("proc/self/status", &capable), ("sys/class/net/eth0/type", "1\n")];
    let with = |more: (&'static str, &'static str)| [rights, &[more]].concat();
    let (ok, text) = verdict("eth0", rights);
    assert!(ok == Verdict::Ok && text == "eth0, 2 queue(s), whose interrupts are not held back", "{text}");
    let (fault, text) = verdict("eth7", rights);
    assert!(fault == Verdict::Fault && text.contains("no such interface"), "{text}");
    for (changes, expected) in [
        (vec![], "may not attach"),
        (with(("sys/class/net/eth0/type", "65534\n")), "no Ethernet"),
        (with(("proc/sys/kernel/osrelease", "5.4.0-91-generic\n")), "too old"),
        (with(("proc/self/limits", little)), "lock 8 MiB, but the limit is 1024 KiB"),
    ] {
        let (advice, text) = verdict("eth0", &changes);
        assert!(advice == Verdict::Advice && text.contains(expected), "{expected}: {text}");
    }
    let held_back = [
        ("sys/class/net/eth0/napi_defer_hard_irqs", "2\n"),
        ("sys/class/net/eth0/gro_flush_timeout", "50000\n"),
    ];
    let (ok, text) = verdict("eth0", &[rights, &held_back].concat());
    assert!(ok == Verdict::Ok && text.ends_with("are held back for 50 us"), "{text}");
}

#[test]
fn queues_are_compared_with_the_workers() {
    let one_queue = |mask: &str| {
        let root = tree(&[("sys/class/net/eth0/queues/rx-0/rps_cpus", mask)]);
        write(root.path(), "proc/self/status", "Name:\tsh\nCapEff:\t0\nCpus_allowed_list:\t2,40\n");
        fs::remove_dir_all(root.path().join("sys/class/net/eth0/queues/rx-1")).unwrap();
        let rows = rows(root.path(), &asked(), trials());
        let row = rows.iter().find(|row| row.check == "receive_queues").unwrap();
        (complaints(&rows), row.remedy.clone())
    };
    let (complaints, remedy) = one_queue("0\n");
    assert_eq!(complaints, [("receive_queues", Verdict::Advice)]);
    assert!(format!("{remedy:?}").contains("echo 100,00000004 | tee"), "{remedy:?}");
    assert_eq!(one_queue("00000000,00000003\n").0, []);
}

#[test]
fn processors_that_are_missing_are_not_mended_by_workers() {
    let root = tree(&[]);
    let remedy = |workers, cpus: &str| {
        let asked = Asked { workers, cpus: cpus.parse().unwrap(), ..asked() };
        let rows = rows(root.path(), &asked, trials());
        let row = rows.iter().find(|row| row.check == "workers").unwrap();
        format!("{:?}", row.remedy)
    };
    let (cpus, workers) = (r#"cpus = \"\""#, "workers = 0");
    assert!(remedy(0, "7").contains(cpus) && !remedy(0, "7").contains(workers), "{}", remedy(0, "7"));
    assert!(remedy(3, "7").contains(cpus) && remedy(3, "7").contains(workers));
    assert!(remedy(3, "").contains(workers) && !remedy(3, "").contains(cpus));
}

#[test]
fn a_process_on_a_port_is_named_and_a_tracker_is_no_clash() {
    let hold = |name: &str, is_kept: bool| {
        let root = tree(&[("proc/net/udp", UDP_6969), ("proc/77/comm", name), ("proc/1/comm", "systemd\n")]);
        for process in ["proc/77/fd", "proc/1/fd"].iter().take(if is_kept { 2 } else { 1 }) {
            fs::create_dir_all(root.path().join(process)).unwrap();
            symlink("socket:[4711]", root.path().join(process).join("3")).unwrap();
        }
        for (path, text) in HEALTHY.iter().filter(|(path, _)| path.starts_with("proc/self/")) {
            write(root.path(), &path.replace("self", "77"), text);
        }
        let rows = rows(root.path(), &asked(), trials());
        let port = rows.iter().find(|row| row.check == "ports").unwrap().clone();
        (complaints(&rows), port.text)
    };
    let (complaints, text) = hold("named\n", false);
    assert_eq!(complaints, [("ports", Verdict::Fault)]);
    assert_eq!(text, "0.0.0.0:6969 (UDP): named (process 77) listens on 0.0.0.0:6969 already");
    let (complaints, text) = hold("aquatic_udp\n", false);
    assert_eq!(complaints, [("ports", Verdict::Fault)], "a tracker of 0.9 has to stop first");
    assert!(text.contains("aquatic_udp (process 77) listens"), "{text}");
    // A service manager may keep the sockets of a tracker.
    for is_kept in [false, true] {
        let (complaints, text) = hold("aquatic\n", is_kept);
        assert_eq!(complaints, []);
        assert!(text.contains("the tracker is running (process 77)"), "{text}");
    }
    let (complaints, text) = hold("named\n", true);
    assert_eq!(complaints, [("ports", Verdict::Fault)]);
    assert!(text.contains("systemd (process 1) listens on 0.0.0.0:6969 for a service"), "{text}");
}

#[test]
fn a_socket_on_all_of_ipv6_may_take_ipv4() {
    let udp6 = "heading\n 0: 00000000000000000000000000000000:1B39 00000000000000000000000000000000:0000 07 0:0 0:0 0 \
                0 0 4711 2\n";
    let root = tree(&[("proc/net/udp6", udp6)]);
    let mut asked = asked();
    assert_eq!(complaints(&rows(root.path(), &asked, trials())), [("ports", Verdict::Fault)]);
    asked.listeners.retain(|listener| listener.address.is_ipv4());
    let rows = rows(root.path(), &asked, trials());
    assert_eq!(complaints(&rows), [("ports", Verdict::Advice), ("ipv6", Verdict::Advice)]);
    let row = rows.iter().find(|row| row.check == "ports").unwrap();
    assert!(row.text.contains("another process listens on [::]:6969, which takes IPv4"), "{}", row.text);
}

#[test]
fn what_no_file_tells_has_verdicts_too() {
    let root = tree(&[]);
    let with = |change: fn(&mut Trials)| {
        let mut trials = trials();
        change(&mut trials);
        complaints(&rows(root.path(), &asked(), trials))
    };
    let clock = Verdict::Advice;
    assert_eq!(
        with(|trials| trials.clock = Some(Clock { synchronised: false, max_error: 0 })),
        [("clock", clock)]
    );
    assert_eq!(with(|trials| trials.now = 0), [("clock", Verdict::Fault)]);
    assert_eq!(with(|trials| trials.io_uring = Some("seccomp".to_owned())), [("io_uring", Verdict::Fault)]);
    let exemption = [("conntrack_exemption", Verdict::Advice)];
    assert_eq!(with(|trials| trials.firewall = None), exemption);
    assert_eq!(with(|trials| trials.firewall = Some("udp dport 6969 notrack".to_owned())), exemption);
}

#[test]
fn the_configuration_is_compared_with_the_machine() {
    let root = tree(&[]);
    let with = |change: fn(&mut Asked)| {
        let mut asked = asked();
        change(&mut asked);
        complaints(&rows(root.path(), &asked, trials()))
    };
    assert_eq!(
        with(|asked| asked.workers = 3),
        [("workers", Verdict::Fault), ("receive_queues", Verdict::Advice)]
    );
    assert_eq!(with(|asked| asked.memory = None), [("max_memory", Verdict::Advice)]);
    assert_eq!(with(|asked| asked.proxied = true), [("proxy_ports", Verdict::Advice)]);
    assert_eq!(
        with(|asked| asked.max_connections = 2_000_000),
        [
            ("open_files", Verdict::Advice),
            ("open_files_of_system", Verdict::Advice),
            ("memory_of_connections", Verdict::Advice)
        ]
    );
    assert_eq!(
        with(|asked| asked.listeners.retain(|listener| listener.address.is_ipv4())),
        [("ipv6", Verdict::Advice)]
    );
}

#[test]
fn names_have_to_lead_to_this_machine() {
    let root = tree(&[]);
    let with = |addresses: &[&str], serves_ipv6: bool| {
        let ips = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        let mut trials = trials();
        trials.names = vec![Name { name: "tracker.example".to_owned(), addresses: Ok(ips), is_tls: false }];
        let mut asked = asked();
        asked.listeners.retain(|listener| serves_ipv6 || listener.address.is_ipv4());
        let rows = rows(root.path(), &asked, trials);
        let rows: Vec<Row> = rows.into_iter().filter(|row| row.check.starts_with("name")).collect();
        complaints(&rows)
    };
    assert_eq!(with(&["198.51.0.7", "2a01:db8::1"], true), []);
    assert_eq!(with(&["198.51.0.7"], true), [("name_ipv6", Verdict::Advice)]);
    assert_eq!(with(&["198.51.0.8", "2a01:db8::1"], true), [("name_ipv4", Verdict::Advice)]);
    assert_eq!(with(&["198.51.0.7", "2a01:db8::1"], false), [("name_ipv6", Verdict::Fault)]);
    assert_eq!(with(&[], true), [("name", Verdict::Fault)]);
}

#[test]
fn addresses_need_none_of_the_other_family() {
    let root = tree(&[]);
    for host in ["198.51.0.7", "2a01:db8::1"] {
        let mut trials = trials();
        let addresses = Ok(vec![host.parse().unwrap()]);
        trials.names = vec![Name { name: host.to_owned(), addresses, is_tls: true }];
        assert_eq!(complaints(&rows(root.path(), &asked(), trials)), [], "{host}");
    }
}

#[test]
fn a_socket_of_both_families_serves_ipv4() {
    let root = tree(&[]);
    let with = |transports: &[Transport], dual_stack| {
        let mut asked = Asked { dual_stack, ..asked() };
        asked
            .listeners
            .retain(|listener| listener.address.is_ipv6() && transports.contains(&listener.transport));
        let mut trials = trials();
        let addresses = Ok(vec!["198.51.0.7".parse().unwrap(), "2a01:db8::1".parse().unwrap()]);
        trials.names = vec![Name { name: "tracker.example".to_owned(), addresses, is_tls: false }];
        let rows = rows(root.path(), &asked, trials);
        let is_asked = |row: &&Row| row.check.starts_with("name") || row.check == "ipv4";
        let rows: Vec<Row> = rows.iter().filter(is_asked).cloned().collect();
        (rows.iter().any(|row| row.check == "ipv4"), complaints(&rows))
    };
    let (tcp, both) = (&[Transport::Tcp][..], &[Transport::Udp, Transport::Tcp][..]);
    assert_eq!(with(tcp, false), (false, vec![("name_ipv4", Verdict::Fault)]));
    assert_eq!(with(tcp, true), (true, vec![]));
    assert_eq!(with(both, true), (true, vec![("name_ipv4", Verdict::Advice)]), "UDP sockets serve IPv6 only");
}

/// Files with certificates for `tracker.example`: PEM texts from the host's own on.
fn certificate(root: &Path, years: (i32, i32), order: &[usize], is_self_signed: bool) -> std::path::PathBuf {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut host = CertificateParams::new(vec!["tracker.example".to_owned()]).unwrap();
    host.distinguished_name.push(rcgen::DnType::CommonName, "host");
    (host.not_before, host.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    let own = if is_self_signed { host.self_signed(&key) } else { host.signed_by(&key, &issuer) };
    let pems = [own.unwrap().pem(), authority_pem];
    let path = root.join("chain.pem");
    fs::write(&path, order.iter().map(|&at| pems[at].as_str()).collect::<String>()).unwrap();
    path
}

#[test]
fn certificates_are_read_as_clients_do() {
    let root = tree(&[]);
    let with_name = |years, order: &[usize], is_self_signed, (name, is_tls): (&str, bool)| {
        let path = certificate(root.path(), years, order, is_self_signed);
        let asked = Asked { certificate: Some(path), ..asked() };
        let mut trials = trials();
        let addresses = Ok(vec!["127.0.0.1".parse().unwrap()]);
        trials.names = vec![Name { name: name.to_owned(), addresses, is_tls }];
        let rows = rows(root.path(), &asked, trials);
        let rows: Vec<Row> = rows.into_iter().filter(|row| row.check.starts_with("certificate")).collect();
        complaints(&rows)
    };
    let with =
        |years, order: &[usize], is_self_signed, name| with_name(years, order, is_self_signed, (name, true));
    let (advice, fault, name) = (Verdict::Advice, Verdict::Fault, "tracker.example");
    // Nobody trusts the authority that has been made here.
    assert_eq!(with((2026, 2030), &[0, 1], false, name), [("certificate_chain", advice)]);
    assert_eq!(with((2026, 2030), &[0], true, name), [("certificate_chain", advice)]);
    assert_eq!(with((2026, 2030), &[0, 0], false, name), [("certificate_chain", fault)]);
    assert_eq!(
        with((2020, 2021), &[0], true, name),
        [("certificate_dates", fault), ("certificate_chain", advice)]
    );
    assert_eq!(with((2030, 2031), &[0], true, name)[0], ("certificate_dates", fault));
    assert_eq!(with((2026, 2030), &[0], true, "other.example")[0], ("certificate_names", fault));
    let udp = with_name((2026, 2030), &[0, 1], false, ("other.example", false));
    assert_eq!(udp, [("certificate_chain", advice)], "clients of udp:// see no certificate");
    let none = Asked { certificate: Some(root.path().join("none.pem")), ..asked() };
    assert_eq!(complaints(&rows(root.path(), &none, trials())), [("certificate", fault)]);
}

#[test]
fn nothing_at_all_below_the_root_is_survived() {
    let root = tempfile::tempdir().unwrap();
    let rows = rows(root.path(), &asked(), Trials::default());
    assert!(rows.len() > 5, "{rows:#?}");
}
