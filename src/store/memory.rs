//! The twin in memory: the rules of a store without a disk, written to be read beside
//! [`super::DiskStore`].

use super::{Cursor, Deposited, PacketStore, Page, Stat, StoreError, expired};
use crate::address::Address;
use crate::packet::{Id, Kind, Verified};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A store that forgets with its process.
#[derive(Debug)]
pub struct MemoryStore {
    start: Cursor,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    now_ms: u64,
    mailboxes: BTreeMap<Address, MailboxState>,
}

/// One mailbox.
#[derive(Debug, Default)]
struct MailboxState {
    last_sequence: u64,
    packets: BTreeMap<u64, Verified>,
    index: BTreeMap<Id, u64>,
    /// (author, evidence id) -> (author's sequence number, packet id) of the newest version heard of.
    latest: BTreeMap<(Id, Id), (u32, Id)>,
    /// (author, retracted packet id).
    retracted: BTreeSet<(Id, Id)>,
}

impl MailboxState {
    fn deposit(&mut self, now_ms: u64, packet: &Verified) -> Deposited {
        let (id, author, reference) = (packet.id(), *packet.author(), *packet.reference());
        if expired(packet, now_ms) {
            return Deposited::Obsolete;
        }
        if self.index.contains_key(&id) {
            return Deposited::Duplicate;
        }
        match packet.kind() {
            Kind::Observed => {
                let version = (packet.sequence(), id);
                let latest = self.latest.get(&(author, reference)).copied();
                if latest.is_some_and(|latest| latest > version) {
                    return Deposited::Obsolete;
                }
                self.latest.insert((author, reference), version);
                if let Some((_, older)) = latest {
                    self.remove(&older);
                }
                if self.retracted.contains(&(author, id)) {
                    return Deposited::Obsolete;
                }
            }
            Kind::Synthesis if self.retracted.contains(&(author, id)) => return Deposited::Obsolete,
            Kind::Synthesis => {}
            Kind::Retraction => {
                self.retracted.insert((author, reference));
                let target = self.index.get(&reference).map(|sequence| &self.packets[sequence]);
                if target.is_some_and(|t| *t.author() == author && t.kind() != Kind::Retraction) {
                    self.remove(&reference);
                }
            }
        }
        self.last_sequence += 1;
        self.packets.insert(self.last_sequence, *packet);
        self.index.insert(id, self.last_sequence);
        Deposited::Stored
    }

    fn remove(&mut self, id: &Id) {
        if let Some(sequence) = self.index.remove(id) {
            self.packets.remove(&sequence);
        }
    }

    fn stat(&self) -> Stat {
        let mut stat = Stat::default();
        self.packets.values().for_each(|packet| stat.add(packet.kind()));
        stat
    }
}

impl MemoryStore {
    /// An empty store in epoch 1.
    pub fn new(replica: Id) -> MemoryStore {
        MemoryStore { start: Cursor { replica, epoch: 1, sequence: 0 }, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PacketStore for MemoryStore {
    fn deposit(&self, now_ms: u64, batch: &[(Address, Verified)]) -> Result<Vec<Deposited>, StoreError> {
        let mut state = self.state();
        state.now_ms = now_ms;
        let one = |(address, packet): &(Address, Verified)| {
            state.mailboxes.entry(*address).or_default().deposit(now_ms, packet)
        };
        Ok(batch.iter().map(one).collect())
    }

    fn pull(&self, address: &Address, cursor: Option<Cursor>, max: usize) -> Result<Page, StoreError> {
        let state = self.state();
        let empty = MailboxState::default();
        let mailbox = state.mailboxes.get(address).unwrap_or(&empty);
        let mut cursor = self.start.resume(cursor, mailbox.last_sequence)?;
        let mut page = Vec::new();
        for (&sequence, packet) in mailbox.packets.range(cursor.sequence + 1..) {
            if expired(packet, state.now_ms) {
                continue;
            }
            if page.len() == max {
                return Ok(Page { packets: page, cursor, more: true });
            }
            page.push(*packet);
            cursor.sequence = sequence;
        }
        Ok(Page { packets: page, cursor, more: false })
    }

    fn stat(&self, address: &Address) -> Result<Stat, StoreError> {
        Ok(self.state().mailboxes.get(address).map(MailboxState::stat).unwrap_or_default())
    }

    fn set_now(&self, now_ms: u64) {
        self.state().now_ms = now_ms;
    }

    fn sweep(&self, now_ms: u64) -> Result<u64, StoreError> {
        let mut state = self.state();
        state.now_ms = now_ms;
        let mut removed = 0;
        for mailbox in state.mailboxes.values_mut() {
            let before = mailbox.packets.len();
            mailbox.packets.retain(|_, packet| !expired(packet, now_ms));
            let MailboxState { packets, index, .. } = mailbox;
            index.retain(|_, sequence| packets.contains_key(sequence));
            removed += before - packets.len();
        }
        Ok(removed as u64)
    }

    fn start(&self) -> Cursor {
        self.start
    }

    fn addresses(&self) -> Result<Vec<(Address, Stat)>, StoreError> {
        let state = self.state();
        let heard_of = state.mailboxes.iter().filter(|(_, mailbox)| mailbox.last_sequence > 0);
        Ok(heard_of.map(|(address, mailbox)| (*address, mailbox.stat())).collect())
    }

    fn ids(&self, address: &Address, after: Option<&Id>, max: usize) -> Result<Vec<Id>, StoreError> {
        let state = self.state();
        let Some(mailbox) = state.mailboxes.get(address) else { return Ok(vec![]) };
        let live = mailbox.index.iter().filter(|(id, sequence)| {
            after.is_none_or(|after| *id > after) && !expired(&mailbox.packets[*sequence], state.now_ms)
        });
        Ok(live.map(|(id, _)| *id).take(max).collect())
    }

    fn fetch(&self, address: &Address, ids: &[Id]) -> Result<Vec<Verified>, StoreError> {
        let state = self.state();
        let Some(mailbox) = state.mailboxes.get(address) else { return Ok(vec![]) };
        let packets = ids.iter().filter_map(|id| mailbox.index.get(id)).map(|s| mailbox.packets[s]);
        Ok(packets.filter(|packet| !expired(packet, state.now_ms)).collect())
    }
}
