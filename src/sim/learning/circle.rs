//! Nodes that share mailboxes, or one node that has its own: they deposit, pull, ask, and tune their views.
//!
//! The packets are real ones, signed, and so are the mailboxes, their addresses and the answers. What is saved is only
//! repetition: nodes of a circle that have pulled the same mailbox hold the same packets, so their copy is kept
//! once for all of them; what each of them had to pull is counted.
//!
//! A view is tuned per action, from the packets of this action alone: what the best measure is depends on
//! how situation and action play together, and a score of the situation cannot tell that. All views
//! of a circle have the same addresses.

use super::world::STEP_MS;
use crate::address::{Address, Addresser};
use crate::distill::Case;
use crate::domain::{Schema, View};
use crate::embed::cpu::embed_one;
use crate::engine::Engine;
use crate::limits::{PACKET_BYTES, SLOTS};
use crate::mailbox::{Admission, LocalMailbox, Position, Receipt};
use crate::merge::choice::{Belief, beliefs};
use crate::merge::{Layout, Question, Situations, Warm};
use crate::packet::{Id, Verified};
use crate::store::{MemoryStore, StoreError};
use crate::tune;
use ndarray::ArrayView2;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// With fewer packets of an action its view stays as it is: from so few, fits of trees tell nothing
/// that four folds could confirm.
pub const TUNED_PACKETS_MIN: usize = 64;
/// Tuning reads the packets of so many weeks, so that what was true long ago does not teach.
const TUNED_WEEKS: u64 = 16;

/// What all circles of a run have in common.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    pub schema: &'a Arc<Schema>,
    pub base: &'a View,
    pub engine: &'a Engine,
}

/// What is known of one action in one situation.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub belief: Belief,
    /// Effective cases, the smallest over the outcomes.
    pub cases: f64,
}

/// A mailbox as far as the circle has read it.
struct Read {
    position: Position,
    packets: Vec<Verified>,
    /// Per action.
    warm: Vec<Warm>,
}

/// Nodes that share mailboxes.
pub struct Circle<'a> {
    ground: Ground<'a>,
    mailbox: LocalMailbox<MemoryStore>,
    clock: Arc<AtomicU64>,
    addresser: Addresser,
    /// Per action.
    views: Vec<View>,
    read: BTreeMap<Address, Read>,
    /// Per author, how many packets of each mailbox it has pulled.
    pulled: BTreeMap<(Id, Address), usize>,
    pulled_bytes: u64,
    asked: u64,
}

impl<'a> Circle<'a> {
    pub fn new(ground: Ground<'a>) -> Circle<'a> {
        let clock = Arc::new(AtomicU64::new(0));
        let now = clock.clone();
        let admission = Admission::new([Arc::new(((**ground.schema).clone(), ground.base.clone()))]);
        let store = Arc::new(MemoryStore::new([1; 32]));
        Circle {
            mailbox: LocalMailbox::new(store, admission, move || now.load(Ordering::Relaxed)),
            clock,
            addresser: Addresser::new(ground.base),
            views: vec![ground.base.clone(); ground.schema.actions.len()],
            read: BTreeMap::new(),
            pulled: BTreeMap::new(),
            pulled_bytes: 0,
            asked: 0,
            ground,
        }
    }

    /// Where a case's packets and questions go.
    pub fn addresses(&self, case: &Case) -> Vec<Address> {
        self.addresser.ask(&case.scope, &embed_one(&self.ground.base.metric, &case.signal))
    }

    /// Bytes that the nodes have pulled per question.
    pub fn bytes_per_question(&self) -> f64 {
        self.pulled_bytes as f64 / self.asked.max(1) as f64
    }

    /// Bytes that the nodes have pulled.
    pub fn pulled_bytes(&self) -> u64 {
        self.pulled_bytes
    }

    /// Deposits packets at their addresses.
    ///
    /// # Errors
    /// The store's.
    ///
    /// # Panics
    /// If a mailbox refuses what this simulation has signed.
    pub fn deposit(&self, packets: &[Verified], now_ms: u64) -> Result<(), StoreError> {
        self.clock.store(now_ms, Ordering::Relaxed);
        let metric = &self.ground.base.metric;
        let addressed: Vec<(Address, Verified)> = packets
            .iter()
            .flat_map(|packet| {
                let addresses = self.addresser.deposit(packet.scope(), &embed_one(metric, packet.signal()));
                addresses.into_iter().map(|address| (address, *packet))
            })
            .collect();
        for receipt in self.mailbox.deposit_blocking(&addressed)? {
            assert_eq!(receipt, Receipt::Stored, "a mailbox takes what was observed");
        }
        Ok(())
    }

    /// What is known of every action in the situations of some cases, each asked by an author of the
    /// circle: case x action.
    ///
    /// # Errors
    /// The store's.
    pub fn ask(&mut self, cases: &[(Id, &Case)], ask_ms: u64) -> Result<Vec<Vec<Told>>, StoreError> {
        let actions = self.views.len();
        let mut told: Vec<Vec<Told>> = vec![(0..actions).map(unknown).collect(); cases.len()];
        let mut together: BTreeMap<Address, Vec<usize>> = BTreeMap::new();
        self.visit(cases, ask_ms)?;
        for (index, (_, case)) in cases.iter().enumerate() {
            for address in self.addresses(case) {
                together.entry(address).or_default().push(index);
            }
        }
        self.asked += cases.len() as u64;
        let Ground { schema, engine, .. } = self.ground;
        for (address, queries) in together {
            let Some(read) = self.read.get_mut(&address).filter(|read| !read.packets.is_empty()) else {
                continue;
            };
            let signals: Vec<[i8; SLOTS]> = queries.iter().map(|&query| cases[query].1.signal).collect();
            let askers: Vec<Option<Id>> = queries.iter().map(|&query| Some(cases[query].0)).collect();
            let signals = rows_of(&signals);
            for (action, (view, warm)) in self.views.iter().zip(&mut read.warm).enumerate() {
                // Nothing is forgotten within a run that only goes forward.
                let Some(batch) = warm.at(view, ask_ms).filter(|batch| batch.live() > 0) else { continue };
                let embeddings = engine.embed(&view.metric, signals);
                let question = Question { schema, view, batch, ask_ms };
                let asked = Situations { signals, embeddings: embeddings.view(), askers: &askers };
                for (&query, answer) in queries.iter().zip(engine.answer(question, asked)) {
                    let Some(belief) =
                        beliefs(schema, &answer).into_iter().find(|b| usize::from(b.action) == action)
                    else {
                        continue;
                    };
                    told[query][action] = Told { belief, cases: answer.effective_cases };
                }
            }
        }
        Ok(told)
    }

    /// Authors pull what is new for them where these cases lead.
    ///
    /// # Errors
    /// The store's.
    pub fn visit(&mut self, cases: &[(Id, &Case)], now_ms: u64) -> Result<(), StoreError> {
        self.clock.store(now_ms, Ordering::Relaxed);
        let mut fresh = BTreeSet::new();
        for (author, case) in cases {
            for address in self.addresses(case) {
                if fresh.insert(address) {
                    self.pull(&address)?;
                }
                self.count(*author, address);
            }
        }
        Ok(())
    }

    /// Reads what is new in a mailbox.
    fn pull(&mut self, address: &Address) -> Result<(), StoreError> {
        let Ground { schema, engine, .. } = self.ground;
        let views = &self.views;
        let read = self.read.entry(*address).or_insert_with(|| Read {
            position: Position::default(),
            packets: vec![],
            warm: views.iter().map(|view| Warm::new(Layout::of(schema, view))).collect(),
        });
        let pulled = self.mailbox.pull_blocking(address, &read.position)?;
        read.position = pulled.position;
        for (action, (view, warm)) in views.iter().zip(&mut read.warm).enumerate() {
            fill(engine, view, warm, &pulled.packets, action);
        }
        read.packets.extend(pulled.packets);
        Ok(())
    }

    /// Counts what an author has to pull of a mailbox that the circle has read.
    fn count(&mut self, author: Id, address: Address) {
        let all = self.read.get(&address).map_or(0, |read| read.packets.len());
        let before = self.pulled.insert((author, address), all).unwrap_or(0);
        self.pulled_bytes += ((all - before) * PACKET_BYTES) as u64;
    }

    /// Tunes the view of every action on its newest packets; `adjust` may change what was found, given the
    /// action and its packets.
    ///
    /// # Errors
    /// The store's.
    pub fn tune(
        &mut self,
        now_ms: u64,
        mut adjust: impl FnMut(usize, View, &[Verified]) -> View,
    ) -> Result<(), StoreError> {
        self.clock.store(now_ms, Ordering::Relaxed);
        let addresses: Vec<Address> = self.read.keys().copied().collect();
        for address in addresses {
            self.pull(&address)?;
        }
        let Ground { schema, base, engine } = self.ground;
        let from_ms = now_ms.saturating_sub(TUNED_WEEKS * STEP_MS);
        for action in 0..self.views.len() {
            let all = self.read.values().flat_map(|read| &read.packets);
            let new = all.filter(|p| p.action() == Some(action as u16) && p.observed_at() >= from_ms);
            let packets: Vec<Verified> = new.copied().collect();
            let view = match packets.len() >= TUNED_PACKETS_MIN {
                true => tune::tune(schema, base, &packets, engine, |_| ()).view,
                false => base.clone(),
            };
            let view = adjust(action, view, &packets);
            if view == self.views[action] {
                continue;
            }
            for read in self.read.values_mut() {
                let mut warm = Warm::new(Layout::of(schema, &view));
                fill(engine, &view, &mut warm, &read.packets, action);
                read.warm[action] = warm;
            }
            self.views[action] = view;
        }
        Ok(())
    }

    /// Signals of the packets that tuning at `now_ms` reads.
    pub fn signals(&self, now_ms: u64) -> Vec<[i8; SLOTS]> {
        let from_ms = now_ms.saturating_sub(TUNED_WEEKS * STEP_MS);
        let all = self.read.values().flat_map(|read| &read.packets);
        all.filter(|packet| packet.observed_at() >= from_ms).map(|packet| *packet.signal()).collect()
    }

    /// Pairs of authors that have read at one address at least.
    pub fn pairs_sharing(&self) -> u64 {
        let mut by_author: BTreeMap<Id, BTreeSet<Address>> = BTreeMap::new();
        for (author, address) in self.pulled.keys() {
            by_author.entry(*author).or_default().insert(*address);
        }
        let sets: Vec<&BTreeSet<Address>> = by_author.values().collect();
        let shared =
            |index: usize| sets[..index].iter().filter(|other| !sets[index].is_disjoint(other)).count();
        (0..sets.len()).map(|index| shared(index) as u64).sum()
    }
}

/// Hands a warm batch the packets of one action.
fn fill(engine: &Engine, view: &View, warm: &mut Warm, packets: &[Verified], action: usize) {
    let of_action = packets.iter().filter(|packet| packet.action() == Some(action as u16));
    warm.add(of_action.map(|packet| (packet.id(), packet)), |signals| engine.embed(&view.metric, signals));
}

/// Of an action that nobody tried anything may come.
fn unknown(action: usize) -> Told {
    let belief = Belief { action: action as u16, mean: 0.5, scale: 0.5, degrees: 1.0, seen: false };
    Told { belief, cases: 0.0 }
}

/// Signals as an array of rows.
fn rows_of(signals: &[[i8; SLOTS]]) -> ArrayView2<'_, i8> {
    ArrayView2::from_shape((signals.len(), SLOTS), signals.as_flattened()).expect("whole rows of 128 slots")
}
