//! Who may do what at this node, and how much: the swarm's lists, quotas, and what everybody has done.

use super::counters::Counters;
use super::wire::{Code, Epochs, Refusal, Request};
use crate::limits::{FRAME_PACKETS_MAX, PACKET_BYTES};
use crate::mailbox::{Clock, SystemClock};
use crate::node::NodeKey;
use crate::node::lists::{List, Lists, Outcome};
use crate::node::participation::Participation;
use crate::node::quota::{Cost, Quotas, Rates, RetryAfter};
use crate::packet::Id;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

/// Told whenever newer lists have been heard of: to keep them on disk.
pub type ListsKeeper = dyn Fn(&Lists) + Send + Sync;

/// One per node.
pub(super) struct Gate {
    started: Instant,
    /// `None` in an open swarm.
    lists: RwLock<Option<Arc<Lists>>>,
    keeper: Option<Arc<ListsKeeper>>,
    quotas: Mutex<Quotas>,
    participation: Mutex<Participation>,
    /// The disk has no room for deposits.
    full: AtomicBool,
    counters: Arc<Counters>,
}

impl Gate {
    pub fn new(
        lists: Option<Lists>,
        keeper: Option<Arc<ListsKeeper>>,
        rates: Rates,
        counters: Arc<Counters>,
    ) -> Gate {
        Gate {
            started: Instant::now(),
            lists: RwLock::new(lists.map(Arc::new)),
            keeper,
            quotas: Mutex::new(Quotas::new(rates)),
            participation: Mutex::default(),
            full: AtomicBool::new(false),
            counters,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub fn lists(&self) -> Option<Arc<Lists>> {
        self.lists.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn epochs(&self) -> Epochs {
        let (nodes, authors) = self.lists().map(|lists| lists.epochs()).unwrap_or_default();
        Epochs { nodes, authors }
    }

    /// The lists that are newer than what a peer has.
    pub fn newer_than(&self, theirs: Epochs) -> Vec<Vec<u8>> {
        let Some(lists) = self.lists() else { return vec![] };
        let known = [theirs.nodes, theirs.authors];
        let newer = [lists.nodes(), lists.authors()].into_iter().zip(known);
        newer
            .filter_map(|(list, known)| list.filter(|list| list.epoch() > known))
            .map(|list| list.as_bytes().to_vec())
            .collect()
    }

    /// Takes in a list that somebody gave us. Says whether it was news. Blocks on the disk.
    ///
    /// # Errors
    /// Bytes that are no list of our swarm, signed by its key.
    pub fn offer(&self, bytes: &[u8]) -> Result<bool, Refusal> {
        let refuse = |reason: String| Err(Refusal::new(Code::Malformed, reason));
        let list = match List::parse(bytes) {
            Ok(list) => list,
            Err(error) => return refuse(error.to_string()),
        };
        let mut held = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        let Some(lists) = held.as_mut() else {
            return refuse("this node belongs to no swarm with lists".into());
        };
        match Arc::make_mut(lists).offer(list) {
            Outcome::Taken => {}
            Outcome::Known | Outcome::Older { .. } => return Ok(false),
            Outcome::Equivocation { epoch, taken } => {
                tracing::error!(epoch, "the swarm's key has signed two lists of one epoch: is it stolen?");
                if !taken {
                    return Ok(false);
                }
            }
            Outcome::AnotherSwarm { swarm } => {
                return refuse(format!(
                    "the list is of swarm {}, not of ours",
                    crate::packet::hex(&swarm[..8])
                ));
            }
            Outcome::BadSignature(error) => return refuse(error.to_string()),
        }
        let lists = lists.clone();
        drop(held);
        let (nodes, authors) = lists.epochs();
        tracing::info!(nodes, authors, "newer lists of the swarm");
        if let Some(keeper) = &self.keeper {
            keeper(&lists);
        }
        Ok(true)
    }

    /// Whether a node may keep mailboxes in this swarm.
    pub fn admits_node(&self, node: &NodeKey) -> bool {
        self.lists().is_none_or(|lists| lists.admits_node(node, SystemClock.now_ms()))
    }

    /// Whether packets of an author are taken, or why not.
    ///
    /// # Errors
    /// A line for the depositor.
    pub fn admits_author(&self, lists: Option<&Lists>, author: &Id) -> Result<(), String> {
        if lists.is_none_or(|lists| lists.admits_author(author, SystemClock.now_ms())) {
            return Ok(());
        }
        Counters::add(&self.counters.refused_authors, 1);
        Err("author: is not on this swarm's list, or not any more".into())
    }

    pub fn set_room(&self, room: bool) {
        self.full.store(!room, Ordering::Relaxed);
    }

    /// Whether there is room for deposits.
    ///
    /// # Errors
    /// There is none; more may come when packets expire or the operator makes some.
    pub fn room(&self) -> Result<(), Refusal> {
        if !self.full.load(Ordering::Relaxed) {
            return Ok(());
        }
        let refusal = Refusal::new(Code::Unavailable, "this node's share of its disk is used up");
        Err(Refusal { retry_after_ms: 30_000, ..refusal })
    }

    /// Takes the cost of a request from the shares of its peer and its subnet.
    ///
    /// # Errors
    /// The share is used up.
    pub fn charge(&self, peer: NodeKey, ip: Option<IpAddr>, request: &Request) -> Result<(), Refusal> {
        let now_ms = self.now_ms();
        self.quotas().admit(now_ms, peer, ip, cost(request)).map_err(|e| self.over_quota(e))
    }

    /// Takes the packets of a deposit, one per author given, from the shares of their authors.
    ///
    /// # Errors
    /// The share of one is used up.
    pub fn charge_authors<'a>(&self, authors: impl Iterator<Item = &'a Id>) -> Result<(), Refusal> {
        let mut counts: BTreeMap<&Id, u64> = BTreeMap::new();
        authors.for_each(|author| *counts.entry(author).or_default() += 1);
        let now_ms = self.now_ms();
        let mut quotas = self.quotas();
        for (author, packets) in counts {
            quotas.admit_author(now_ms, author, packets).map_err(|e| self.over_quota(e))?;
        }
        Ok(())
    }

    fn over_quota(&self, over: RetryAfter) -> Refusal {
        Counters::add(&self.counters.refused_quota, 1);
        let retry_after_ms = u32::try_from(over.ms).unwrap_or(u32::MAX);
        Refusal { retry_after_ms, ..Refusal::new(Code::Quota, over.to_string()) }
    }

    fn quotas(&self) -> MutexGuard<'_, Quotas> {
        self.quotas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn participation(&self) -> MutexGuard<'_, Participation> {
        self.participation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request costs at most.
fn cost(request: &Request) -> Cost {
    let bytes = |count: usize| (count * PACKET_BYTES) as u64;
    match request {
        Request::Deposit(body) => {
            let packets = (body.len() / super::wire::DEPOSIT_BYTES) as u64;
            Cost { requests: 1, packets, bytes: body.len() as u64 }
        }
        Request::Pull { max, .. } => {
            Cost { bytes: bytes(FRAME_PACKETS_MAX.min(*max as usize)), ..Cost::REQUEST }
        }
        Request::Fetch { ids, .. } => Cost { bytes: bytes(ids.len()), ..Cost::REQUEST },
        Request::Range { prefixes, .. } => Cost { bytes: 10_241 * prefixes.len() as u64, ..Cost::REQUEST },
        _ => Cost::REQUEST,
    }
}
