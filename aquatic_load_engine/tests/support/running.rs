//! Trackers on connections, plain or with TLS, in the same process as the load tests that are tested with
//! them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A connection of a client.
pub(crate) trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A tracker that runs until it is dropped.
pub(crate) struct Running<S> {
    pub(crate) address: SocketAddr,
    /// What the tracker knows.
    pub(crate) state: Arc<S>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<S> Drop for Running<S> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Lets the thread look at the flag.
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Where a file is that stands beside this one.
pub(crate) fn data(name: &str) -> String {
    format!("{}/../aquatic_load_engine/tests/support/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn server_config() -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(data("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(data("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

impl<S: Default + Send + Sync + 'static> Running<S> {
    /// Starts a tracker that serves each connection on a thread of its own, and reads for so long at most.
    pub(crate) fn start(
        tls: bool,
        read_timeout: Duration,
        serve: impl Fn(Box<dyn Stream>, SocketAddr, Arc<S>) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let state = Arc::new(S::default());
        let (tls, serve) = (tls.then(server_config), Arc::new(serve));
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(&state));
        let thread = std::thread::spawn(move || {
            while let Ok((stream, from)) = listener.accept() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(read_timeout)).unwrap();
                let (state, serve, tls) = (Arc::clone(&shared), Arc::clone(&serve), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(Box::new(stream), from, state),
                    Some(tls) => {
                        let session = ServerConnection::new(tls).unwrap();
                        serve(Box::new(StreamOwned::new(session, stream)), from, state);
                    }
                });
            }
        });
        Self { address, state, stop, thread: Some(thread) }
    }
}
