//! The newest lists of one swarm that a node has heard of, and whom they admit.

use super::{List, ListError, ListKind, SignedList, Validity};
use crate::node::NodeKey;
use crate::packet::{Id, hex};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

/// What became of an offered list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is the newest: keep it on disk, and pass it on.
    Taken,
    /// It is the one held.
    Known,
    /// Its epoch is below the one held: whoever offered it should be told the newer one.
    Older { held: u64 },
    /// It is of another swarm than ours.
    AnotherSwarm { swarm: Id },
    /// It was made up or damaged.
    BadSignature(ListError),
    /// Another content than the held one, under the same epoch, and both signed: the holder of the
    /// swarm key contradicts himself, which people have to hear of. The larger digest is held from
    /// now on, so that all nodes agree.
    Equivocation { epoch: u64, taken: bool },
}

/// At most one list of nodes and one of authors, all of one swarm. A clone is cheap.
#[derive(Clone)]
pub struct Lists {
    swarm: Id,
    nodes: Option<SignedList>,
    authors: Option<SignedList>,
    by_node: Arc<BTreeMap<NodeKey, Validity>>,
    /// Only ever looked up: its order is chance.
    by_author: Arc<HashMap<Id, Validity>>,
}

impl Lists {
    /// No lists yet: open to every node and every author.
    pub fn new(swarm: Id) -> Lists {
        Lists { swarm, nodes: None, authors: None, by_node: Arc::default(), by_author: Arc::default() }
    }

    /// The swarm's name: the public key of its swarm key.
    pub fn swarm(&self) -> &Id {
        &self.swarm
    }

    /// The list of one kind; `None` where the swarm is open.
    pub fn list(&self, kind: ListKind) -> Option<&SignedList> {
        match kind {
            ListKind::Nodes => self.nodes.as_ref(),
            ListKind::Authors => self.authors.as_ref(),
        }
    }

    pub fn nodes(&self) -> Option<&SignedList> {
        self.nodes.as_ref()
    }

    pub fn authors(&self) -> Option<&SignedList> {
        self.authors.as_ref()
    }

    /// Epochs of the lists of nodes and authors; 0 where there is none.
    pub fn epochs(&self) -> (u64, u64) {
        let epoch = |list: &Option<SignedList>| list.as_ref().map_or(0, |list| list.epoch());
        (epoch(&self.nodes), epoch(&self.authors))
    }

    /// Takes a list if it is signed by our swarm and of a higher epoch than the held one. What costs
    /// more, the signature, is checked last.
    pub fn offer(&mut self, list: List) -> Outcome {
        if *list.swarm() != self.swarm {
            return Outcome::AnotherSwarm { swarm: *list.swarm() };
        }
        let mut rival = None;
        if let Some(held) = self.list(list.kind()) {
            if list.epoch() < held.epoch() {
                return Outcome::Older { held: held.epoch() };
            }
            if list.epoch() == held.epoch() {
                let (offered, held) = (list.digest(), held.digest());
                if offered == held {
                    return Outcome::Known;
                }
                rival = Some(offered > held);
            }
        }
        let list = match list.verify() {
            Ok(list) => list,
            Err(error) => return Outcome::BadSignature(error),
        };
        let epoch = list.epoch();
        if rival != Some(false) {
            self.hold(list);
        }
        rival.map_or(Outcome::Taken, |taken| Outcome::Equivocation { epoch, taken })
    }

    fn hold(&mut self, list: SignedList) {
        match list.kind() {
            ListKind::Nodes => {
                let entries = list.entries().map(|(peer, validity)| (NodeKey::of_peer(peer), validity));
                self.by_node = Arc::new(entries.collect());
                self.nodes = Some(list);
            }
            ListKind::Authors => {
                let entries =
                    list.entries().filter_map(|(key, validity)| Some((key.try_into().ok()?, validity)));
                self.by_author = Arc::new(entries.collect());
                self.authors = Some(list);
            }
        }
    }

    /// Whether a node may keep mailboxes. Everybody may in a swarm without a list of nodes.
    pub fn admits_node(&self, node: &NodeKey, now_ms: u64) -> bool {
        self.nodes.is_none() || self.by_node.get(node).is_some_and(|validity| validity.holds(now_ms))
    }

    /// Whether packets of an author are taken and count. Everybody's do in a swarm without a list of
    /// authors. One look into a hash table, however many are listed.
    pub fn admits_author(&self, author: &Id, now_ms: u64) -> bool {
        self.authors.is_none() || self.by_author.get(author).is_some_and(|validity| validity.holds(now_ms))
    }

    /// The full membership for placement: nodes admitted now, ascending; none in a swarm without a
    /// list of nodes, which knows its members by greetings alone.
    pub fn node_keys(&self, now_ms: u64) -> Vec<NodeKey> {
        self.by_node.iter().filter(|(_, validity)| validity.holds(now_ms)).map(|(key, _)| *key).collect()
    }

    /// Binary peer ids of the nodes admitted now, ascending: whom to look for.
    pub fn peers(&self, now_ms: u64) -> impl Iterator<Item = &[u8]> {
        let entries = self.nodes.iter().flat_map(|list| list.entries());
        entries.filter(move |(_, validity)| validity.holds(now_ms)).map(|(peer, _)| peer)
    }

    /// The next time after `now_ms` at which somebody begins or ceases to be admitted, if any: until
    /// then the answers above stay as they are.
    pub fn changes_at_ms(&self, now_ms: u64) -> Option<u64> {
        let all = self.by_node.values().chain(self.by_author.values());
        all.flat_map(|validity| [validity.from_ms, validity.until_ms]).filter(|&at| at > now_ms).min()
    }
}

impl fmt::Debug for Lists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lists")
            .field("swarm", &hex(&self.swarm[..4]))
            .field("nodes", &self.nodes)
            .field("authors", &self.authors)
            .finish()
    }
}
