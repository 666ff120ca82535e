//! A gateway's outbox: packet files that are put into a folder are deposited, whenever the swarm can be
//! reached, and moved away once every packet has its receipt.
//!
//! ```text
//! <folder>/outbox/           put packet files here, by a rename from beside: a file that is still
//!                            being written is taken as damaged only after its size has stood still
//! <folder>/outbox/done/      deposited: every packet was acknowledged
//! <folder>/outbox/rejected/  files with packets that were refused, each with a text that says why
//! ```
//!
//! A crash at any moment deposits a file again, which changes nothing: replicas know packets by id.

use super::deposit::{self, DepositError, Summary};
use crate::domain::Domain;
use crate::net::NetMailbox;
use crate::packet::PacketFile;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Time between two looks into the folder.
const LOOK: Duration = Duration::from_secs(1);
/// Pause after a deposit that was not acknowledged; doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_LAST: Duration = Duration::from_secs(60);
/// A file that cannot be read is given up when it has not changed for this time.
const SETTLED: Duration = Duration::from_secs(10);

/// The outbox cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    #[error("outbox {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("a gateway needs --domain: the domain file says at which addresses its packets lie")]
    NoDomain,
}

/// Packet files on their way.
pub struct Outbox {
    folder: PathBuf,
    domains: Vec<Domain>,
    mailbox: NetMailbox,
}

impl Outbox {
    /// Makes the folders where they are missing.
    ///
    /// # Errors
    /// I/O; no domain.
    pub fn open(folder: &Path, domains: Vec<Domain>, mailbox: NetMailbox) -> Result<Outbox, OutboxError> {
        if domains.is_empty() {
            return Err(OutboxError::NoDomain);
        }
        let folder = folder.join("outbox");
        for part in ["done", "rejected"] {
            let path = folder.join(part);
            std::fs::create_dir_all(&path).map_err(|source| OutboxError::Io { path, source })?;
        }
        Ok(Outbox { folder, domains, mailbox })
    }

    /// Deposits what is there and what comes, without end.
    pub async fn run(self) {
        let mut pause = LOOK;
        loop {
            let files = match self.files() {
                Ok(files) => files,
                Err(error) => {
                    tracing::error!(%error, "the outbox cannot be read; it is tried again");
                    BTreeMap::new()
                }
            };
            let mut failed = false;
            for (path, changed) in files {
                failed |= !self.send(&path, changed).await;
            }
            pause = match failed {
                true => (pause * 2).clamp(RETRY_FIRST, RETRY_LAST),
                false => LOOK,
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Packet files that wait, by name, with the time of their last change.
    fn files(&self) -> Result<BTreeMap<PathBuf, SystemTime>, OutboxError> {
        let io = |source| OutboxError::Io { path: self.folder.clone(), source };
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(&self.folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|extension| extension == "qpk")
                // A file that has been taken away meanwhile is none of ours.
                && let Ok(metadata) = path.metadata()
                && metadata.is_file()
            {
                files.insert(path, metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH));
            }
        }
        Ok(files)
    }

    /// Whether the file is out of the way.
    async fn send(&self, path: &Path, changed: SystemTime) -> bool {
        let name = path.display();
        let result = match self.domain(path) {
            Ok(domain) => deposit::file(path, domain, &self.mailbox, |_| ()).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(summary) if summary.rejected == 0 => {
                tracing::info!(file = %name, stored = summary.stored, duplicate = summary.duplicate, "deposited");
                self.put_away(path, "done", None)
            }
            Ok(summary) => {
                tracing::warn!(file = %name, rejected = summary.rejected, "packets were refused");
                self.put_away(path, "rejected", Some(reasons(&summary)))
            }
            Err(error) if error.is_input() => {
                if changed.elapsed().unwrap_or_default() < SETTLED {
                    return true;
                }
                tracing::warn!(file = %name, %error, "a file in the outbox is no packet file of these domains");
                self.put_away(path, "rejected", Some(format!("{error}\n")))
            }
            Err(error) => {
                tracing::warn!(file = %name, %error, "not deposited yet; it is tried again");
                false
            }
        }
    }

    /// The domain of a file's packets; the first where none is its own, for the error.
    fn domain(&self, path: &Path) -> Result<&Domain, DepositError> {
        let schema = PacketFile::open(path)?.schema;
        let own = self.domains.iter().find(|domain| domain.schema.id() == schema);
        Ok(own.unwrap_or(&self.domains[0]))
    }

    fn put_away(&self, path: &Path, to: &str, reasons: Option<String>) -> bool {
        let Some(name) = path.file_name() else { return true };
        let target = self.folder.join(to).join(name);
        let moved = match reasons {
            Some(text) => std::fs::write(target.with_extension("txt"), text),
            None => Ok(()),
        };
        let moved = moved.and_then(|()| std::fs::rename(path, &target));
        if let Err(error) = &moved {
            let name = path.display();
            tracing::error!(file = %name, %error, "a deposited file cannot be moved away; it is deposited again");
        }
        moved.is_ok()
    }
}

fn reasons(summary: &Summary) -> String {
    let mut text = format!(
        "{} stored, {} duplicate, {} rejected; the first of them:\n",
        summary.stored, summary.duplicate, summary.rejected
    );
    for (index, reason) in &summary.reasons {
        // Writing into a string does not fail.
        let _ = writeln!(text, "packet {index}: {reason}");
    }
    text
}
