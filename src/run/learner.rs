//! The live loop of one node: observe -> distil -> deposit -> pull what is new -> synthesise -> act
//! -> deposit the public synthesis -> observe the outcome -> deposit.
//!
//! Generic over [`Mailbox`]: the same loop runs over memory, a local store or the swarm, and ends
//! with the same bits.

use super::known::Known;
use crate::address::{Address, Addresser};
use crate::distill::{Case, Distiller};
use crate::domain::{Schema, View};
use crate::engine::Engine;
use crate::limits::{SLOTS, TALLY_PACKETS_MAX};
use crate::mailbox::{Mailbox, MailboxError, Receipt};
use crate::merge::{Answer, Batch, Layout, Question, Situation, Situations, Warm, synthesis};
use crate::packet::{AuthorKey, Id, PacketError, Verified};
use ndarray::{Array2, ArrayView2, Axis};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why the loop could not go on.
#[derive(Debug, thiserror::Error)]
pub enum LearnerError {
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("a mailbox refused what was observed: {reason}")]
    Rejected { reason: String },
    /// More packets than one exact sum holds.
    #[error(
        "{packets} packets at the addresses asked, at most {TALLY_PACKETS_MAX} can be merged: a view with more address bits splits the mailbox"
    )]
    TooMany { packets: u64 },
}

/// Time spent per step of the loop, summed since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepTimes {
    pub distil: Duration,
    pub deposit: Duration,
    pub pull: Duration,
    pub synthesise: Duration,
}

/// What the loop has moved, summed since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    /// Packets acknowledged by mailboxes.
    pub deposited: u64,
    /// Packets refused by them.
    pub rejected: u64,
    /// Questions: reads of a mailbox that were begun.
    pub asked: u64,
    /// New packets pulled.
    pub pulled: u64,
    /// Bytes that pulls brought over the network.
    pub pulled_bytes: u64,
    pub times: StepTimes,
}

impl std::ops::Add for Moved {
    type Output = Moved;
    fn add(self, other: Moved) -> Moved {
        Moved {
            deposited: self.deposited + other.deposited,
            rejected: self.rejected + other.rejected,
            asked: self.asked + other.asked,
            pulled: self.pulled + other.pulled,
            pulled_bytes: self.pulled_bytes + other.pulled_bytes,
            times: StepTimes {
                distil: self.times.distil + other.times.distil,
                deposit: self.times.deposit + other.times.deposit,
                pull: self.times.pull + other.times.pull,
                synthesise: self.times.synthesise + other.times.synthesise,
            },
        }
    }
}

/// The loop of one node and one view.
pub struct Learner<M> {
    mailbox: M,
    schema: Arc<Schema>,
    view: Arc<View>,
    engine: Arc<Engine>,
    addresser: Addresser,
    distiller: Distiller,
    known: Known,
    moved: Moved,
    /// Whose own level counts in answers; nobody's in public ones.
    asker: Option<Id>,
}

impl<M: Mailbox> Learner<M> {
    /// `sequence` is the author's next unused sequence number.
    pub fn new(
        mailbox: M,
        schema: Arc<Schema>,
        view: Arc<View>,
        engine: Arc<Engine>,
        key: AuthorKey,
        sequence: u32,
    ) -> Learner<M> {
        let addresser = Addresser::new(&view);
        let distiller = Distiller::new(key, schema.clone(), sequence);
        let (known, moved) = (Known::default(), Moved::default());
        Learner { mailbox, schema, view, engine, addresser, distiller, known, moved, asker: None }
    }

    pub fn mailbox(&self) -> &M {
        &self.mailbox
    }
    pub fn moved(&self) -> Moved {
        self.moved
    }
    pub fn author(&self) -> &Id {
        self.distiller.author()
    }
    /// From now on answers are this author's own: under a view with own levels they are moved by how
    /// its outcomes differ from those of others. Such answers are never deposited.
    pub fn ask_personally(&mut self) {
        self.asker = Some(*self.distiller.author());
    }
    /// Goes on numbering packets from `first`, which is reserved for this loop.
    pub fn number_from(&mut self, first: u32) {
        self.distiller.number_from(first);
    }

    /// Distils groups of similar cases, one packet each, and deposits them. Gives the packets.
    ///
    /// # Errors
    /// No replica answers, so nothing is acknowledged; or a mailbox refuses what was observed.
    pub async fn observe(&mut self, groups: &[Vec<Case>]) -> Result<Vec<Verified>, LearnerError> {
        let start = Instant::now();
        let packets: Result<Vec<Verified>, PacketError> =
            groups.iter().map(|group| self.distiller.observe(&group.iter().collect::<Vec<_>>())).collect();
        let packets = packets?;
        self.moved.times.distil += start.elapsed();
        for receipt in self.deposit(&packets).await? {
            if let Receipt::Rejected(reason) = receipt {
                return Err(LearnerError::Rejected { reason });
            }
        }
        Ok(packets)
    }

    /// Deposits packets of this author at their addresses.
    ///
    /// # Errors
    /// No replica answers.
    pub async fn deposit(&mut self, packets: &[Verified]) -> Result<Vec<Receipt>, LearnerError> {
        let start = Instant::now();
        let signals: Vec<[i8; SLOTS]> = packets.iter().map(|packet| *packet.signal()).collect();
        let embeddings = self.embed(&signals);
        let addressed: Vec<(Address, Verified)> = packets
            .iter()
            .zip(crate::embed::rows(&embeddings.view()))
            .flat_map(|(packet, embedding)| {
                let addresses = self.addresser.deposit(packet.scope(), embedding);
                addresses.into_iter().map(|address| (address, *packet))
            })
            .collect();
        let receipts = self.mailbox.deposit(&addressed).await?;
        for receipt in &receipts {
            match receipt {
                Receipt::Stored | Receipt::Duplicate => self.moved.deposited += 1,
                Receipt::Rejected(_) => self.moved.rejected += 1,
            }
        }
        self.moved.times.deposit += start.elapsed();
        Ok(receipts)
    }

    /// Answers questions at `ask_ms`: pulls what is new at their addresses, then merges. One answer
    /// per case, in their order.
    ///
    /// # Errors
    /// No replica of an address answers.
    pub async fn ask(&mut self, cases: &[Case], ask_ms: u64) -> Result<Vec<Answer>, LearnerError> {
        let signals: Vec<[i8; SLOTS]> = cases.iter().map(|case| case.signal).collect();
        let embeddings = self.embed(&signals);
        let scopes = cases.iter().map(|case| &case.scope);
        let together = self.addresser.ask_together(scopes, crate::embed::rows(&embeddings.view()));
        let mut answers: Vec<Option<Answer>> = vec![None; cases.len()];
        for (addresses, queries) in &together {
            self.pull(addresses).await?;
            let start = Instant::now();
            let rows = embeddings.select(Axis(0), queries);
            let chosen: Vec<[i8; SLOTS]> = queries.iter().map(|&query| signals[query]).collect();
            let askers = vec![self.asker; queries.len()];
            let asked = Situations { signals: rows_of(&chosen), embeddings: rows.view(), askers: &askers };
            let (found, _) = self.answers(addresses, asked, ask_ms)?;
            for (&query, found) in queries.iter().zip(found) {
                answers[query] = Some(found);
            }
            self.moved.times.synthesise += start.elapsed();
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Deposits the public answer for one situation and action: no evidence, only what was
    /// concluded and from which packets. `None` where nothing is known of the action.
    ///
    /// # Errors
    /// As [`Learner::ask`] and [`Learner::deposit`].
    pub async fn publish(
        &mut self,
        case: &Case,
        action: Option<u16>,
        now_ms: u64,
    ) -> Result<Option<Vec<Receipt>>, LearnerError> {
        // A public answer is the one that anybody gets who asks at the time written in it.
        let observed_at = self.schema.floor_time(now_ms);
        let addresses = self.addresses(case);
        self.pull(&addresses).await?;
        let signals = std::slice::from_ref(&case.signal);
        let embedded = self.embed(signals);
        let asked = Situations::public(rows_of(signals), embedded.view());
        let (answers, warm) = self.answers(&addresses, asked, observed_at)?;
        let Some(answer) = answers.first() else { return Ok(None) };
        let lineage = warm.lineage_root();
        let situation = Situation { signal: &case.signal, scope: case.scope };
        let Some(draft) =
            synthesis(&self.schema, &self.view, answer, action, situation, lineage, observed_at)
        else {
            return Ok(None);
        };
        let packet = self.distiller.sign(draft)?;
        self.deposit(&[packet]).await.map(Some)
    }

    /// Brings the node's copy of some mailboxes up to date.
    ///
    /// # Errors
    /// No replica of an address answers.
    pub async fn pull(&mut self, addresses: &[Address]) -> Result<(), LearnerError> {
        let start = Instant::now();
        for address in addresses {
            self.moved.asked += 1;
            let pulled = self.mailbox.pull(address, &self.known.position(address)).await?;
            self.moved.pulled_bytes += pulled.bytes;
            self.moved.pulled += self.known.take(address, pulled);
        }
        self.moved.times.pull += start.elapsed();
        Ok(())
    }

    /// What was read of some mailboxes, for questions at `ask_ms`.
    ///
    /// # Errors
    /// [`LearnerError::TooMany`].
    pub fn batch(&mut self, addresses: &[Address], ask_ms: u64) -> Result<&Batch, LearnerError> {
        let warm = warm(&mut self.known, &self.schema, &self.view, &self.engine, addresses, ask_ms)?;
        Ok(warm.batch())
    }

    /// Every packet that was read of some mailboxes, of any kind, each once.
    pub fn packets(&self, addresses: &[Address]) -> Vec<Verified> {
        self.known.all(addresses)
    }

    /// Answers one question, given as a signal, from what was read of any mailboxes.
    ///
    /// # Errors
    /// [`LearnerError::TooMany`].
    pub fn answer_at(
        &mut self,
        addresses: &[Address],
        signal: &[i8; SLOTS],
        ask_ms: u64,
    ) -> Result<Answer, LearnerError> {
        let signals = std::slice::from_ref(signal);
        let query = self.embed(signals);
        let askers = [self.asker];
        let asked = Situations { signals: rows_of(signals), embeddings: query.view(), askers: &askers };
        let (mut answers, _) = self.answers(addresses, asked, ask_ms)?;
        Ok(answers.pop().expect("one answer for one question"))
    }

    /// Answers questions from what was read of some mailboxes.
    fn answers(
        &mut self,
        addresses: &[Address],
        asked: Situations,
        ask_ms: u64,
    ) -> Result<(Vec<Answer>, &mut Warm), LearnerError> {
        let warm = warm(&mut self.known, &self.schema, &self.view, &self.engine, addresses, ask_ms)?;
        let question = Question { schema: &self.schema, view: &self.view, batch: warm.batch(), ask_ms };
        Ok((self.engine.answer(question, asked), warm))
    }

    /// Where a case's questions look.
    pub fn addresses(&self, case: &Case) -> Vec<Address> {
        let embedding = crate::embed::cpu::embed_one(&self.view.metric, &case.signal);
        self.addresser.ask(&case.scope, &embedding)
    }

    fn embed(&self, signals: &[[i8; SLOTS]]) -> Array2<i8> {
        self.engine.embed(&self.view.metric, rows_of(signals))
    }
}

/// Signals as an array of rows.
fn rows_of(signals: &[[i8; SLOTS]]) -> ArrayView2<'_, i8> {
    let array = ArrayView2::from_shape((signals.len(), SLOTS), signals.as_flattened());
    array.expect("whole rows of 128 slots")
}

/// The warm batch of some mailboxes, unless there are more packets than one exact sum holds.
fn warm<'a>(
    known: &'a mut Known,
    schema: &Schema,
    view: &View,
    engine: &Engine,
    addresses: &[Address],
    ask_ms: u64,
) -> Result<&'a mut Warm, LearnerError> {
    let packets = known.packets(addresses);
    if packets > TALLY_PACKETS_MAX {
        return Err(LearnerError::TooMany { packets });
    }
    let embed = |signals: ArrayView2<i8>| engine.embed(&view.metric, signals);
    Ok(known.warm(addresses, Layout::of(schema, view), (view, ask_ms), embed))
}
