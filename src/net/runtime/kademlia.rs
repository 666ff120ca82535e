//! Looking nodes up in the Kademlia network, where this node is part of one.

use super::Runtime;
use super::greetings::usable;
use crate::address::Address;
use crate::limits::{MEMBER_ADDRESSES_MAX, MEMBERS_MAX};
use crate::net::node_key;
use crate::node::{Contact, NodeKey};
use libp2p::kad::{self, QueryResult};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

/// Greetings of nodes met by chance that are on their way at a time.
const GREETINGS_MAX: usize = 32;
/// Nodes found by look-ups whose addresses are remembered.
const LOOKED_UP_MAX: usize = 4 * MEMBERS_MAX;

impl Runtime {
    /// A node that has greeted us enters the tables.
    pub(super) fn remember_route(&mut self, peer: &PeerId, addresses: &[Vec<u8>]) {
        let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() else { return };
        let first = kademlia.kbuckets().next().is_none();
        for address in addresses.iter().filter_map(|address| Multiaddr::try_from(address.clone()).ok()) {
            kademlia.add_address(peer, address);
        }
        if first {
            // Looking ourselves up fills the tables around us. It needs somebody to ask, and there is one.
            let _ = kademlia.bootstrap();
        }
    }

    /// A node that does not answer leaves the tables, or every look-up would wait for it.
    pub(super) fn forget_route(&mut self, peer: &PeerId) {
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() {
            kademlia.remove_peer(peer);
        }
        self.looked_up.remove(&node_key(peer));
    }

    pub(super) fn look_up(&mut self, address: &Address, reply: oneshot::Sender<Vec<NodeKey>>) {
        // Without Kademlia the reply is dropped, which says that nothing was found.
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() {
            let query = kademlia.get_closest_peers(address.to_vec());
            self.lookups.insert(query, reply);
        }
    }

    /// The nodes in our tables, ascending: for measuring.
    pub(super) fn table(&mut self) -> Vec<NodeKey> {
        let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() else { return vec![] };
        let entries = kademlia.kbuckets().flat_map(|bucket| {
            bucket.iter().map(|entry| node_key(entry.node.key.preimage())).collect::<Vec<_>>()
        });
        let mut keys: Vec<NodeKey> = entries.collect();
        keys.sort_unstable();
        keys
    }

    pub(super) fn on_kademlia(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed {
                id, result: QueryResult::GetClosestPeers(result), ..
            } => {
                let peers = match result {
                    Ok(found) => found.peers,
                    Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                let mut keys = Vec::with_capacity(peers.len());
                for peer in peers {
                    let key = node_key(&peer.peer_id);
                    if !self.shared.gate.admits_node(&key) {
                        continue;
                    }
                    keys.push(key);
                    if self.members.contact(&key).is_none() {
                        if self.looked_up.len() >= LOOKED_UP_MAX {
                            self.looked_up.clear();
                        }
                        let addresses = peer.addrs.iter().map(Multiaddr::to_vec).collect();
                        let mut addresses = usable(addresses, true);
                        addresses.truncate(MEMBER_ADDRESSES_MAX);
                        self.looked_up.insert(key, Contact { peer: peer.peer_id.to_bytes(), addresses });
                    }
                }
                if let Some(reply) = self.lookups.remove(&id) {
                    // Whoever asked may have gone.
                    let _ = reply.send(keys);
                }
            }
            // Met on the way of a look-up: greeted, to learn whether it keeps mailboxes.
            kad::Event::RoutablePeer { peer, address }
            | kad::Event::PendingRoutablePeer { peer, address }
                if self.greetings.len() < GREETINGS_MAX =>
            {
                self.greet(peer, vec![address], None);
            }
            _ => {}
        }
    }
}
