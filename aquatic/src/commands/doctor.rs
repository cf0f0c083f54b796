//! `aquatic doctor`: what is wrong with this machine for the tracker, and the command that mends it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aquatic_cli_helpers::report::{Report, Row, Verdict};
use aquatic_cli_helpers::{Override, load};
use aquatic_cluster::trial::{ServerTrial, try_servers};
use aquatic_common::config::{ChallengeKind, ClusterMode, normal_name};
use aquatic_common::settings::WithEnvironment;
use aquatic_doctor::{AcmeAsked, Asked, Listener, Machine, MemoryAsked, NatsServerAsked, Transport, Trials};
use aquatic_net::proxy::TrustedProxies;
use aquatic_probe::Target;
use aquatic_runtime::{clock, cores, memory, startup};
use clap::{Args, ValueEnum};

use crate::config::{Mode, Protocols, TrackerConfig};
use crate::memory::MemoryPlan;

const EXAMPLES: &str = "\
Examples:
  aquatic doctor                       For a tracker with the defaults
  aquatic doctor -c tracker.toml --host tracker.example.org
  sudo aquatic doctor -c tracker.toml --json

Run it as root to see firewall rules and the owners of ports. It changes nothing
and sends no packets, but for the look-up of hosts and a trial of the NATS
servers of a cluster.

Exit codes: 0 no fault, 1 at least one fault, 2 command line, 3 failure.";

/// Flags of `aquatic doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// Configuration to compare the machine with; without it, the defaults serve
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Set one key, over what the file says
    #[arg(short, long = "set", value_name = "KEY=VALUE")]
    set: Vec<Override>,

    /// Subcommand that the tracker is started with
    #[arg(long, value_name = "SUBCOMMAND", default_value = "all")]
    service: Service,

    /// Host of an announce URL, besides those of status.announce_urls; may be repeated
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The subcommands that serve clients.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Service {
    All,
    Udp,
    Http,
    Ws,
}

impl From<Service> for Mode {
    fn from(service: Service) -> Self {
        match service {
            Service::All => Self::All,
            Service::Udp => Self::Udp,
            Service::Http => Self::Http,
            Service::Ws => Self::Ws,
        }
    }
}

impl Doctor {
    /// Examines the machine and prints the report.
    pub(crate) fn run(&self) -> ExitCode {
        let mode = self.service.into();
        let (config, mut rows) = self.configuration(mode);
        let root = Path::new("/");
        let listeners = listeners(&config, mode);
        let tracker = aquatic_doctor::running_tracker(root, &listeners);
        let endpoints = endpoints(&config).into_iter();
        let endpoints = endpoints.map(|address| Listener { transport: Transport::Tcp, address });
        let all: Vec<Listener> = listeners.iter().copied().chain(endpoints).collect();
        let machine = Machine::read(root, tracker, &all, self.trials(&config));
        rows.extend(aquatic_doctor::diagnose(&machine, &asked(&config, mode, listeners)));
        let title = format!(
            "aquatic {} on Linux {}, configuration: {}",
            env!("CARGO_PKG_VERSION"),
            machine.kernel,
            self.config.as_ref().map_or_else(|| "the defaults".to_owned(), |path| path.display().to_string())
        );
        let figures = [
            ("aquatic".to_owned(), env!("CARGO_PKG_VERSION").into()),
            ("kernel".to_owned(), machine.kernel.into()),
        ];
        Report { title, rows, figures: figures.into_iter().collect() }.print(self.json)
    }

    /// The configuration, and what `--check-config` says about it. The machine is compared with the defaults
    /// if it cannot be used.
    fn configuration(&self, mode: Mode) -> (TrackerConfig, Vec<Row>) {
        const GROUP: &str = "configuration";
        const CHECK: &str = "settings";
        let path = self.config.as_deref();
        let mut rows = match load::<TrackerConfig>(path, &self.set, &WithEnvironment(&mode)) {
            Ok(_) => vec![Row::new(GROUP, CHECK, Verdict::Ok, "valid")],
            Err(error) => {
                let problems = error.problems().into_iter();
                problems.map(|text| Row::new(GROUP, CHECK, Verdict::Fault, text)).collect()
            }
        };
        match load(path, &self.set, &mode) {
            Ok(config) => (config, rows),
            Err(_) => {
                let text = "all that follows is about a tracker with the defaults";
                rows.push(Row::new(GROUP, "defaults", Verdict::Advice, text));
                (TrackerConfig::default(), rows)
            }
        }
    }

    /// Hosts of announce URLs, and whether clients of each verify the certificate: those of the command line
    /// and of the configuration, each once.
    fn hosts(&self, config: &TrackerConfig) -> Vec<(String, bool)> {
        let given = self.host.iter().map(|host| (host.clone(), true));
        let urls = config.status.announce_urls.iter().filter_map(|url| url.parse::<Target>().ok());
        let configured = urls.map(|target| (target.host, target.scheme.is_tls()));
        let certified = config.network.acme.iter().filter_map(|name| normal_name(name).ok());
        let mut hosts: Vec<(String, bool)> = Vec::new();
        for (host, is_tls) in given.chain(configured).chain(certified.map(|name| (name, true))) {
            match hosts.iter_mut().find(|(known, _)| *known == host) {
                Some((_, known_tls)) => *known_tls |= is_tls,
                None => hosts.push((host, is_tls)),
            }
        }
        hosts
    }

    fn trials(&self, config: &TrackerConfig) -> Trials {
        Trials {
            io_uring: startup::check_io_uring().err().map(|error| error.to_string()),
            clock: aquatic_doctor::clock(),
            now: clock::calendar_seconds(),
            firewall: aquatic_doctor::read_rules(),
            names: self
                .hosts(config)
                .iter()
                .map(|(host, is_tls)| aquatic_doctor::resolve(host, *is_tls))
                .collect(),
        }
    }
}

/// The addresses that clients are served on.
fn listeners(config: &TrackerConfig, mode: Mode) -> Vec<Listener> {
    let mut listeners = Vec::new();
    if config.protocols(mode).udp {
        let udp = config.network.addresses();
        listeners.extend(udp.map(|(_, address)| Listener { transport: Transport::Udp, address }));
    }
    if config.serves_tcp(mode) {
        let tcp = config.network.tcp_listeners().into_iter();
        listeners.extend(tcp.map(|(address, _)| Listener { transport: Transport::Tcp, address }));
    }
    listeners
}

/// The addresses of metrics and of the status page, if they have their own.
fn endpoints(config: &TrackerConfig) -> Vec<SocketAddr> {
    let metrics = config.metrics.enable.then_some(config.metrics.address);
    let status = (config.status.enable && config.status.own_address).then_some(config.status.address);
    metrics.into_iter().chain(status).collect()
}

fn asked(config: &TrackerConfig, mode: Mode, listeners: Vec<Listener>) -> Asked {
    let cores = cores::plan_for_this_process(config.workers, &config.cpus).map_or(1, |plan| plan.cpus.len());
    let plan = memory::available()
        .and_then(|available| MemoryPlan::divide(config, cores, config.protocols(mode), available));
    let network = &config.network;
    Asked {
        workers: config.workers,
        cpus: config.cpus.clone(),
        listeners,
        dual_stack: !network.only_ipv6,
        endpoints: endpoints(config),
        unix_socket: config.serves_tcp(mode) && network.has_unix_socket(),
        receive_buffer: config.udp.socket_recv_buffer_size as u64,
        xdp: (config.protocols(mode).udp && !network.xdp_interface.is_empty())
            .then(|| network.xdp_interface.clone()),
        backlog: network.tcp_backlog.into(),
        max_connections: config.connections.max_connections as u64,
        proxied: config.serves_tcp(mode)
            && TrustedProxies::parse(&config.proxies.trusted_proxies)
                .is_ok_and(|trusted| trusted.has_loopback()),
        memory: plan.map(|plan| MemoryAsked {
            total: plan.total,
            least: plan.least,
            connections: plan.connections as u64,
        }),
        certificate: config.certificate(mode),
        acme: (config.serves_tls(mode) && !network.acme.is_empty()).then(|| AcmeAsked {
            names: network.acme.clone(),
            ports: config.acme.challenge_kinds(network).into_iter().map(ChallengeKind::port).collect(),
            failure: aquatic_acme::last_failure(&config.state_directory, network, &config.acme)
                .map(|failure| failure.text),
        }),
        nats_servers: nats_servers(config),
        replicas: replicas(config, mode),
    }
}

/// Number of nodes that keep the same torrent, if the nodes of the cluster divide them.
fn replicas(config: &TrackerConfig, mode: Mode) -> Option<u32> {
    let Protocols { udp, http, .. } = config.protocols(mode);
    let divides = config.cluster.is_enabled() && config.cluster.mode == ClusterMode::Partition;
    (divides && (udp || http)).then_some(config.cluster.replicas)
}

/// What came of trying the NATS servers. Files that cannot be used are reported with the settings.
fn nats_servers(config: &TrackerConfig) -> Vec<NatsServerAsked> {
    if !config.cluster.is_enabled() {
        return Vec::new();
    }
    let trials = try_servers(&config.cluster).unwrap_or_default().into_iter();
    trials.map(|ServerTrial { url, outcome }| NatsServerAsked { url, outcome }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_of_tls_are_compared_with_the_certificate() {
        let mut config = TrackerConfig::default();
        let urls = ["udp://a.example:1/announce", "udp://b.example:1/announce", "wss://b.example/"];
        config.status.announce_urls = urls.map(str::to_owned).to_vec();
        let doctor = Doctor {
            config: None,
            set: Vec::new(),
            service: Service::All,
            host: vec!["c.example".to_owned()],
            json: false,
        };
        let hosts = doctor.hosts(&config);
        let hosts: Vec<_> = hosts.iter().map(|(host, is_tls)| (host.as_str(), *is_tls)).collect();
        assert_eq!(hosts, [("c.example", true), ("a.example", false), ("b.example", true)]);
    }

    #[test]
    fn only_proxies_of_this_machine_use_its_ports() {
        let proxied = |address: &str| {
            let mut config = TrackerConfig::default();
            config.proxies.trusted_proxies = vec![address.to_owned()];
            asked(&config, Mode::All, Vec::new()).proxied
        };
        assert!(proxied("127.0.0.1") && proxied("::1") && proxied("127.0.0.0/8"));
        assert!(!proxied("10.0.0.7") && !proxied("192.0.2.0/24"));
    }

    #[test]
    fn each_service_asks_for_its_own_sockets() {
        let config = TrackerConfig::default();
        let of = |mode| {
            let asked = asked(&config, mode, listeners(&config, mode));
            (asked.serves(Transport::Udp), asked.serves(Transport::Tcp), asked.listeners.len())
        };
        assert_eq!(of(Mode::All), (true, true, 4));
        assert_eq!(of(Mode::Udp), (true, false, 2));
        assert_eq!(of(Mode::Ws), (false, true, 2));
    }
}
