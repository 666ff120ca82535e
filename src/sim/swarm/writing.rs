//! Writers: what authors deposit, and deposits of simulated nodes as `net::mailbox::spread` does them.

use super::network::{Purpose, Request, Response};
use super::plants::Plant;
use super::truth::Invariant;
use super::world::{Event, World};
use crate::address::Address;
use crate::limits::HANDOFF_PACKETS_MAX;
use crate::node::deposit::{Action, Answer, Input, Verdict};
use crate::node::{Deposit, NodeKey, acknowledgements_needed};
use crate::packet::{AuthorKey, Draft, Id, Kind, Verified};
use rand::RngExt;
use std::collections::VecDeque;

/// Evidence that an author may still replace or retract.
const EVIDENCE_AT_HAND: usize = 64;

/// Someone who deposits, from any node.
pub(super) struct Author {
    key: AuthorKey,
    sequence: u32,
    /// Versions of evidence that is not retracted, by number in the books, the oldest first.
    own: Vec<Vec<usize>>,
}

impl Author {
    pub fn new(seed: u64, number: u64) -> Author {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&number.to_le_bytes());
        Author { key: AuthorKey::from_seed(bytes), sequence: 0, own: Vec::new() }
    }
}

/// A deposit on its way.
pub(super) struct Spread {
    machine: Deposit,
    batch: Vec<(Address, Verified)>,
    /// Of the packets, in the world's books.
    numbers: Vec<usize>,
    /// Who said of each packet that its disk has it.
    said: Vec<Vec<usize>>,
    needed: Vec<usize>,
    began_ms: u64,
    settled: bool,
    pub timer: Option<(u64, u64)>,
}

/// Versions that live for ever, newer versions, retractions, and packets that expire soon.
enum What {
    New,
    Newer,
    Retraction,
    Expiring,
}

impl World {
    /// A node deposits a few packets of an author.
    pub fn write(&mut self, node: usize) {
        let author = self.random.random_range(0..self.authors.len());
        let count = self.random.random_range(1..=4);
        let drafts: Vec<(usize, Address, Verified)> = (0..count).flat_map(|_| self.drafts(author)).collect();
        let numbers = drafts.iter().map(|(number, ..)| *number).collect();
        let batch: Vec<(Address, Verified)> =
            drafts.into_iter().map(|(_, address, packet)| (address, packet)).collect();
        self.place_and_deposit(node, batch, numbers);
    }

    /// Sends a batch to its replicas. `numbers` are those of the packets in the world's books.
    pub fn deposit(
        &mut self,
        node: usize,
        id: u64,
        batch: Vec<(Address, Verified)>,
        numbers: Vec<usize>,
        placement: &[Vec<NodeKey>],
    ) {
        self.counts.deposits += 1;
        let spread = Spread {
            machine: Deposit::new(placement, self.now),
            said: vec![vec![]; batch.len()],
            needed: placement.iter().map(|replicas| acknowledgements_needed(replicas.len())).collect(),
            batch,
            numbers,
            began_ms: self.now,
            settled: false,
            timer: None,
        };
        self.nodes[node].deposits.insert(id, spread);
        self.spread(node, id, Input::Tick);
    }

    /// What an author has to say next: a packet, or the retractions of an evidence.
    fn drafts(&mut self, author: usize) -> Vec<(usize, Address, Verified)> {
        // The record's own time, not the clock of whoever deposits it.
        let wall = self.true_wall_ms();
        let what = match self.random.random_range(0..20) {
            0..=9 => What::New,
            10..=13 => What::Newer,
            14..=16 => What::Retraction,
            _ => What::Expiring,
        };
        let evidence: Id = self.random.random();
        let new_address = self.addresses[self.random.random_range(0..self.addresses.len())];
        let own = self.authors[author].own.len();
        let chosen = (own > 0).then(|| self.random.random_range(0..own.max(1)));
        let mut draft = Draft::new(Kind::Observed, [1; 32], 1);
        (draft.observed_at, draft.reference, draft.values[0]) = (wall, evidence, Some((7, 0)));
        match (what, chosen) {
            (What::Newer, Some(chosen)) => {
                let own = &mut self.authors[author].own[chosen];
                let (newest, number) = (own[own.len() - 1], self.truth.packets.len());
                own.push(number);
                let older = &self.truth.packets[newest];
                draft.reference = older.reference;
                vec![self.sign(author, older.address, &mut draft)]
            }
            (What::Retraction, Some(chosen)) => {
                // Every version: a replica may have missed the newest, and would keep an older one.
                let versions = self.authors[author].own.swap_remove(chosen);
                (draft.kind, draft.cases, draft.values[0]) = (Kind::Retraction, 0, None);
                let one = |number: usize| {
                    draft.reference = self.truth.packets[number].id;
                    self.sign(author, self.truth.packets[number].address, &mut draft)
                };
                versions.into_iter().map(one).collect()
            }
            (What::Expiring, _) => {
                draft.expires_at = wall + self.random.random_range(60_000..1_800_000);
                vec![self.sign(author, new_address, &mut draft)]
            }
            _ => {
                let own = &mut self.authors[author].own;
                own.push(vec![self.truth.packets.len()]);
                // Most evidence is never touched again.
                if own.len() > EVIDENCE_AT_HAND {
                    own.swap_remove(0);
                }
                vec![self.sign(author, new_address, &mut draft)]
            }
        }
    }

    /// A packet of the author, in the books.
    fn sign(&mut self, author: usize, address: Address, draft: &mut Draft) -> (usize, Address, Verified) {
        let author = &mut self.authors[author];
        author.sequence += 1;
        draft.sequence = author.sequence;
        let packet = author.key.build(draft).expect("a draft by the rules");
        // Signatures are not what is simulated.
        let packet = Verified::checked_before(packet);
        (self.truth.write(&address, &packet), address, packet)
    }

    pub fn spread(&mut self, node: usize, id: u64, input: Input) {
        let Some(mut spread) = self.nodes[node].deposits.remove(&id) else { return };
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for Action::Send { replica, packets } in spread.machine.step(input, self.now) {
                // The members' list greets silent nodes again; until then nothing is dialled.
                if self.nodes[node].silent.contains(&replica) {
                    inputs.push_back(Input::Failed { replica, packets, retry_after_ms: 0 });
                    continue;
                }
                let batch = packets.iter().map(|&index| spread.batch[index]).collect();
                let purpose = Purpose::Deposit { deposit: id, packets };
                self.ask(node, replica, Request::Deposit(batch), purpose);
            }
        }
        self.settle(&mut spread);
        if let Some(timer) = spread.timer.take() {
            self.queue.remove(&timer);
        }
        if spread.machine.finished() {
            for (number, said) in spread.numbers.iter().zip(&spread.said) {
                self.truth.handed_off(*number, said);
            }
            return;
        }
        let waiting: usize = self.nodes[node].deposits.values().map(|other| other.batch.len()).sum();
        if spread.settled && waiting + spread.batch.len() > HANDOFF_PACKETS_MAX {
            return;
        }
        if waiting > 2 * HANDOFF_PACKETS_MAX {
            self.breaks(Invariant::Bounded, format!("{waiting} packets wait for hand-off at node {node}"));
        }
        let wake = spread.machine.wake_ms();
        spread.timer =
            wake.map(|wake| self.at(wake.max(self.now) + 1, Event::DepositWake { node, deposit: id }));
        self.nodes[node].deposits.insert(id, spread);
    }

    /// Notes verdicts once there are all.
    fn settle(&mut self, spread: &mut Spread) {
        if spread.settled {
            return;
        }
        let short =
            self.config.plant == Some(Plant::ShortQuorum) && spread.said.iter().all(|said| !said.is_empty());
        let verdicts = match spread.machine.verdicts() {
            None if short => vec![Verdict::Stored; spread.batch.len()],
            None => return,
            Some(verdicts) => verdicts,
        };
        spread.settled = true;
        for (index, verdict) in verdicts.into_iter().enumerate() {
            let number = spread.numbers[index];
            match verdict {
                Verdict::Stored | Verdict::Duplicate => {
                    self.counts.acknowledged += 1;
                    let (needed, began_ms) = (spread.needed[index], spread.began_ms);
                    self.acknowledged(number, &spread.said[index], needed, began_ms);
                }
                Verdict::Rejected(_) => self.counts.rejected += 1,
                Verdict::Unacknowledged { .. } => self.counts.unacknowledged += 1,
            }
        }
    }

    pub fn frame_answered(
        &mut self,
        node: usize,
        deposit: u64,
        replica: NodeKey,
        packets: Vec<usize>,
        response: Option<&Response>,
    ) {
        let input = match response {
            Some(Response::Deposited(answers)) => {
                let from = self.index.get(&replica).copied();
                if let (Some(spread), Some(from)) = (self.nodes[node].deposits.get_mut(&deposit), from) {
                    for (&index, answer) in packets.iter().zip(answers) {
                        if !matches!(answer, Answer::Rejected(_)) {
                            spread.said[index].push(from);
                        }
                    }
                }
                Input::Answered { replica, packets, answers: answers.clone() }
            }
            // Its view of the swarm differs from ours: asking again would not change it soon.
            Some(Response::NotResponsible) => {
                let answers = vec![Answer::Rejected("not responsible".into()); packets.len()];
                Input::Answered { replica, packets, answers }
            }
            _ => Input::Failed { replica, packets, retry_after_ms: 0 },
        };
        self.spread(node, deposit, input);
    }
}
