//! Opening what a URL names, and saying what is wrong there.

use crate::mailbox::{MailboxError, with_causes};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreScheme, RetryConfig};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a request to a server is tried again.
const RETRY: Duration = Duration::from_secs(20);

/// A place for objects.
pub struct Place {
    pub store: Arc<dyn ObjectStore>,
    /// Everything lies below it.
    pub root: Path,
    /// As people write it.
    pub url: String,
    /// The folder, if the place is one of this machine.
    pub folder: Option<PathBuf>,
}

/// Where mailboxes can lie, for people.
const FORMS: &str = "write file:///FOLDER for a shared folder, or s3://BUCKET/PREFIX for a bucket";

impl Place {
    /// Opens `file:///folder`, `s3://bucket/prefix` or `memory:///`; a bucket's region, endpoint and
    /// credentials come from the environment (`AWS_*`).
    ///
    /// # Errors
    /// Another URL; a folder that is not there; settings of a bucket that are missing.
    pub fn open(url: &str) -> Result<Place, MailboxError> {
        let refuse = |problem: String, remedy: &str| MailboxError::Objects {
            url: url.into(),
            problem,
            remedy: remedy.into(),
        };
        let (scheme, root) = parse(url)?;
        let mut folder = None;
        let (store, root): (Arc<dyn ObjectStore>, Path) = match scheme {
            ObjectStoreScheme::Local => {
                let path = match root.as_ref() {
                    "" => PathBuf::from("/"),
                    _ => LocalFileSystem::new()
                        .path_to_filesystem(&root)
                        .map_err(|error| refuse(error.to_string(), "name another folder"))?,
                };
                if !path.is_dir() {
                    return Err(refuse("no such folder".into(), "make it first; is it mounted?"));
                }
                let store = LocalFileSystem::new_with_prefix(&path)
                    .map_err(|error| refuse(error.to_string(), "may this user read the folder?"))?;
                folder = Some(path);
                // Acknowledged means synced.
                (Arc::new(store.with_fsync(true)), Path::default())
            }
            ObjectStoreScheme::Memory => (Arc::new(InMemory::new()), root),
            ObjectStoreScheme::AmazonS3 => {
                let retry = RetryConfig { max_retries: 4, retry_timeout: RETRY, ..RetryConfig::default() };
                let store = AmazonS3Builder::from_env().with_url(url).with_retry(retry).build();
                let remedy = "set AWS_REGION or AWS_ENDPOINT, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
                (Arc::new(store.map_err(|error| refuse(error.to_string(), remedy))?), root)
            }
            _ => return Err(unknown(url)),
        };
        Ok(Place { store, root, url: url.into(), folder })
    }

    /// The error of an operation, with what to do about it.
    pub fn failed(&self, error: Error) -> MailboxError {
        let remedy = match &error {
            Error::InvalidPath { .. } => "a file there has a name that cannot be read: remove it",
            _ if self.folder.is_some() => "is the folder still there, and may this user read and write it?",
            Error::NotFound { .. } => "is there such a bucket? make it first",
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do there"
            }
            Error::NotImplemented { .. } | Error::NotSupported { .. } => {
                "the server has to support conditional puts; set AWS_CONDITIONAL_PUT=etag"
            }
            _ => {
                "is the server reachable? AWS_ENDPOINT and AWS_REGION name it; plain http needs AWS_ALLOW_HTTP=true"
            }
        };
        MailboxError::Objects { url: self.url.clone(), problem: with_causes(&error), remedy: remedy.into() }
    }
}

/// The scheme of a URL and the path in it.
///
/// # Errors
/// None that mailboxes can lie at.
pub fn parse(url: &str) -> Result<(ObjectStoreScheme, Path), MailboxError> {
    use ObjectStoreScheme::{AmazonS3, Local, Memory};
    let parsed = url.parse().ok().and_then(|parsed| ObjectStoreScheme::parse(&parsed).ok());
    parsed.filter(|(scheme, _)| matches!(scheme, AmazonS3 | Local | Memory)).ok_or_else(|| unknown(url))
}

fn unknown(url: &str) -> MailboxError {
    let problem = "is no place for mailboxes: unknown scheme, or no bucket".into();
    MailboxError::Objects { url: url.into(), problem, remedy: FORMS.into() }
}
