//! A service that answers lines, set up through the environment; each test starts it in a process of its own.
//!
//! "who" is answered with core and peer, "hold" after a while, "begin" at once and again after a while, "big"
//! with a lot, "bye" is the last. A line of more than 100 bytes is refused.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aquatic_net::proxy::{OnBadHeader, TrustedProxies};
use aquatic_net::tcp::{
    Connection, CoreListeners, Deadlines, HandshakeLimits, ListenOptions, ListenerKind, Listeners, Phase,
    Protocols, SourceSettings, TcpBreakers, TcpSettings, Tls, TlsFiles, serve_tcp,
};
use aquatic_runtime::{Core, CoreService, Engine, EngineConfig};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Bytes of a big answer: more than a socket's buffers take.
pub(crate) const BIG: usize = 16 << 20;

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str, default: u64) -> u64 {
    setting(name).map_or(default, |value| value.parse().unwrap())
}

fn milliseconds(name: &str, default: u64) -> Duration {
    Duration::from_millis(number(name, default))
}

/// Runs the service and ends the process.
pub(crate) fn run() {
    env_logger::builder().filter_level(log::LevelFilter::Info).init();
    eprintln!("process {}", process::id());
    if let Some(files) = setting("OPEN_FILES") {
        let limit = Some(files.parse().unwrap());
        setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
    }
    match start() {
        Ok(()) => process::exit(0),
        Err(error) => {
            eprintln!("error: {error:#}");
            process::exit(3);
        }
    }
}

fn start() -> anyhow::Result<()> {
    let mut engine = Engine::prepare(engine_config())?;
    serve_metrics(&mut engine)?;
    let mut listeners = Listeners::new(engine.cores())?;
    let kind = if setting("TLS_DIRECTORY").is_some() { ListenerKind::Tls } else { ListenerKind::Plain };
    let options = ListenOptions { only_ipv6: setting("BOTH_FAMILIES").is_none(), ..ListenOptions::default() };
    for address in setting("LISTEN").unwrap_or_else(|| "127.0.0.1:0".to_owned()).split(',') {
        let address: SocketAddr = address.parse()?;
        eprintln!("listening on {}", listeners.add(address, kind, &options, engine.listeners())?);
    }
    if let Some(path) = setting("UNIX") {
        listeners.add_unix(Path::new(&path), 0o640, &options, engine.listeners())?;
    }
    let tls = setting("TLS_DIRECTORY").map(|directory| {
        let path = |name| Path::new(&directory).join(name);
        Tls::load(TlsFiles { certificate: path("cert.pem"), private_key: path("key.pem") })
    });
    let tls = tls.transpose()?;
    if let Some(tls) = &tls {
        engine.add_periodic(tls.reloader(engine.registry()));
    }
    let settings = settings(tls)?;
    let services = listeners.split().into_iter();
    let services = services.map(|listeners| LineService { listeners, settings: settings.clone() });
    let services = services.collect();
    engine.run(services)?;
    Ok(())
}

/// Serves the counters, one request after the other.
fn serve_metrics(engine: &mut Engine) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let registry = engine.registry().clone();
    eprintln!("metrics: http://{}/metrics", listener.local_addr()?);
    engine.add_side_thread("metrics", move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let text = aquatic_metrics::exposition::Format::Text.render(&registry.samples(), &[]);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        }
    });
    Ok(())
}

fn engine_config() -> EngineConfig {
    EngineConfig { workers: 2, ..EngineConfig::default() }
}

fn settings(tls: Option<Arc<Tls>>) -> anyhow::Result<TcpSettings> {
    let trusted = setting("TRUSTED").unwrap_or_default();
    let trusted: Vec<&str> = trusted.split(',').filter(|entry| !entry.is_empty()).collect();
    Ok(TcpSettings {
        protocols: Protocols { first: "lines", upgraded: "upgraded" },
        max_connections: number("CONNECTIONS", 10_000) as usize,
        evict_idle_when_full: setting("IDLE_MAKES_ROOM").is_some(),
        max_connections_per_address: number("PER_ADDRESS", 0) as u32,
        sources: SourceSettings::default(),
        deadlines: Deadlines {
            handshake: milliseconds("HANDSHAKE", 1500),
            head: milliseconds("HEAD", 1500),
            answer: milliseconds("ANSWER", 1500),
            idle: milliseconds("IDLE", 20_000),
            linger: Duration::from_secs(1),
        },
        trusted_proxies: TrustedProxies::parse(&trusted)?,
        proxy_protocol: setting("PROXY").map(|choice| match choice.as_str() {
            "refuse" => OnBadHeader::Refuse,
            _ => OnBadHeader::UseSocketAddress,
        }),
        tls,
        handshakes: HandshakeLimits {
            open: number("HANDSHAKES", 100) as usize,
            queued: number("QUEUED", 1000) as usize,
        },
        reply_to_plain: b"use TLS\n".to_vec(),
    })
}

struct LineService {
    listeners: CoreListeners,
    settings: TcpSettings,
}

impl CoreService for LineService {
    async fn run(self, core: Rc<Core>) -> anyhow::Result<()> {
        eprintln!("core {} serves", core.index());
        let ended = Rc::clone(&core);
        let handling = Rc::clone(&core);
        let handler = move |connection| answer(Rc::clone(&handling), connection);
        serve_tcp(core, self.listeners, self.settings, TcpBreakers::default(), handler).await?;
        eprintln!("core {} has served", ended.index());
        Ok(())
    }
}

async fn answer(core: Rc<Core>, mut connection: Connection) {
    let mut buffer = Vec::new();
    loop {
        let line = loop {
            if let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
                break buffer.drain(..=end).collect::<Vec<_>>();
            }
            if buffer.len() > 100 {
                let _ = connection.send(b"too long\n").await;
                return connection.close_lingering().await;
            }
            let was_empty = buffer.is_empty();
            match connection.receive(&mut buffer, 256).await {
                Ok(0) => return connection.close().await,
                Ok(_) if was_empty => connection.deadline().enter(Phase::Head),
                Ok(_) => {}
                Err(_) => return,
            }
        };
        connection.deadline().enter(Phase::Answer);
        if line == b"begin\n" && connection.send(b"begun\n").await.is_err() {
            return;
        }
        let is_last = line == b"bye\n" || connection.deadline().is_stopping();
        if connection.send(&reply(&core, &connection, &line).await).await.is_err() {
            return;
        }
        if is_last {
            return connection.close().await;
        }
        if buffer.is_empty() {
            buffer = Vec::new();
            connection.deadline().enter(Phase::Idle);
        } else {
            connection.deadline().enter(Phase::Head);
        }
    }
}

async fn reply(core: &Rc<Core>, connection: &Connection, line: &[u8]) -> Vec<u8> {
    match line {
        b"who\n" => {
            format!("{} {:?} {:?}\n", core.index(), connection.peer(), connection.socket_peer()).into_bytes()
        }
        b"big\n" => vec![b'x'; BIG],
        b"hold\n" | b"begin\n" => {
            core.sleep(Duration::from_millis(1000)).await;
            b"held\n".to_vec()
        }
        b"bye\n" => b"bye\n".to_vec(),
        _ => b"what?\n".to_vec(),
    }
}
