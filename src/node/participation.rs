//! Who deposits and who asks: the loop breaks when nodes only read.
//!
//! Counts are what this node saw, and are never passed on: a replica sees the deposits and the reads
//! of the mailboxes that it keeps. A question counts once, where it begins to read a mailbox, however
//! many pages it takes. Authors deposit but never ask, because who asks does not tell who writes.
//!
//! Memory is bounded: where [`PARTICIPANTS_MAX`] peers, or authors, are counted apart, a newcomer
//! takes the place of the least active one, whose counts stay in the totals. So whoever deposits or
//! asks much is never forgotten for a crowd of strangers, and the totals are exact.

use super::NodeKey;
use crate::limits::PARTICIPANTS_MAX;
use crate::packet::{Id, hex};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// Whom a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Participant {
    /// Whoever sent the request.
    #[serde(serialize_with = "node_hex")]
    Peer(NodeKey),
    /// Whoever signed the packets.
    #[serde(serialize_with = "id_hex")]
    Author(Id),
}

fn node_hex<S: Serializer>(key: &NodeKey, serializer: S) -> Result<S::Ok, S::Error> {
    id_hex(&key.0, serializer)
}

fn id_hex<S: Serializer>(id: &Id, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(id))
}

/// Numbers since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Packets deposited, copies for further mailboxes and repeated ones included.
    pub deposited: u64,
    /// Questions: reads of a mailbox that were begun.
    pub asked: u64,
    /// Packets sent in answer to them.
    pub pulled: u64,
}

impl Counts {
    /// Packets deposited for each question; `None` where nothing was asked.
    pub fn deposits_per_ask(&self) -> Option<f64> {
        (self.asked > 0).then(|| self.deposited as f64 / self.asked as f64)
    }

    /// What decides whose counts are kept.
    fn activity(&self) -> u64 {
        self.deposited.saturating_add(self.asked).saturating_add(self.pulled)
    }

    fn add(&mut self, more: &Counts) {
        self.deposited = self.deposited.saturating_add(more.deposited);
        self.asked = self.asked.saturating_add(more.asked);
        self.pulled = self.pulled.saturating_add(more.pulled);
    }
}

/// One participant, for people and programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub who: Participant,
    #[serde(flatten)]
    pub counts: Counts,
    /// `None` for authors, and for peers that never asked.
    pub deposits_per_ask: Option<f64>,
}

/// The most active of one kind of participant.
#[derive(Clone, Debug)]
struct Tally<K> {
    counts: BTreeMap<K, Counts>,
    /// The same keys, least active first.
    order: BTreeSet<(u64, K)>,
}

impl<K: Copy + Ord> Tally<K> {
    fn new() -> Tally<K> {
        Tally { counts: BTreeMap::new(), order: BTreeSet::new() }
    }

    fn add(&mut self, key: K, more: &Counts, max: usize) {
        let mut counts = match self.counts.get(&key) {
            Some(counts) => {
                self.order.remove(&(counts.activity(), key));
                *counts
            }
            None => {
                if self.counts.len() >= max
                    && let Some((_, idle)) = self.order.pop_first()
                {
                    self.counts.remove(&idle);
                }
                Counts::default()
            }
        };
        counts.add(more);
        self.order.insert((counts.activity(), key));
        self.counts.insert(key, counts);
    }
}

/// What the node has seen.
#[derive(Clone, Debug)]
pub struct Participation {
    peers: Tally<NodeKey>,
    authors: Tally<Id>,
    totals: Counts,
    max: usize,
}

impl Default for Participation {
    fn default() -> Participation {
        Participation::bounded(PARTICIPANTS_MAX)
    }
}

impl Participation {
    pub fn new() -> Participation {
        Participation::default()
    }

    fn bounded(max: usize) -> Participation {
        Participation { peers: Tally::new(), authors: Tally::new(), totals: Counts::default(), max }
    }

    /// `packets` that `author` signed came from `peer`.
    pub fn record_deposit(&mut self, peer: NodeKey, author: &Id, packets: u64) {
        let more = Counts { deposited: packets, ..Counts::default() };
        self.peers.add(peer, &more, self.max);
        self.authors.add(*author, &more, self.max);
        self.totals.add(&more);
    }

    /// `peer` began to read a mailbox, and was sent the first `packets` of it.
    pub fn record_ask(&mut self, peer: NodeKey, packets: u64) {
        self.record(peer, Counts { asked: 1, pulled: packets, ..Counts::default() });
    }

    /// `peer` went on with a read that it had begun, and was sent `packets` more.
    pub fn record_page(&mut self, peer: NodeKey, packets: u64) {
        self.record(peer, Counts { pulled: packets, ..Counts::default() });
    }

    fn record(&mut self, peer: NodeKey, more: Counts) {
        self.peers.add(peer, &more, self.max);
        self.totals.add(&more);
    }

    /// Peers, then authors, the most active first, ties ascending by key.
    pub fn snapshot(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self
            .peers
            .counts
            .iter()
            .map(|(key, counts)| (Participant::Peer(*key), *counts))
            .chain(self.authors.counts.iter().map(|(key, counts)| (Participant::Author(*key), *counts)))
            .map(|(who, counts)| Row { who, counts, deposits_per_ask: counts.deposits_per_ask() })
            .collect();
        let kind = |row: &Row| matches!(row.who, Participant::Author(_));
        // Stable, so the order of the keys stays among equals.
        rows.sort_by_key(|row| (kind(row), std::cmp::Reverse(row.counts.activity())));
        rows
    }

    /// Over all peers, those that are no longer counted apart too.
    pub fn totals(&self) -> Counts {
        self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn peer(byte: u8) -> NodeKey {
        NodeKey([byte; 32])
    }

    #[test]
    fn rows_say_who_gives_and_who_only_reads() {
        let mut seen = Participation::new();
        seen.record_deposit(peer(1), &[8; 32], 30);
        seen.record_deposit(peer(1), &[9; 32], 10);
        seen.record_ask(peer(1), 5);
        seen.record_ask(peer(2), 100);
        seen.record_page(peer(2), 900);
        seen.record_ask(peer(2), 0);
        let rows = seen.snapshot();
        let brief: Vec<_> =
            rows.iter().map(|row| (row.who, row.counts.asked, row.deposits_per_ask)).collect();
        let expected = [
            (Participant::Peer(peer(2)), 2, Some(0.0)),
            (Participant::Peer(peer(1)), 1, Some(40.0)),
            (Participant::Author([8; 32]), 0, None),
            (Participant::Author([9; 32]), 0, None),
        ];
        assert_eq!(brief, expected);
        assert_eq!(seen.totals(), Counts { deposited: 40, asked: 3, pulled: 1_005 });
        assert_eq!(seen.totals().deposits_per_ask(), Some(40.0 / 3.0));
        let json = serde_json::to_value(&rows[1]).unwrap();
        let expected = json!({
            "who": {"peer": "01".repeat(32)},
            "deposited": 40, "asked": 1, "pulled": 5, "deposits_per_ask": 40.0,
        });
        assert_eq!(json, expected);
    }

    proptest! {
        /// Against counts without a bound: rows never say too much, totals are exact, memory is
        /// bounded, and whoever was always too active to be the least is counted fully.
        #[test]
        fn a_crowd_forgets_no_active_peer(
            events in prop::collection::vec((0u8..40, 0u8..3, 0u64..9), 0..300),
            max in 2usize..8,
        ) {
            let mut seen = Participation::bounded(max);
            let mut all: BTreeMap<NodeKey, Counts> = BTreeMap::new();
            // One peer deposits more than all others do together.
            let events = events.into_iter().flat_map(|event| [(200, 0, 9), event]);
            for (byte, what, packets) in events {
                let counts = all.entry(peer(byte)).or_default();
                match what {
                    0 => {
                        seen.record_deposit(peer(byte), &[byte; 32], packets);
                        counts.deposited += packets;
                    }
                    1 => {
                        seen.record_ask(peer(byte), packets);
                        counts.add(&Counts { asked: 1, pulled: packets, deposited: 0 });
                    }
                    _ => {
                        seen.record_page(peer(byte), packets);
                        counts.pulled += packets;
                    }
                }
            }
            let mut totals = Counts::default();
            all.values().for_each(|counts| totals.add(counts));
            prop_assert_eq!(seen.totals(), totals);
            let rows = seen.snapshot();
            for row in &rows {
                if let Participant::Peer(key) = row.who {
                    let true_counts = all[&key];
                    prop_assert!(row.counts.deposited <= true_counts.deposited);
                    prop_assert!(row.counts.asked <= true_counts.asked);
                    prop_assert!(row.counts.pulled <= true_counts.pulled);
                    if key == peer(200) || all.len() <= max {
                        prop_assert_eq!(row.counts, true_counts);
                    }
                }
            }
            let peers = rows.iter().filter(|row| matches!(row.who, Participant::Peer(_))).count();
            prop_assert_eq!(peers, all.len().min(max));
            prop_assert!(rows.len() - peers <= max);
            for tally in [seen.peers.order.len(), seen.peers.counts.len(), seen.authors.order.len()] {
                prop_assert!(tally <= max);
            }
        }
    }
}
