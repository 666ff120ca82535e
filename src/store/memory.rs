//! The twin in memory: a [`Ledger`] and the packets of each mailbox, to be read beside
//! [`super::DiskStore`].

use super::{Caps, Cursor, Deposited, Digest, Ledger, PacketStore, Page, Range, Stat, StoreError};
use crate::address::Address;
use crate::packet::{Id, Verified};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A store that forgets with its process.
#[derive(Debug)]
pub struct MemoryStore {
    start: Cursor,
    caps: Caps,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    now_ms: u64,
    mailboxes: BTreeMap<Address, Mailbox>,
}

#[derive(Debug, Default)]
struct Mailbox {
    ledger: Ledger,
    /// Of every id that the ledger holds.
    packets: BTreeMap<Id, Verified>,
}

impl Mailbox {
    fn deposit(&mut self, now_ms: u64, packet: &Verified) -> Deposited {
        let (deposited, gone) = self.ledger.deposit(now_ms, packet);
        if let Some(gone) = gone {
            self.packets.remove(&gone);
        }
        if deposited == Deposited::Stored {
            self.packets.insert(packet.id(), *packet);
        }
        deposited
    }

    fn sweep(&mut self, now_ms: u64) -> u64 {
        let gone = self.ledger.sweep(now_ms);
        gone.iter().for_each(|id| {
            self.packets.remove(id);
        });
        gone.len() as u64
    }
}

impl MemoryStore {
    /// An empty store in epoch 1, without caps.
    pub fn new(replica: Id) -> MemoryStore {
        MemoryStore::with_caps(replica, Caps::default())
    }

    /// An empty store in epoch 1.
    pub fn with_caps(replica: Id, caps: Caps) -> MemoryStore {
        MemoryStore { start: Cursor { replica, epoch: 1, sequence: 0 }, caps, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one mailbox at the time last told; one that nobody has deposited to is empty.
    fn read<T>(&self, address: &Address, read: impl FnOnce(u64, &Mailbox) -> T) -> T {
        let state = self.state();
        match state.mailboxes.get(address) {
            Some(mailbox) => read(state.now_ms, mailbox),
            None => read(state.now_ms, &Mailbox::default()),
        }
    }
}

impl PacketStore for MemoryStore {
    fn deposit(&self, now_ms: u64, batch: &[(Address, Verified)]) -> Result<Vec<Deposited>, StoreError> {
        let mut state = self.state();
        state.now_ms = now_ms;
        let empty = || Mailbox { ledger: Ledger::new(self.caps), ..Mailbox::default() };
        let one = |(address, packet): &(Address, Verified)| {
            state.mailboxes.entry(*address).or_insert_with(empty).deposit(now_ms, packet)
        };
        Ok(batch.iter().map(one).collect())
    }

    fn pull(&self, address: &Address, cursor: Option<Cursor>, max: usize) -> Result<Page, StoreError> {
        self.read(address, |now_ms, Mailbox { ledger, packets }| {
            let mut cursor = self.start.resume(cursor, ledger.last_sequence())?;
            let mut behind = ledger.after(now_ms, cursor.sequence);
            let page: Vec<_> = behind.by_ref().take(max).collect();
            let more = behind.next().is_some();
            cursor.sequence = page.last().map_or(cursor.sequence, |(sequence, _)| *sequence);
            let packets = page.into_iter().map(|(_, id)| packets[id]).collect();
            Ok(Page { packets, cursor, more })
        })
    }

    fn stat(&self, address: &Address) -> Result<Stat, StoreError> {
        Ok(self.read(address, |_, mailbox| mailbox.ledger.stat()))
    }

    fn end(&self, address: &Address) -> Result<Cursor, StoreError> {
        let sequence = self.read(address, |_, mailbox| mailbox.ledger.last_sequence());
        Ok(Cursor { sequence, ..self.start })
    }

    fn set_now(&self, now_ms: u64) {
        self.state().now_ms = now_ms;
    }

    fn sweep(&self, now_ms: u64) -> Result<u64, StoreError> {
        let mut state = self.state();
        state.now_ms = now_ms;
        Ok(state.mailboxes.values_mut().map(|mailbox| mailbox.sweep(now_ms)).sum())
    }

    fn leave(&self, now_ms: u64, address: &Address, digest: &Digest) -> Result<u64, StoreError> {
        let mut state = self.state();
        state.now_ms = now_ms;
        let Some(mailbox) = state.mailboxes.get_mut(address) else { return Ok(0) };
        if mailbox.ledger.digest(now_ms) != *digest {
            return Ok(0);
        }
        let ids: Vec<Id> = mailbox.ledger.ids(now_ms).copied().collect();
        for id in &ids {
            mailbox.ledger.leave(id);
            mailbox.packets.remove(id);
        }
        Ok(ids.len() as u64)
    }

    fn start(&self) -> Cursor {
        self.start
    }

    fn addresses(&self) -> Result<Vec<(Address, Stat)>, StoreError> {
        let state = self.state();
        let heard_of = state.mailboxes.iter().filter(|(_, mailbox)| mailbox.ledger.last_sequence() > 0);
        Ok(heard_of.map(|(address, mailbox)| (*address, mailbox.ledger.stat())).collect())
    }

    fn ids(&self, address: &Address, after: Option<&Id>, max: usize) -> Result<Vec<Id>, StoreError> {
        Ok(self.read(address, |now_ms, mailbox| {
            let ids = mailbox.ledger.ids(now_ms).filter(|id| after.is_none_or(|after| *id > after));
            ids.take(max).copied().collect()
        }))
    }

    fn fetch(&self, address: &Address, ids: &[Id]) -> Result<Vec<Verified>, StoreError> {
        Ok(self.read(address, |now_ms, mailbox| {
            let held = ids.iter().filter_map(|id| mailbox.packets.get(id));
            held.filter(|packet| !super::expired(packet, now_ms)).copied().collect()
        }))
    }

    fn digest(&self, address: &Address) -> Result<Digest, StoreError> {
        Ok(self.read(address, |now_ms, mailbox| mailbox.ledger.digest(now_ms)))
    }

    fn digests(&self, after: Option<&Address>, max: usize) -> Result<Vec<(Address, Digest)>, StoreError> {
        let state = self.state();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = state.mailboxes.range::<Address, _>((from, Bound::Unbounded));
        let digests = all.map(|(address, mailbox)| (*address, mailbox.ledger.digest(state.now_ms)));
        Ok(digests.filter(|(_, digest)| digest.count > 0).take(max).collect())
    }

    fn range(&self, address: &Address, prefix: &[u8]) -> Result<Range, StoreError> {
        Ok(self.read(address, |now_ms, mailbox| mailbox.ledger.range(now_ms, prefix)))
    }
}
