//! Measuring quality: what a swarm of nodes predicts for rows that no node has seen.
//!
//! A split deals its training rows to nodes, distils them into signed packets, deposits these at
//! their addresses, and lets nodes ask about the test rows. Compared are `swarm` (every packet at the
//! addresses asked), `local` (the same merge over the asking node's own packets) and `pooled_mean`
//! (the mean outcome of all training rows). Everything follows from the seed.

pub mod metrics;
pub mod split;

pub use metrics::{Metrics, mean_and_error};
pub use split::Nodes;

use crate::address::{Address, Addresser};
use crate::distill::{Case, Distiller, Gatherer};
use crate::domain::{Schema, View};
use crate::engine::Engine;
use crate::limits::SLOTS;
use crate::merge::{Answer, Batch, Question, answer, live};
use crate::packet::{AuthorKey, PacketError, Verified};
use metrics::{Scored, metrics};
use ndarray::{Array2, ArrayView2};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The methods compared, in the order in which they are reported.
pub const METHODS: [&str; 3] = ["swarm", "local", "pooled_mean"];

/// What is measured under: the domain, the engine, and one outcome if only that is wanted.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub schema: &'a Arc<Schema>,
    pub view: &'a View,
    pub engine: &'a Engine,
    /// Index of the only outcome that counts.
    pub outcome: Option<usize>,
}

/// One prediction for one test row by one method.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Row of the table, from 1.
    pub row: u64,
    pub method: &'static str,
    pub node: usize,
    /// Per outcome (estimate, lower, upper) in its unit; `None` without any evidence.
    pub outcomes: Vec<Option<(f64, f64, f64)>>,
}

/// What one split gave.
#[derive(Clone, Debug)]
pub struct Split {
    pub seed: u64,
    pub metrics: BTreeMap<&'static str, Metrics>,
    pub predictions: Vec<Prediction>,
    pub nodes: usize,
    /// Packets deposited.
    pub packets: u64,
    /// Mean share of all packets that a question of the swarm read.
    pub read_share: f64,
}

/// Runs one split: `train` and `test` are indices into `cases`.
///
/// # Errors
/// A packet that breaks a rule of the format, which only a schema built in code can cause.
pub fn run(
    setting: Setting,
    cases: &[Case],
    (train, test): (&[usize], &[usize]),
    nodes: Nodes,
    seed: u64,
) -> Result<Split, PacketError> {
    let with_outcome: Vec<usize> = train.iter().copied().filter(|&row| cases[row].has_outcome()).collect();
    let dealt = split::deal(cases, &with_outcome, nodes, seed);
    let askers = split::askers(cases, test, &dealt, nodes == Nodes::Sites, seed);
    let mut own: Vec<Mailboxes> = Vec::with_capacity(dealt.len());
    for (node, rows) in dealt.iter().enumerate() {
        own.push(deposits(setting, cases, rows, seed, node)?);
    }
    let mut swarm = Mailboxes::default();
    for mailboxes in &own {
        swarm.add(mailboxes);
    }

    let signals = signals_of(cases, test);
    let embeddings = setting.engine.embed(&setting.view.metric, signals.view());
    let addresser = Addresser::new(setting.view);
    let asked: Vec<Asked> = crate::embed::rows(&embeddings.view())
        .iter()
        .enumerate()
        .map(|(query, embedding)| {
            let addresses = addresser.ask(&cases[test[query]].scope, embedding);
            Asked { query, node: askers[query], addresses }
        })
        .collect();

    let ask_ms = cases.iter().map(|case| case.observed_at).max().unwrap_or(0);
    let ask = Asking { setting, ask_ms, embeddings: embeddings.view() };
    let together = ask.by_mailboxes(asked.iter().collect(), &swarm);
    let mut alone: Vec<Option<Answer>> = vec![None; test.len()];
    for (node, mailboxes) in own.iter().enumerate() {
        let mine = asked.iter().filter(|asked| asked.node == node).collect();
        for (query, found) in ask.by_mailboxes(mine, mailboxes).answers {
            alone[query] = Some(found);
        }
    }
    let mut answers: Vec<Option<Answer>> = vec![None; test.len()];
    for (query, found) in together.answers {
        answers[query] = Some(found);
    }
    let means = pooled_means(setting.schema, cases, &dealt.concat());

    let mut split = Split {
        seed,
        metrics: BTreeMap::new(),
        predictions: Vec::with_capacity(test.len() * METHODS.len()),
        nodes: dealt.len(),
        packets: swarm.packets,
        read_share: together.read as f64 / (swarm.packets * test.len() as u64).max(1) as f64,
    };
    for method in METHODS {
        let mut scored: Vec<Scored> = Vec::with_capacity(test.len());
        for (query, &row) in test.iter().enumerate() {
            let outcomes: Vec<Option<(f64, f64, f64)>> = match method {
                "swarm" => intervals(setting.schema, answers[query].as_ref()),
                "local" => intervals(setting.schema, alone[query].as_ref()),
                _ => means.clone(),
            };
            scored.push(score_intervals(setting.schema, setting.outcome, &cases[row], &outcomes));
            split.predictions.push(Prediction { row: cases[row].row, method, node: askers[query], outcomes });
        }
        split.metrics.insert(method, metrics(setting.schema, &scored));
    }
    Ok(split)
}

/// Mailboxes of one node or of the whole swarm, in memory: an evaluation measures answers, not
/// transport.
#[derive(Default)]
struct Mailboxes {
    by_address: HashMap<Address, Vec<Verified>>,
    /// Packets deposited, each once however many tables it lies in.
    packets: u64,
}

impl Mailboxes {
    fn add(&mut self, other: &Mailboxes) {
        for (address, packets) in &other.by_address {
            self.by_address.entry(*address).or_default().extend(packets);
        }
        self.packets += other.packets;
    }
}

/// Distils a node's rows and deposits the packets at their addresses.
fn deposits(
    setting: Setting,
    cases: &[Case],
    rows: &[usize],
    seed: u64,
    node: usize,
) -> Result<Mailboxes, PacketError> {
    let mut hasher = blake3::Hasher::new_derive_key("qis 1 eval author");
    hasher.update(&seed.to_le_bytes()).update(&(node as u64).to_le_bytes());
    let key = AuthorKey::from_seed(hasher.finalize().into());
    let mut distiller = Distiller::new(key, setting.schema.clone(), 0);
    let mut gatherer = Gatherer::new(setting.schema.cases_min);
    let mut packets = vec![];
    for &row in rows {
        if let Some(group) = gatherer.add(cases[row].clone()) {
            packets.push(distiller.observe(&group.iter().collect::<Vec<_>>())?);
        }
    }
    let mut signals = Array2::zeros((packets.len(), SLOTS));
    for (mut to, packet) in signals.rows_mut().into_iter().zip(&packets) {
        to.iter_mut().zip(packet.signal()).for_each(|(to, from)| *to = *from);
    }
    let embeddings = setting.engine.embed(&setting.view.metric, signals.view());
    let addresser = Addresser::new(setting.view);
    let mut mailboxes = Mailboxes { packets: packets.len() as u64, ..Mailboxes::default() };
    for (packet, embedding) in packets.iter().zip(crate::embed::rows(&embeddings.view())) {
        for address in addresser.deposit(packet.scope(), embedding) {
            mailboxes.by_address.entry(address).or_default().push(*packet);
        }
    }
    Ok(mailboxes)
}

/// One question and where it looks.
struct Asked {
    query: usize,
    node: usize,
    addresses: Vec<Address>,
}

struct Asking<'a> {
    setting: Setting<'a>,
    ask_ms: u64,
    embeddings: ArrayView2<'a, i8>,
}

struct Found {
    answers: Vec<(usize, Answer)>,
    /// Live packets read, summed over the questions.
    read: u64,
}

impl Asking<'_> {
    /// Answers questions over the given mailboxes; those that read the same mailboxes share a batch.
    fn by_mailboxes(&self, asked: Vec<&Asked>, mailboxes: &Mailboxes) -> Found {
        let Setting { schema, view, engine, .. } = self.setting;
        let mut groups: BTreeMap<&[Address], Vec<usize>> = BTreeMap::new();
        for asked in asked {
            groups.entry(&asked.addresses).or_default().push(asked.query);
        }
        let mut found = Found { answers: vec![], read: 0 };
        for (addresses, queries) in groups {
            let packets = addresses.iter().filter_map(|address| mailboxes.by_address.get(address)).flatten();
            let batch = Batch::new(live(packets, self.ask_ms), schema.outcomes.len(), |signals| {
                engine.embed(&view.metric, signals)
            });
            found.read += batch.len() as u64 * queries.len() as u64;
            let question = Question { schema, view, batch: &batch, ask_ms: self.ask_ms };
            let rows = self.embeddings.select(ndarray::Axis(0), &queries);
            let answers = engine.install(|| answer(question, rows.view(), |job| engine.merge(job)));
            found.answers.extend(queries.into_iter().zip(answers));
        }
        found
    }
}

fn signals_of(cases: &[Case], rows: &[usize]) -> Array2<i8> {
    let mut signals = Array2::zeros((rows.len(), SLOTS));
    for (mut to, &row) in signals.rows_mut().into_iter().zip(rows) {
        to.iter_mut().zip(cases[row].signal).for_each(|(to, from)| *to = from);
    }
    signals
}

fn intervals(schema: &Schema, answer: Option<&Answer>) -> Vec<Option<(f64, f64, f64)>> {
    match answer {
        None => vec![None; schema.outcomes.len()],
        Some(answer) => {
            answer.outcomes.iter().map(|estimate| estimate.map(|e| (e.estimate, e.lower, e.upper))).collect()
        }
    }
}

/// The mean of every outcome over the training rows.
fn pooled_means(schema: &Schema, cases: &[Case], train: &[usize]) -> Vec<Option<(f64, f64, f64)>> {
    (0..schema.outcomes.len())
        .map(|outcome| {
            let known = train.iter().filter_map(|&row| cases[row].truth[outcome]);
            let (sum, count) = known.fold((0.0, 0u32), |(sum, count), x| (sum + x, count + 1));
            let mean = sum / f64::from(count);
            (count > 0).then_some((mean, mean, mean))
        })
        .collect()
}

/// Estimates beside truths; with `only`, of that outcome alone. Who knows nothing says the middle of
/// the range.
pub fn score(schema: &Schema, only: Option<usize>, case: &Case, answer: Option<&Answer>) -> Scored {
    score_intervals(schema, only, case, &intervals(schema, answer))
}

fn score_intervals(
    schema: &Schema,
    only: Option<usize>,
    case: &Case,
    outcomes: &[Option<(f64, f64, f64)>],
) -> Scored {
    let of = |index: usize| {
        let outcome = &schema.outcomes[index];
        let truth = case.truth.get(index).copied().flatten();
        let wanted = only.is_none_or(|only| only == index);
        let estimate = outcomes[index].map_or((outcome.low + outcome.high) / 2.0, |(estimate, ..)| estimate);
        (wanted.then_some(estimate), truth.filter(|_| wanted))
    };
    (0..schema.outcomes.len()).map(of).collect()
}

/// Answers about `rows` of `cases` from the given packets alone, as if they all lay in one mailbox.
pub fn pooled_answers(
    schema: &Schema,
    view: &View,
    engine: &Engine,
    packets: &[Verified],
    cases: &[Case],
    rows: &[usize],
    ask_ms: u64,
) -> Vec<Answer> {
    let embed = |signals: ArrayView2<i8>| engine.embed(&view.metric, signals);
    let batch = Batch::new(live(packets, ask_ms), schema.outcomes.len(), embed);
    let queries = embed(signals_of(cases, rows).view());
    let question = Question { schema, view, batch: &batch, ask_ms };
    engine.install(|| answer(question, queries.view(), |job| engine.merge(job)))
}
