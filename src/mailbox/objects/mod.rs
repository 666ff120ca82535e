//! Mailboxes in a shared folder or a bucket: immutable segments, nobody in between.
//!
//! ```text
//! qis1/<address>/<writer>/<sequence>.qpk    64, 64 and 16 lower-case hexadecimal digits
//! ```
//!
//! Every [`ObjectMailbox`] is a writer of its own, with a random id and its own ascending sequence in
//! each mailbox; segment n + 1 is put only after n, and nothing is ever overwritten. So a reader's
//! place is one [`crate::store::Cursor`] per writer (sequence = last segment read), beside the cursors of
//! other backends in the same [`Position`]: the backend may change in the middle of a run.
//!
//! A folder keeps no rules: whoever may write there may put anything. So the reader checks what a
//! replica checks elsewhere: format, signature, [`Admission`], expiry. What fails is named in the log and
//! passed over. Supersede and retraction are decided by the reader too ([`crate::merge::live()`]), and a
//! packet that two writers have put comes twice if two pulls meet the two copies: merges take packets by
//! id. Who may write to the place can also remove or hide packets; where that matters, use the swarm.
//!
//! The place must show what was put at once: local disks, NFS, SMB and S3 do. A folder that a program
//! copies between machines file by file does not promise the order, and is not for this.
//!
//! - [`segment`]: names and bytes
//! - [`place`]: what a URL opens
//! - [`read`], [`write`]: pull and deposit

mod place;
mod read;
mod segment;
mod write;

use super::{Admission, Clock, Mailbox, MailboxError, Position, Pulled, Receipt};
use crate::address::Address;
use crate::packet::Verified;
use crate::store::Stat;
use object_store::ObjectStore;
use object_store::path::Path;
use place::Place;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use write::Writer;

/// Sequences of a writer never start anew: a new start is a new writer.
const EPOCH: u64 = 1;
/// Objects whose faults are remembered, so that each is told once.
const TOLD_MAX: usize = 4_096;

/// Mailboxes in a place for objects. Cheap to clone; clones are the same writer.
///
/// Receipts say `Duplicate` for a packet that this writer put into the mailbox before, as long as it
/// remembers (the last 65,536 packets at least), and `Stored` otherwise.
#[derive(Clone)]
pub struct ObjectMailbox {
    inner: Arc<Inner>,
}

struct Inner {
    place: Place,
    admission: Admission,
    clock: Box<dyn Clock>,
    writer: Writer,
    /// Objects whose faults were told.
    told: Mutex<HashSet<String>>,
}

impl ObjectMailbox {
    /// Mailboxes at `file:///folder`, `s3://bucket/prefix` or `memory:///`. A bucket's region, endpoint
    /// and credentials come from the environment: `AWS_REGION`, `AWS_ENDPOINT`, `AWS_ACCESS_KEY_ID`, ...
    ///
    /// # Errors
    /// Another URL; a folder that is not there; settings of a bucket that are missing.
    pub fn open(
        url: &str,
        admission: Admission,
        clock: impl Clock + 'static,
    ) -> Result<ObjectMailbox, MailboxError> {
        Ok(ObjectMailbox::at(Place::open(url)?, admission, clock))
    }

    /// Whether a URL has a form that [`ObjectMailbox::open`] knows; nothing is opened.
    ///
    /// # Errors
    /// It has not.
    pub fn check_url(url: &str) -> Result<(), MailboxError> {
        place::parse(url).map(|_| ())
    }

    /// Mailboxes in any store that shows what was put at once and puts only where nothing is
    /// ([`object_store::PutMode::Create`]). A `LocalFileSystem` must sync
    /// (`with_fsync(true)`), or receipts promise too much.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        admission: Admission,
        clock: impl Clock + 'static,
    ) -> ObjectMailbox {
        let url = store.to_string();
        ObjectMailbox::at(Place { store, root: Path::default(), url, folder: None }, admission, clock)
    }

    fn at(place: Place, admission: Admission, clock: impl Clock + 'static) -> ObjectMailbox {
        let (writer, told) = (Writer::new(), Mutex::default());
        ObjectMailbox { inner: Arc::new(Inner { place, admission, clock: Box::new(clock), writer, told }) }
    }

    /// Runs work for the processor where it blocks no asynchronous task.
    async fn off_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Result<T, MailboxError> {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return Ok(work(&self.inner));
        };
        let inner = self.inner.clone();
        match runtime.spawn_blocking(move || work(&inner)).await {
            Ok(result) => Ok(result),
            Err(e) if e.is_cancelled() => Err(MailboxError::Stopping),
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        }
    }
}

impl Inner {
    /// Tells of an object that cannot be used, once.
    fn tell(&self, object: &Path, problem: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD_MAX && told.insert(object.to_string()) {
            let url = &self.place.url;
            tracing::warn!(%url, %object, problem, "an object among the mailboxes is passed over");
        }
    }
}

impl Mailbox for ObjectMailbox {
    /// One segment per mailbox and deposit, or several of 8,192 packets. After an error some of them may
    /// have been put: depositing again is harmless.
    async fn deposit(&self, batch: &[(Address, Verified)]) -> Result<Vec<Receipt>, MailboxError> {
        self.put(batch).await
    }

    async fn pull(&self, address: &Address, from: &Position) -> Result<Pulled, MailboxError> {
        self.read(address, from).await
    }

    /// Counts by reading the whole mailbox; what is superseded or retracted counts too.
    async fn stat(&self, address: &Address) -> Result<Stat, MailboxError> {
        let pulled = self.read(address, &Position::default()).await?;
        let mut stat = Stat::default();
        pulled.packets.iter().for_each(|packet| stat.add(packet.kind()));
        Ok(stat)
    }
}
