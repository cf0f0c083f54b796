//! Snapshot of a machine, and reading it from the files of the kernel.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use aquatic_runtime::cores::{self, Quota};
use aquatic_runtime::memory;

use crate::asked::Listener;
use crate::names::Name;
use crate::parse;
use crate::sockets::{self, Holder};
use crate::sys::{Clock, page_size};

/// Bit of the capability to raise limits in the masks of /proc/PID/status (capabilities(7)).
const SYS_RESOURCE: u32 = 24;

/// Bit of the capability to exceed `net.core.rmem_max`.
const NET_ADMIN: u32 = 12;

/// Bit of the capability to open sockets for frames.
const NET_RAW: u32 = 13;

/// Bit of the capability to exceed the limit of locked memory.
const IPC_LOCK: u32 = 14;

/// Bits of the capabilities either of which allows to load programs.
const BPF: [u32; 2] = [39, 21];

/// Name of the tracker's process.
pub(crate) const TRACKER: &str = "aquatic";

/// Numbers from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First number.
    pub first: u64,
    /// Last number.
    pub last: u64,
}

impl Span {
    pub(crate) fn contains(self, number: u64) -> bool {
        (self.first..=self.last).contains(&number)
    }

    pub(crate) fn count(self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// What no file below the root tells.
#[derive(Clone, Debug, Default)]
pub struct Trials {
    /// Why io_uring does not work for this process, if it does not.
    pub io_uring: Option<String>,
    /// State of the clock, if it is known.
    pub clock: Option<Clock>,
    /// Calendar time, in seconds since 1970.
    pub now: i64,
    /// Rules of the firewall as text, if they could be read.
    pub firewall: Option<String>,
    /// Names of announce URLs.
    pub names: Vec<Name>,
}

/// Limits of the process that runs the tracker, or of the one that would start it.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Number of the tracker's process, if it runs.
    pub tracker: Option<u32>,
    /// Soft and hard limit of open files; `None` inside is no limit.
    pub open_files: Option<(Option<u64>, Option<u64>)>,
    /// Soft and hard limit of locked memory in bytes.
    pub locked_memory: Option<(Option<u64>, Option<u64>)>,
    /// Whether it may raise limits.
    pub may_raise: bool,
    /// Whether it may exceed the maximum of socket buffers.
    pub may_exceed_buffers: bool,
    /// Whether it may attach programs to interfaces.
    pub may_attach: bool,
    /// Whether it may lock any amount of memory.
    pub may_lock: bool,
    /// Processors that it may run on.
    pub processors: Vec<usize>,
    /// Processor time that its control group may use.
    pub quota: Option<Quota>,
    /// Bytes of it that are swapped out.
    pub swapped: u64,
}

/// Network interface with its receive queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkCard {
    /// Name of the interface.
    pub name: String,
    /// Number of its receive queues.
    pub queues: usize,
    /// Whether the kernel spreads the packets of a queue over processors (RPS).
    pub spread: bool,
}

/// Network interface of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Type of its hardware addresses (`ARPHRD_*`).
    pub kind: Option<u64>,
    /// Number of its receive queues.
    pub queues: usize,
    /// `napi_defer_hard_irqs` and `gro_flush_timeout`: how long it holds back interrupts
    /// after packets, in nanoseconds.
    pub hold_back: [u64; 2],
}

/// Snapshot of a machine. What could not be read is `None`.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// What no file tells.
    pub trials: Trials,
    /// Limits of the process.
    pub process: Process,
    /// Release of the kernel.
    pub kernel: String,
    /// `fs.file-max`, `fs.nr_open`.
    pub files: (Option<u64>, Option<u64>),
    /// Memory that the process may use, in bytes.
    pub memory: Option<u64>,
    /// Memory that is available without swapping, in bytes.
    pub memory_free: Option<u64>,
    /// The chosen word of the setting of transparent large pages.
    pub large_pages: Option<String>,
    /// `net.core.rmem_max`, in bytes.
    pub rmem_max: Option<u64>,
    /// Third value of `net.ipv4.udp_mem`, in bytes.
    pub udp_memory: Option<u64>,
    /// Received UDP packets, and those dropped for want of buffer, both families, since the start.
    pub udp_received: (u64, u64),
    /// Packets dropped because `net.core.netdev_max_backlog` was reached.
    pub backlog_drops: u64,
    /// `net.core.netdev_max_backlog`.
    pub netdev_backlog: Option<u64>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_syncookies`.
    pub syn_cookies: Option<u64>,
    /// Connections dropped because a queue of `listen(2)` was full.
    pub listen_overflows: u64,
    /// Connections in TIME_WAIT, their maximum, and how often it was exceeded.
    pub time_wait: (Option<u64>, Option<u64>, u64),
    /// Ports that the kernel chooses from.
    pub ephemeral: Option<Span>,
    /// Ports that it leaves out.
    pub reserved: Vec<Span>,
    /// Entries and maximum of connection tracking; `None` if it is not loaded.
    pub conntrack: Option<(u64, u64)>,
    /// Packets dropped because its table was full.
    pub conntrack_drops: u64,
    /// Addresses of this machine, and whether there is a default route.
    pub ipv4: (Vec<Ipv4Addr>, bool),
    /// The same for IPv6.
    pub ipv6: (Vec<Ipv6Addr>, bool),
    /// Whether IPv6 is switched off, or missing from the kernel.
    pub ipv6_disabled: bool,
    /// Network interfaces that are up.
    pub cards: Vec<NetworkCard>,
    /// All network interfaces.
    pub interfaces: Vec<Interface>,
    /// Processes on the ports that are asked for.
    pub holders: Vec<Holder>,
}

/// Files below a root directory.
struct Files<'a>(&'a Path);

impl Files<'_> {
    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// All numbers of a file.
    fn numbers(&self, path: &str) -> Vec<u64> {
        self.text(path).split_whitespace().map_while(|word| word.parse().ok()).collect()
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.numbers(path).first().copied()
    }
}

/// Number of the process of the tracker that holds one of the addresses, if one does.
#[must_use]
pub fn running_tracker(root: &Path, asked: &[Listener]) -> Option<u32> {
    let proc = root.join("proc");
    let holders = sockets::holders(&sockets::read(&proc.join("net")), asked, &proc);
    holders.iter().find_map(|holder| holder.tracker())
}

impl Holder {
    /// Number of the process if it is a tracker.
    pub(crate) fn tracker(&self) -> Option<u32> {
        self.process.as_ref().filter(|(_, name)| name == TRACKER).map(|(pid, _)| *pid)
    }
}

impl Machine {
    /// Snapshot from the files below a root directory. The limits are those of the process `tracker` if it is
    /// given, otherwise those of this process.
    #[must_use]
    pub fn read(root: &Path, tracker: Option<u32>, listeners: &[Listener], trials: Trials) -> Self {
        let files = Files(root);
        let mut machine = Self {
            trials,
            kernel: files.text("proc/sys/kernel/osrelease").trim().to_owned(),
            ..Self::default()
        };
        machine.read_process(&files, tracker);
        machine.read_memory(&files);
        machine.read_udp(&files);
        machine.read_tcp(&files);
        machine.read_conntrack(&files);
        machine.read_addresses(&files);
        machine.cards = cards(&files);
        machine.interfaces = interfaces(&files);
        let proc = files.path("proc");
        machine.holders = sockets::holders(&sockets::read(&proc.join("net")), listeners, &proc);
        machine
    }

    fn read_process(&mut self, files: &Files<'_>, tracker: Option<u32>) {
        let directory = tracker.map_or_else(|| "proc/self".to_owned(), |pid| format!("proc/{pid}"));
        let limits = files.text(&format!("{directory}/limits"));
        let status = files.text(&format!("{directory}/status"));
        let memberships = files.text(&format!("{directory}/cgroup"));
        let mask = parse::field(&status, "CapEff").and_then(|mask| u64::from_str_radix(mask, 16).ok());
        let has = |bit: u32| mask.is_some_and(|mask| mask >> bit & 1 == 1);
        let allowed = parse::spans(parse::field(&status, "Cpus_allowed_list").unwrap_or_default());
        let numbers = allowed.iter().flat_map(|span| span.first..=span.last.min(span.first + 4096));
        self.process = Process {
            tracker,
            open_files: parse::limit(&limits, "Max open files"),
            locked_memory: parse::limit(&limits, "Max locked memory"),
            may_raise: has(SYS_RESOURCE),
            may_exceed_buffers: has(NET_ADMIN),
            may_attach: has(NET_ADMIN) && has(NET_RAW) && BPF.into_iter().any(has),
            may_lock: has(IPC_LOCK),
            processors: numbers.filter_map(|number| usize::try_from(number).ok()).collect(),
            quota: cores::quota_of(&memberships, &files.path("sys/fs/cgroup")),
            swapped: parse::kilobytes(&status, "VmSwap").unwrap_or(0),
        };
        let meminfo = files.text("proc/meminfo");
        self.memory = memory::of(&meminfo, &memberships, &files.path("sys/fs/cgroup"));
        self.memory_free = parse::kilobytes(&meminfo, "MemAvailable");
    }

    fn read_memory(&mut self, files: &Files<'_>) {
        self.files = (files.number("proc/sys/fs/file-max"), files.number("proc/sys/fs/nr_open"));
        let setting = files.text("sys/kernel/mm/transparent_hugepage/enabled");
        let chosen = setting.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        self.large_pages = chosen.map(|(word, _)| word.to_owned());
    }

    fn read_udp(&mut self, files: &Files<'_>) {
        self.rmem_max = files.number("proc/sys/net/core/rmem_max");
        self.udp_memory =
            files.numbers("proc/sys/net/ipv4/udp_mem").get(2).map(|pages| pages.saturating_mul(page_size()));
        let snmp = files.text("proc/net/snmp");
        let snmp6 = files.text("proc/net/snmp6");
        let v6 = |name: &str| {
            let line = snmp6.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let v4 = |name| parse::column(&snmp, "Udp", name).unwrap_or(0);
        self.udp_received = (
            v4("InDatagrams").saturating_add(v6("Udp6InDatagrams")),
            v4("RcvbufErrors").saturating_add(v6("Udp6RcvbufErrors")),
        );
        self.backlog_drops = parse::hex_sum(&files.text("proc/net/softnet_stat"), 1, 0);
        self.netdev_backlog = files.number("proc/sys/net/core/netdev_max_backlog");
    }

    fn read_tcp(&mut self, files: &Files<'_>) {
        self.somaxconn = files.number("proc/sys/net/core/somaxconn");
        self.syn_cookies = files.number("proc/sys/net/ipv4/tcp_syncookies");
        let netstat = files.text("proc/net/netstat");
        let count = |name| parse::column(&netstat, "TcpExt", name).unwrap_or(0);
        self.listen_overflows = count("ListenOverflows");
        self.time_wait = (
            parse::socket_statistic(&files.text("proc/net/sockstat"), "TCP", "tw"),
            files.number("proc/sys/net/ipv4/tcp_max_tw_buckets"),
            count("TCPTimeWaitOverflow"),
        );
        self.ephemeral = match files.numbers("proc/sys/net/ipv4/ip_local_port_range").as_slice() {
            [first, last, ..] => Some(Span { first: *first, last: *last }),
            _ => None,
        };
        self.reserved = parse::spans(&files.text("proc/sys/net/ipv4/ip_local_reserved_ports"));
    }

    fn read_conntrack(&mut self, files: &Files<'_>) {
        let entries = files.number("proc/sys/net/netfilter/nf_conntrack_count");
        self.conntrack = entries.zip(files.number("proc/sys/net/netfilter/nf_conntrack_max"));
        self.conntrack_drops = parse::conntrack_statistic(&files.text("proc/net/stat/nf_conntrack"), "drop");
    }

    fn read_addresses(&mut self, files: &Files<'_>) {
        let v4 = parse::ipv4_addresses(&files.text("proc/net/fib_trie"));
        self.ipv4 = (v4, parse::has_ipv4_default(&files.text("proc/net/route")));
        let v6 = parse::ipv6_addresses(&files.text("proc/net/if_inet6"));
        self.ipv6 = (v6, parse::has_ipv6_default(&files.text("proc/net/ipv6_route")));
        self.ipv6_disabled =
            files.number("proc/sys/net/ipv6/conf/all/disable_ipv6").is_none_or(|disabled| disabled != 0);
    }
}

/// Directories of an interface's receive queues.
fn receive_queues(interface: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(interface.join("queues")).into_iter().flatten().flatten();
    names
        .filter(|queue| queue.file_name().to_string_lossy().starts_with("rx-"))
        .map(|queue| queue.path())
        .collect()
}

/// All interfaces.
fn interfaces(files: &Files<'_>) -> Vec<Interface> {
    let entries = fs::read_dir(files.path("sys/class/net")).into_iter().flatten().flatten();
    let interface = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = |file: &str| files.number(&format!("sys/class/net/{name}/{file}"));
        Interface {
            kind: number("type"),
            queues: receive_queues(&entry.path()).len(),
            hold_back: ["napi_defer_hard_irqs", "gro_flush_timeout"].map(|file| number(file).unwrap_or(0)),
            name,
        }
    };
    entries.map(interface).collect()
}

/// The interfaces that are up and are not loopback.
fn cards(files: &Files<'_>) -> Vec<NetworkCard> {
    let mut cards = Vec::new();
    for entry in fs::read_dir(files.path("sys/class/net")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_up = files.text(&format!("sys/class/net/{name}/operstate")).trim() == "up";
        let queues = receive_queues(&entry.path());
        let spreads = |queue: &PathBuf| {
            let mask = fs::read_to_string(queue.join("rps_cpus")).unwrap_or_default();
            mask.bytes().any(|digit| digit.is_ascii_hexdigit() && digit != b'0')
        };
        // Interfaces without a device, such as bridges and tunnels, get their packets from others.
        if is_up && !queues.is_empty() && entry.path().join("device").exists() {
            cards.push(NetworkCard { name, queues: queues.len(), spread: queues.iter().any(spreads) });
        }
    }
    cards.sort_by(|a, b| a.name.cmp(&b.name));
    cards
}
