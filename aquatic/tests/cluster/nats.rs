//! NATS servers of tests.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Folder of tools in the target directory that `scripts/test` installs.
const TOOL: &str = "tools/nats-server-2.15.1/bin/nats-server";

/// Path of the program: what the environment names, or what `scripts/test` has installed.
pub(crate) fn program() -> Option<PathBuf> {
    let named = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    let own = std::env::current_exe().unwrap();
    // Above the directory of the profile and that of the tests.
    let installed = own.ancestors().skip(2).map(|target| target.join(TOOL)).find(|path| path.exists());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path =
        std::env::split_paths(&path).map(|path| path.join("nats-server")).find(|path| path.exists());
    named.or(installed).or(in_path)
}

/// A running server. Ended when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Server {
    /// Starts a server on a free port of loopback.
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let (child, port) = try_spawn(program, -1, &arguments).expect("the server starts");
        Self { child, port, program: program.to_owned(), arguments }
    }

    /// The URL of the server.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends the server.
    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port.
    pub(crate) fn restart(&mut self) {
        self.stop();
        // Somebody may have been given the port for a moment.
        let again = || try_spawn(&self.program, i32::from(self.port), &self.arguments);
        let started = std::iter::repeat_with(again).take(50).flatten().next();
        (self.child, self.port) = started.expect("the port is free again");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `None` if it ends before it is ready.
#[allow(clippy::disallowed_methods, reason = "the test waits for another process")]
fn try_spawn(program: &Path, port: i32, arguments: &[String]) -> Option<(Child, u16)> {
    let mut child = Command::new(program)
        .args(["-a", "127.0.0.1", "-p", &port.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut port = None;
    let mut line = String::new();
    while log.read_line(&mut line).unwrap() > 0 {
        if let Some((_, address)) = line.split_once("Listening for client connections on ") {
            port = address.trim().rsplit(':').next().map(|port| port.parse().unwrap());
        }
        if line.contains("Server is ready") {
            break;
        }
        line.clear();
    }
    let Some(port) = port else {
        let _ = child.wait();
        std::thread::sleep(std::time::Duration::from_millis(100));
        return None;
    };
    // The server must not wait for a reader of its log.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    Some((child, port))
}

/// A secret of a cluster in a file.
pub(crate) fn secret(directory: &Path, name: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join(name);
    if path.exists() {
        // A node that is starting may be reading it.
        return path;
    }
    fs::write(&path, format!("the secret of the tests is called {name}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}
