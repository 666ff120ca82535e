//! A batch that stays: packets are added as they are pulled, and what is known of them is kept.
//!
//! [`live()`](super::live()) over everything that was read, and [`Batch::new`] of what it leaves, say what a
//! question sees; they cost milliseconds for a mailbox of ten thousand packets, where the merge itself
//! costs a tenth of one. [`Warm`] gives the same answers, lineage roots and evidence, bit for bit, at
//! the cost of the new packets alone.
//!
//! Rows die in place (superseded, retracted, expired): a gain of 0 counts nothing, and a copy of the
//! columns on a GPU stays valid. Expired rows come back when somebody asks about an earlier time. Now and
//! then the batch is compacted, which forgets dead rows; an earlier time at which one of these was live
//! can then not be asked about, and whoever asks builds the batch anew.

use super::batch::Batch;
use super::layout::Layout;
use super::live::{Live, lineage_root};
use crate::domain::View;
use crate::packet::{Id, Kind, Verified};
use ndarray::{Array2, ArrayView2};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Dead rows, beyond a quarter of all, and runs beyond half as many again as after the last
/// compaction, that are borne before the next one.
const SLACK: usize = 64;

/// What is known of the packets of some mailboxes, and those that count as a [`Batch`].
#[derive(Clone, Debug)]
pub struct Warm {
    batch: Batch,
    /// The winning version by (author, evidence id): (sequence, packet id).
    newest: HashMap<(Id, Id), (u32, Id)>,
    /// (author, packet id).
    retracted: HashSet<(Id, Id)>,
    /// Row by packet id, of packets that count or have only expired.
    rows: HashMap<Id, usize>,
    /// (expires at, packet id) of packets that expire at all.
    expiring: BTreeSet<(u64, Id)>,
    /// The time for which expired rows are dead.
    asked_ms: u64,
    /// Before it, a packet was live that has been forgotten.
    forgotten_ms: u64,
    runs_compact: usize,
    /// [`SLACK`]; tests take less.
    slack: usize,
    lineage: Option<Id>,
}

impl Warm {
    /// Nothing read yet; `layout` as in [`Batch::new`].
    pub fn new(layout: impl Into<Layout>) -> Warm {
        Warm {
            batch: Batch::empty(layout),
            newest: HashMap::new(),
            retracted: HashSet::new(),
            rows: HashMap::new(),
            expiring: BTreeSet::new(),
            asked_ms: 0,
            forgotten_ms: 0,
            runs_compact: 0,
            slack: SLACK,
            lineage: None,
        }
    }

    /// Takes packets of any kind with their ids, in any order; repetitions do not matter. `embed` is
    /// as in [`Batch::new`] and not called where nothing counts.
    pub fn add<'a>(
        &mut self,
        packets: impl IntoIterator<Item = (Id, &'a Verified)>,
        embed: impl FnOnce(ArrayView2<i8>) -> Array2<i8>,
    ) {
        let mut fresh: HashMap<Id, Live> = HashMap::new();
        for (id, packet) in packets {
            let author = *packet.author();
            match packet.kind() {
                Kind::Synthesis => {}
                Kind::Retraction => {
                    let target = *packet.reference();
                    let theirs = |fresh: &HashMap<Id, Live>| match fresh.get(&target) {
                        Some(live) => *live.packet.author() == author,
                        None => self.rows.get(&target).is_some_and(|&row| {
                            self.batch.authors[self.batch.author[row] as usize] == author
                        }),
                    };
                    if self.retracted.insert((author, target)) && theirs(&fresh) {
                        self.drop_packet(&target, &mut fresh);
                    }
                }
                Kind::Observed => {
                    let version = (packet.sequence(), id);
                    let evidence = (author, *packet.reference());
                    match self.newest.get(&evidence).copied() {
                        Some(kept) if kept >= version => continue,
                        Some((_, older)) => self.drop_packet(&older, &mut fresh),
                        None => {}
                    }
                    self.newest.insert(evidence, version);
                    if !self.retracted.contains(&(author, id)) {
                        fresh.insert(id, Live { id, packet: *packet });
                    }
                }
            }
        }
        self.append(fresh.into_values().collect(), embed);
    }

    /// A packet that will never count again.
    fn drop_packet(&mut self, id: &Id, fresh: &mut HashMap<Id, Live>) {
        fresh.remove(id);
        if let Some(row) = self.rows.remove(id) {
            self.batch.set_live(row, false);
            self.lineage = None;
        }
    }

    fn append(&mut self, fresh: Vec<Live>, embed: impl FnOnce(ArrayView2<i8>) -> Array2<i8>) {
        if fresh.is_empty() {
            return;
        }
        self.lineage = None;
        let first = self.batch.len();
        let expiring = fresh.iter().map(|live| (live.packet.expires_at(), live.id));
        let expiring: Vec<(u64, Id)> = expiring.filter(|(expires, _)| *expires != 0).collect();
        self.batch.append(fresh, embed);
        if first == 0 {
            self.runs_compact = self.batch.runs();
        }
        self.rows.extend((first..self.batch.len()).map(|row| (self.batch.ids[row], row)));
        for (expires, id) in expiring {
            self.expiring.insert((expires, id));
            if expires <= self.asked_ms {
                self.batch.set_live(self.rows[&id], false);
            }
        }
    }

    /// The batch for questions at `ask_ms`, with its gains; `None` where packets were live at that time
    /// that have been forgotten since, so that the batch must be built anew.
    pub fn at(&mut self, view: &View, ask_ms: u64) -> Option<&Batch> {
        if ask_ms < self.forgotten_ms {
            return None;
        }
        self.go_to(ask_ms);
        let (rows, runs) = (self.batch.len(), self.batch.runs());
        let dead = rows - self.batch.live();
        if dead > rows / 4 + self.slack || runs > self.runs_compact * 3 / 2 + self.slack {
            self.compact();
        }
        self.batch.keep_gains(view, ask_ms);
        Some(&self.batch)
    }

    /// The batch last given by [`Warm::at`]; packets added since are in it too.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Lets rows expire, or come back, on the way to another time.
    fn go_to(&mut self, ask_ms: u64) {
        let before = std::mem::replace(&mut self.asked_ms, ask_ms);
        if before == ask_ms {
            return;
        }
        let (from, to) = (before.min(ask_ms), before.max(ask_ms));
        let Some(first) = from.checked_add(1) else { return };
        // Live until the millisecond in which it expires.
        for (_, id) in self.expiring.range((first, [0; 32])..=(to, [0xFF; 32])) {
            if let Some(&row) = self.rows.get(id) {
                self.batch.set_live(row, ask_ms < before);
                self.lineage = None;
            }
        }
    }

    fn compact(&mut self) {
        let batch = self.batch.compacted();
        self.rows = batch.ids.iter().enumerate().map(|(row, id)| (*id, row)).collect();
        self.runs_compact = batch.runs();
        self.batch = batch;
        let expired = self.expiring.range(..=(self.asked_ms, [0xFF; 32])).next_back();
        self.forgotten_ms = self.forgotten_ms.max(expired.map_or(0, |(expires, _)| *expires));
        self.expiring.retain(|(_, id)| self.rows.contains_key(id));
    }

    /// The lineage root ([`lineage_root`]) of the batch last given by [`Warm::at`].
    pub fn lineage_root(&mut self) -> Id {
        *self.lineage.get_or_insert_with(|| lineage_root(self.batch.live_ids()))
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        // A hash table is between a third and seven eighths full.
        let known = 2 * self.newest.capacity() * 100 + self.retracted.capacity() * 64;
        self.batch.bytes() + known + self.rows.capacity() * 40 + self.expiring.len() * 48
    }
}

#[cfg(test)]
mod tests;
