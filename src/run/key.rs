//! A node's own key: 32 secret bytes in `node.key`, readable by its owner alone.

use crate::net::Identity;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file's name inside the store's folder.
pub const KEY_FILE: &str = "node.key";
const SEED_BYTES: usize = 32;

/// Why a node has no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path}: {found} bytes instead of {SEED_BYTES}: not a node key; restore it, or delete it to become a new node"
    )]
    Length { path: PathBuf, found: usize },
    #[error("{path}: other users can read this secret key (mode {mode:o}); run `chmod 600` on it")]
    Readable { path: PathBuf, mode: u32 },
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

/// Reads the key in `folder`, or makes one.
///
/// # Errors
/// I/O; a file of another length, or one that others can read.
pub fn load_or_create(folder: &Path) -> Result<Identity, KeyError> {
    let path = folder.join(KEY_FILE);
    let fail = |source| KeyError::Io { path: path.clone(), source };
    match fs::read(&path) {
        Ok(bytes) => {
            check_mode(&path)?;
            let found = bytes.len();
            let seed = bytes.try_into().map_err(|_| KeyError::Length { path: path.clone(), found })?;
            Ok(Identity::from_seed(seed))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut seed = [0; SEED_BYTES];
            rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut seed)
                .map_err(|error| KeyError::Random(error.to_string()))?;
            // Written aside and renamed: a crash leaves no half key behind.
            let aside = folder.join("node.key.new");
            let mut file = private(&aside).map_err(fail)?;
            file.write_all(&seed).and_then(|()| file.sync_all()).map_err(fail)?;
            fs::rename(&aside, &path).map_err(fail)?;
            #[cfg(unix)]
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)?;
            Ok(Identity::from_seed(seed))
        }
        Err(error) => Err(fail(error)),
    }
}

/// A new, empty file for its owner alone.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// That nobody but its owner can read a secret file.
#[cfg(unix)]
pub(super) fn check_mode(path: &Path) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(path).map_err(|source| KeyError::Io { path: path.into(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 { Err(KeyError::Readable { path: path.into(), mode }) } else { Ok(()) }
}

#[cfg(not(unix))]
pub(super) fn check_mode(_: &Path) -> Result<(), KeyError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let first = load_or_create(folder.path()).unwrap().peer_id();
        assert_eq!(load_or_create(folder.path()).unwrap().peer_id(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load_or_create(other.path()).unwrap().peer_id(), first);

        let path = folder.path().join(KEY_FILE);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            assert!(matches!(load_or_create(folder.path()), Err(KeyError::Readable { mode: 0o644, .. })));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::write(&path, [1; 31]).unwrap();
        assert!(matches!(load_or_create(folder.path()), Err(KeyError::Length { found: 31, .. })));
    }
}
