//! The disk of a simulated node: a store in memory that survives a crash of its node, and that can be
//! torn or wiped.

use crate::address::Address;
use crate::limits::{COMPARE_MAILBOXES_MAX, FRAME_PACKETS_MAX};
use crate::node::{Held, NodeKey, Refused};
use crate::packet::{Id, Verified};
use crate::store::{Cursor, Deposited, Digest, MemoryStore, PacketStore, Range};
use std::collections::BTreeSet;

const NEVER_FAILS: &str = "a store in memory fails on expired cursors only";

pub(super) struct Disk {
    local: NodeKey,
    /// Stands in cursors; another one after every loss.
    pub epoch: u64,
    store: MemoryStore,
    /// What a planted bug keeps beside the store.
    pub kept: BTreeSet<(Address, Id)>,
}

/// Where a page ends, whether more follows, and its packets.
pub(super) type PageOf = (Cursor, bool, Vec<Verified>);

impl Disk {
    pub fn new(local: NodeKey, epoch: u64) -> Disk {
        Disk { local, epoch, store: MemoryStore::new(local.0), kept: BTreeSet::new() }
    }

    /// Synced when it returns. `wall_ms` is the node's own clock, here and below.
    pub fn deposit(&self, wall_ms: u64, batch: &[(Address, Verified)]) -> Vec<Deposited> {
        self.store.deposit(wall_ms, batch).expect(NEVER_FAILS)
    }

    /// `None` for a cursor that has expired.
    pub fn pull(
        &self,
        wall_ms: u64,
        address: &Address,
        cursor: Option<Cursor>,
        max: usize,
    ) -> Option<PageOf> {
        let start = self.store.start();
        let cursor = match cursor {
            Some(given) if (given.replica, given.epoch) != (self.local.0, self.epoch) => return None,
            cursor => cursor.map(|given| Cursor { sequence: given.sequence, ..start }),
        };
        self.store.set_now(wall_ms);
        let page = self.store.pull(address, cursor, max).ok()?;
        Some((self.cursor(page.cursor.sequence), page.more, page.packets))
    }

    pub fn cursor(&self, sequence: u64) -> Cursor {
        Cursor { replica: self.local.0, epoch: self.epoch, sequence }
    }

    /// Digest of a mailbox, and the cursor behind its last packet.
    pub fn stat(&self, wall_ms: u64, address: &Address) -> (Digest, Cursor) {
        self.store.set_now(wall_ms);
        let end = self.store.end(address).expect(NEVER_FAILS);
        (self.store.digest(address).expect(NEVER_FAILS), self.cursor(end.sequence))
    }

    pub fn range(&self, wall_ms: u64, address: &Address, prefix: &[u8]) -> Range {
        self.store.set_now(wall_ms);
        self.store.range(address, prefix).expect(NEVER_FAILS)
    }

    pub fn fetch(&self, wall_ms: u64, address: &Address, ids: &[Id]) -> Vec<Verified> {
        self.store.set_now(wall_ms);
        self.store.fetch(address, ids).expect(NEVER_FAILS)
    }

    /// A frame's worth of digests of the mailboxes after an address, and where to go on.
    pub fn digests(&self, wall_ms: u64, after: Option<Address>) -> (Vec<(Address, Digest)>, Option<Address>) {
        self.store.set_now(wall_ms);
        let mut page = self.store.digests(after.as_ref(), COMPARE_MAILBOXES_MAX).expect(NEVER_FAILS);
        let next = page.last().map(|(address, _)| *address).filter(|_| page.len() == COMPARE_MAILBOXES_MAX);
        page.retain(|(_, digest)| digest.count > 0);
        (page, next)
    }

    /// Whether a packet is here and has not expired by the node's clock.
    pub fn holds(&self, wall_ms: u64, address: &Address, id: &Id) -> bool {
        self.kept.contains(&(*address, *id))
            || matches!(self.range(wall_ms, address, &id[..31]), Range::Ids(ids) if ids.contains(id))
    }

    pub fn sweep(&self, wall_ms: u64) {
        self.store.sweep(wall_ms).expect(NEVER_FAILS);
    }

    /// Removes a mailbox that others hold, if its digest is still this one; says how many packets went.
    pub fn leave(&self, wall_ms: u64, address: &Address, digest: &Digest) -> u64 {
        self.store.leave(wall_ms, address, digest).expect(NEVER_FAILS)
    }

    /// Everything on the disk, each mailbox in the order of arrival.
    pub fn records(&self) -> Vec<(Address, Verified)> {
        self.store.set_now(0);
        let mut records = Vec::new();
        for (address, _) in self.store.addresses().expect(NEVER_FAILS) {
            let page = self.store.pull(&address, None, usize::MAX).expect(NEVER_FAILS);
            records.extend(page.packets.into_iter().map(|packet| (address, packet)));
        }
        records
    }

    /// Becomes a disk with these records alone; what the store knew beside them is lost too.
    pub fn rebuild(&mut self, epoch: u64, records: &[(Address, Verified)]) {
        *self = Disk::new(self.local, epoch);
        records.chunks(FRAME_PACKETS_MAX).for_each(|batch| {
            self.deposit(0, batch);
        });
    }
}

/// One mailbox of a disk, as a comparison sees it.
pub(super) struct OnDisk<'a> {
    pub disk: &'a Disk,
    pub wall_ms: u64,
    pub address: &'a Address,
    /// What the node has refused, and does not fetch again.
    pub refused: &'a Refused,
}

impl Held for OnDisk<'_> {
    fn parts(&self, prefix: &[u8]) -> Box<[Digest; 256]> {
        self.disk.range(self.wall_ms, self.address, prefix).into_parts(prefix.len())
    }

    fn knows(&self, id: &Id) -> bool {
        self.refused.contains(self.address, id)
            || matches!(self.disk.range(self.wall_ms, self.address, &id[..31]), Range::Ids(ids) if ids.contains(id))
    }
}
