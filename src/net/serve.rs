//! What a node does with a request of another: check, admit, store, read. Everything here blocks and
//! runs beside the event loop.

use super::check::{Remembered, verify};
use super::counters::Counters;
use super::shared::View;
use super::wire::{Code, DEPOSIT_BYTES, Refusal, Request, Response};
use crate::address::Address;
use crate::limits::{FRAME_PACKETS_MAX, REPLICAS};
use crate::mailbox::{Clock, SystemClock};
use crate::node::deposit::Answer;
use crate::node::{NodeKey, closest};
use crate::packet::{Packet, Verified};
use crate::store::{Cursor, Deposited, PacketStore, Page, StoreError};
use std::collections::HashMap;
use std::sync::Arc;

/// Says whether a packet may lie at an address at a time (Unix ms), or why not, in a line.
pub type Admit = dyn Fn(&Address, &Verified, u64) -> Result<(), String> + Send + Sync;

/// The mailboxes that a node keeps.
#[derive(Clone)]
pub struct Storage {
    /// Any store: its cursors are rewritten to the node's name, see [`Storage::pull`].
    pub store: Arc<dyn PacketStore>,
    pub admission: Arc<Admit>,
}

impl Storage {
    /// Answers of the store to verified packets; for packets of this node and of others alike.
    ///
    /// # Errors
    /// The store's; nothing is acknowledged then.
    pub(super) fn deposit(&self, batch: Vec<(Address, Verified)>) -> Result<Vec<Answer>, StoreError> {
        let now_ms = SystemClock.now_ms();
        let mut answers = Vec::with_capacity(batch.len());
        let mut admitted = Vec::with_capacity(batch.len());
        for (address, packet) in batch {
            answers.push(match (self.admission)(&address, &packet, now_ms) {
                Ok(()) => {
                    admitted.push((address, packet));
                    None
                }
                Err(reason) => Some(Answer::Rejected(reason)),
            });
        }
        let stored = if admitted.is_empty() { Vec::new() } else { self.store.deposit(now_ms, &admitted)? };
        let mut stored = stored.into_iter().map(|deposited| match deposited {
            Deposited::Stored => Answer::Stored,
            Deposited::Duplicate => Answer::Duplicate,
            Deposited::Obsolete => {
                Answer::Rejected("a newer version or a retraction is there, or it has expired".into())
            }
            Deposited::OverQuota => {
                Answer::Rejected("the mailbox, or its author's part of it, is full".into())
            }
        });
        Ok(answers
            .into_iter()
            .map(|answer| {
                answer
                    .or_else(|| stored.next())
                    .unwrap_or_else(|| Answer::Rejected("the store gave no result".into()))
            })
            .collect())
    }
}

/// The epoch that stands in a node's cursors: a name of the store's replica id and epoch together, so
/// that cursors expire when either changes. First 8 bytes, little-endian, of BLAKE3
/// `derive_key("qis 1 cursor epoch", replica | epoch u64)`.
fn epoch_name(start: &Cursor) -> u64 {
    let mut material = [0; 40];
    material[..32].copy_from_slice(&start.replica);
    material[32..].copy_from_slice(&start.epoch.to_le_bytes());
    let hash = blake3::derive_key("qis 1 cursor epoch", &material);
    u64::from_le_bytes(std::array::from_fn(|i| hash[i]))
}

impl Storage {
    /// A page of the store under the name of the node `local`: readers know nodes, not stores, and
    /// find their cursor by the node's key.
    ///
    /// # Errors
    /// The store's; [`StoreError::CursorExpired`] also for a cursor of another node.
    pub(super) fn pull(
        &self,
        local: NodeKey,
        address: &Address,
        cursor: Option<Cursor>,
        max: usize,
    ) -> Result<Page, StoreError> {
        let start = self.store.start();
        let epoch = epoch_name(&start);
        let cursor = match cursor {
            Some(cursor) if (cursor.replica, cursor.epoch) != (local.0, epoch) => {
                return Err(StoreError::CursorExpired { given: cursor.epoch, current: epoch });
            }
            cursor => cursor.map(|cursor| Cursor { sequence: cursor.sequence, ..start }),
        };
        self.store.set_now(SystemClock.now_ms());
        let mut page = self.store.pull(address, cursor, max)?;
        page.cursor = Cursor { replica: local.0, epoch, sequence: page.cursor.sequence };
        Ok(page)
    }
}

/// One request at work.
pub(super) struct Server {
    pub local: NodeKey,
    pub storage: Storage,
    pub remembered: Arc<Remembered>,
    pub counters: Arc<Counters>,
}

impl Server {
    pub fn answer(&self, request: Request, view: &View) -> Response {
        let response = match request {
            Request::Deposit(bytes) => self.deposit(&bytes, view),
            Request::Pull { address, cursor, max } => self.pull(&address, cursor, max, view),
            Request::Stat { address } => match self.storage.store.stat(&address) {
                Ok(stat) => Response::Stat(stat),
                Err(error) => unavailable(&error),
            },
            Request::Hello { .. } | Request::Malformed(_) => {
                Response::Error(Refusal::new(Code::Malformed, "not a request for a mailbox"))
            }
        };
        let counter = match response {
            Response::Error(_) => &self.counters.requests_refused,
            _ => &self.counters.requests_answered,
        };
        Counters::add(counter, 1);
        response
    }

    /// Views of two nodes differ while one joins: twice the replicas are near enough.
    fn is_near(&self, address: &Address, view: &View) -> bool {
        view.members.len() < 2 * REPLICAS
            || closest(address, view.members.iter().copied().chain([self.local]), 2 * REPLICAS)
                .contains(&self.local)
    }

    fn deposit(&self, bytes: &[u8], view: &View) -> Response {
        let count = bytes.len() / DEPOSIT_BYTES;
        Counters::add(&self.counters.packets_in, count as u64);
        let mut answers: Vec<Option<Answer>> = vec![None; count];
        let mut parsed: Vec<(usize, Address)> = Vec::with_capacity(count);
        let mut packets: Vec<Packet> = Vec::with_capacity(count);
        let mut near: HashMap<Address, bool> = HashMap::new();
        for (index, record) in bytes.chunks_exact(DEPOSIT_BYTES).enumerate() {
            let mut address = [0; 32];
            address.copy_from_slice(&record[..32]);
            if !*near.entry(address).or_insert_with(|| self.is_near(&address, view)) {
                answers[index] = Some(Answer::Rejected("not responsible: others are closer".into()));
                continue;
            }
            match Packet::parse(&record[32..]) {
                Ok(packet) => {
                    parsed.push((index, address));
                    packets.push(packet);
                }
                Err(error) => answers[index] = Some(Answer::Rejected(error.to_string())),
            }
        }
        if !near.is_empty() && near.values().all(|near| !near) {
            return Response::Error(Refusal::new(
                Code::NotResponsible,
                "others are closer to these addresses",
            ));
        }
        let mut batch = Vec::with_capacity(packets.len());
        let mut places = Vec::with_capacity(packets.len());
        let verified = verify(&packets, &self.remembered, &self.counters);
        for ((index, address), result) in parsed.into_iter().zip(verified) {
            match result {
                Ok(packet) => {
                    batch.push((address, packet));
                    places.push(index);
                }
                Err(error) => answers[index] = Some(Answer::Rejected(error.to_string())),
            }
        }
        match self.storage.deposit(batch) {
            Ok(stored) => {
                places.into_iter().zip(stored).for_each(|(index, answer)| answers[index] = Some(answer));
                let missing = || Answer::Rejected("the store gave no result".into());
                Response::Deposited(answers.into_iter().map(|a| a.unwrap_or_else(missing)).collect())
            }
            Err(error) => unavailable(&error),
        }
    }

    fn pull(&self, address: &Address, cursor: Option<Cursor>, max: u32, view: &View) -> Response {
        if !self.is_near(address, view) {
            return Response::Error(Refusal::new(Code::NotResponsible, "others are closer to this address"));
        }
        let max = usize::try_from(max).unwrap_or(usize::MAX).clamp(1, FRAME_PACKETS_MAX);
        match self.storage.pull(self.local, address, cursor, max) {
            Ok(page) => {
                let mut packets =
                    Vec::with_capacity(page.packets.len().min(max) * crate::limits::PACKET_BYTES);
                page.packets.iter().take(max).for_each(|packet| packets.extend(packet.as_bytes()));
                Counters::add(&self.counters.packets_out, page.packets.len() as u64);
                Response::Page { cursor: page.cursor, more: page.more, packets }
            }
            Err(error @ StoreError::CursorExpired { .. }) => {
                Response::Error(Refusal::new(Code::CursorExpired, error.to_string()))
            }
            Err(error) => unavailable(&error),
        }
    }
}

/// The store's own words go to our log, not to the stranger: they name paths.
fn unavailable(error: &StoreError) -> Response {
    tracing::error!(%error, "the store does not work");
    let reason = match error {
        StoreError::Full { .. } => "this node's disk is full",
        _ => "this node's store does not work at the moment",
    };
    Response::Error(Refusal::new(Code::Unavailable, reason))
}
