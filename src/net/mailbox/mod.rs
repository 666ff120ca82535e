//! Mailboxes over the swarm: deposits to the replicas of each address, pulls from one of them beside
//! the digests of the others.

mod pull;
mod spread;

use super::check::Remembered;
use super::counters::Counters;
use super::receipt::SignedReceipt;
use super::shared::Shared;
use super::storage::Storage;
use super::wire::{Request, Response};
use crate::address::Address;
use crate::limits::{FRAME_PACKETS_MAX, SUBSCRIPTION_WAIT_MS_MAX};
use crate::mailbox::{Mailbox, MailboxError, Position, Pulled, Receipt};
use crate::node::deposit::Verdict;
use crate::node::{NodeKey, gather};
use crate::packet::Verified;
use crate::store::{Cursor, Stat};
use futures::{FutureExt, future};
use pull::Memory;
use spread::{HandedOff, Spread};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

pub use spread::HandOffs;

/// Packets of one deposit that are on their way together; a longer batch goes in blocks of these.
const BLOCK_PACKETS: usize = 8 * FRAME_PACKETS_MAX;

/// The swarm's mailboxes, as one node reaches them. Cheap to clone.
///
/// A pull gives the union of what the reachable replicas hold beyond the position: each packet once as
/// long as this mailbox remembers the reader ([`crate::limits::SEEN_IDS_MAX`]). Beyond that a packet may come
/// again: merges take packets by id, so nothing counts twice.
#[derive(Clone)]
pub struct NetMailbox {
    shared: Arc<Shared>,
    storage: Option<Storage>,
    remembered: Arc<Remembered>,
    /// Packets that wait in memory for replicas that do not answer.
    handed_off: Arc<HandedOff>,
    /// What readers have seen.
    memory: Arc<Mutex<Memory>>,
    receipts: Option<Arc<Receipts>>,
}

/// Takes the receipts of replicas as they come.
pub type Receipts = dyn Fn(SignedReceipt) + Send + Sync;

impl NetMailbox {
    pub(super) fn new(
        shared: Arc<Shared>,
        storage: Option<Storage>,
        remembered: Arc<Remembered>,
    ) -> NetMailbox {
        NetMailbox {
            shared,
            storage,
            remembered,
            handed_off: Arc::default(),
            memory: Arc::default(),
            receipts: None,
        }
    }

    /// Also gives every receipt that a replica signs to `receipts`: what it did with which packets.
    pub fn keeping_receipts(mut self, receipts: Arc<Receipts>) -> NetMailbox {
        self.receipts = Some(receipts);
        self
    }

    /// The replicas of an address, closest first, this node among them where it belongs there. Just after the
    /// start it waits until the swarm has introduced itself, some seconds at most.
    ///
    /// # Errors
    /// Nobody who keeps mailboxes is known.
    pub async fn replicas(&self, address: &Address) -> Result<Vec<NodeKey>, MailboxError> {
        self.shared.introduced().await;
        let replicas = self.shared.placement.replicas(&self.shared, address).await;
        if replicas.is_empty() {
            return Err(unreachable(
                address,
                "no node that keeps mailboxes is known: is --peer, or --bootstrap, right?",
            ));
        }
        Ok(replicas)
    }

    /// Waits until every replica has its copies of what was deposited, at most `patience`: a program
    /// that ends takes its hand-offs with it. Says whether all have them.
    pub async fn handed_off(&self, patience: Duration) -> bool {
        self.handed_off.wait(patience).await
    }

    /// Copies that wait for replicas that do not answer.
    pub fn hand_offs(&self) -> HandOffs {
        self.handed_off.read()
    }

    /// Moves a mailbox's pages from its first replica without a look at them: what the network gives, for
    /// measuring. Gives the bytes of packets.
    ///
    /// # Errors
    /// The replica does not answer.
    pub async fn move_pages(&self, address: &Address) -> Result<u64, MailboxError> {
        let (replica, mut cursor, mut bytes) = (self.replicas(address).await?[0], None, 0);
        loop {
            let request =
                Request::Pull { address: *address, cursor, max: FRAME_PACKETS_MAX as u32, wait_ms: 0 };
            match self.shared.ask(replica, request).await {
                Ok(Response::Page { cursor: end, more, packets }) => {
                    bytes += packets.len() as u64;
                    if !more {
                        return Ok(bytes);
                    }
                    cursor = Some(end);
                }
                Ok(_) => return Err(unreachable(address, "it answered something else")),
                Err(error) => return Err(unreachable(address, &error.to_string())),
            }
        }
    }

    /// Waits until there is something in a mailbox beyond a position, at most `patience`, and pulls it:
    /// a long poll at one replica. An empty answer says that nothing came.
    ///
    /// # Errors
    /// As for a pull.
    pub async fn subscribe(
        &self,
        address: &Address,
        from: &Position,
        patience: Duration,
    ) -> Result<Pulled, MailboxError> {
        let end = tokio::time::Instant::now() + patience;
        loop {
            // Before the pull, so that nothing falls between it and the waiting.
            let own = self.shared.news.subscribe(*address);
            let mut arrived = std::pin::pin!(own.notify.notified());
            arrived.as_mut().enable();
            let pulled = self.pull(address, from).await?;
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            if !pulled.packets.is_empty() || left.is_zero() {
                return Ok(pulled);
            }
            tokio::select! {
                () = arrived => {}
                () = self.wait_at_a_replica(address, &pulled.position, left) => {}
            }
        }
    }

    /// Returns when another replica, of those read, has news, or after a while.
    async fn wait_at_a_replica(&self, address: &Address, position: &Position, left: Duration) {
        let wait = left.min(Duration::from_millis(SUBSCRIPTION_WAIT_MS_MAX));
        let reachable = self.reachable(address).await.unwrap_or_default();
        let other = |cursor: &&Cursor| {
            cursor.replica != self.shared.local.0 && reachable.contains(&NodeKey(cursor.replica))
        };
        let Some(&cursor) = position.0.iter().find(other) else { return tokio::time::sleep(wait).await };
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = Request::Pull { address: *address, cursor: Some(cursor), max: 1, wait_ms };
        if self.shared.ask(NodeKey(cursor.replica), request).await.is_err() {
            // Another replica may answer next time; not at once, or this would spin.
            tokio::time::sleep(wait.min(Duration::from_millis(500))).await;
        }
    }

    /// Replicas that answered last time; all of them where none did.
    async fn reachable(&self, address: &Address) -> Result<Vec<NodeKey>, MailboxError> {
        let replicas = self.replicas(address).await?;
        let view = self.shared.view();
        let answering: Vec<NodeKey> =
            replicas.iter().filter(|key| !view.silent.contains(key)).copied().collect();
        Ok(if answering.is_empty() { replicas } else { answering })
    }

    /// The own store, where `replica` is this node.
    fn own(&self, replica: NodeKey) -> Option<Storage> {
        self.storage.clone().filter(|_| replica == self.shared.local)
    }

    async fn block(&self, batch: &[(Address, Verified)]) -> Result<Vec<Receipt>, MailboxError> {
        let mut places: HashMap<Address, Vec<NodeKey>> = HashMap::new();
        let mut placement = Vec::with_capacity(batch.len());
        for (address, _) in batch {
            if !places.contains_key(address) {
                places.insert(*address, self.replicas(address).await?);
            }
            placement.push(places[address].clone());
        }
        let (settle, settled) = oneshot::channel();
        let spread = Spread::new(self.clone(), batch.into(), settle);
        // Beyond the acknowledgement the task lives on, and hands off to the slower replicas.
        tokio::spawn(spread.run(placement));
        let stopped = |_| unreachable(&batch[0].0, "this node has been shut down");
        let verdicts = settled.await.map_err(stopped)?;
        let acknowledged = |verdict: &&Verdict| matches!(verdict, Verdict::Stored | Verdict::Duplicate);
        let count = verdicts.iter().filter(acknowledged).count();
        Counters::add(&self.shared.counters.deposits_acknowledged, count as u64);
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

    async fn stat_at(&self, replica: NodeKey, address: Address) -> Result<(Stat, gather::Input), String> {
        let told = |(stat, digest, cursor)| (stat, gather::Input::Stat { replica, digest, cursor });
        if let Some(storage) = self.own(replica) {
            let read = tokio::task::spawn_blocking(move || storage.stat(replica, &address));
            return read.await.map_err(|e| e.to_string())?.map(told).map_err(|e| e.to_string());
        }
        match self.shared.ask(replica, Request::Stat { address }).await {
            Ok(Response::Stat { stat, digest, cursor }) => Ok(told((stat, digest, cursor))),
            Ok(_) => Err("it answered something else".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.pull_from_replicas(address, from).await
    }

    async fn stat(&self, address: &Address) -> Result<Stat, MailboxError> {
        let patience = Duration::from_millis(gather::PATIENCE_FIRST_MS);
        let asking = self.reachable(address).await?.into_iter().map(|replica| {
            let answer = tokio::time::timeout(patience, self.stat_at(replica, *address));
            answer.map(|result| result.unwrap_or_else(|_| Err("it did not answer in time".into())))
        });
        let answers = future::join_all(asking).await;
        if let Some(Err(reason)) = answers.iter().all(Result::is_err).then(|| answers.last()).flatten() {
            return Err(unreachable(address, reason));
        }
        // Replicas that wait for hand-offs hold less; none holds more than there is.
        Ok(answers.into_iter().flatten().fold(Stat::default(), |most, (stat, _)| Stat {
            packets: most.packets.max(stat.packets),
            observed: most.observed.max(stat.observed),
            syntheses: most.syntheses.max(stat.syntheses),
            retractions: most.retractions.max(stat.retractions),
        }))
    }
}
