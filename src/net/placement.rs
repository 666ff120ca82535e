//! Where the replicas of an address come from: one question, two sources.
//!
//! - [`Membership`]: every storage node is known, from the swarm's signed list or by greetings, and the
//!   closest are computed: no message at all. Up to [`crate::limits::MEMBERS_MAX`] nodes.
//! - [`Kademlia`]: nobody knows everybody, and the closest are looked up in O(log N) steps.
//!
//! For the same members both give the same nodes: the distance is the same ([`crate::node::placement`]).

use super::shared::{Command, Shared};
use crate::address::Address;
use crate::limits::REPLICAS;
use crate::node::{NodeKey, closest};
use futures::future::{BoxFuture, FutureExt, ready};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a look-up is believed.
const FRESH: Duration = Duration::from_secs(60);
/// Look-ups that are remembered.
const REMEMBERED_MAX: usize = 65_536;

/// Finds the storage nodes of an address.
pub(super) trait Placement: Send + Sync {
    /// At most [`REPLICAS`] nodes, closest first, this node among them where it belongs there.
    fn replicas<'a>(&'a self, shared: &'a Shared, address: &'a Address) -> BoxFuture<'a, Vec<NodeKey>>;
}

/// Full membership: one hop.
pub(super) struct Membership {
    /// Whether this node keeps mailboxes itself.
    pub storage: bool,
}

impl Placement for Membership {
    fn replicas<'a>(&'a self, shared: &'a Shared, address: &'a Address) -> BoxFuture<'a, Vec<NodeKey>> {
        let own = self.storage.then_some(shared.local);
        let view = shared.view();
        ready(closest(address, view.members.iter().copied().chain(own), REPLICAS)).boxed()
    }
}

/// Iterative look-ups.
#[derive(Default)]
pub(super) struct Kademlia {
    pub storage: bool,
    found: Mutex<HashMap<Address, (Instant, Vec<NodeKey>)>>,
}

impl Kademlia {
    pub fn new(storage: bool) -> Kademlia {
        Kademlia { storage, ..Kademlia::default() }
    }

    fn found(&self) -> MutexGuard<'_, HashMap<Address, (Instant, Vec<NodeKey>)>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Placement for Kademlia {
    fn replicas<'a>(&'a self, shared: &'a Shared, address: &'a Address) -> BoxFuture<'a, Vec<NodeKey>> {
        async move {
            if let Some((at, known)) = self.found().get(address)
                && at.elapsed() < FRESH
            {
                return known.clone();
            }
            let found = shared.order(|reply| Command::Closest { address: *address, reply }).await;
            let own = self.storage.then_some(shared.local);
            let replicas = closest(address, found.unwrap_or_default().into_iter().chain(own), REPLICAS);
            let mut known = self.found();
            if known.len() >= REMEMBERED_MAX {
                known.clear();
            }
            if !replicas.is_empty() {
                known.insert(*address, (Instant::now(), replicas.clone()));
            }
            replicas
        }
        .boxed()
    }
}
