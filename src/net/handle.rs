//! A running node, seen from outside.

use super::handover::HandoverTask;
use super::mailbox::NetMailbox;
use super::repair::RepairTask;
use super::shared::{Command, Shared};
use super::wire::{Code, Refusal, Request, Response};
use super::{Multiaddr, PeerId, Traffic};
use crate::address::Address;
use crate::limits::REPLICAS;
use crate::node::NodeKey;
use crate::node::lists::Lists;
use crate::node::participation;
use crate::node::repair::Progress;
use libp2p::multiaddr::Protocol;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Stops the node when dropped; [`NetHandle::shutdown`] also says goodbye.
pub struct NetHandle {
    pub(super) peer_id: PeerId,
    pub(super) listen: Vec<Multiaddr>,
    pub(super) shared: Arc<Shared>,
    pub(super) mailbox: NetMailbox,
    pub(super) task: JoinHandle<()>,
    pub(super) repair: Option<RepairTask>,
    /// Runs for as long as the node does.
    pub(super) _handover: Option<HandoverTask>,
}

/// Another member of the swarm, as this node knows it.
#[derive(Clone, Debug)]
pub struct Peer {
    pub peer: PeerId,
    pub addresses: Vec<Multiaddr>,
    /// The last attempt to speak with it failed.
    pub silent: bool,
    /// How long ago it last answered a greeting, or greeted us.
    pub last_heard: Option<Duration>,
}

impl NetHandle {
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    pub fn key(&self) -> NodeKey {
        self.shared.local
    }

    /// Where this node listens, with the ports it got.
    pub fn listen_addresses(&self) -> &[Multiaddr] {
        &self.listen
    }

    /// The same with the peer id: what others give to `--peer`.
    pub fn dial_addresses(&self) -> Vec<Multiaddr> {
        self.listen.iter().map(|address| address.clone().with(Protocol::P2p(self.peer_id))).collect()
    }

    /// Members but this node.
    pub fn peers(&self) -> Vec<Peer> {
        let view = self.shared.view();
        view.contacts
            .iter()
            .filter_map(|contact| {
                let peer = PeerId::from_bytes(&contact.peer).ok()?;
                let addresses =
                    contact.addresses.iter().filter_map(|a| Multiaddr::try_from(a.clone()).ok()).collect();
                let key = contact.key();
                let last_heard = view.heard.get(&key).map(std::time::Instant::elapsed);
                Some(Peer { peer, addresses, silent: view.silent.contains(&key), last_heard })
            })
            .collect()
    }

    pub fn traffic(&self) -> Traffic {
        self.shared.counters.read()
    }

    /// What repair has done, and what is ahead of it; `None` for a client.
    pub fn repair(&self) -> Option<Progress> {
        self.repair.as_ref().map(RepairTask::progress)
    }

    /// Says whether the disk has room for deposits; without it they are refused for a while.
    pub fn set_room(&self, room: bool) {
        self.shared.gate.set_room(room);
    }

    /// Fetches from other replicas what a mailbox of the own store lacks, as after damage.
    pub fn refill(&self, address: Address) {
        if let Some(repair) = &self.repair {
            repair.refill(address);
        }
    }

    /// Whether this node is one of the replicas of an address, as it sees the swarm.
    pub fn holds(&self, address: &Address) -> bool {
        self.shared.view().ranks(address, self.shared.local, REPLICAS)
    }

    /// Who has deposited and asked here.
    pub fn participation(&self) -> (Vec<participation::Row>, participation::Counts) {
        let participation = self.shared.gate.participation();
        (participation.snapshot(), participation.totals())
    }

    /// The newest signed lists of the swarm; `None` in an open one.
    pub fn lists(&self) -> Option<Arc<Lists>> {
        self.shared.gate.lists()
    }

    /// Takes in a newer list of the swarm, and passes it on. Says whether it was news.
    ///
    /// # Errors
    /// Bytes that are no list of this swarm.
    pub async fn offer_list(&self, bytes: &[u8]) -> Result<bool, Refusal> {
        let (shared, bytes) = (self.shared.clone(), bytes.to_vec());
        let offered = tokio::task::spawn_blocking(move || shared.gate.offer(&bytes)).await;
        let broken = |error: tokio::task::JoinError| Refusal::new(Code::Unavailable, error.to_string());
        let news = offered.map_err(broken)??;
        if news {
            self.shared.tell(Command::ListsChanged).await;
        }
        Ok(news)
    }

    /// Gives signed lists to every storage node known; says of each whether one of them was news, or why
    /// it took none. Nodes pass news on.
    pub async fn give_lists(&self, lists: &Lists) -> Vec<(PeerId, Result<bool, String>)> {
        let lists: Vec<Vec<u8>> = [lists.nodes(), lists.authors()]
            .into_iter()
            .flatten()
            .map(|list| list.as_bytes().to_vec())
            .collect();
        let view = self.shared.view();
        let give = view.members.iter().filter_map(|key| Some((*key, self.shared.peer_id(key)?)));
        let give = give.map(|(key, peer)| {
            let (shared, lists) = (self.shared.clone(), lists.clone());
            async move {
                let mut news = Ok(false);
                for list in lists {
                    match shared.ask(key, Request::Offer(list)).await {
                        Ok(Response::Noted(new)) => news = news.map(|before| before | new),
                        Ok(_) => news = Err("it answered something else".into()),
                        Err(error) => news = Err(error.to_string()),
                    }
                }
                (peer, news)
            }
        });
        futures::future::join_all(give.collect::<Vec<_>>()).await
    }

    /// The nodes in the Kademlia tables, ascending; none without Kademlia.
    pub async fn kademlia_table(&self) -> Vec<NodeKey> {
        self.shared.order(Command::Tables).await.unwrap_or_default()
    }

    /// The swarm's mailboxes, this node's own among them.
    pub fn mailbox(&self) -> NetMailbox {
        self.mailbox.clone()
    }

    /// Waits until every node heard of has been tried once, at most `patience`. Says whether somebody
    /// keeps mailboxes: for a client, whether there is anybody to ask.
    pub async fn settled(&self, patience: Duration) -> bool {
        self.shared.settled(patience).await;
        !self.shared.view().members.is_empty()
    }

    /// Closes every connection and ends the event loop.
    pub async fn shutdown(&self) {
        self.shared.tell(Command::Shutdown).await;
        self.shared.stopped().await;
    }
}

impl Drop for NetHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}
