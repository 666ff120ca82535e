//! Small files that are replaced as a whole, by one process at a time.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// It holds a secret.
    Owner,
    /// Everybody whom the process's umask lets.
    All,
}

/// Waits until no other process uses the file at `path`; until the lock is dropped none will. It lies
/// beside the file, which is replaced at every change.
///
/// # Errors
/// I/O.
pub fn lock(path: &Path) -> io::Result<File> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".lock");
    let file = File::options().create(true).append(true).open(path.with_file_name(name))?;
    file.lock()?;
    Ok(file)
}

/// Puts `bytes` in the place of a file: whatever happens, the old or the new content is there.
///
/// # Errors
/// I/O; the old content is there then.
pub fn replace(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Temporary files are readable by their owner only, and stay so under their new name.
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    #[cfg(unix)]
    if readers == Readers::All {
        builder.permissions(mode);
    }
    #[cfg(not(unix))]
    let _ = readers;
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    // The new name itself must survive a crash.
    File::open(folder)?.sync_all()
}
