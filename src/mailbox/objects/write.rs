//! Deposits: one segment per mailbox, numbered by this writer.

use super::segment::{self, Name};
use super::{Inner, ObjectMailbox};
use crate::address::Address;
use crate::limits::{SEGMENT_PACKETS_MAX, WRITTEN_IDS_MAX, WRITTEN_MAILBOXES_MAX};
use crate::mailbox::{MailboxError, Receipt};
use crate::packet::{Id, Verified};
use crate::store::expired;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::{Error, ObjectStoreExt, PutMode, PutPayload};
use rand::Rng;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Mailboxes that are written to at a time.
const PUTS: usize = 16;

/// What this writer has written.
pub struct Writer {
    lanes: Mutex<Lanes>,
    written: Mutex<Written>,
}

struct Lanes {
    writer: Id,
    by_address: HashMap<Address, Arc<tokio::sync::Mutex<Lane>>>,
}

/// The sequence of one mailbox; locked while a segment is put, so that none overtakes another.
struct Lane {
    writer: Id,
    next: u64,
}

/// The packets written last, in two generations.
#[derive(Default)]
struct Written {
    new: HashSet<(Address, Id)>,
    old: HashSet<(Address, Id)>,
}

impl Written {
    fn contains(&self, packet: &(Address, Id)) -> bool {
        self.new.contains(packet) || self.old.contains(packet)
    }

    fn insert(&mut self, packet: (Address, Id)) {
        if self.new.len() >= WRITTEN_IDS_MAX {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(packet);
    }
}

impl Writer {
    pub fn new() -> Writer {
        let lanes = Lanes { writer: random_id(), by_address: HashMap::new() };
        Writer { lanes: Mutex::new(lanes), written: Mutex::default() }
    }

    fn lane(&self, address: &Address) -> Arc<tokio::sync::Mutex<Lane>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.by_address.len() >= WRITTEN_MAILBOXES_MAX && !lanes.by_address.contains_key(address) {
            // To forget a sequence is to become another writer; segments on their way keep the old name.
            *lanes = Lanes { writer: random_id(), by_address: HashMap::new() };
        }
        let writer = lanes.writer;
        let new = || Arc::new(tokio::sync::Mutex::new(Lane { writer, next: 1 }));
        lanes.by_address.entry(*address).or_insert_with(new).clone()
    }
}

fn random_id() -> Id {
    let mut id = [0; 32];
    rand::rng().fill_bytes(&mut id);
    id
}

impl ObjectMailbox {
    pub(super) async fn put(&self, batch: &[(Address, Verified)]) -> Result<Vec<Receipt>, MailboxError> {
        let batch = Arc::new(batch.to_vec());
        let checked = batch.clone();
        let mut receipts = self.off_runtime(move |inner| inner.admit(&checked)).await?;
        let mut mailboxes: BTreeMap<Address, Vec<usize>> = BTreeMap::new();
        for (index, receipt) in receipts.iter().enumerate() {
            if *receipt == Receipt::Stored {
                mailboxes.entry(batch[index].0).or_default().push(index);
            }
        }
        let puts: Vec<_> = mailboxes
            .into_iter()
            .map(|(address, indices)| {
                let batch = &batch;
                async move { self.put_into(address, batch, indices).await }
            })
            .collect();
        let duplicates: Vec<Vec<usize>> = stream::iter(puts).buffer_unordered(PUTS).try_collect().await?;
        for index in duplicates.into_iter().flatten() {
            receipts[index] = Receipt::Duplicate;
        }
        Ok(receipts)
    }

    /// Puts packets of the batch into one mailbox; gives the indices of those that are there already.
    async fn put_into(
        &self,
        address: Address,
        batch: &[(Address, Verified)],
        indices: Vec<usize>,
    ) -> Result<Vec<usize>, MailboxError> {
        let writer = &self.inner.writer;
        let lane = writer.lane(&address);
        let mut lane = lane.lock().await;
        let (mut fresh, mut duplicates, mut ids) = (Vec::new(), Vec::new(), HashSet::new());
        {
            let written = writer.written.lock().unwrap_or_else(PoisonError::into_inner);
            for index in indices {
                let id = batch[index].1.id();
                match written.contains(&(address, id)) || !ids.insert(id) {
                    true => duplicates.push(index),
                    false => fresh.push((id, batch[index].1)),
                }
            }
        }
        for segment in fresh.chunks(SEGMENT_PACKETS_MAX) {
            self.put_segment(&mut lane, address, segment).await?;
            let mut written = writer.written.lock().unwrap_or_else(PoisonError::into_inner);
            segment.iter().for_each(|(id, _)| written.insert((address, *id)));
        }
        Ok(duplicates)
    }

    /// Puts one segment under the next free number.
    async fn put_segment(
        &self,
        lane: &mut Lane,
        address: Address,
        packets: &[(Id, Verified)],
    ) -> Result<(), MailboxError> {
        let place = &self.inner.place;
        loop {
            let name = Name { address, writer: lane.writer, sequence: lane.next };
            let (path, bytes) =
                (name.path(&place.root), name.encode(packets.iter().map(|(_, packet)| packet)));
            let payload = PutPayload::from(bytes.clone());
            let taken = match place.store.put_opts(&path, payload, PutMode::Create.into()).await {
                Ok(_) => false,
                Err(Error::AlreadyExists { .. }) => true,
                Err(error) => return Err(place.failed(error)),
            };
            // An attempt whose answer was lost may have arrived after all.
            let ours = !taken || {
                let object = place.store.get(&path).await.map_err(|error| place.failed(error))?;
                object.meta.size == bytes.len() as u64
                    && object.bytes().await.map_err(|error| place.failed(error))? == bytes
            };
            if ours && (taken || lane.next == 1) {
                self.off_runtime(move |inner| inner.sync_folders(&name)).await??;
            }
            lane.next += 1;
            if ours {
                return Ok(());
            }
        }
    }
}

impl Inner {
    /// `Stored` for what may be written.
    fn admit(&self, batch: &[(Address, Verified)]) -> Vec<Receipt> {
        let now_ms = self.clock.now_ms();
        let one =
            |(address, packet): &(Address, Verified)| match self.admission.check(now_ms, address, packet) {
                Ok(()) if expired(packet, now_ms) => Receipt::Rejected("obsolete: it has expired".into()),
                Ok(()) => Receipt::Stored,
                Err(refusal) => Receipt::Rejected(refusal.to_string()),
            };
        batch.iter().map(one).collect()
    }

    /// Syncs the folders down to a segment: another task, or a program that crashed, may have made them
    /// and not synced them.
    fn sync_folders(&self, name: &Name) -> Result<(), MailboxError> {
        let Some(root) = self.place.folder.as_ref().filter(|_| cfg!(unix)) else { return Ok(()) };
        let writer = segment::folder(&self.place.root, &name.address, &name.writer);
        let mut folder = root.join(writer.as_ref());
        loop {
            std::fs::File::open(&folder).and_then(|folder| folder.sync_all()).map_err(|error| {
                MailboxError::Objects {
                    url: self.place.url.clone(),
                    problem: format!("{} cannot be synced: {error}", folder.display()),
                    remedy: "deposit again when the disk is well".into(),
                }
            })?;
            if folder == *root || !folder.pop() {
                return Ok(());
            }
        }
    }
}
