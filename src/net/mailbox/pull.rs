//! One pull over the network: performs what [`Gather`] decides.

use super::{NetMailbox, unreachable};
use crate::address::Address;
use crate::limits::{FRAME_PACKETS_MAX, PACKET_BYTES, SEEN_IDS_MAX};
use crate::mailbox::{Clock, MailboxError, Position, Pulled, SystemClock};
use crate::net::check::{Remembered, verify};
use crate::net::counters::Counters;
use crate::net::shared::AskError;
use crate::net::wire::{Code, Request, Response};
use crate::node::gather::{Action, Input};
use crate::node::{Gather, Held, NodeKey, Seen};
use crate::packet::{Id, Packet, Verified};
use crate::store::StoreError;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often a replica that asks for patience is asked again; who waits longer is late anyway.
const RETRIES_MAX: u32 = 5;
/// Answers that are worked on in one go.
const ANSWERS_AT_ONCE: usize = 16;

/// What readers have seen of mailboxes: per mailbox and position reached, because two readers of one
/// mailbox may stand at different places.
#[derive(Default)]
pub(super) struct Memory {
    readers: HashMap<Place, (u64, Arc<Seen>)>,
    ids: usize,
    turn: u64,
}

/// A mailbox and a position in it as a key: replica, epoch and sequence of each cursor, sorted.
type Place = (Address, Vec<(Id, u64, u64)>);

fn place(address: &Address, position: &Position) -> Place {
    let mut cursors: Vec<_> = position.0.iter().map(|c| (c.replica, c.epoch, c.sequence)).collect();
    cursors.sort_unstable();
    (*address, cursors)
}

impl Memory {
    /// What the reader at this position has seen; `None` where that is not remembered.
    fn recall(&mut self, address: &Address, from: &Position) -> Option<Arc<Seen>> {
        let (_, seen) = self.readers.remove(&place(address, from))?;
        self.ids -= seen.len();
        // Another reader may stand at the same place.
        self.keep(address, from, seen.clone());
        Some(seen)
    }

    fn forget(&mut self, address: &Address, at: &Position) {
        if let Some((_, seen)) = self.readers.remove(&place(address, at)) {
            self.ids -= seen.len();
        }
    }

    fn keep(&mut self, address: &Address, at: &Position, seen: Arc<Seen>) {
        self.forget(address, at);
        if seen.len() > SEEN_IDS_MAX {
            return;
        }
        self.ids += seen.len();
        self.turn += 1;
        self.readers.insert(place(address, at), (self.turn, seen));
        while self.ids > SEEN_IDS_MAX || self.readers.len() > SEEN_IDS_MAX / 64 {
            let oldest = self.readers.iter().min_by_key(|(_, (turn, _))| *turn).map(|(key, _)| key.clone());
            let Some((_, seen)) = oldest.and_then(|key| self.readers.remove(&key)) else { return };
            self.ids -= seen.len();
        }
    }
}

/// What a replica answered: what the decision is told, and packets.
struct Answer {
    input: Input,
    packets: Packets,
}

enum Packets {
    None,
    /// From the own store.
    Own(Vec<Verified>),
    /// n x 512 bytes of another node.
    Received(Vec<u8>),
}

impl Packets {
    fn bytes_on_the_wire(&self) -> u64 {
        match self {
            Packets::None | Packets::Own(_) => 0,
            Packets::Received(bytes) => bytes.len() as u64,
        }
    }
}

impl NetMailbox {
    pub(super) async fn pull_from_replicas(
        &self,
        address: &Address,
        from: &Position,
    ) -> Result<Pulled, MailboxError> {
        let mut replicas = self.reachable(address).await?;
        // Readers of one mailbox begin at different replicas.
        let rotation = usize::from(self.shared.local.0[0]) % replicas.len().max(1);
        replicas.rotate_left(rotation);
        // Our own copy costs no network.
        replicas.sort_by_key(|replica| *replica != self.shared.local);
        let recalled = self.memory().recall(address, from);
        let (mut seen, from_known) = match recalled {
            Some(seen) => (seen, from.clone()),
            // Who is not remembered is read anew.
            None => (Arc::default(), Position::default()),
        };
        Arc::make_mut(&mut seen).set_now(SystemClock.now_ms());
        let mut seen = Arc::unwrap_or_clone(seen);

        let started = Instant::now();
        let now = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut gather = Gather::new(&replicas, &from_known.0, 0);
        let (mut fresh, mut bytes) = (Vec::new(), 0);
        let mut asking = FuturesUnordered::new();
        for action in gather.start() {
            asking.push(self.perform(*address, action));
        }
        while !gather.finished() {
            // Rounded up: waking a fraction early would find nothing to do, and spin.
            let wake = started + Duration::from_millis(gather.wake_ms().unwrap_or(0) + 1);
            let mut arrived = Vec::new();
            tokio::select! {
                Some(answer) = asking.next() => arrived.push(answer),
                () = tokio::time::sleep_until(wake) => {
                    let at = now();
                    let late = gather.late(at);
                    if !late.is_empty() {
                        self.shared.stalled(late).await;
                    }
                    for action in gather.step(Input::Tick, at).into_iter().chain(gather.settle(&seen, at)) {
                        asking.push(self.perform(*address, action));
                    }
                    continue;
                }
            }
            while arrived.len() < ANSWERS_AT_ONCE
                && let Some(Some(answer)) = asking.next().now_or_never()
            {
                arrived.push(answer);
            }
            let mut received = Vec::new();
            for Answer { input, packets } in arrived {
                bytes += packets.bytes_on_the_wire();
                received.push((replica_of(&input), packets));
                // Asked for before the packets are checked: the next page travels meanwhile.
                for action in gather.step(input, now()) {
                    asking.push(self.perform(*address, action));
                }
            }
            if received.iter().any(|(_, packets)| !matches!(packets, Packets::None)) {
                let (remembered, counters) = (self.remembered.clone(), self.shared.counters.clone());
                let check = move || collect(seen, received, &remembered, &counters);
                let collected = tokio::task::spawn_blocking(check).await;
                let collected = collected.map_err(|error| unreachable(address, &error.to_string()))?;
                seen = collected.seen;
                fresh.extend(collected.fresh);
                for (replica, reason) in collected.liars {
                    let failed = Input::Failed { replica: NodeKey(replica), reason };
                    for action in gather.step(failed, now()) {
                        asking.push(self.perform(*address, action));
                    }
                }
            }
            for action in gather.settle(&seen, now()) {
                asking.push(self.perform(*address, action));
            }
        }
        if gather.answered() == 0 {
            return Err(unreachable(address, gather.last_reason()));
        }
        // Ascending by id: the same packets give the same list, whoever answered first.
        fresh.sort_by_cached_key(|packet: &Verified| packet.id());
        let position = Position(gather.position());
        let mut memory = self.memory();
        if position != *from {
            memory.forget(address, from);
        }
        memory.keep(address, &position, Arc::new(seen));
        Ok(Pulled { packets: fresh, position, bytes })
    }

    async fn perform(&self, address: Address, action: Action) -> Answer {
        let replica = action.replica();
        let result = match self.own(replica) {
            Some(storage) => {
                let read = move || storage.perform(replica, &address, action);
                tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.to_string()))
            }
            None => self.ask_replica(replica, address, action).await,
        };
        result.unwrap_or_else(|reason| Answer {
            input: Input::Failed { replica, reason },
            packets: Packets::None,
        })
    }

    async fn ask_replica(
        &self,
        replica: NodeKey,
        address: Address,
        action: Action,
    ) -> Result<Answer, String> {
        let request = match action {
            Action::Page { cursor, .. } => {
                Request::Pull { address, cursor, max: FRAME_PACKETS_MAX as u32, wait_ms: 0 }
            }
            Action::Stat { .. } => Request::Stat { address },
            Action::Ranges { prefixes, .. } => Request::Range { address, prefixes },
            Action::Fetch { ids, .. } => Request::Fetch { address, ids },
        };
        let without = |input| Answer { input, packets: Packets::None };
        let mut answer = self.shared.ask(replica, request.clone()).await;
        // A replica that is busy, or has given us our share, says when to come again.
        for _ in 0..RETRIES_MAX {
            let Some(pause) = answer.as_ref().err().and_then(AskError::retry_after) else { break };
            tokio::time::sleep(pause).await;
            answer = self.shared.ask(replica, request.clone()).await;
        }
        Ok(match answer {
            Ok(Response::Page { cursor, more, packets }) => {
                let input = Input::Page { replica, cursor, more, packets: packets.len() / PACKET_BYTES };
                Answer { input, packets: Packets::Received(packets) }
            }
            Ok(Response::Stat { digest, cursor, .. }) => without(Input::Stat { replica, digest, cursor }),
            Ok(Response::Ranges(ranges)) => without(Input::Ranges { replica, ranges }),
            Ok(Response::Packets(packets)) => {
                Answer { input: Input::Fetched { replica }, packets: Packets::Received(packets) }
            }
            Ok(_) => return Err("it answered something else".into()),
            Err(error) if error.code() == Some(Code::CursorExpired) => without(Input::Expired { replica }),
            Err(error) => return Err(error.to_string()),
        })
    }
}

impl crate::net::Storage {
    /// What another replica would answer, from the own store.
    fn perform(&self, local: NodeKey, address: &Address, action: Action) -> Result<Answer, String> {
        let replica = local;
        let without = |input| Answer { input, packets: Packets::None };
        let answer = match action {
            Action::Page { cursor, .. } => match self.pull(local, address, cursor, FRAME_PACKETS_MAX) {
                Err(StoreError::CursorExpired { .. }) => return Ok(without(Input::Expired { replica })),
                page => page.map(|page| {
                    let packets = page.packets.len();
                    let input = Input::Page { replica, cursor: page.cursor, more: page.more, packets };
                    Answer { input, packets: Packets::Own(page.packets) }
                }),
            },
            Action::Stat { .. } => self
                .stat(local, address)
                .map(|(_, digest, cursor)| without(Input::Stat { replica, digest, cursor })),
            Action::Ranges { prefixes, .. } => {
                self.ranges(address, &prefixes).map(|ranges| without(Input::Ranges { replica, ranges }))
            }
            Action::Fetch { ids, .. } => self
                .fetch(address, &ids)
                .map(|packets| Answer { input: Input::Fetched { replica }, packets: Packets::Own(packets) }),
        };
        answer.map_err(|error| error.to_string())
    }
}

fn replica_of(input: &Input) -> Id {
    match input {
        Input::Page { replica, .. }
        | Input::Stat { replica, .. }
        | Input::Ranges { replica, .. }
        | Input::Fetched { replica }
        | Input::Expired { replica }
        | Input::Failed { replica, .. } => replica.0,
        Input::Tick => [0; 32],
    }
}

struct Collected {
    seen: Seen,
    /// Packets not seen before.
    fresh: Vec<Verified>,
    /// Replicas that delivered something that is no packet.
    liars: Vec<(Id, String)>,
}

/// Takes packets in: what was seen before costs a hash, everything else a signature check.
fn collect(
    mut seen: Seen,
    received: Vec<(Id, Packets)>,
    remembered: &Remembered,
    counters: &Counters,
) -> Collected {
    let (mut fresh, mut liars) = (Vec::new(), Vec::new());
    let mut candidates: Vec<(Id, Id, Packet)> = Vec::new();
    for (replica, packets) in received {
        match packets {
            Packets::None => {}
            Packets::Own(packets) => fresh.extend(packets.into_iter().filter(|packet| seen.insert(packet))),
            Packets::Received(bytes) => {
                Counters::add(&counters.packets_in, (bytes.len() / PACKET_BYTES) as u64);
                for record in bytes.chunks_exact(PACKET_BYTES) {
                    match Packet::parse(record) {
                        Ok(packet) => candidates.push((replica, packet.id(), packet)),
                        Err(error) => liars.push((replica, error.to_string())),
                    }
                }
            }
        }
    }
    // The same packet from several replicas at once: one copy is checked. Another copy with the same
    // id is looked at only if that one's signature is bad.
    while !candidates.is_empty() {
        candidates.retain(|(_, id, _)| !seen.knows(id));
        let mut chosen = Vec::new();
        let mut ids = HashSet::new();
        candidates.retain(|candidate| {
            let first = ids.insert(candidate.1);
            if first {
                chosen.push(*candidate);
            }
            !first
        });
        let packets: Vec<Packet> = chosen.iter().map(|(_, _, packet)| *packet).collect();
        for ((replica, ..), result) in chosen.into_iter().zip(verify(&packets, remembered, counters)) {
            match result {
                Ok(packet) => {
                    if seen.insert(&packet) {
                        fresh.push(packet);
                    }
                }
                Err(error) => liars.push((replica, error.to_string())),
            }
        }
    }
    for (replica, reason) in &liars {
        let replica = NodeKey(*replica);
        tracing::warn!(?replica, reason, "a replica delivered a packet that is none; it is left out");
    }
    Collected { seen, fresh, liars }
}
