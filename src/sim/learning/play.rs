//! One contestant in one world under one seed, from the first week to the last.

use super::circle::{Circle, Ground, Told};
use super::mixture::Mixture;
use super::prior::with_mixture;
use super::world::{Rules, Situation, answered, question, stream, time_ms, turned};
use super::{LearningError, WEEKS_PER_MONTH};
use crate::distill::{Case, Distiller};
use crate::limits::SLOTS;
use crate::merge::choice::{Belief, explore};
use crate::packet::{AuthorKey, Id, Verified};
use rand::Rng;
use serde::Serialize;
use std::collections::BTreeMap;

/// Who acts, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Contestant {
    /// Everybody reads everybody's packets at the address, and explores by Thompson sampling.
    Swarm,
    /// The same learner with its own packets only.
    Isolated,
    /// Every node recommends what its own packets show to be best; the majority wins.
    Vote,
    /// A mixture of experts, trained on the first month's pooled cases, then frozen.
    Mixture,
    /// The swarm, drawn toward the frozen mixture.
    SwarmAndMixture,
    /// Any action with the same chance: nothing is learned.
    Chance,
}

impl Contestant {
    /// In the order of the reports.
    pub const ALL: [Contestant; 6] = [
        Contestant::Swarm,
        Contestant::Isolated,
        Contestant::Vote,
        Contestant::Mixture,
        Contestant::SwarmAndMixture,
        Contestant::Chance,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Contestant::Swarm => "swarm",
            Contestant::Isolated => "isolated",
            Contestant::Vote => "vote",
            Contestant::Mixture => "mixture",
            Contestant::SwarmAndMixture => "swarm and mixture",
            Contestant::Chance => "chance",
        }
    }
}

/// What happens when; months count from 1.
#[derive(Clone, Debug)]
pub struct Plan {
    pub rules: Rules,
    /// Nodes from the beginning.
    pub nodes: usize,
    /// Nodes that join later.
    pub joiners: usize,
    /// Cases of a node per week.
    pub cases: usize,
    pub months: usize,
    /// From the beginning of this month on the truth is another one.
    pub drift_month: usize,
    /// The joiners come at the beginning of this month.
    pub join_month: usize,
    /// At the end of these months views are tuned.
    pub tune_months: Vec<usize>,
}

/// Regret summed over cases.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Regret {
    pub sum: f64,
    pub cases: u64,
}

impl Regret {
    fn add(&mut self, regret: f64) {
        self.sum += regret;
        self.cases += 1;
    }

    /// Per case; 0 without cases.
    pub fn mean(&self) -> f64 {
        self.sum / self.cases.max(1) as f64
    }
}

/// What a contestant lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    pub contestant: Contestant,
    /// Per month, over the nodes that were there from the beginning.
    pub months: Vec<Regret>,
    /// Of the joiners in their first week.
    pub joined: Regret,
    /// Bytes that a node pulled per question, in the mean; 0 where nobody pulls.
    pub bytes_per_question: f64,
}

/// A track, and the first month's cases with their nodes.
pub type Played = (Track, Vec<(u64, Case)>);

/// A case on its way: who has it, and what the world knows of it.
struct Met {
    node: usize,
    situation: Situation,
    case: Case,
}

/// The key of a node.
pub fn author(seed: u64, node: usize) -> AuthorKey {
    let mut hasher = blake3::Hasher::new_derive_key("qis 1 simulated author");
    hasher.update(&seed.to_le_bytes()).update(&(node as u64).to_le_bytes());
    AuthorKey::from_seed(hasher.finalize().into())
}

/// Plays one contestant. `first_month`: what the swarm met and did in it, which whoever has a mixture was
/// trained on; the mixture's nodes did the same before they had it.
///
/// # Errors
/// A packet or store that fails, which only a schema built wrongly can cause.
pub fn play(
    ground: Ground,
    plan: &Plan,
    seed: u64,
    contestant: Contestant,
    first_month: Option<(&Mixture, &[(u64, Case)])>,
) -> Result<Played, LearningError> {
    let schema = ground.schema;
    let all = plan.nodes + plan.joiners;
    let mut distillers: Vec<Distiller> =
        (0..all).map(|node| Distiller::new(author(seed, node), schema.clone(), 0)).collect();
    let authors: Vec<Id> = distillers.iter().map(|distiller| *distiller.author()).collect();
    let mut circles: Vec<Circle> = match contestant {
        Contestant::Swarm | Contestant::SwarmAndMixture => vec![Circle::new(ground)],
        Contestant::Isolated | Contestant::Vote => (0..all).map(|_| Circle::new(ground)).collect(),
        Contestant::Mixture | Contestant::Chance => vec![],
    };
    let done: BTreeMap<u64, u16> = match first_month {
        Some((_, cases)) => cases.iter().filter_map(|(_, case)| Some((case.row, case.action?))).collect(),
        None => BTreeMap::new(),
    };
    let mut track = Track {
        contestant,
        months: vec![Regret::default(); plan.months],
        joined: Regret::default(),
        bytes_per_question: 0.0,
    };
    let mut pooled = vec![];
    for step in 0..plan.months * WEEKS_PER_MONTH {
        let month = step / WEEKS_PER_MONTH + 1;
        let drifted = month >= plan.drift_month;
        let now_ms = time_ms(step);
        let active = if month >= plan.join_month { all } else { plan.nodes };
        let met = meet(ground, plan, seed, step, active);
        let told = ask(&mut circles, contestant, &met, &authors, now_ms)?;
        let mut packets: Vec<Vec<Verified>> = vec![vec![]; circles.len()];
        for (index, met) in met.into_iter().enumerate() {
            let row = met.case.row;
            let by_chance = || (stream(seed, 4, row, 0).next_u64() % schema.actions.len() as u64) as usize;
            let action = match contestant {
                Contestant::Swarm | Contestant::SwarmAndMixture | Contestant::Isolated => {
                    let beliefs: Vec<Belief> = told[index][0].iter().map(|told| told.belief).collect();
                    explore(&beliefs, seed, row).map_or(0, usize::from)
                }
                Contestant::Vote => majority(&told[index]).unwrap_or_else(by_chance),
                Contestant::Mixture => match (done.get(&row), first_month) {
                    (Some(&action), _) => usize::from(action),
                    (None, Some((mixture, _))) => best_of(ground, mixture, &met.case),
                    (None, None) => by_chance(),
                },
                Contestant::Chance => 0,
            };
            let benefits: Vec<f64> = (0..schema.actions.len())
                .map(|action| plan.rules.benefit(schema, &met.situation, action, drifted))
                .collect();
            let most = benefits.iter().copied().fold(0.0, f64::max);
            let regret = match contestant {
                Contestant::Chance => most - benefits.iter().sum::<f64>() / benefits.len() as f64,
                _ => most - benefits[action],
            };
            if met.node < plan.nodes {
                track.months[month - 1].add(regret);
            } else if step == (plan.join_month - 1) * WEEKS_PER_MONTH {
                track.joined.add(regret);
            }
            if circles.is_empty() {
                continue;
            }
            let mut luck = stream(seed, 3, row, 0);
            let seen = plan.rules.outcomes(schema, &met.situation, action, drifted, &mut luck);
            let case = answered(schema, met.case, action, &seen);
            let circle = if circles.len() > 1 { met.node } else { 0 };
            packets[circle].push(distillers[met.node].observe(&[&case])?);
            if month == 1 {
                pooled.push((met.node as u64, case));
            }
        }
        for (circle, packets) in circles.iter().zip(&packets) {
            circle.deposit(packets, now_ms)?;
        }
        let month_ends = (step + 1).is_multiple_of(WEEKS_PER_MONTH);
        let drawn = contestant == Contestant::SwarmAndMixture;
        if month_ends && (plan.tune_months.contains(&month) || drawn && month == 1) {
            let mixture = first_month.filter(|_| drawn).map(|(mixture, _)| mixture);
            for circle in &mut circles {
                tune(ground, circle, mixture, time_ms(step + 1))?;
            }
        }
    }
    let pulled: f64 = circles.iter().map(Circle::bytes_per_question).sum();
    track.bytes_per_question = pulled / circles.len().max(1) as f64;
    Ok((track, pooled))
}

/// The week's cases.
fn meet(ground: Ground, plan: &Plan, seed: u64, step: usize, active: usize) -> Vec<Met> {
    let weeks = plan.months * WEEKS_PER_MONTH;
    let one = |node: usize, index: usize| {
        let number = (step * plan.cases + index) as u64;
        let situation = plan.rules.world.situation(seed, node as u64, number);
        let row = (node * weeks * plan.cases) as u64 + number;
        let case = question(ground.schema, plan.rules.world, &situation, row, time_ms(step));
        Met { node, situation, case }
    };
    (0..active).flat_map(|node| (0..plan.cases).map(move |index| one(node, index))).collect()
}

/// What circles tell of each case: case x circle that was asked x action.
fn ask(
    circles: &mut [Circle],
    contestant: Contestant,
    met: &[Met],
    authors: &[Id],
    now_ms: u64,
) -> Result<Vec<Vec<Vec<Told>>>, LearningError> {
    let mut told: Vec<Vec<Vec<Told>>> = vec![vec![]; met.len()];
    let alone = circles.len() > 1;
    for (node, circle) in circles.iter_mut().enumerate() {
        let asked: Vec<usize> = match contestant {
            Contestant::Isolated => (0..met.len()).filter(|&index| met[index].node == node).collect(),
            _ => (0..met.len()).collect(),
        };
        let asker = |index: usize| authors[if alone { node } else { met[index].node }];
        let cases: Vec<(Id, &Case)> = asked.iter().map(|&index| (asker(index), &met[index].case)).collect();
        for (index, found) in asked.into_iter().zip(circle.ask(&cases, now_ms)?) {
            told[index].push(found);
        }
    }
    Ok(told)
}

/// The action that most nodes recommend, of two with as many votes the first; a node without evidence abstains.
fn majority(told: &[Vec<Told>]) -> Option<usize> {
    let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
    for told in told {
        let seen = told.iter().map(|told| told.belief).filter(|belief| belief.seen);
        let best = seen.max_by(|a, b| a.mean.total_cmp(&b.mean).then(b.action.cmp(&a.action)));
        if let Some(best) = best {
            *votes.entry(usize::from(best.action)).or_default() += 1;
        }
    }
    votes.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(&a.0))).map(|(action, _)| action)
}

/// What the mixture holds to be best.
fn best_of(ground: Ground, mixture: &Mixture, case: &Case) -> usize {
    let benefit = |action: usize| turned(ground.schema, &mixture.predict(&case.signal, action));
    let actions = 0..ground.schema.actions.len();
    actions.max_by(|&a, &b| benefit(a).total_cmp(&benefit(b)).then(b.cmp(&a))).unwrap_or(0)
}

/// Tunes a circle's views; with a mixture they are drawn toward it.
fn tune(
    ground: Ground,
    circle: &mut Circle,
    mixture: Option<&Mixture>,
    now_ms: u64,
) -> Result<(), LearningError> {
    let signals: Vec<[i8; SLOTS]> = match mixture {
        Some(_) => circle.signals(now_ms),
        None => vec![],
    };
    let trained_ms = time_ms(WEEKS_PER_MONTH);
    circle.tune(now_ms, |action, view, packets| match mixture {
        Some(mixture) if !signals.is_empty() => {
            with_mixture(ground.schema, mixture, (action, view), packets, &signals, trained_ms)
        }
        _ => view,
    })?;
    Ok(())
}
