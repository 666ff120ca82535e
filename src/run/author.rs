//! An author's secret and sequence counter on disk.
//!
//! Two packets with one (author, sequence) prove that an author says different things to different
//! replicas. So numbers are reserved durably before they are used, under a lock that other processes
//! with the same file wait for: after a crash some are skipped, none is used twice.

use super::files::{self, Readers};
use crate::packet::{AuthorKey, Id, hex, unhex};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Version of the author file.
const FORMAT: u32 = 1;

/// The author file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorError {
    #[error("author file {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error(
        "author file {path}: {problem}; restore it from a backup, or name another file to become a new author"
    )]
    Damaged { path: PathBuf, problem: String },
    #[error("author file {path} has format {found}; this program reads format {FORMAT}")]
    Format { path: PathBuf, found: u32 },
    #[error("author file {path}: all sequence numbers are used up; name another file to become a new author")]
    Exhausted { path: PathBuf },
}

#[derive(Serialize, Deserialize)]
struct Content {
    format: u32,
    /// ed25519 seed, hexadecimal.
    seed: String,
    next_sequence: u32,
}

/// An author file: JSON, readable by its owner only.
#[derive(Debug)]
pub struct AuthorFile {
    path: PathBuf,
    seed: [u8; 32],
    next_sequence: u32,
}

impl AuthorFile {
    /// Opens an author file, or makes a new author where there is none.
    ///
    /// # Errors
    /// I/O; a damaged file or one of another format, which is left as it is.
    pub fn open(path: &Path) -> Result<AuthorFile, AuthorError> {
        let _lock = lock(path)?;
        match AuthorFile::read(path)? {
            Some(file) => Ok(file),
            None => AuthorFile::create(path),
        }
    }

    /// The author key of an author file, which stays as it is; `None` where there is no file.
    ///
    /// # Errors
    /// As [`AuthorFile::open`].
    pub fn public(path: &Path) -> Result<Option<Id>, AuthorError> {
        Ok(AuthorFile::read(path)?.map(|file| *file.key().public()))
    }

    fn read(path: &Path) -> Result<Option<AuthorFile>, AuthorError> {
        let damaged = |problem: String| AuthorError::Damaged { path: path.into(), problem };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(AuthorError::Io { path: path.into(), source }),
        };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => {
                let found = u32::try_from(format).unwrap_or(u32::MAX);
                return Err(AuthorError::Format { path: path.into(), found });
            }
            None => return Err(damaged("has no `format`".into())),
        }
        let content: Content = serde_json::from_value(value).map_err(|e| damaged(e.to_string()))?;
        let seed = unhex(&content.seed).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let seed = seed.ok_or_else(|| damaged("`seed` is not 64 hexadecimal digits".into()))?;
        Ok(Some(AuthorFile { path: path.into(), seed, next_sequence: content.next_sequence }))
    }

    fn create(path: &Path) -> Result<AuthorFile, AuthorError> {
        let mut seed = [0; 32];
        rand::rng().fill_bytes(&mut seed);
        let file = AuthorFile { path: path.into(), seed, next_sequence: 0 };
        file.save()?;
        Ok(file)
    }

    pub fn key(&self) -> AuthorKey {
        AuthorKey::from_seed(self.seed)
    }

    /// Reserves `count` sequence numbers and gives the first one; they are on disk when this returns.
    ///
    /// # Errors
    /// I/O, or no numbers are left.
    pub fn reserve(&mut self, count: u32) -> Result<u32, AuthorError> {
        let _lock = lock(&self.path)?;
        // Another process may have reserved since.
        let first = AuthorFile::read(&self.path)?.map_or(self.next_sequence, |file| file.next_sequence);
        let next = first.checked_add(count);
        self.next_sequence = next.ok_or_else(|| AuthorError::Exhausted { path: self.path.clone() })?;
        self.save()?;
        Ok(first)
    }

    fn save(&self) -> Result<(), AuthorError> {
        let content = Content { format: FORMAT, seed: hex(&self.seed), next_sequence: self.next_sequence };
        let io = |source| AuthorError::Io { path: self.path.clone(), source };
        let mut bytes = serde_json::to_vec_pretty(&content).map_err(|error| io(error.into()))?;
        bytes.push(b'\n');
        files::replace(&self.path, &bytes, Readers::Owner).map_err(io)
    }
}

fn lock(path: &Path) -> Result<std::fs::File, AuthorError> {
    files::lock(path).map_err(|source| AuthorError::Io { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_users_of_one_file_never_get_the_same_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("author.json");
        let mut files = [AuthorFile::open(&path).unwrap(), AuthorFile::open(&path).unwrap()];
        assert_eq!(files[0].key().public(), files[1].key().public());
        let workers = files.each_mut().map(|file| {
            let mut file = AuthorFile { path: file.path.clone(), ..*file };
            std::thread::spawn(move || (0..50).map(|_| file.reserve(3).unwrap()).collect::<Vec<u32>>())
        });
        let mut all: Vec<u32> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).map(|i| 3 * i).collect::<Vec<u32>>());
    }

    #[test]
    fn numbers_are_never_given_twice_and_the_key_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("author.json");
        let mut file = AuthorFile::open(&path).unwrap();
        let key = *file.key().public();
        assert_eq!((file.reserve(10).unwrap(), file.reserve(5).unwrap()), (0, 10));
        let mut again = AuthorFile::open(&path).unwrap();
        assert_eq!((*again.key().public(), again.reserve(1).unwrap()), (key, 15));
        assert!(matches!(again.reserve(u32::MAX), Err(AuthorError::Exhausted { .. })));
    }

    #[test]
    fn damaged_and_foreign_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("author.json");
        for (text, expected) in [
            ("{", "restore it from a backup"),
            ("{\"format\":2}", "has format 2"),
            ("{\"format\":1,\"seed\":\"00\",\"next_sequence\":1}", "64 hexadecimal digits"),
            ("{}", "has no `format`"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = AuthorFile::open(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
