//! The socket file: its owner's alone from the first moment, and gone when the node is.

use super::ServeError;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Bytes of a socket's path that every Unix takes, the closing zero not counted.
const PATH_BYTES_MAX: usize = 103;

/// Removes the file when dropped, unless another has taken its place.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl SocketFile {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            // Left behind it would be taken for stale and replaced.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`; a socket that nobody listens on is replaced.
pub fn bind(path: &Path) -> Result<(SocketFile, UnixListener), ServeError> {
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(ServeError::TooLong { path: path.into() });
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ServeError::NotASocket { path: path.into() });
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(ServeError::InUse { path: path.into() });
        }
        _ => {}
    }
    make(path).map_err(|source| ServeError::Socket { path: path.into(), source })
}

/// Made in a folder that nobody else may enter and moved from there, so that at no moment another
/// user could connect. The name there is shorter than the final one, and so is its path.
fn make(path: &Path) -> io::Result<(SocketFile, UnixListener)> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let closed = tempfile::Builder::new().prefix(".s").rand_bytes(6).tempdir_in(folder)?;
    let made = closed.path().join("s");
    let listener = UnixListener::bind(&made)?;
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&made, path)?;
    let found = std::fs::symlink_metadata(path)?;
    Ok((SocketFile { path: path.into(), file: (found.dev(), found.ino()) }, listener))
}
