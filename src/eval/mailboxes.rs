//! Mailboxes in memory: an evaluation measures answers, not transport.

use super::Setting;
use crate::address::{Address, Addresser};
use crate::distill::Case;
use crate::limits::SLOTS;
use crate::merge::{Answer, Batch, Layout, Question, Situations, live};
use crate::packet::Id;
use crate::packet::Verified;
use ndarray::{Array2, Axis};
use std::collections::HashMap;

/// Packets by address: of one node, or of a whole swarm.
#[derive(Clone, Debug, Default)]
pub struct Mailboxes {
    by_address: HashMap<Address, Vec<Verified>>,
    packets: u64,
}

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
        let signals = signals(rows.iter().map(|&row| &cases[row].signal));
        let embeddings = engine.embed(&view.metric, signals.view());
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
}

/// Signals as an array of rows.
fn signals<'a>(signals: impl ExactSizeIterator<Item = &'a [i8; SLOTS]>) -> Array2<i8> {
    let mut array = Array2::zeros((signals.len(), SLOTS));
    for (mut row, signal) in array.rows_mut().into_iter().zip(signals) {
        row.iter_mut().zip(signal).for_each(|(to, from)| *to = *from);
    }
    array
}
