//! Serves a constant HTTP response, to see what the connection layer costs by itself: time per request under
//! a load generator, and memory per idle connection.
//!
//! `connections ADDRESS CORES [CERTIFICATE KEY]`; ends at SIGTERM.

use std::net::SocketAddr;
use std::process;
use std::rc::Rc;
use std::time::Duration;

use aquatic_net::proxy::TrustedProxies;
use aquatic_net::tcp::{
    Connection, CoreListeners, Deadlines, HandshakeLimits, ListenOptions, ListenerKind, Listeners, Phase,
    Protocols, SourceSettings, TcpBreakers, TcpSettings, Tls, TlsFiles, serve_tcp,
};
use aquatic_runtime::{Core, CoreService, Engine, EngineConfig};

/// As long as the answer to a usual announce.
const BODY: usize = 320;

fn main() {
    env_logger::init();
    if let Err(error) = start() {
        eprintln!("{error:#}");
        process::exit(1);
    }
    process::exit(0);
}

fn start() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, cores, files @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: connections ADDRESS CORES [CERTIFICATE KEY]");
    };
    let address: SocketAddr = address.parse()?;
    let mut engine = Engine::prepare(EngineConfig { workers: cores.parse()?, ..EngineConfig::default() })?;
    let tls = match files {
        [certificate, key] => {
            Some(Tls::load(TlsFiles { certificate: certificate.into(), private_key: key.into() })?)
        }
        _ => None,
    };
    let settings = TcpSettings {
        protocols: Protocols { first: "http", upgraded: "upgraded" },
        max_connections: 1_000_000,
        evict_idle_when_full: false,
        max_connections_per_address: 0,
        sources: SourceSettings::default(),
        deadlines: Deadlines {
            head: Duration::from_secs(600),
            idle: Duration::from_secs(600),
            ..Deadlines::default()
        },
        trusted_proxies: TrustedProxies::default(),
        proxy_protocol: None,
        tls,
        handshakes: HandshakeLimits { open: 4096, queued: 1024 },
        reply_to_plain: Vec::new(),
    };
    let kind = if settings.tls.is_some() { ListenerKind::Tls } else { ListenerKind::Plain };
    let mut listeners = Listeners::new(engine.cores())?;
    listeners.add(address, kind, &ListenOptions::default(), engine.listeners())?;
    let services = listeners.split().into_iter();
    let services = services.map(|listeners| Constant { listeners, settings: settings.clone() });
    engine.run(services.collect())?;
    Ok(())
}

struct Constant {
    listeners: CoreListeners,
    settings: TcpSettings,
}

impl CoreService for Constant {
    async fn run(self, core: Rc<Core>) -> anyhow::Result<()> {
        serve_tcp(core, self.listeners, self.settings, TcpBreakers::default(), answer).await
    }
}

async fn answer(mut connection: Connection) {
    let mut buffer = Vec::new();
    loop {
        match connection.receive(&mut buffer, 8192).await {
            Ok(1..) => {}
            Ok(0) => return connection.close().await,
            Err(_) => return,
        }
        let Some(end) = buffer.windows(4).position(|end| end == b"\r\n\r\n") else {
            connection.deadline().enter(Phase::Head);
            continue;
        };
        connection.deadline().enter(Phase::Answer);
        let is_last = buffer[..end].windows(5).any(|word| word == b"close");
        buffer.drain(..end + 4);
        let end = if is_last { "Connection: close\r\n" } else { "" };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n{end}\r\n");
        if connection.send(&[head.as_bytes(), &[b'x'; BODY]].concat()).await.is_err() {
            return;
        }
        if is_last || connection.deadline().is_stopping() {
            return connection.close().await;
        }
        buffer = Vec::new();
        connection.deadline().enter(Phase::Idle);
    }
}
