//! Mailboxes in memory: an evaluation measures answers, not transport.

use super::Setting;
use crate::address::{Address, Addresser};
use crate::distill::Case;
use crate::limits::SLOTS;
use crate::merge::{Answer, Batch, Layout, Question, Situations, live};
use crate::packet::{Id, Verified};
use ndarray::{Array2, Axis};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Packets by address: of one node, or of a whole swarm.
#[derive(Clone, Debug, Default)]
pub struct Mailboxes {
    by_address: HashMap<Address, Vec<Verified>>,
    packets: u64,
    /// Slots of a question's embedding change places before it is asked: see [`Mailboxes::scrambled`].
    places: Option<Vec<usize>>,
}

/// Heaviest packets that [`Mailboxes::recall`] looks for.
pub const RECALL_PACKETS: usize = 50;
/// Questions of a split that [`Mailboxes::recall`] asks at most: each reads every packet of its scope.
const RECALL_QUESTIONS_MAX: usize = 256;

/// What questions found.
pub struct Found {
    /// One per question, in their order.
    pub answers: Vec<Answer>,
    /// Live packets read, summed over the questions.
    pub read: u64,
}

impl Mailboxes {
    /// The mailboxes that these packets lie in under the setting's view.
    pub fn of(setting: Setting, packets: &[Verified]) -> Mailboxes {
        let mut mailboxes = Mailboxes { packets: packets.len() as u64, ..Mailboxes::default() };
        let signals = signals(packets.iter().map(|packet| packet.signal()));
        let embeddings = setting.engine.embed(&setting.view.metric, signals.view());
        let addresser = Addresser::new(setting.view);
        for (packet, embedding) in packets.iter().zip(crate::embed::rows(&embeddings.view())) {
            for address in addresser.deposit(packet.scope(), embedding) {
                mailboxes.by_address.entry(address).or_default().push(*packet);
            }
        }
        mailboxes
    }

    /// Adds the packets of others.
    pub fn add(&mut self, other: &Mailboxes) {
        for (address, packets) in &other.by_address {
            self.by_address.entry(*address).or_default().extend(packets);
        }
        self.packets += other.packets;
    }

    /// Packets deposited, each once however many tables it lies in.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The same mailboxes, asked with slot i of every embedding taken from slot `places[i]`: what comes
    /// of it is what would come if the stored packets' slots had changed places the other way round.
    ///
    /// # Panics
    /// Unless there is one place per slot.
    pub fn scrambled(mut self, places: Vec<usize>) -> Mailboxes {
        assert_eq!(places.len(), SLOTS, "one place per slot");
        self.places = Some(places);
        self
    }

    /// Signals of some rows, and their embeddings.
    fn embed(&self, setting: Setting, cases: &[Case], rows: &[usize]) -> (Array2<i8>, Array2<i8>) {
        let signals = signals(rows.iter().map(|&row| &cases[row].signal));
        let embeddings = setting.engine.embed(&setting.view.metric, signals.view());
        match &self.places {
            None => (signals, embeddings),
            Some(places) => {
                // The standard layout is what `embed::rows` reads.
                let moved =
                    |array: Array2<i8>| array.select(Axis(1), places).as_standard_layout().into_owned();
                (moved(signals), moved(embeddings))
            }
        }
    }

    /// Asks about some rows of `cases` at `ask_ms`, each for an asking author; questions that read the same mailboxes share a
    /// batch.
    pub fn ask(
        &self,
        setting: Setting,
        cases: &[Case],
        (rows, askers): (&[usize], &[Option<Id>]),
        ask_ms: u64,
    ) -> Found {
        let Setting { schema, view, engine, .. } = setting;
        let (signals, embeddings) = self.embed(setting, cases, rows);
        let addresser = Addresser::new(view);
        let scopes = rows.iter().map(|&row| &cases[row].scope);
        let together = addresser.ask_together(scopes, crate::embed::rows(&embeddings.view()));
        let mut answers: Vec<Option<Answer>> = vec![None; rows.len()];
        let mut read = 0;
        for (addresses, queries) in together {
            let packets = addresses.iter().filter_map(|address| self.by_address.get(address)).flatten();
            let batch = Batch::new(live(packets, ask_ms), Layout::of(schema, view), |signals| {
                engine.embed(&view.metric, signals)
            });
            read += batch.live() as u64 * queries.len() as u64;
            let question = Question { schema, view, batch: &batch, ask_ms };
            let chosen = [&signals, &embeddings].map(|array| array.select(Axis(0), &queries));
            let askers: Vec<Option<Id>> = queries.iter().map(|&query| askers[query]).collect();
            let [signals, embeddings] = [chosen[0].view(), chosen[1].view()];
            let found = engine.answer(question, Situations { signals, embeddings, askers: &askers });
            for (query, answer) in queries.into_iter().zip(found) {
                answers[query] = Some(answer);
            }
        }
        Found { answers: answers.into_iter().flatten().collect(), read }
    }

    /// Mean share of a question's [`RECALL_PACKETS`] heaviest packets that lie at the addresses it reads,
    /// over at most 256 of the rows, evenly spaced: weights are exact, over all packets of the question's
    /// scope, and packets of weight 0 are not counted. `None` where the view has no address bits (one
    /// mailbox then holds everything) or no question has a packet of weight.
    pub fn recall(&self, setting: Setting, cases: &[Case], rows: &[usize], ask_ms: u64) -> Option<f64> {
        let Setting { schema, view, engine, .. } = setting;
        if view.addressing.bits == 0 {
            return None;
        }
        let step = rows.len().div_ceil(RECALL_QUESTIONS_MAX).max(1);
        let asked: Vec<usize> = rows.iter().copied().step_by(step).collect();
        let (_, embeddings) = self.embed(setting, cases, &asked);
        let embeddings = crate::embed::rows(&embeddings.view()).to_vec();
        let addresser = Addresser::new(view);
        let mut by_scope: BTreeMap<Id, Vec<usize>> = BTreeMap::new();
        for (question, &row) in asked.iter().enumerate() {
            by_scope.entry(cases[row].scope).or_default().push(question);
        }
        let mut shares = vec![];
        for (scope, questions) in by_scope {
            let packets = self.by_address.values().flatten().filter(|packet| *packet.scope() == scope);
            let batch = Batch::new(live(packets, ask_ms), schema.outcomes.len(), |signals| {
                engine.embed(&view.metric, signals)
            });
            let question = Question { schema, view, batch: &batch, ask_ms };
            for embedding in questions.into_iter().map(|index| &embeddings[index]) {
                let mut heaviest = question.evidence(embedding);
                heaviest.truncate(RECALL_PACKETS);
                let addresses = addresser.ask(&scope, embedding);
                let read = addresses.iter().filter_map(|address| self.by_address.get(address)).flatten();
                let read: HashSet<Id> = read.map(|packet| packet.id()).collect();
                let found = heaviest.iter().filter(|(row, _)| read.contains(&batch.ids[*row])).count();
                if !heaviest.is_empty() {
                    shares.push(found as f64 / heaviest.len() as f64);
                }
            }
        }
        super::statistics::mean(&shares)
    }
}

/// Signals as an array of rows.
fn signals<'a>(signals: impl ExactSizeIterator<Item = &'a [i8; SLOTS]>) -> Array2<i8> {
    let mut array = Array2::zeros((signals.len(), SLOTS));
    for (mut row, signal) in array.rows_mut().into_iter().zip(signals) {
        row.iter_mut().zip(signal).for_each(|(to, from)| *to = *from);
    }
    array
}
