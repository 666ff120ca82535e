//! What `qis ask` says of actions beside their estimates: chances, exploration, effects, overlap.

use crate::address::Address;
use crate::cli::Failure;
use crate::distill::Case;
use crate::domain::{Direction, Domain, View};
use crate::embed::cpu::embed_one;
use crate::engine::Engine;
use crate::merge::choice::{Overlap, beliefs, beliefs_with_untried, chances, explore, overlap};
use crate::merge::effect::{Effect, difference};
use crate::merge::robust::{Nearness, Pair, Propensity, Scores, Surroundings, effect};
use crate::merge::{Answer, Batch, Question, answer::Estimates};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// The flags.
#[derive(clap::Args)]
pub struct Choice {
    /// Choose an action by Thompson sampling: each with its chance to be the best, those that nobody
    /// tried too
    #[arg(long)]
    explore: bool,
    /// Seed of the choice; the same seed and row choose the same [default: drawn, and shown]
    #[arg(long, value_name = "S", requires = "explore")]
    seed: Option<u64>,
    /// Show the effect of every action against this one, per row and over all rows [default: of the best
    /// action against each other]
    #[arg(long, value_name = "ACTION")]
    against: Option<String>,
    /// Actions were dealt out by equal chances, as in a trial [default: chances are estimated from
    /// similar cases]
    #[arg(long, requires = "against")]
    randomised: bool,
}

/// What was chosen to be tried.
pub struct Explored {
    pub action: u16,
    /// Chance with which it is taken.
    pub chance: f64,
    pub seed: u64,
}

/// An effect on one outcome; each way where it could be told.
pub struct Told {
    pub pair: Pair,
    pub difference: Option<Effect>,
    pub robust: Option<Effect>,
}

/// What is said of the actions of one row; empty where at most one is known.
#[derive(Default)]
pub struct Choosing {
    pub chances: Vec<(u16, f64)>,
    pub overlaps: Vec<(Option<u16>, Overlap)>,
    pub effects: Vec<Told>,
    pub explored: Option<Explored>,
}

/// What the packets of some mailboxes say of effects, and how near they lie to all rows so far.
struct Scored {
    around: Surroundings,
    scores: BTreeMap<Pair, Scores>,
    near_all: Nearness,
}

/// The mailboxes read, and what tells the batch of their packets from another.
type Reading = (Vec<Address>, u64, usize);

/// Goes through the rows of a question table.
pub struct Chooser<'a> {
    domain: &'a Domain,
    view: &'a View,
    engine: &'a Engine,
    seed: Option<u64>,
    against: Option<u16>,
    propensity: Propensity,
    /// `None` where there are too many packets to be corrected.
    scored: BTreeMap<Reading, Option<Scored>>,
}

impl<'a> Chooser<'a> {
    /// # Errors
    /// Flags that name no action, or ask for a choice where no outcome has a direction.
    pub fn new(
        choice: &Choice,
        domain: &'a Domain,
        view: &'a View,
        engine: &'a Engine,
    ) -> Result<Chooser<'a>, Failure> {
        let schema = &domain.schema;
        let find = |name: &String| {
            let found = schema.actions.iter().position(|action| action == name);
            let known = || schema.actions.join(", ");
            found.map(|index| index as u16).ok_or_else(|| {
                Failure::usage(format!("--against: the domain has no action `{name}`; it has {}", known()))
            })
        };
        let directed = schema.outcomes.iter().any(|outcome| outcome.direction != Direction::Neutral);
        if choice.explore && (schema.actions.len() < 2 || !directed) {
            return Err(Failure::usage(
                "--explore: the domain needs two actions and an outcome with a direction (\"higher\" or \"lower\")",
            ));
        }
        let seed = choice.explore.then(|| choice.seed.unwrap_or_else(|| u64::from(rand::rng().next_u32())));
        let propensity = match choice.randomised {
            true => Propensity::Known(vec![1.0 / schema.actions.len() as f64; schema.actions.len()]),
            false => Propensity::Estimated,
        };
        let against = choice.against.as_ref().map(find).transpose()?;
        Ok(Chooser { domain, view, engine, seed, against, propensity, scored: BTreeMap::new() })
    }

    /// What is said of one row's actions; `batch` is what its answer was made from, at `addresses`.
    pub fn choose(
        &mut self,
        case: &Case,
        answer: &Answer,
        batch: &Batch,
        addresses: &[Address],
        ask_ms: u64,
    ) -> Choosing {
        let schema = &self.domain.schema;
        let mut choosing = Choosing::default();
        if answer.actions.len() > 1 {
            choosing.chances = chances(&beliefs(schema, answer));
            choosing.overlaps =
                answer.actions.iter().map(|(action, estimates)| (*action, overlap(estimates))).collect();
            choosing.effects = self.differences(answer);
        }
        if self.against.is_some() {
            let question = Question { schema, view: self.view, batch, ask_ms };
            self.correct(&mut choosing.effects, question, case, addresses);
        }
        if let Some(seed) = self.seed {
            let beliefs = beliefs_with_untried(schema, answer);
            choosing.explored = explore(&beliefs, seed, case.row).map(|action| {
                let chance = chances(&beliefs).into_iter().find(|(of, _)| *of == action);
                Explored { action, chance: chance.map_or(0.0, |(_, chance)| chance), seed }
            });
        }
        choosing
    }

    /// Of every action against the one named, or of the best against each other.
    fn differences(&self, answer: &Answer) -> Vec<Told> {
        let of = |action: u16| answer.actions.iter().find(|(of, _)| *of == Some(action)).map(|(_, e)| e);
        let others = |than: u16| {
            let known = answer.actions.iter().filter_map(|(action, _)| *action);
            known.filter(move |&action| action != than)
        };
        let pairs: Vec<(u16, u16)> = match (self.against, answer.action) {
            (Some(against), _) => others(against).map(|action| (action, against)).collect(),
            (None, Some(best)) => others(best).map(|other| (best, other)).collect(),
            (None, None) => vec![],
        };
        let mut told = vec![];
        for (action, against) in pairs {
            let (Some(one), Some(other)) = (of(action), of(against)) else { continue };
            for outcome in 0..self.domain.schema.outcomes.len() {
                let pair = Pair { outcome, action, against };
                told.push(Told { pair, difference: self.difference(one, other, outcome), robust: None });
            }
        }
        told
    }

    fn difference(&self, one: &Estimates, other: &Estimates, outcome: usize) -> Option<Effect> {
        let of = |estimates: &Estimates| estimates[outcome].as_ref().map(|estimate| estimate.finished);
        Some(difference(&of(one)?, &of(other)?, self.view.level))
    }

    /// Adds the effects corrected for unlike cases, and gathers them over all rows.
    fn correct(&mut self, effects: &mut [Told], question: Question, case: &Case, addresses: &[Address]) {
        let (engine, propensity) = (self.engine, &self.propensity);
        let pairs = || effects.iter().map(|told| told.pair);
        let columns = &question.batch.columns;
        let reading = (addresses.to_vec(), columns.id(), columns.len());
        let scored = self.scored.entry(reading).or_insert_with(|| {
            let around = Surroundings::new(question, |job| engine.merge(job))?;
            Some(Scored { around, scores: BTreeMap::new(), near_all: Nearness::default() })
        });
        let Some(Scored { around, scores, near_all }) = scored else { return };
        for pair in pairs() {
            if !scores.contains_key(&pair)
                && let Some(found) = around.scores(&question, pair, propensity)
            {
                scores.insert(pair, found);
            }
        }
        let query = embed_one(&self.view.metric, &case.signal);
        let mut near = Nearness::default();
        near.add(&question, around, &query, 1);
        near_all.add_of_many(&question, around, &query);
        for told in effects {
            let found = scores.get(&told.pair);
            told.robust = found.and_then(|scores| effect([(&near, scores)], self.view.level));
        }
    }

    /// The effects over all rows so far, and the number of rows behind them.
    pub fn over_all(&self) -> (Vec<Told>, u64) {
        let scored = || self.scored.values().flatten();
        let pairs: BTreeSet<Pair> = scored().flat_map(|scored| scored.scores.keys().copied()).collect();
        let one = |pair: Pair| {
            let parts = scored().filter_map(|of| Some((&of.near_all, of.scores.get(&pair)?)));
            Told { pair, difference: None, robust: effect(parts, self.view.level) }
        };
        let rows = scored().map(|scored| scored.near_all.situations()).sum();
        (pairs.into_iter().map(one).collect(), rows)
    }
}
