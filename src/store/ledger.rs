//! The rules of one mailbox, without the bytes of its packets.
//!
//! This is the plain form of what [`super::DiskStore`] does over tables, written to be read: the store
//! in memory is a ledger and the packets, a reader keeps one to sort out what several replicas sent,
//! and a simulated replica is nothing but ledgers.

use super::{Caps, Deposited, Digest, Range, Stat, expired, expiry};
use crate::packet::{Id, Kind, Packet};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

/// What a mailbox knows of one packet in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub sequence: u64,
    pub kind: Kind,
    pub author: Id,
    /// Unix milliseconds, 0 never.
    pub expires_at: u64,
}

impl Entry {
    pub fn expired(&self, now_ms: u64) -> bool {
        self.expires_at != 0 && self.expires_at <= now_ms
    }
}

/// The newest version of one (author, evidence id): author's sequence number, then packet id. The
/// larger one wins.
pub(super) type Version = (u32, Id);

/// Which packets a mailbox holds, and which it will not take back.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    caps: Caps,
    last_sequence: u64,
    stat: Stat,
    /// Of all that is held, expired or not.
    digest: Digest,
    held: BTreeMap<Id, Entry>,
    by_sequence: BTreeMap<u64, Id>,
    by_expiry: BTreeSet<(u64, Id)>,
    /// Number of packets held of each author.
    authors: BTreeMap<Id, u64>,
    /// (author, evidence id) -> the newest version heard of.
    latest: BTreeMap<(Id, Id), Version>,
    /// (author, retracted packet id).
    retracted: BTreeSet<(Id, Id)>,
}

impl Ledger {
    /// An empty mailbox with caps; [`Ledger::default`] has none.
    pub fn new(caps: Caps) -> Ledger {
        Ledger { caps, ..Ledger::default() }
    }

    /// What becomes of a packet that arrives, and the packet whose place it takes, if any: an older
    /// version, or the one it retracts. `now_ms` is Unix time.
    pub fn deposit(&mut self, now_ms: u64, packet: &Packet) -> (Deposited, Option<Id>) {
        let (id, kind) = (packet.id(), packet.kind());
        let (author, reference) = (*packet.author(), *packet.reference());
        if expired(packet, now_ms) {
            return (Deposited::Obsolete, None);
        }
        if self.contains(&id) {
            return (Deposited::Duplicate, None);
        }
        let version = (packet.sequence(), id);
        let takes_place_of = match kind {
            Kind::Observed => match self.latest.get(&(author, reference)) {
                Some(latest) if *latest > version => return (Deposited::Obsolete, None),
                latest => latest.map(|(_, older)| *older),
            },
            Kind::Synthesis => None,
            Kind::Retraction => Some(reference),
        };
        let gone = takes_place_of.filter(|other| {
            let retractable = |e: &Entry| e.author == author && e.kind != Kind::Retraction;
            self.held.get(other).is_some_and(retractable)
        });
        let retracted = kind != Kind::Retraction && self.retracted.contains(&(author, id));
        if !retracted && gone.is_none() && self.is_full(&author) {
            return (Deposited::OverQuota, None);
        }
        match kind {
            Kind::Observed => {
                self.latest.insert((author, reference), version);
            }
            Kind::Synthesis => {}
            Kind::Retraction => {
                self.retracted.insert((author, reference));
            }
        }
        if let Some(gone) = &gone {
            self.remove(gone);
        }
        if retracted {
            return (Deposited::Obsolete, gone);
        }
        self.store(id, packet);
        (Deposited::Stored, gone)
    }

    /// Whether a packet is held, expired or not.
    pub fn contains(&self, id: &Id) -> bool {
        self.held.contains_key(id)
    }

    /// Packets held, expired or not.
    pub fn stat(&self) -> Stat {
        self.stat
    }

    /// Of the packets that have not expired.
    pub fn digest(&self, now_ms: u64) -> Digest {
        let mut digest = self.digest;
        self.expired(now_ms).for_each(|id| digest.remove(id));
        digest
    }

    /// Of the packets that have not expired; see [`Range`]. `prefix` has 0 to 31 bytes.
    pub fn range(&self, now_ms: u64, prefix: &[u8]) -> Range {
        let mut from = [0; 32];
        from.iter_mut().zip(prefix).for_each(|(to, from)| *to = *from);
        let under = self.held.range(from..).take_while(|(id, _)| id.starts_with(prefix));
        let live = under.filter(|(_, entry)| !entry.expired(now_ms));
        let Ok(range) = Range::of(prefix, live.map(|(id, _)| Ok::<_, Infallible>(*id)));
        range
    }

    /// Ids of the packets that have not expired, ascending as byte strings.
    pub fn ids(&self, now_ms: u64) -> impl Iterator<Item = &Id> {
        self.held.iter().filter(move |(_, entry)| !entry.expired(now_ms)).map(|(id, _)| id)
    }

    /// Removes what has expired; returns the ids removed, by expiry.
    pub fn sweep(&mut self, now_ms: u64) -> Vec<Id> {
        let gone: Vec<Id> = self.expired(now_ms).copied().collect();
        gone.iter().for_each(|id| self.remove(id));
        gone
    }

    /// Removes a packet that others hold; what is known of it stays.
    pub(super) fn leave(&mut self, id: &Id) {
        self.remove(id);
    }

    /// Sequence of the last packet stored; 0 before the first.
    pub(super) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// (sequence, id) of the packets after a sequence that have not expired, in their order.
    pub(super) fn after(&self, now_ms: u64, sequence: u64) -> impl Iterator<Item = (u64, &Id)> {
        let after = self.by_sequence.range(sequence.saturating_add(1)..);
        after.filter(move |(_, id)| !self.held[*id].expired(now_ms)).map(|(sequence, id)| (*sequence, id))
    }

    fn expired(&self, now_ms: u64) -> impl Iterator<Item = &Id> {
        self.by_expiry.range(..=(now_ms, [0xFF; 32])).map(|(_, id)| id)
    }

    fn is_full(&self, author: &Id) -> bool {
        let of_author = self.authors.get(author).copied().unwrap_or_default();
        self.caps.are_reached(self.stat.packets, of_author)
    }

    fn store(&mut self, id: Id, packet: &Packet) {
        self.last_sequence += 1;
        let (sequence, author) = (self.last_sequence, *packet.author());
        let expires_at = expiry(packet).unwrap_or_default();
        self.held.insert(id, Entry { sequence, kind: packet.kind(), author, expires_at });
        self.by_sequence.insert(sequence, id);
        if expires_at != 0 {
            self.by_expiry.insert((expires_at, id));
        }
        *self.authors.entry(author).or_default() += 1;
        self.stat.add(packet.kind());
        self.digest.add(&id);
    }

    fn remove(&mut self, id: &Id) {
        let Some(entry) = self.held.remove(id) else { return };
        self.by_sequence.remove(&entry.sequence);
        self.by_expiry.remove(&(entry.expires_at, *id));
        if let Some(count) = self.authors.get_mut(&entry.author) {
            *count -= 1;
            if *count == 0 {
                self.authors.remove(&entry.author);
            }
        }
        self.stat.remove(entry.kind);
        self.digest.remove(id);
    }
}
