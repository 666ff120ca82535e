//! One split on its nodes: who holds which packets, who asks what, and what each method predicts.
//!
//! A field knows the schema but no view: the packets are the same whatever is called similar, so
//! views compete on one field, and a view may be made from its packets.

use super::coverage::{cover, single_interval};
use super::mailboxes::{Found, Mailboxes};
use super::metrics::{Metrics, Scored, metrics};
use super::peers::{Peer, Training};
use super::poison::{self, Poison};
use super::split::{Nodes, askers, at_home, deal};
use super::{Setting, Verdicts};
use crate::distill::{Case, Distiller, Gatherer};
use crate::domain::view::Trust;
use crate::domain::{Schema, View};
use crate::engine::Engine;
use crate::limits::{SLOTS, WEIGHT_ONE};
use crate::merge::trust::of_batch;
use crate::merge::{Answer, Batch, Layout, live};
use crate::packet::{AuthorKey, Id, PacketError, Verified};
use rayon::prelude::*;
use std::sync::Arc;

/// What is the same for all splits.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    pub schema: &'a Arc<Schema>,
    pub engine: &'a Engine,
    /// Index of the only outcome that counts.
    pub outcome: Option<usize>,
}

/// What a method says of one outcome of one test row, in the outcome's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    pub estimate: f64,
    /// Interval of the estimate, where the method gives one.
    pub interval: Option<(f64, f64)>,
    /// Interval of a single outcome, where the method gives one.
    pub single: Option<(f64, f64)>,
}

/// Predictions for one test row, per outcome; `None` without any evidence.
pub type Row = Vec<Option<Predicted>>;

/// What the swarm said to all test rows.
pub struct Swarm {
    pub rows: Vec<Row>,
    /// Mean share of all packets that a question read.
    pub read_share: f64,
    pub verdicts: Verdicts,
    /// See [`Mailboxes::recall`].
    pub recall: Option<f64>,
}

/// A split whose training rows have become packets.
pub struct Field<'a> {
    pub ground: Ground<'a>,
    pub cases: &'a [Case],
    /// Indices into `cases` of the test rows.
    pub test: Vec<usize>,
    pub seed: u64,
    /// Indices into `cases` of each node's rows.
    pub dealt: Vec<Vec<usize>>,
    /// The node that asks about each test row.
    pub askers: Vec<usize>,
    /// The key of the asking node where the row is of its site; other rows belong to nobody, and their answers are public.
    pub keys: Vec<Option<Id>>,
    /// Packets of each node.
    pub packets: Vec<Vec<Verified>>,
    /// When all ask, Unix milliseconds: the latest time of any case.
    pub ask_ms: u64,
}

impl<'a> Field<'a> {
    /// Deals training rows to nodes and distils them; `train` and `test` are indices into `cases`. A
    /// training row without outcome is left out.
    ///
    /// # Errors
    /// A packet that breaks a rule of the format, which only a schema built in code can cause.
    pub fn new(
        ground: Ground<'a>,
        cases: &'a [Case],
        (train, test): (&[usize], &[usize]),
        nodes: Nodes,
        seed: u64,
    ) -> Result<Field<'a>, PacketError> {
        let told: Vec<usize> = train.iter().copied().filter(|&row| cases[row].has_outcome()).collect();
        let dealt = deal(cases, &told, nodes, seed);
        let by_site = matches!(nodes, Nodes::Sites | Nodes::SomeSites { .. });
        let askers = askers(cases, test, &dealt, by_site, seed);
        let home = if by_site { at_home(cases, test, &dealt) } else { vec![false; test.len()] };
        let keys = askers.iter().zip(home).map(|(&node, home)| home.then(|| *author(seed, node).public()));
        let keys = keys.collect();
        let own = |(node, rows): (usize, &Vec<usize>)| {
            distil(ground.schema, rows.iter().map(|&row| cases[row].clone()).collect(), seed, node)
        };
        let packets: Result<_, _> =
            ground.engine.install(|| dealt.par_iter().enumerate().map(|(n, r)| own((n, r))).collect());
        Ok(Field {
            ground,
            cases,
            test: test.to_vec(),
            seed,
            askers,
            keys,
            packets: packets?,
            dealt,
            ask_ms: cases.iter().map(|case| case.observed_at).max().unwrap_or(0),
        })
    }

    /// The same field with some dishonest nodes, and which they are.
    ///
    /// # Errors
    /// As [`Field::new`].
    pub fn poisoned(&self, poison: Poison) -> Result<(Field<'a>, Vec<bool>), PacketError> {
        let dishonest = poison::dishonest(self.dealt.len(), poison.share, self.seed);
        let schema = self.ground.schema;
        let mut packets = self.packets.clone();
        for node in (0..packets.len()).filter(|&node| dishonest[node]) {
            let honest: Vec<Case> = self.dealt[node].iter().map(|&row| self.cases[row].clone()).collect();
            packets[node] =
                distil(schema, poison.kind.cases(schema, &honest, self.seed, node), self.seed, node)?;
        }
        let field = Field {
            packets,
            test: self.test.clone(),
            dealt: self.dealt.clone(),
            askers: self.askers.clone(),
            keys: self.keys.clone(),
            ..*self
        };
        Ok((field, dishonest))
    }

    fn setting<'b>(&'b self, view: &'b View) -> Setting<'b> {
        let Ground { schema, engine, outcome } = self.ground;
        Setting { schema, view, engine, outcome }
    }

    /// Which nodes a view trusts less than half for what they say, by all packets; `None` where it trusts all alike.
    pub fn doubted(&self, view: &View) -> Option<Vec<bool>> {
        let trust = Trust { cases_max: u32::MAX, ..view.trust()? };
        let Ground { schema, engine, .. } = self.ground;
        let all = self.packets.concat();
        let batch = Batch::new(live(&all, self.ask_ms), Layout::of(schema, view), |signals| {
            engine.embed(&view.metric, signals)
        });
        let found = of_batch(&batch, trust);
        let of = |node: usize| {
            let index = batch.authors.binary_search(author(self.seed, node).public());
            index.is_ok_and(|index| found[index] < WEIGHT_ONE / 2)
        };
        Some((0..self.packets.len()).map(of).collect())
    }

    /// All packets at their addresses under a view.
    pub fn mailboxes(&self, view: &View) -> Mailboxes {
        Mailboxes::of(self.setting(view), &self.packets.concat())
    }

    /// The swarm's answers under a view to all test rows.
    pub fn swarm(&self, view: &View) -> Swarm {
        let mailboxes = self.mailboxes(view);
        let recall = mailboxes.recall(self.setting(view), self.cases, &self.test, self.ask_ms);
        Swarm { recall, ..self.ask(&mailboxes, view) }
    }

    /// The answers of some mailboxes to all test rows, without recall.
    pub fn ask(&self, mailboxes: &Mailboxes, view: &View) -> Swarm {
        let Found { answers, read } =
            mailboxes.ask(self.setting(view), self.cases, (&self.test, &self.keys), self.ask_ms);
        let all = mailboxes.packets() * self.test.len() as u64;
        Swarm {
            rows: answers.iter().map(|answer| self.row(view, answer)).collect(),
            read_share: read as f64 / all.max(1) as f64,
            verdicts: Verdicts::of(&answers),
            recall: None,
        }
    }

    /// What the asking node would say from its own packets alone.
    pub fn local(&self, view: &View) -> Vec<Row> {
        let setting = self.setting(view);
        let mut rows = vec![vec![None; self.ground.schema.outcomes.len()]; self.test.len()];
        for (node, own) in self.packets.iter().enumerate() {
            let queries: Vec<usize> = (0..rows.len()).filter(|&query| self.askers[query] == node).collect();
            let asked: Vec<usize> = queries.iter().map(|&query| self.test[query]).collect();
            let keys: Vec<Option<Id>> = queries.iter().map(|&query| self.keys[query]).collect();
            let found = Mailboxes::of(setting, own).ask(setting, self.cases, (&asked, &keys), self.ask_ms);
            for (query, answer) in queries.into_iter().zip(&found.answers) {
                rows[query] = self.row(view, answer);
            }
        }
        rows
    }

    /// What another model would say from the same packets.
    pub fn peer(&self, peer: Peer) -> Vec<Row> {
        let Ground { schema, engine, .. } = self.ground;
        let training = Training::new(&self.packets);
        let signals: Vec<[i8; SLOTS]> = self.test.iter().map(|&row| self.cases[row].signal).collect();
        let found = engine.install(|| peer.predict(schema, &training, &signals));
        let unit = |outcome: usize, fraction: f64| Predicted {
            estimate: schema.outcomes[outcome].value(fraction * 65_535.0),
            interval: None,
            single: None,
        };
        let row =
            |row: &Vec<Option<f64>>| row.iter().enumerate().map(|(o, f)| Some(unit(o, (*f)?))).collect();
        found.iter().map(row).collect()
    }

    fn row(&self, view: &View, answer: &Answer) -> Row {
        let schema = self.ground.schema;
        let one = |(outcome, estimate): (usize, &Option<crate::merge::Estimate>)| {
            let found = estimate.as_ref()?;
            Some(Predicted {
                estimate: found.estimate,
                interval: Some((found.lower, found.upper)),
                single: Some(single_interval(schema, outcome, found, view.level)),
            })
        };
        answer.outcomes.iter().enumerate().map(one).collect()
    }

    /// What came of each test row, per outcome; `None` where unknown or not wanted.
    pub fn truths(&self) -> Vec<Vec<Option<f64>>> {
        let outcomes = self.ground.schema.outcomes.len();
        let wanted = |outcome: usize| self.ground.outcome.is_none_or(|only| only == outcome);
        let truth = |row: usize| {
            let known = |outcome: usize| self.cases[row].truth.get(outcome).copied().flatten();
            (0..outcomes).map(|outcome| known(outcome).filter(|_| wanted(outcome))).collect()
        };
        self.test.iter().map(|&row| truth(row)).collect()
    }

    /// How good predictions for the test rows are, over those that `counts` says. Who knows nothing says
    /// the middle of the range. `level`: of the intervals, in per cent.
    pub fn metrics(&self, rows: &[Row], level: u8, counts: impl Fn(usize) -> bool) -> Metrics {
        let schema = self.ground.schema;
        let (mut kept, mut truths) = (vec![], vec![]);
        for (query, truth) in self.truths().into_iter().enumerate().filter(|(query, _)| counts(*query)) {
            kept.push(rows[query].clone());
            truths.push(truth);
        }
        let middle = |outcome: usize| (schema.outcomes[outcome].low + schema.outcomes[outcome].high) / 2.0;
        let scored: Vec<Scored> = kept
            .iter()
            .zip(&truths)
            .map(|(row, truth)| {
                let estimate = |(o, found): (usize, &Option<Predicted>)| {
                    let wanted = self.ground.outcome.is_none_or(|only| only == o);
                    let said = found.map_or_else(|| middle(o), |found| found.estimate);
                    (wanted.then_some(said), truth[o])
                };
                row.iter().enumerate().map(estimate).collect()
            })
            .collect();
        let mut found = metrics(schema, &scored);
        cover(&mut found, schema, &kept, &truths, level);
        found
    }
}

/// The key of a node.
fn author(seed: u64, node: usize) -> AuthorKey {
    let mut hasher = blake3::Hasher::new_derive_key("qis 1 eval author");
    hasher.update(&seed.to_le_bytes()).update(&(node as u64).to_le_bytes());
    AuthorKey::from_seed(hasher.finalize().into())
}

/// Distils a node's rows into packets under a key that follows from seed and node.
fn distil(
    schema: &Arc<Schema>,
    cases: Vec<Case>,
    seed: u64,
    node: usize,
) -> Result<Vec<Verified>, PacketError> {
    let mut distiller = Distiller::new(author(seed, node), schema.clone(), 0);
    let groups = Gatherer::groups(schema.cases_min, cases.into_iter());
    groups.iter().map(|group| distiller.observe(&group.iter().collect::<Vec<_>>())).collect()
}
