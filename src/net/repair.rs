//! Repair at work: performs what [`Repair`] decides, beside the event loop.

use super::check::{Remembered, verify};
use super::counters::Counters;
use super::shared::{AskError, Shared, View};
use super::storage::{Storage, StoredMailbox};
use super::wire::{Request, Response};
use crate::address::Address;
use crate::limits::{PACKET_BYTES, REPLICAS};
use crate::node::deposit::Answer;
use crate::node::reconcile::Ask;
use crate::node::repair::{Action, Input, Progress};
use crate::node::{NodeKey, Reconcile, Refused, Repair, closest};
use crate::packet::{Id, Packet, PacketError};
use crate::store::{Digest, Range, StoreError};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A running repair. Stops when dropped.
pub(super) struct RepairTask {
    state: Arc<State>,
    wanted: mpsc::UnboundedSender<Address>,
    task: JoinHandle<()>,
}

impl Drop for RepairTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RepairTask {
    pub fn progress(&self) -> Progress {
        self.state.repair().progress(self.state.now_ms())
    }

    /// Takes mailboxes of which others have more.
    pub fn wanted(&self) -> mpsc::UnboundedSender<Address> {
        self.wanted.clone()
    }

    /// A mailbox of the own store lacks packets that it had.
    pub fn refill(&self, address: Address) {
        // A repair that has ended wants nothing.
        let _ = self.wanted.send(address);
    }
}

struct State {
    started: Instant,
    repair: Mutex<Repair>,
}

impl State {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn repair(&self) -> MutexGuard<'_, Repair> {
        self.repair.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Repairs a storage node's mailboxes for as long as the handle lives.
pub(super) fn start(
    shared: Arc<Shared>,
    storage: Storage,
    remembered: Arc<Remembered>,
    packets_per_second: u64,
) -> RepairTask {
    let repair = Mutex::new(Repair::new(shared.local, packets_per_second, 0));
    let state = Arc::new(State { started: Instant::now(), repair });
    let (wanted, wanted_out) = mpsc::unbounded_channel();
    let worker = Worker { shared, storage, remembered, started: Instant::now(), refused: Arc::default() };
    let task = tokio::spawn(run(state.clone(), worker, wanted_out));
    RepairTask { state, wanted, task }
}

async fn run(state: Arc<State>, worker: Worker, mut wanted: mpsc::UnboundedReceiver<Address>) {
    let mut returned = worker.shared.returned.subscribe();
    let mut seen: Option<Arc<View>> = None;
    let mut working: FuturesUnordered<BoxFuture<'static, Input>> = FuturesUnordered::new();
    loop {
        // Before the look at the view, so that no change falls between.
        let mut changed = std::pin::pin!(worker.shared.changed.notified());
        changed.as_mut().enable();
        let view = worker.shared.view();
        let mut actions = Vec::new();
        if seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, &view)) {
            let members = view.members.iter().copied().collect();
            actions = state.repair().step(Input::Members(members), state.now_ms());
            seen = Some(view);
        }
        for action in actions {
            working.push(worker.clone().perform(action).boxed());
        }
        // Rounded up: waking a fraction early would find nothing to do, and spin.
        let wake = state.repair().wake_ms().map(|wake| state.started + Duration::from_millis(wake + 1));
        let input = tokio::select! {
            Some(input) = working.next(), if !working.is_empty() => input,
            () = &mut changed => continue,
            key = returned.recv() => match key {
                Ok(key) => Input::Returned(key),
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            },
            Some(address) = wanted.recv() => {
                let members = worker.shared.view().members.clone();
                Input::Wanted { address, replicas: closest(&address, members, REPLICAS) }
            }
            () = tokio::time::sleep_until(wake.unwrap_or(state.started)), if wake.is_some() => Input::Tick,
        };
        let actions = state.repair().step(input, state.now_ms());
        for action in actions {
            working.push(worker.clone().perform(action).boxed());
        }
    }
}

/// Why a mailbox could not be reconciled with a peer.
#[derive(Debug, thiserror::Error)]
enum RepairError {
    #[error("{0}")]
    Ask(#[from] AskError),
    #[error("{0}")]
    Nonsense(&'static str),
    #[error("a packet that is none: {0}")]
    Packet(#[from] PacketError),
    #[error("the own store: {0}")]
    Store(#[from] StoreError),
    #[error("work broke off: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

#[derive(Clone)]
struct Worker {
    shared: Arc<Shared>,
    storage: Storage,
    remembered: Arc<Remembered>,
    /// Packets that the store does not take: superseded here, retracted, over quota, not admitted.
    refused: Arc<Mutex<Refused>>,
    started: Instant,
}

impl Worker {
    async fn perform(self, action: Action) -> Input {
        match action {
            Action::Compare { peer, after } => self.compare(peer, after).await.unwrap_or_else(|error| {
                tracing::debug!(?peer, %error, "mailboxes could not be compared");
                Input::Failed { peer, address: None }
            }),
            Action::Reconcile { peer, address } => match self.reconcile(peer, address).await {
                Ok(fetched) => Input::Reconciled { peer, address, fetched },
                Err(error) => {
                    let mailbox = crate::packet::hex(&address[..8]);
                    tracing::warn!(?peer, mailbox, %error, "a mailbox could not be repaired");
                    Input::Failed { peer, address: Some(address) }
                }
            },
        }
    }

    async fn compare(&self, peer: NodeKey, after: Option<Address>) -> Result<Input, RepairError> {
        let response = self.shared.ask(peer, Request::Compare { after }).await?;
        let Response::Digests { next, digests } = response else {
            return Err(RepairError::Nonsense("it answered something else"));
        };
        // A page that goes back would go round for ever.
        let first = after.as_ref();
        let forward = next.as_ref().is_none_or(|next| first.is_none_or(|first| next > first));
        if !forward || !digests.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(RepairError::Nonsense("its digests are not in order"));
        }
        let mailboxes = digests.len();
        let worker = self.clone();
        let compare = move || worker.differing(&digests);
        let differing = tokio::task::spawn_blocking(compare).await??;
        Ok(Input::Compared { peer, mailboxes, differing, next })
    }

    /// The mailboxes that are ours too, and of which a peer holds something else.
    fn differing(&self, digests: &[(Address, Digest)]) -> Result<Vec<Address>, StoreError> {
        let view = self.shared.view();
        let mut differing = Vec::new();
        for (address, theirs) in digests {
            let ours = view.ranks(address, self.shared.local, REPLICAS);
            if ours && self.storage.store.digest(address)? != *theirs {
                differing.push(*address);
            }
        }
        Ok(differing)
    }

    /// Fetches what a peer has of a mailbox and we lack; the number of packets stored.
    async fn reconcile(&self, peer: NodeKey, address: Address) -> Result<u64, RepairError> {
        let mut reconcile = Reconcile::default();
        let mut fetched = 0;
        while let Some(ask) = reconcile.next_ask() {
            match ask {
                Ask::Ranges(prefixes) => {
                    let request = Request::Range { address, prefixes };
                    let Response::Ranges(theirs) = self.shared.ask(peer, request).await? else {
                        return Err(RepairError::Nonsense("it answered something else"));
                    };
                    let worker = self.clone();
                    let compare = move || worker.ranges(reconcile, &address, theirs);
                    reconcile = tokio::task::spawn_blocking(compare).await??;
                }
                Ask::Fetch(ids) => {
                    let request = Request::Fetch { address, ids };
                    let Response::Packets(bytes) = self.shared.ask(peer, request).await? else {
                        return Err(RepairError::Nonsense("it answered something else"));
                    };
                    let worker = self.clone();
                    let store = move || worker.store(&address, &bytes);
                    fetched += tokio::task::spawn_blocking(store).await??;
                }
            }
        }
        Ok(fetched)
    }

    fn ranges(
        &self,
        mut reconcile: Reconcile,
        address: &Address,
        theirs: Vec<Range>,
    ) -> Result<Reconcile, RepairError> {
        let refused = |id: &Id| self.refused().contains(address, id);
        let own =
            StoredMailbox { storage: &self.storage, address, refused: &refused, error: RefCell::new(None) };
        reconcile.ranges(theirs, &own).map_err(|nonsense| RepairError::Nonsense(nonsense.0))?;
        match own.error.into_inner() {
            Some(error) => Err(error.into()),
            None => Ok(reconcile),
        }
    }

    fn store(&self, address: &Address, bytes: &[u8]) -> Result<u64, RepairError> {
        let packets: Vec<Packet> =
            bytes.chunks_exact(PACKET_BYTES).map(Packet::parse).collect::<Result<_, _>>()?;
        Counters::add(&self.shared.counters.packets_in, packets.len() as u64);
        let lists = self.shared.gate.lists();
        let mut batch = Vec::with_capacity(packets.len());
        for packet in verify(&packets, &self.remembered, &self.shared.counters) {
            let packet = packet?;
            match self.shared.gate.admits_author(lists.as_deref(), packet.author()) {
                Ok(()) => batch.push((*address, packet)),
                Err(_) => self.refuse(address, packet.id()),
            }
        }
        let ids: Vec<Id> = batch.iter().map(|(_, packet)| packet.id()).collect();
        let mut stored = 0;
        for (answer, id) in self.storage.deposit(batch)?.into_iter().zip(ids) {
            match answer {
                Answer::Stored => stored += 1,
                Answer::Duplicate => {}
                Answer::Rejected(_) => self.refuse(address, id),
            }
        }
        if stored > 0 {
            self.shared.news.arrived([address]);
        }
        Ok(stored)
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.set_now(self.now_ms());
        refused
    }

    fn refuse(&self, address: &Address, id: Id) {
        self.refused().insert(*address, id, self.now_ms());
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
