//! The metrics endpoint of a running engine, in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that finds anything else has failed")]

#[path = "../../../aquatic_runtime/tests/engine/child.rs"]
mod child;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process;
use std::rc::Rc;
use std::time::Duration;

use aquatic_common::config::MetricsConfig;
use aquatic_metrics::names;
use aquatic_runtime::{Core, CoreService, Engine, EngineConfig};
use aquatic_web::metrics_endpoint;
use child::Child;

/// How long to wait for what happens at once, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// Not a test: what the other tests start.
#[test]
#[ignore = "started by the other tests"]
fn child() {
    if std::env::var(child::SCENARIO).is_err() {
        return;
    }
    env_logger::builder().filter_level(log::LevelFilter::Info).init();
    let config = EngineConfig { workers: 2, ..EngineConfig::default() };
    let mut metrics = MetricsConfig { enable: true, ..MetricsConfig::default() };
    metrics.address.set_port(0);
    let mut engine = Engine::prepare(config).unwrap();
    metrics_endpoint::open(&metrics, &mut engine).unwrap();
    let services = (0..engine.cores()).map(|_| Counting).collect();
    engine.run(services).unwrap();
    process::exit(0);
}

struct Counting;

impl CoreService for Counting {
    async fn run(self, core: Rc<Core>) -> anyhow::Result<()> {
        let labels = [("protocol", "udp"), ("family", "ipv4"), ("action", "announce")];
        let requests = core.metrics().counter(&names::REQUESTS, &labels);
        requests.add(10 * (core.index() as u64 + 1));
        eprintln!("core {} has counted", core.index());
        core.stopping().await;
        Ok(())
    }
}

#[test]
fn the_metrics_endpoint_serves_and_closes() {
    let mut child = Child::start("counting", &[]);
    let line = child.expect("metrics: http://");
    let address = line.split("http://").nth(1).unwrap().trim_end_matches("/metrics").to_owned();
    child.expect("core 0 has counted");
    child.expect("core 1 has counted");
    let get = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    };
    let metrics = get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n") && !metrics.contains("# EOF"), "{metrics}");
    for line in
        ["aquatic_requests_total{protocol=\"udp\",family=\"ipv4\",action=\"announce\"} 30", "aquatic_cores 2"]
    {
        assert!(metrics.lines().any(|l| l == line), "no line {line:?} in\n{metrics}");
    }
    assert!(metrics.contains("aquatic_tick_lag_seconds{core=\"1\"} "), "{metrics}");
    assert!(get("/health").ends_with("ok\n"));
    assert!(get("/else").starts_with("HTTP/1.1 404 "));
    let mut crowd: Vec<TcpStream> = (0..9).map(|_| TcpStream::connect(&address).unwrap()).collect();
    assert!(get("/health").ends_with("ok\n"), "silent connections keep nobody out");
    for silent in &mut crowd {
        silent.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(silent.read(&mut [0]).unwrap(), 0, "the others have a second");
    }
    child.expect("closed without a reply, because of its limit");
    child.signal(rustix::process::Signal::TERM);
    let ended = child.wait(PATIENCE);
    assert_eq!(ended.code, Some(0), "{}", ended.output);
}
