//! File of a listening unix socket.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aquatic_runtime::{Periodic, Serving};

/// Removes the file of a unix socket when dropped, unless another file has taken its name, or another process
/// serves the socket. The main thread
/// owns it until the process has stopped ([`Engine::add_periodic`](aquatic_runtime::Engine::add_periodic)).
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    serving: Serving,
}

impl SocketFile {
    /// The file that has just been bound, or was by the process that this one takes over from.
    ///
    /// # Errors
    /// Those of reading its metadata.
    pub(super) fn new(path: &Path, serving: Serving) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: inode(path)?, serving })
    }
}

/// Device and inode.
fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|data| (data.dev(), data.ino()))
}

impl Periodic for SocketFile {
    fn tick(&mut self, _: Duration) {}
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // With dropped privileges or in another root directory the file may be out of reach.
        if !self.serving.is_elsewhere()
            && inode(&self.path).is_ok_and(|inode| inode == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::debug!("cannot remove the unix socket {}: {error}", self.path.display());
        }
    }
}
