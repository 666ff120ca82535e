//! Readers: pulls of simulated nodes, as `net::mailbox::pull` does them.

use super::network::{Purpose, Request, Response};
use super::plants::Plant;
use super::world::{Event, World};
use crate::address::Address;
use crate::node::gather::{Action, Input};
use crate::node::{Gather, Held, NodeKey, Seen};
use crate::packet::{Id, Kind, Verified};
use crate::store::{Cursor, Ledger};
use std::collections::{BTreeMap, BTreeSet};

/// Someone who pulls one mailbox again and again.
pub(super) struct Reader {
    pub node: usize,
    pub address: Address,
    pub pulling: bool,
    position: Vec<Cursor>,
    seen: Seen,
    /// What it merges.
    pub ledger: Ledger,
    /// Every packet that it was given.
    pub given: BTreeSet<Id>,
    /// (author, packet) of the retractions that it was given.
    pub retracted: BTreeSet<(Id, Id)>,
    /// Pulls that have ended well since the last storm.
    pub calm_pulls: u32,
}

impl Reader {
    pub fn new(node: usize, address: Address) -> Reader {
        Reader {
            node,
            address,
            pulling: false,
            position: Vec::new(),
            seen: Seen::default(),
            ledger: Ledger::default(),
            given: BTreeSet::new(),
            retracted: BTreeSet::new(),
            calm_pulls: 0,
        }
    }
}

/// A pull on its way.
pub(super) struct Pull {
    pub reader: usize,
    gather: Gather,
    seen: Seen,
    fresh: Vec<Verified>,
    from: BTreeMap<Id, Cursor>,
    pub timer: Option<(u64, u64)>,
}

impl World {
    /// A reader whose node has restarted knows nothing.
    pub fn forget(&mut self, reader: usize) {
        let Reader { node, address, .. } = self.readers[reader];
        self.readers[reader] = Reader::new(node, address);
    }

    pub fn pull(&mut self, reader: usize) {
        let Reader { node, pulling, .. } = self.readers[reader];
        if pulling || !self.nodes[node].up {
            return;
        }
        self.place_and_pull(reader);
    }

    /// Reads the mailbox at its replicas.
    pub fn pull_from(&mut self, reader: usize, all: Vec<NodeKey>) {
        let Reader { node, address, .. } = self.readers[reader];
        let silent = &self.nodes[node].silent;
        let answering: Vec<NodeKey> = all.iter().filter(|key| !silent.contains(key)).copied().collect();
        let mut replicas = if answering.is_empty() { all } else { answering };
        if replicas.is_empty() {
            return;
        }
        let key = self.nodes[node].key;
        let rotation = usize::from(key.0[0]) % replicas.len();
        replicas.rotate_left(rotation);
        replicas.sort_by_key(|replica| *replica != key);
        let wall = self.wall_ms(node);
        let state = &mut self.readers[reader];
        state.pulling = true;
        let mut seen = state.seen.clone();
        if self.config.plant == Some(Plant::ForgetSeen) {
            seen = Seen::default();
        }
        seen.set_now(wall);
        let gather = Gather::new(&replicas, &state.position, self.now);
        let from = state.position.iter().map(|cursor| (cursor.replica, *cursor)).collect();
        let actions = gather.start();
        self.pulls += 1;
        let id = self.pulls;
        self.nodes[node].pulls.insert(id, Pull { reader, gather, seen, fresh: vec![], from, timer: None });
        self.perform(node, id, address, actions);
        self.plan_pull(node, id);
    }

    fn perform(&mut self, node: usize, id: u64, address: Address, actions: Vec<Action>) {
        for action in actions {
            let to = action.replica();
            let request = match action {
                Action::Page { cursor, .. } => Request::Pull { address, cursor },
                Action::Stat { .. } => Request::Stat { address },
                Action::Ranges { prefixes, .. } => Request::Ranges { address, prefixes },
                Action::Fetch { ids, .. } => Request::Fetch { address, ids },
            };
            self.ask(node, to, request, Purpose::Pull { pull: id });
        }
    }

    fn plan_pull(&mut self, node: usize, id: u64) {
        let Some(pull) = self.nodes[node].pulls.get(&id) else { return };
        let (old, wake) = (pull.timer, pull.gather.wake_ms());
        if let Some(timer) = old {
            self.queue.remove(&timer);
        }
        let timer = wake.map(|wake| self.at(wake.max(self.now) + 1, Event::PullWake { node, pull: id }));
        if let Some(pull) = self.nodes[node].pulls.get_mut(&id) {
            pull.timer = timer;
        }
    }

    pub fn replica_answered(&mut self, node: usize, id: u64, replica: NodeKey, response: Option<&Response>) {
        let failed = |reason: &str| Input::Failed { replica, reason: reason.into() };
        let nothing: &[Verified] = &[];
        let (input, packets, forged) = match response {
            Some(Response::Page { cursor, more, packets, forged }) => {
                let count = packets.len();
                (Input::Page { replica, cursor: *cursor, more: *more, packets: count }, &packets[..], *forged)
            }
            Some(Response::Stat { digest, cursor }) => {
                (Input::Stat { replica, digest: *digest, cursor: *cursor }, nothing, false)
            }
            Some(Response::Ranges(ranges)) => {
                (Input::Ranges { replica, ranges: ranges.clone() }, nothing, false)
            }
            Some(Response::Packets { packets, forged }) => {
                (Input::Fetched { replica }, &packets[..], *forged)
            }
            Some(Response::CursorExpired) => (Input::Expired { replica }, nothing, false),
            Some(_) => (failed("it answered something else"), nothing, false),
            None => (failed("no answer"), nothing, false),
        };
        let Some(mut pull) = self.nodes[node].pulls.remove(&id) else { return };
        let mut actions = pull.gather.step(input, self.now);
        for packet in packets {
            if pull.seen.insert(packet) {
                pull.fresh.push(*packet);
            }
        }
        if forged {
            actions.extend(pull.gather.step(failed("a packet that is none"), self.now));
        }
        self.go_on(node, id, pull, actions);
    }

    pub fn wake_pull(&mut self, node: usize, id: u64) {
        let Some(mut pull) = self.nodes[node].pulls.remove(&id) else { return };
        pull.timer = None;
        for key in pull.gather.late(self.now) {
            self.members(node, crate::node::members::Input::Failed(key));
        }
        let actions = pull.gather.step(Input::Tick, self.now);
        self.go_on(node, id, pull, actions);
    }

    fn go_on(&mut self, node: usize, id: u64, mut pull: Pull, mut actions: Vec<Action>) {
        actions.extend(pull.gather.settle(&pull.seen, self.now));
        let blind = self.config.plant == Some(Plant::BlindReader) && pull.gather.answered() > 0;
        if pull.gather.finished() || blind {
            if let Some(timer) = pull.timer {
                self.queue.remove(&timer);
            }
            return self.pulled(pull);
        }
        let address = self.readers[pull.reader].address;
        self.nodes[node].pulls.insert(id, pull);
        self.perform(node, id, address, actions);
        self.plan_pull(node, id);
    }

    /// A pull has ended: the reader takes over what came, and what it claims is checked.
    fn pulled(&mut self, pull: Pull) {
        let Pull { reader: number, gather, seen, mut fresh, from, .. } = pull;
        self.readers[number].pulling = false;
        if gather.answered() == 0 {
            self.counts.pulls_failed += 1;
            return;
        }
        self.counts.pulls += 1;
        self.counts.packets_pulled += fresh.len() as u64;
        fresh.sort_by_cached_key(|packet| packet.id());
        self.check_duplicates(number, &fresh);
        let wall = self.wall_ms(self.readers[number].node);
        for packet in &fresh {
            let reader = &mut self.readers[number];
            reader.given.insert(packet.id());
            if packet.kind() == Kind::Retraction {
                reader.retracted.insert((*packet.author(), *packet.reference()));
                if self.config.plant == Some(Plant::IgnoreRetraction) {
                    continue;
                }
            }
            reader.ledger.deposit(wall, packet);
        }
        self.check_retracted_reader(number, &fresh);
        let position = gather.position();
        self.check_cursors(number, &from, &position, &seen);
        let reader = &mut self.readers[number];
        (reader.position, reader.seen) = (position, seen);
        reader.calm_pulls += 1;
    }

    /// Whether a reader has heard of a packet.
    pub fn knows(seen: &Seen, id: &Id) -> bool {
        seen.knows(id)
    }
}
