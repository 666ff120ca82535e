//! Mailboxes over the swarm: deposits to the replicas of each address, pulls from all reachable
//! ones.

use super::check::{Remembered, verify};
use super::counters::Counters;
use super::serve::Storage;
use super::shared::{AskError, Shared, View};
use super::wire::{Code, DEPOSIT_BYTES, Request, Response};
use crate::address::Address;
use crate::limits::{FRAME_PACKETS_MAX, HANDOFF_PACKETS_MAX, PACKET_BYTES, REPLICAS};
use crate::mailbox::{Mailbox, MailboxError, Position, Pulled, Receipt};
use crate::node::deposit::{self, Answer, Verdict};
use crate::node::gather;
use crate::node::{Deposit, Gather, NodeKey, Union, closest};
use crate::packet::{Id, Packet, Verified};
use crate::store::{Cursor, Stat, StoreError};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, future};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Packets of one deposit that are on their way together; a longer batch goes in blocks of these.
const BLOCK_PACKETS: usize = 8 * FRAME_PACKETS_MAX;
/// Pages that are checked in one go.
const PAGES_AT_ONCE: usize = 16;

/// The swarm's mailboxes, as one node reaches them. Cheap to clone.
///
/// A pull gives the union of what the reachable replicas hold beyond the position. A packet whose
/// hand-off reached one replica late comes again when that replica delivers it: merges take packets
/// by id, so nothing counts twice.
#[derive(Clone)]
pub struct NetMailbox {
    shared: Arc<Shared>,
    storage: Option<Storage>,
    remembered: Arc<Remembered>,
    /// Packets that wait in memory for replicas that do not answer.
    handed_off: Arc<HandedOff>,
}

#[derive(Default)]
struct HandedOff {
    packets: AtomicUsize,
    less: Notify,
}

impl NetMailbox {
    pub(super) fn new(
        shared: Arc<Shared>,
        storage: Option<Storage>,
        remembered: Arc<Remembered>,
    ) -> NetMailbox {
        NetMailbox { shared, storage, remembered, handed_off: Arc::default() }
    }

    /// The replicas of an address, closest first, this node among them where it belongs there.
    pub fn replicas(&self, address: &Address) -> Vec<NodeKey> {
        self.replicas_in(&self.shared.view(), address)
    }

    fn replicas_in(&self, view: &View, address: &Address) -> Vec<NodeKey> {
        let own = self.storage.is_some().then_some(self.shared.local);
        closest(address, view.members.iter().copied().chain(own), REPLICAS)
    }

    /// Waits until every replica has its copies of what was deposited, at most `patience`: a program
    /// that ends takes its hand-offs with it. Says whether all have them.
    pub async fn handed_off(&self, patience: Duration) -> bool {
        let wait = async {
            loop {
                let less = self.handed_off.less.notified();
                if self.handed_off.packets.load(Ordering::Relaxed) == 0 {
                    return;
                }
                less.await;
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok()
    }

    /// Replicas that answered last time; all of them where none did.
    fn reachable(&self, address: &Address) -> Result<Vec<NodeKey>, MailboxError> {
        let view = self.shared.view();
        let replicas = self.replicas_in(&view, address);
        if replicas.is_empty() {
            return Err(unreachable(address, "no node that keeps mailboxes is known; is --peer right?"));
        }
        let answering: Vec<NodeKey> =
            replicas.iter().filter(|key| !view.silent.contains(key)).copied().collect();
        Ok(if answering.is_empty() { replicas } else { answering })
    }

    /// The own store, where `replica` is this node.
    fn own(&self, replica: NodeKey) -> Option<Storage> {
        self.storage.clone().filter(|_| replica == self.shared.local)
    }

    async fn block(&self, batch: &[(Address, Verified)]) -> Result<Vec<Receipt>, MailboxError> {
        let view = self.shared.view();
        let mut places: HashMap<Address, Vec<NodeKey>> = HashMap::new();
        let mut placement = Vec::with_capacity(batch.len());
        for (address, _) in batch {
            let replicas = places.entry(*address).or_insert_with(|| self.replicas_in(&view, address));
            if replicas.is_empty() {
                return Err(unreachable(address, "no node that keeps mailboxes is known; is --peer right?"));
            }
            placement.push(replicas.clone());
        }
        let (settle, settled) = oneshot::channel();
        let spread = Spread { mailbox: self.clone(), batch: batch.into(), settle: Some(settle) };
        // Beyond the acknowledgement the task lives on, and hands off to the slower replicas.
        tokio::spawn(spread.run(placement));
        let stopped = |_| unreachable(&batch[0].0, "this node has been shut down");
        let verdicts = settled.await.map_err(stopped)?;
        batch
            .iter()
            .zip(verdicts)
            .map(|((address, _), verdict)| match verdict {
                Verdict::Stored => Ok(Receipt::Stored),
                Verdict::Duplicate => Ok(Receipt::Duplicate),
                Verdict::Rejected(reason) => Ok(Receipt::Rejected(reason)),
                Verdict::Unacknowledged { disks, needed } => Err(unreachable(
                    address,
                    &format!("{disks} of {needed} needed disks acknowledged in time; deposit again"),
                )),
            })
            .collect()
    }

    async fn page(&self, replica: NodeKey, address: Address, cursor: Option<Cursor>) -> (NodeKey, Answered) {
        let answered = match self.own(replica) {
            Some(storage) => {
                let read = move || storage.pull(replica, &address, cursor, FRAME_PACKETS_MAX);
                match tokio::task::spawn_blocking(read).await {
                    Ok(Ok(page)) => Answered::Page {
                        cursor: page.cursor,
                        more: page.more,
                        packets: Packets::Own(page.packets),
                    },
                    Ok(Err(StoreError::CursorExpired { .. })) => Answered::Expired,
                    Ok(Err(error)) => Answered::Failed(error.to_string()),
                    Err(error) => Answered::Failed(error.to_string()),
                }
            }
            None => {
                let request = Request::Pull { address, cursor, max: FRAME_PACKETS_MAX as u32 };
                match self.shared.ask(replica, request).await {
                    Ok(Response::Page { cursor, more, packets }) => {
                        Answered::Page { cursor, more, packets: Packets::Received(replica, packets) }
                    }
                    Ok(_) => Answered::Failed("it answered something else".into()),
                    Err(error) if error.code() == Some(Code::CursorExpired) => Answered::Expired,
                    Err(error) => Answered::Failed(error.to_string()),
                }
            }
        };
        (replica, answered)
    }

    async fn stat_at(&self, replica: NodeKey, address: Address) -> Result<Stat, String> {
        if let Some(storage) = self.own(replica) {
            let read = tokio::task::spawn_blocking(move || storage.store.stat(&address));
            return read.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string());
        }
        match self.shared.ask(replica, Request::Stat { address }).await {
            Ok(Response::Stat(stat)) => Ok(stat),
            Ok(_) => Err("it answered something else".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn unreachable(address: &Address, reason: &str) -> MailboxError {
    MailboxError::Unreachable { address: *address, reason: reason.into() }
}

impl Mailbox for NetMailbox {
    async fn deposit(&self, batch: &[(Address, Verified)]) -> Result<Vec<Receipt>, MailboxError> {
        let mut receipts = Vec::with_capacity(batch.len());
        for block in batch.chunks(BLOCK_PACKETS) {
            receipts.extend(self.block(block).await?);
        }
        Ok(receipts)
    }

    async fn pull(&self, address: &Address, from: &Position) -> Result<Pulled, MailboxError> {
        let replicas = self.reachable(address)?;
        let started = Instant::now();
        let now = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut gather = Gather::new(&replicas, &from.0, 0);
        let mut union = Union::default();
        let mut bytes = 0;
        let mut asking = FuturesUnordered::new();
        for gather::Action::Ask { replica, cursor } in gather.start() {
            asking.push(self.page(replica, *address, cursor));
        }
        while !gather.finished() {
            let wake = started + Duration::from_millis(gather.wake_ms().unwrap_or(0));
            let mut arrived = Vec::new();
            tokio::select! {
                Some(answered) = asking.next() => arrived.push(answered),
                () = tokio::time::sleep_until(wake) => {
                    self.shared.stalled(gather.unfinished()).await;
                    gather.step(gather::Input::Tick, now().max(gather.wake_ms().unwrap_or(0)));
                    continue;
                }
            }
            while arrived.len() < PAGES_AT_ONCE
                && let Some(Some(answered)) = asking.next().now_or_never()
            {
                arrived.push(answered);
            }
            let mut pages = Vec::new();
            for (replica, answered) in arrived {
                let input = match answered {
                    Answered::Page { cursor, more, packets } => {
                        bytes += packets.bytes_on_the_wire();
                        pages.push(packets);
                        gather::Input::Page { replica, cursor, more }
                    }
                    Answered::Expired => gather::Input::Expired { replica },
                    Answered::Failed(reason) => gather::Input::Failed { replica, reason },
                };
                // Asked for before the pages are checked: the next ones travel meanwhile.
                for gather::Action::Ask { replica, cursor } in gather.step(input, now()) {
                    asking.push(self.page(replica, *address, cursor));
                }
            }
            if !pages.is_empty() {
                let (remembered, counters) = (self.remembered.clone(), self.shared.counters.clone());
                let check = move || collect(union, pages, &remembered, &counters);
                let (collected, liars) = tokio::task::spawn_blocking(check)
                    .await
                    .map_err(|error| unreachable(address, &error.to_string()))?;
                union = collected;
                for (replica, reason) in liars {
                    gather.step(gather::Input::Failed { replica, reason }, now());
                }
            }
        }
        if gather.answered() == 0 {
            return Err(unreachable(address, gather.last_reason()));
        }
        Ok(Pulled { packets: union.into_packets(), position: Position(gather.position()), bytes })
    }

    async fn stat(&self, address: &Address) -> Result<Stat, MailboxError> {
        let patience = Duration::from_millis(gather::PATIENCE_FIRST_MS);
        let asking = self.reachable(address)?.into_iter().map(|replica| {
            let answer = tokio::time::timeout(patience, self.stat_at(replica, *address));
            answer.map(|result| result.unwrap_or_else(|_| Err("it did not answer in time".into())))
        });
        let answers = future::join_all(asking).await;
        if let Some(Err(reason)) = answers.iter().all(Result::is_err).then(|| answers.last()).flatten() {
            return Err(unreachable(address, reason));
        }
        // Replicas that wait for hand-offs hold less; none holds more than there is.
        Ok(answers.into_iter().flatten().fold(Stat::default(), |most, stat| Stat {
            packets: most.packets.max(stat.packets),
            observed: most.observed.max(stat.observed),
            syntheses: most.syntheses.max(stat.syntheses),
            retractions: most.retractions.max(stat.retractions),
        }))
    }
}

/// What a replica said to a pull.
enum Answered {
    Page { cursor: Cursor, more: bool, packets: Packets },
    Expired,
    Failed(String),
}

enum Packets {
    /// From the own store.
    Own(Vec<Verified>),
    /// n x 512 bytes of another node.
    Received(NodeKey, Vec<u8>),
}

impl Packets {
    fn bytes_on_the_wire(&self) -> u64 {
        match self {
            Packets::Own(_) => 0,
            Packets::Received(_, bytes) => bytes.len() as u64,
        }
    }
}

/// Adds pages to the union: copies of what is in it cost a hash, everything else a signature check.
/// Gives back the replicas that delivered something that is no packet.
fn collect(
    mut union: Union,
    pages: Vec<Packets>,
    remembered: &Remembered,
    counters: &Counters,
) -> (Union, Vec<(NodeKey, String)>) {
    let mut liars = Vec::new();
    let mut candidates: Vec<(NodeKey, Id, Packet)> = Vec::new();
    for page in pages {
        match page {
            Packets::Own(packets) => packets.into_iter().for_each(|packet| union.insert(packet.id(), packet)),
            Packets::Received(replica, bytes) => {
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
        candidates.retain(|(_, id, _)| !union.contains(id));
        let mut chosen = Vec::new();
        let mut ids = std::collections::HashSet::new();
        candidates.retain(|candidate| {
            let first = ids.insert(candidate.1);
            if first {
                chosen.push(*candidate);
            }
            !first
        });
        let packets: Vec<Packet> = chosen.iter().map(|(_, _, packet)| *packet).collect();
        for ((replica, id, _), result) in chosen.into_iter().zip(verify(&packets, remembered, counters)) {
            match result {
                Ok(packet) => union.insert(id, packet),
                Err(error) => liars.push((replica, error.to_string())),
            }
        }
    }
    for (replica, reason) in &liars {
        tracing::warn!(?replica, reason, "a replica delivered a packet that is none; it is left out");
    }
    (union, liars)
}

/// One block of a deposit on its way, beyond the acknowledgement until every replica has it.
struct Spread {
    mailbox: NetMailbox,
    batch: Arc<[(Address, Verified)]>,
    settle: Option<oneshot::Sender<Vec<Verdict>>>,
}

impl Spread {
    async fn run(mut self, placement: Vec<Vec<NodeKey>>) {
        let started = Instant::now();
        let now = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut deposit = Deposit::new(&placement, 0);
        drop(placement);
        let mut sending: FuturesUnordered<BoxFuture<'static, deposit::Input>> = FuturesUnordered::new();
        let mut input = deposit::Input::Tick;
        let mut budget = None;
        loop {
            for deposit::Action::Send { replica, packets } in deposit.step(input, now()) {
                sending.push(send(self.mailbox.clone(), self.batch.clone(), replica, packets).boxed());
            }
            if let Some(verdicts) = deposit.verdicts()
                && let Some(settle) = self.settle.take()
            {
                // Before the verdicts: who waits for hand-offs after them must see this one.
                budget = HandOff::take(&self.mailbox.handed_off, self.batch.len());
                // Whoever deposited may have gone; the hand-off goes on.
                let _ = settle.send(verdicts);
            }
            if deposit.finished() {
                return;
            }
            if self.settle.is_none() && budget.is_none() {
                let copies = deposit.copies_waiting();
                tracing::warn!(copies, "too many hand-offs wait in memory: some replicas stay behind");
                return;
            }
            // Rounded up: waking a fraction early would find nothing to do, and spin.
            let wake = deposit.wake_ms().map(|wake| started + Duration::from_millis(wake + 1));
            input = tokio::select! {
                Some(input) = sending.next(), if !sending.is_empty() => input,
                () = tokio::time::sleep_until(wake.unwrap_or(started)), if wake.is_some() => deposit::Input::Tick,
                else => return,
            };
        }
    }
}

/// A share of the packets that may wait in memory; given back when dropped.
struct HandOff {
    waiting: Arc<HandedOff>,
    packets: usize,
}

impl HandOff {
    fn take(waiting: &Arc<HandedOff>, packets: usize) -> Option<HandOff> {
        let before = waiting.packets.fetch_add(packets, Ordering::Relaxed);
        let share = HandOff { waiting: waiting.clone(), packets };
        (before + packets <= HANDOFF_PACKETS_MAX).then_some(share)
    }
}

impl Drop for HandOff {
    fn drop(&mut self) {
        self.waiting.packets.fetch_sub(self.packets, Ordering::Relaxed);
        self.waiting.less.notify_waiters();
    }
}

/// One frame to one replica.
async fn send(
    mailbox: NetMailbox,
    batch: Arc<[(Address, Verified)]>,
    replica: NodeKey,
    packets: Vec<usize>,
) -> deposit::Input {
    let answers: Option<Vec<Answer>> = match mailbox.own(replica) {
        Some(storage) => {
            let own: Vec<(Address, Verified)> = packets.iter().map(|&index| batch[index]).collect();
            match tokio::task::spawn_blocking(move || storage.deposit(own)).await {
                Ok(Ok(answers)) => Some(answers),
                Ok(Err(error)) => {
                    tracing::error!(%error, "the own store does not take a deposit");
                    None
                }
                Err(_) => None,
            }
        }
        // The members' list greets silent nodes again; until then nothing is dialled.
        None if mailbox.shared.view().silent.contains(&replica) => None,
        None => {
            let mut bytes = Vec::with_capacity(packets.len() * DEPOSIT_BYTES);
            for &index in &packets {
                let (address, packet) = &batch[index];
                bytes.extend(address);
                bytes.extend(packet.as_bytes());
            }
            Counters::add(&mailbox.shared.counters.packets_out, packets.len() as u64);
            match mailbox.shared.ask(replica, Request::Deposit(bytes)).await {
                Ok(Response::Deposited(answers)) => Some(answers),
                Ok(_) => None,
                // Its view of the swarm differs from ours: asking again would not change it soon.
                Err(error) if error.code() == Some(Code::NotResponsible) => {
                    Some(vec![Answer::Rejected("not responsible: others are closer".into()); packets.len()])
                }
                Err(AskError::Refused(refusal)) => {
                    tracing::warn!(?replica, reason = %refusal, "a replica takes no deposit for now");
                    None
                }
                Err(AskError::NoAnswer(_)) => None,
            }
        }
    };
    match answers {
        Some(answers) => deposit::Input::Answered { replica, packets, answers },
        None => deposit::Input::Failed { replica, packets },
    }
}
