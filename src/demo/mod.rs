//! The whole loop on one machine: nodes that get smarter from each other, measured as it happens.

pub mod fleet;
pub mod report;

pub use fleet::{Fleet, FleetError, QuicFleet};
pub use report::{AfterKill, Example, Participant, Report, Step};

use crate::distill::{Case, Gatherer};
use crate::domain::{OutcomeKind, Schema, View};
use crate::engine::Engine;
use crate::eval::metrics::{Metrics, metrics};
use crate::eval::split::{deal, generator, split};
use crate::eval::{Mailboxes, Nodes, Setting, score};
use crate::mailbox::Mailbox;
use crate::merge::Answer;
use crate::packet::{AuthorKey, hex};
use crate::run::learner::{Learner, LearnerError, Moved};
use futures::future::{join_all, try_join_all};
use rand::RngExt;
use rand::seq::SliceRandom;
use std::sync::Arc;
use std::time::Instant;

/// What is played.
pub struct Play {
    pub schema: Arc<Schema>,
    pub view: Arc<View>,
    pub engine: Arc<Engine>,
    pub cases: Vec<Case>,
    /// Name of the data for the report.
    pub data: String,
    pub nodes: usize,
    /// Rows that each node has seen; `None` deals all training rows out.
    pub rows: Option<usize>,
    /// Unevenness of the nodes' classes; `None` deals evenly, `by_site` one node per site.
    pub dirichlet: Option<f64>,
    pub by_site: bool,
    pub seed: u64,
    /// Nodes killed at the end.
    pub kill: usize,
    /// Unix milliseconds that questions are asked at.
    pub now_ms: u64,
}

impl Play {
    fn setting(&self) -> Setting<'_> {
        Setting { schema: &self.schema, view: &self.view, engine: &self.engine, outcome: None }
    }
}

/// What happens, as it happens.
pub enum Event<'a> {
    Started {
        nodes: usize,
        train: usize,
        test: usize,
    },
    Step(&'a Step),
    /// One outcome came in: the mailbox before and after.
    Grew {
        before: u64,
        after: u64,
    },
    Killed {
        nodes: usize,
    },
    AfterKill(AfterKill),
}

/// Why a demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    Learner(#[from] LearnerError),
    #[error("{rows} rows are too few for {nodes} nodes: each needs one row, and one is needed for the test")]
    TooFew { rows: usize, nodes: usize },
}

/// Plays the demo on a fleet of running nodes.
///
/// # Errors
/// A node does not answer; too few rows.
pub async fn play<F: Fleet>(
    play: &Play,
    fleet: &mut F,
    mut tell: impl FnMut(Event),
) -> Result<Report, DemoError> {
    let start = Instant::now();
    let (train, test) = split(play.cases.len(), play.seed);
    let nodes = match play.by_site {
        true => Nodes::Sites,
        false => Nodes::Drawn { count: play.nodes, rows: play.rows, dirichlet: play.dirichlet },
    };
    let known = |rows: Vec<usize>| -> Vec<usize> {
        rows.into_iter().filter(|&row| play.cases[row].has_outcome()).collect()
    };
    let (train, test) = (known(train), known(test));
    let mut dealt = deal(&play.cases, &train, nodes, play.seed);
    dealt.truncate(play.nodes);
    if test.is_empty() || dealt.len() < play.nodes || dealt.iter().any(Vec::is_empty) {
        return Err(DemoError::TooFew { rows: play.cases.len(), nodes: play.nodes });
    }
    tell(Event::Started { nodes: play.nodes, train: dealt.iter().map(Vec::len).sum(), test: test.len() });

    let mut stage = Stage::new(play, fleet, dealt, test);
    let mut steps = vec![];
    for nodes in sizes(play.nodes) {
        let step = stage.grow_to(nodes).await?;
        tell(Event::Step(&step));
        steps.push(step);
    }
    let (mailbox_before, mailbox_after) = stage.one_more_outcome(&train).await?;
    tell(Event::Grew { before: mailbox_before, after: mailbox_after });
    let participation = stage.participation();
    let killed = stage.victims();
    let before = stage.ask_afresh(fleet, &killed).await?;
    for &node in &killed {
        fleet.kill(node);
    }
    tell(Event::Killed { nodes: killed.len() });
    let after = stage.ask_afresh(fleet, &killed).await?;
    // Whoever reads an empty mailbox knows nothing of any outcome.
    let knows = |answer: &Answer| answer.outcomes.iter().any(Option::is_some);
    let answered: Vec<bool> = after.iter().map(|answer| answer.as_ref().is_some_and(knows)).collect();
    let equal = before.iter().zip(&after).zip(&answered);
    let after_kill = AfterKill {
        killed: killed.len(),
        asked: before.len(),
        answered: answered.iter().filter(|answered| **answered).count(),
        equal: equal.filter(|((before, after), answered)| **answered && before == after).count(),
    };
    tell(Event::AfterKill(after_kill));
    Ok(Report {
        data: play.data.clone(),
        measure: measure(&play.schema).0,
        backend: play.engine.ran().to_string(),
        seconds: start.elapsed().as_secs_f64(),
        steps,
        mailbox_before,
        mailbox_after,
        participation,
        after_kill,
        examples: stage.examples(&before),
    })
}

/// 1, 2, 4, ... and the whole.
fn sizes(nodes: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> =
        std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|&n| n < nodes).collect();
    sizes.push(nodes);
    sizes
}

/// Which metric the demo shows: accuracy for labels, AUC for one binary outcome, else RMSE.
fn measure(schema: &Schema) -> (&'static str, fn(&Metrics) -> Option<f64>) {
    match &schema.outcomes[..] {
        [one] if one.kind == OutcomeKind::Binary => ("AUC", |m| m.auc),
        [first, ..] if first.kind == OutcomeKind::Binary => ("accuracy", |m| m.accuracy.or(m.auc)),
        _ => ("RMSE", |m| m.rmse),
    }
}

/// The running demo.
struct Stage<'a, M> {
    play: &'a Play,
    learners: Vec<Learner<M>>,
    /// Rows of each node.
    dealt: Vec<Vec<usize>>,
    test: Vec<usize>,
    /// Packets of each node that has joined in, as they were deposited.
    own: Vec<Mailboxes>,
}

impl<'a, M: Mailbox> Stage<'a, M> {
    fn new<F: Fleet<Mailbox = M>>(
        play: &'a Play,
        fleet: &F,
        dealt: Vec<Vec<usize>>,
        test: Vec<usize>,
    ) -> Stage<'a, M> {
        let learners = (0..play.nodes).map(|node| learner(play, fleet.mailbox(node), node as u64)).collect();
        Stage { play, learners, dealt, test, own: vec![] }
    }

    /// More nodes join in, deposit what they have seen, and all ask about the test rows.
    async fn grow_to(&mut self, nodes: usize) -> Result<Step, DemoError> {
        let play = self.play;
        let before = self.moved();
        let (joined, new) = self.learners[..nodes].split_at_mut(self.own.len());
        let joining = new.iter_mut().zip(&self.dealt[joined.len()..]).map(|(learner, rows)| async move {
            let cases = rows.iter().map(|&row| play.cases[row].clone());
            learner.observe(&Gatherer::groups(play.schema.cases_min, cases)).await
        });
        for packets in try_join_all(joining).await? {
            self.own.push(Mailboxes::of(self.play.setting(), &packets));
        }

        // Each test row is asked by one of the nodes that take part.
        let mut generator = generator(play.seed, &format!("demo askers {nodes}"));
        let mut of_node: Vec<Vec<usize>> = vec![vec![]; nodes];
        for query in 0..self.test.len() {
            of_node[generator.random_range(0..nodes)].push(query);
        }
        let asking = self.learners[..nodes].iter_mut().zip(&of_node).map(|(learner, queries)| {
            let cases: Vec<Case> =
                queries.iter().map(|&query| play.cases[self.test[query]].clone()).collect();
            async move { learner.ask(&cases, play.now_ms).await }
        });
        let found = try_join_all(asking).await?;
        let mut swarm: Vec<Option<Answer>> = vec![None; self.test.len()];
        for (queries, answers) in of_node.iter().zip(found) {
            for (&query, answer) in queries.iter().zip(answers) {
                swarm[query] = Some(answer);
            }
        }
        // Who has learned something says so: one public synthesis a node, which counts as no evidence.
        for (learner, queries) in self.learners[..nodes].iter_mut().zip(&of_node) {
            if let Some(&query) = queries.first() {
                let case = &play.cases[self.test[query]];
                let action = swarm[query].as_ref().and_then(|answer| answer.action);
                learner.publish(case, action, play.now_ms).await?;
            }
        }

        let mut local: Vec<Option<Answer>> = vec![None; self.test.len()];
        let mut all = Mailboxes::default();
        for (own, queries) in self.own.iter().zip(&of_node) {
            all.add(own);
            for (&query, answer) in queries.iter().zip(self.in_one_place(own, queries)) {
                local[query] = Some(answer);
            }
        }
        let queries: Vec<usize> = (0..self.test.len()).collect();
        let pooled: Vec<Option<Answer>> = self.in_one_place(&all, &queries).into_iter().map(Some).collect();
        let moved = self.moved();
        let first = &play.cases[self.test[0]];
        let address = self.learners[0].addresses(first)[0];
        let mailbox = self.learners[0].mailbox().stat(&address).await.map_err(LearnerError::from)?.packets;
        let ms =
            |after: std::time::Duration, before: std::time::Duration| (after - before).as_secs_f64() * 1e3;
        Ok(Step {
            nodes,
            pathways: nodes * (nodes - 1) / 2,
            packets: moved.pulled,
            bytes: moved.pulled_bytes,
            local: self.quality(&local),
            swarm: self.quality(&swarm),
            pooled: self.quality(&pooled),
            mailbox,
            distil_ms: ms(moved.times.distil, before.times.distil),
            deposit_ms: ms(moved.times.deposit, before.times.deposit),
            pull_ms: ms(moved.times.pull, before.times.pull),
            synthesise_ms: ms(moved.times.synthesise, before.times.synthesise),
        })
    }

    /// One turn of the loop on a row that no node has seen: ask, publish, observe, deposit. Gives the
    /// number of packets in its mailbox before and after the outcome.
    async fn one_more_outcome(&mut self, train: &[usize]) -> Result<(u64, u64), DemoError> {
        let dealt = self.dealt.concat();
        let fresh = train.iter().chain(&self.test).filter(|row| !dealt.contains(row));
        // As many similar cases as the schema asks for in one packet.
        let cases = fresh.map(|&row| self.play.cases[row].clone());
        let Some(group) = Gatherer::groups(self.play.schema.cases_min, cases).into_iter().next() else {
            return Ok((0, 0));
        };
        let case = group[0].clone();
        let now_ms = self.play.now_ms;
        let learner = &mut self.learners[0];
        let answer = learner.ask(std::slice::from_ref(&case), now_ms).await?.remove(0);
        learner.publish(&case, answer.action, now_ms).await?;
        let address = learner.addresses(&case)[0];
        let before = learner.mailbox().stat(&address).await.map_err(LearnerError::from)?;
        learner.observe(&[group]).await?;
        let after = learner.mailbox().stat(&address).await.map_err(LearnerError::from)?;
        Ok((before.packets, after.packets))
    }

    /// What each node has given and asked so far.
    fn participation(&self) -> Vec<Participant> {
        let one = |(node, learner): (usize, &Learner<M>)| {
            let Moved { deposited, asked, pulled, .. } = learner.moved();
            let deposits_per_ask = (asked > 0).then(|| deposited as f64 / asked as f64);
            Participant { node, author: hex(learner.author()), deposited, asked, pulled, deposits_per_ask }
        };
        self.learners.iter().enumerate().map(one).collect()
    }

    /// Nodes to kill, by seed; the first node stays, so that somebody can ask.
    fn victims(&self) -> Vec<usize> {
        let mut nodes: Vec<usize> = (1..self.play.nodes).collect();
        nodes.shuffle(&mut generator(self.play.seed, "demo kill"));
        nodes.truncate(self.play.kill);
        nodes.sort_unstable();
        nodes
    }

    /// Answers to all test rows from nodes that start with empty hands: everything comes over the
    /// network again. Those of `without` do not ask.
    async fn ask_afresh<F: Fleet<Mailbox = M>>(
        &self,
        fleet: &F,
        without: &[usize],
    ) -> Result<Vec<Option<Answer>>, DemoError> {
        let alive: Vec<usize> = (0..self.play.nodes).filter(|node| !without.contains(node)).collect();
        // All at once: each node finds out for itself, and takes its time, that a replica is dead.
        let asking = alive.iter().enumerate().map(|(turn, &node)| {
            let queries: Vec<usize> = (turn..self.test.len()).step_by(alive.len()).collect();
            let cases: Vec<Case> =
                queries.iter().map(|&query| self.play.cases[self.test[query]].clone()).collect();
            let mut learner = learner(self.play, fleet.mailbox(node), u64::MAX);
            async move { (queries, learner.ask(&cases, self.play.now_ms).await) }
        });
        let mut answers = vec![None; self.test.len()];
        for (queries, found) in join_all(asking).await {
            // A question that nobody answers is what this counts, not the end of the demo.
            for (query, answer) in queries.into_iter().zip(found.unwrap_or_default()) {
                answers[query] = Some(answer);
            }
        }
        Ok(answers)
    }

    /// Answers over the given packets alone, without any network.
    fn in_one_place(&self, mailboxes: &Mailboxes, queries: &[usize]) -> Vec<Answer> {
        let rows: Vec<usize> = queries.iter().map(|&query| self.test[query]).collect();
        let public = vec![None; rows.len()];
        mailboxes.ask(self.play.setting(), &self.play.cases, (&rows, &public), self.play.now_ms).answers
    }

    fn quality(&self, answers: &[Option<Answer>]) -> Option<f64> {
        let schema = &self.play.schema;
        let scored: Vec<_> = answers
            .iter()
            .zip(&self.test)
            .map(|(answer, &row)| score(schema, None, &self.play.cases[row], answer.as_ref()))
            .collect();
        measure(schema).1(&metrics(schema, &scored))
    }

    fn moved(&self) -> Moved {
        self.learners.iter().fold(Moved::default(), |sum, learner| sum + learner.moved())
    }

    /// A few cases with their answers, wrong ones first to be honest.
    fn examples(&self, answers: &[Option<Answer>]) -> Vec<Example> {
        let schema = &self.play.schema;
        let mut examples: Vec<Example> = answers
            .iter()
            .zip(&self.test)
            .filter_map(|(answer, &row)| {
                let case = &self.play.cases[row];
                let answer = answer.as_ref()?;
                Some(Example {
                    row: case.row,
                    truth: label(schema, |outcome| case.truth[outcome])?,
                    answer: label(schema, |outcome| answer.outcomes[outcome].map(|e| e.estimate))?,
                    verdict: answer.verdict.name(),
                    packets: answer.packets,
                    authors: answer.authors,
                    picture: picture(schema, case),
                })
            })
            .collect();
        examples.sort_by_key(|example| example.truth == example.answer);
        let wrong = examples.iter().filter(|example| example.truth != example.answer).count();
        examples.drain(8.min(wrong)..wrong);
        examples.truncate(24);
        examples
    }
}

/// What a case is called: the outcome with the largest value where there are several, else the value.
fn label(schema: &Schema, value: impl Fn(usize) -> Option<f64>) -> Option<String> {
    if schema.outcomes.len() == 1 {
        let rounded = match schema.outcomes[0].kind {
            OutcomeKind::Binary => format!("{:.0}", value(0)?),
            _ => format!("{:.1}", value(0)?),
        };
        return Some(rounded);
    }
    let best = (0..schema.outcomes.len())
        .reduce(|a, b| if value(b).unwrap_or(f64::MIN) > value(a).unwrap_or(f64::MIN) { b } else { a })?;
    Some(schema.outcomes[best].name.clone())
}

/// The signal as a picture, where it is 64 numeric slots.
fn picture(schema: &Schema, case: &Case) -> Option<Vec<f64>> {
    (schema.layout().1 == 64 && schema.features.len() == 64).then(|| {
        let pixels = &case.signal[..64];
        let (low, high) = pixels.iter().fold((127, -127), |(low, high), &p| (p.min(low), p.max(high)));
        let span = f64::from(i32::from(high) - i32::from(low)).max(1.0);
        pixels.iter().map(|&p| f64::from(i32::from(p) - i32::from(low)) / span).collect()
    })
}

fn learner<M: Mailbox>(play: &Play, mailbox: M, number: u64) -> Learner<M> {
    let mut hasher = blake3::Hasher::new_derive_key("qis 1 demo author");
    hasher.update(&play.seed.to_le_bytes()).update(&number.to_le_bytes());
    let key = AuthorKey::from_seed(hasher.finalize().into());
    Learner::new(mailbox, play.schema.clone(), play.view.clone(), play.engine.clone(), key, 0)
}
