//! What a node does with a request of another: check, admit, store, read. Everything here blocks and
//! runs beside the event loop.

use super::Identity;
use super::check::{Remembered, verify};
use super::counters::Counters;
use super::receipt::ReceiptResult;
use super::shared::{Shared, View};
use super::storage::Storage;
use super::wire::{Code, DEPOSIT_BYTES, Refusal, Request, Response};
use crate::address::Address;
use crate::limits::{FRAME_PACKETS_MAX, PACKET_BYTES, REPLICAS};
use crate::mailbox::{Clock, SystemClock};
use crate::node::deposit::Answer;
use crate::node::{NodeKey, closest};
use crate::packet::{Id, Packet, Verified};
use crate::store::{Cursor, StoreError};
use std::collections::HashMap;
use std::sync::Arc;

/// One node's answers to others.
pub(super) struct Server {
    pub identity: Identity,
    pub storage: Storage,
    pub remembered: Arc<Remembered>,
    pub shared: Arc<Shared>,
}

impl Server {
    pub fn answer(&self, from: NodeKey, request: Request, view: &View) -> Response {
        let counters = &self.shared.counters;
        let result = match request {
            Request::Deposit(bytes) => self.deposit(from, &bytes, view),
            Request::Pull { address, cursor, max, .. } => self.pull(from, &address, cursor, max, view),
            Request::Stat { address } => self.stat(&address),
            Request::Range { address, prefixes } => {
                self.storage.ranges(&address, &prefixes).map(Response::Ranges).map_err(unavailable)
            }
            Request::Fetch { address, ids } => self.fetch(from, &address, &ids),
            Request::Compare { after } => self.compare(from, after, view),
            Request::Lists(epochs) => Ok(Response::Lists(self.shared.gate.newer_than(epochs))),
            Request::Offer(list) => self.shared.gate.offer(&list).map(Response::Noted),
            Request::Hello(_) | Request::Malformed(_) => {
                Err(Refusal::new(Code::Malformed, "not a request for a mailbox"))
            }
        };
        let (counter, response) = match result {
            Ok(response) => (&counters.requests_answered, response),
            Err(refusal) => (&counters.requests_refused, Response::Error(refusal)),
        };
        Counters::add(counter, 1);
        response
    }

    /// Views of two nodes differ while one joins: twice the replicas are near enough.
    fn is_near(&self, address: &Address, view: &View) -> bool {
        view.members.len() < 2 * REPLICAS || view.ranks(address, self.shared.local, 2 * REPLICAS)
    }

    fn not_responsible(&self, address: &Address, view: &View) -> Refusal {
        let closer = closest(address, view.members.iter().copied(), REPLICAS);
        let contacts = view.contacts.iter().filter(|contact| closer.contains(&contact.key())).cloned();
        let refusal = Refusal::new(Code::NotResponsible, "others are closer to this address");
        Refusal { closer: contacts.collect(), ..refusal }
    }

    fn deposit(&self, from: NodeKey, bytes: &[u8], view: &View) -> Result<Response, Refusal> {
        self.shared.gate.room()?;
        let count = bytes.len() / DEPOSIT_BYTES;
        Counters::add(&self.shared.counters.packets_in, count as u64);
        let mut answers: Vec<Option<Answer>> = vec![None; count];
        let mut parsed: Vec<(usize, Address)> = Vec::with_capacity(count);
        let mut packets: Vec<Packet> = Vec::with_capacity(count);
        let mut near: HashMap<Address, bool> = HashMap::new();
        let lists = self.shared.gate.lists();
        for (index, record) in bytes.chunks_exact(DEPOSIT_BYTES).enumerate() {
            let mut address = [0; 32];
            address.copy_from_slice(&record[..32]);
            if !*near.entry(address).or_insert_with(|| self.is_near(&address, view)) {
                answers[index] = Some(Answer::Rejected("not responsible: others are closer".into()));
                continue;
            }
            let admitted =
                Packet::parse(&record[32..]).map_err(|error| error.to_string()).and_then(|packet| {
                    self.shared.gate.admits_author(lists.as_deref(), packet.author()).map(|()| packet)
                });
            match admitted {
                Ok(packet) => {
                    parsed.push((index, address));
                    packets.push(packet);
                }
                Err(reason) => answers[index] = Some(Answer::Rejected(reason)),
            }
        }
        if let Some((address, _)) = near.iter().next().filter(|_| near.values().all(|near| !near)) {
            return Err(self.not_responsible(address, view));
        }
        let mut batch: Vec<(Address, Verified)> = Vec::with_capacity(packets.len());
        let mut places = Vec::with_capacity(packets.len());
        let verified = verify(&packets, &self.remembered, &self.shared.counters);
        for ((index, address), result) in parsed.into_iter().zip(verified) {
            match result {
                Ok(packet) => {
                    batch.push((address, packet));
                    places.push(index);
                }
                Err(error) => answers[index] = Some(Answer::Rejected(error.to_string())),
            }
        }
        // Only now: forged packets must not use up the share of the author they name.
        self.shared.gate.charge_authors(batch.iter().map(|(_, packet)| packet.author()))?;
        let deposited: Vec<(Address, Id)> =
            batch.iter().map(|(address, p)| (*address, *p.author())).collect();
        let stored = self.storage.deposit(batch).map_err(unavailable)?;
        {
            let mut participation = self.shared.gate.participation();
            for ((_, author), answer) in deposited.iter().zip(&stored) {
                if *answer == Answer::Stored {
                    participation.record_deposit(from, author, 1);
                }
            }
        }
        let news = deposited.iter().zip(&stored).filter(|(_, answer)| **answer == Answer::Stored);
        self.shared.news.arrived(news.map(|((address, _), _)| address));
        places.into_iter().zip(stored).for_each(|(index, answer)| answers[index] = Some(answer));
        let missing = || Answer::Rejected("the store gave no result".into());
        let answers: Vec<Answer> = answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect();
        self.receipt(bytes, answers)
    }

    fn receipt(&self, bytes: &[u8], answers: Vec<Answer>) -> Result<Response, Refusal> {
        let at_ms = SystemClock.now_ms();
        let packets = receipt_packets(bytes, &answers);
        let signature = self.identity.receipt(at_ms, &packets);
        let signature =
            signature.ok_or_else(|| Refusal::new(Code::Unavailable, "this node's key does not sign"))?;
        Ok(Response::Deposited { at_ms, signature, answers })
    }

    fn pull(
        &self,
        from: NodeKey,
        address: &Address,
        cursor: Option<Cursor>,
        max: u32,
        view: &View,
    ) -> Result<Response, Refusal> {
        if !self.is_near(address, view) {
            return Err(self.not_responsible(address, view));
        }
        let max = usize::try_from(max).unwrap_or(usize::MAX).clamp(1, FRAME_PACKETS_MAX);
        let page =
            self.storage.pull(self.shared.local, address, cursor, max).map_err(|error| match error {
                error @ StoreError::CursorExpired { .. } => {
                    Refusal::new(Code::CursorExpired, error.to_string())
                }
                error => unavailable(error),
            })?;
        let count = page.packets.len() as u64;
        // Each read of a mailbox ends with one last page.
        match page.more {
            true => self.shared.gate.participation().record_page(from, count),
            false => self.shared.gate.participation().record_ask(from, count),
        }
        let packets = self.bytes_of(&page.packets);
        Ok(Response::Page { cursor: page.cursor, more: page.more, packets })
    }

    fn stat(&self, address: &Address) -> Result<Response, Refusal> {
        let (stat, digest, cursor) = self.storage.stat(self.shared.local, address).map_err(unavailable)?;
        Ok(Response::Stat { stat, digest, cursor })
    }

    fn fetch(&self, from: NodeKey, address: &Address, ids: &[Id]) -> Result<Response, Refusal> {
        let packets = self.storage.fetch(address, ids).map_err(unavailable)?;
        self.shared.gate.participation().record_page(from, packets.len() as u64);
        Ok(Response::Packets(self.bytes_of(&packets)))
    }

    /// Digests of the mailboxes that the one who asks should hold, as we see the swarm; whether we should
    /// hold them too does not matter. What lies here because the swarm was smaller, or looked smaller to
    /// whoever deposited it, would never be found otherwise.
    fn compare(&self, from: NodeKey, after: Option<Address>, view: &View) -> Result<Response, Refusal> {
        if !view.members.contains(&from) {
            return Err(Refusal::new(Code::NotAdmitted, "only storage nodes compare mailboxes"));
        }
        let theirs = |address: &Address| view.should_hold(address, from, self.shared.local);
        let (digests, next) = self.storage.digests(after, theirs).map_err(unavailable)?;
        Ok(Response::Digests { next, digests })
    }

    fn bytes_of(&self, packets: &[Verified]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(packets.len() * PACKET_BYTES);
        packets.iter().for_each(|packet| bytes.extend(packet.as_bytes()));
        Counters::add(&self.shared.counters.packets_out, packets.len() as u64);
        bytes
    }
}

/// What a receipt says of a deposit frame: address, packet id and result of each packet; a record that
/// is no packet goes by the hash of its signed part all the same.
pub(super) fn receipt_packets(bytes: &[u8], answers: &[Answer]) -> Vec<(Address, Id, ReceiptResult)> {
    let records = bytes.chunks_exact(DEPOSIT_BYTES).zip(answers);
    let one = |(record, answer): (&[u8], &Answer)| {
        let mut address = [0; 32];
        address.copy_from_slice(&record[..32]);
        (address, crate::packet::id_of(&record[32..]), ReceiptResult::from(answer))
    };
    records.map(one).collect()
}

/// The store's own words go to our log, not to the stranger: they name paths.
fn unavailable(error: StoreError) -> Refusal {
    tracing::error!(%error, "the store does not work");
    let reason = match error {
        StoreError::Full { .. } => "this node's disk is full",
        _ => "this node's store does not work at the moment",
    };
    // A full disk is not emptied within a moment.
    Refusal { retry_after_ms: 30_000, ..Refusal::new(Code::Unavailable, reason) }
}
