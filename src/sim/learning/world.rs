//! Worlds whose truth is known: what nodes meet, what they may do, and what comes of it.
//!
//! Every draw is a function of (seed, what is drawn, node, step, case) alone, so that all contestants meet
//! the same situations with the same luck, whatever they do and on whatever thread.

use super::{links, machines};
use crate::distill::Case;
use crate::domain::schema::{Feature, FeatureKind, Missing, Outcome, OutcomeKind, Outside};
use crate::domain::{Direction, Schema, Value, View};
use crate::limits::OUTCOMES_MAX;
use crate::merge::quantile::normal_quantile;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// A step is a week.
pub const STEP_MS: u64 = 7 * DAY_MS;
/// When the first step begins: any Monday.
const START_MS: u64 = 1_735_516_800_000;
/// Deviates of a node's own mean situation, and of its situations around that.
const BETWEEN_NODES: f64 = 0.7;
const WITHIN_NODE: f64 = 0.7;
/// Standard deviation of a node's own level on the logit, which no feature tells.
const LEVEL: f64 = 0.35;
/// Of the kernel that everybody begins with, in units of a signal's slots: two situations drawn at random count a
/// fifth for each other.
const BANDWIDTH: f64 = 70.0;
/// One node in five has devices of both families.
const BOTH_FAMILIES: f64 = 0.2;

/// Which world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Radio links to be tuned.
    Links,
    /// Machines to be maintained.
    Machines,
}

/// A situation as the world knows it.
#[derive(Clone, Debug)]
pub struct Situation {
    /// Deviates of the numeric features, about -3..3.
    pub deviates: Vec<f64>,
    /// 0 or 1: the exact feature.
    pub family: usize,
    /// 0, 1 or 2.
    pub model: usize,
    /// The node's own level, in logits.
    pub level: f64,
}

/// What the world does, beyond its kind.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub world: World,
    /// Outcomes say nothing: they are drawn as if every action did the same everywhere.
    pub silent: bool,
}

/// A stream of chance for one thing.
pub fn stream(seed: u64, kind: u64, node: u64, number: u64) -> ChaCha8Rng {
    let mut material = [0; 32];
    for (bytes, word) in material.chunks_exact_mut(8).zip([seed, kind, node, number]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(material)
}

/// Uniform, in the middle of one of 2^53 steps: never 0 or 1.
pub fn share(random: &mut impl Rng) -> f64 {
    ((random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

fn deviate(random: &mut impl Rng) -> f64 {
    normal_quantile(share(random))
}

/// The logistic function.
pub fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// Unix milliseconds at the beginning of a step.
pub fn time_ms(step: usize) -> u64 {
    START_MS + step as u64 * STEP_MS
}

impl World {
    pub const ALL: [World; 2] = [World::Links, World::Machines];

    pub fn name(self) -> &'static str {
        match self {
            World::Links => "links",
            World::Machines => "machines",
        }
    }

    pub fn named(name: &str) -> Option<World> {
        World::ALL.into_iter().find(|world| world.name() == name)
    }

    /// What packets of this world mean. The family stands twice: as an exact feature, which decides the
    /// address, and as a slot, which a prior can see.
    pub fn schema(self) -> Schema {
        match self {
            World::Links => links::schema(),
            World::Machines => machines::schema(),
        }
    }

    /// The view that everybody begins with: identity metric, one mailbox per family, evidence that halves every
    /// `half_life_days`.
    pub fn view(self, schema: &Schema, half_life_days: u64) -> View {
        let mut view = View::plain("default", schema, BANDWIDTH, 2.0);
        if half_life_days > 0 {
            view.decay = crate::domain::Decay::exponential(half_life_days * DAY_MS);
        }
        view
    }

    /// Mean of each outcome as a fraction of its range.
    pub fn means(self, situation: &Situation, action: usize, drifted: bool) -> Vec<f64> {
        match self {
            World::Links => links::means(situation, action, drifted),
            World::Machines => machines::means(situation, action, drifted),
        }
    }

    /// Numeric features in their own units.
    fn numbers(self, situation: &Situation) -> Vec<f64> {
        match self {
            World::Links => links::numbers(situation),
            World::Machines => machines::numbers(situation),
        }
    }

    fn numeric_features(self) -> usize {
        match self {
            World::Links => links::NUMBERS,
            World::Machines => machines::NUMBERS,
        }
    }

    /// The situation of one case. A node keeps to its own region of situations, its model and, mostly,
    /// its family.
    pub fn situation(self, seed: u64, node: u64, number: u64) -> Situation {
        let mut own = stream(seed, 1, node, 0);
        let mut random = stream(seed, 2, node, number);
        let family_share = share(&mut own);
        let model = (share(&mut own) * 3.0) as usize;
        let level = LEVEL * deviate(&mut own);
        let family = if family_share < BOTH_FAMILIES {
            usize::from(share(&mut random) < 0.5)
        } else {
            usize::from(family_share < BOTH_FAMILIES + (1.0 - BOTH_FAMILIES) / 2.0)
        };
        let deviates = (0..self.numeric_features())
            .map(|_| BETWEEN_NODES * deviate(&mut own) + WITHIN_NODE * deviate(&mut random))
            .collect();
        Situation { deviates, family, model, level }
    }
}

impl Rules {
    /// Benefit of an action in a situation, 0..=1: the mean over the outcomes, turned so that more is
    /// better. The truth that regret is measured by.
    pub fn benefit(self, schema: &Schema, situation: &Situation, action: usize, drifted: bool) -> f64 {
        turned(schema, &self.world.means(situation, action, drifted))
    }

    /// Outcomes of an action as they are seen, in their own units. The luck of a case is the same
    /// whatever is done.
    pub fn outcomes(
        self,
        schema: &Schema,
        situation: &Situation,
        action: usize,
        drifted: bool,
        luck: &mut impl Rng,
    ) -> Vec<f64> {
        let means = match self.silent {
            true => vec![0.5; schema.outcomes.len()],
            false => self.world.means(situation, action, drifted),
        };
        let seen: Vec<f64> = match self.world {
            World::Links => {
                links::seen(&means, if self.silent { 1.0 } else { links::rate(action, drifted) }, luck)
            }
            World::Machines => machines::seen(&means, luck),
        };
        schema
            .outcomes
            .iter()
            .zip(seen)
            .map(|(outcome, y)| outcome.low + y * (outcome.high - outcome.low))
            .collect()
    }
}

/// Mean of fractions of ranges, each turned so that more is better.
pub fn turned(schema: &Schema, fractions: &[f64]) -> f64 {
    let one = |(outcome, &y): (&Outcome, &f64)| match outcome.direction {
        Direction::Lower => 1.0 - y,
        Direction::Higher | Direction::Neutral => y,
    };
    schema.outcomes.iter().zip(fractions).map(one).sum::<f64>() / fractions.len() as f64
}

/// A situation as a question: a case without action and outcome.
pub fn question(schema: &Schema, world: World, situation: &Situation, row: u64, observed_at: u64) -> Case {
    let mut values = vec![
        Value::Level(situation.family),
        Value::Bool(situation.family == 1),
        Value::Level(situation.model),
    ];
    values.extend(world.numbers(situation).into_iter().map(Value::Number));
    Case {
        row,
        signal: schema.signal(&values),
        scope: schema.scope(&values),
        values: [None; OUTCOMES_MAX],
        truth: vec![],
        action: None,
        site: None,
        record: row.to_string(),
        observed_at: schema.floor_time(observed_at),
    }
}

/// A question with what was done and what came of it.
///
/// # Panics
/// If an outcome is outside its range, which the worlds never draw.
pub fn answered(schema: &Schema, mut case: Case, action: usize, outcomes: &[f64]) -> Case {
    for ((value, outcome), &seen) in case.values.iter_mut().zip(&schema.outcomes).zip(outcomes) {
        *value = Some(outcome.quantise(seen).expect("an outcome within its range"));
    }
    case.truth = outcomes.iter().map(|&seen| Some(seen)).collect();
    case.action = Some(action as u16);
    case
}

/// A schema of the two kinds of device family, a model, and numeric features (name, unit, centre,
/// scale, thermometer).
pub fn schema(
    name: &str,
    families: [&str; 2],
    numeric: &[(&str, &str, f64, f64, &[f64])],
    actions: &[&str],
    outcomes: Vec<Outcome>,
) -> Schema {
    let feature = |name: &str, unit: &str, kind| Feature {
        name: name.into(),
        kind,
        unit: unit.into(),
        weight: 1.0,
        missing: Missing::Refuse,
    };
    let levels =
        |names: &[&str]| FeatureKind::Categorical { levels: names.iter().map(|&l| l.into()).collect() };
    let mut features = vec![
        feature("family", "", levels(&families)),
        feature("second_family", "", FeatureKind::Boolean),
        feature("model", "", levels(&["a", "b", "c"])),
    ];
    features.extend(numeric.iter().map(|&(name, unit, centre, scale, thermometer)| {
        let kind = FeatureKind::Numeric { centre, scale, thermometer: thermometer.to_vec() };
        feature(name, unit, kind)
    }));
    Schema {
        name: name.into(),
        features,
        exact: vec![0],
        actions: actions.iter().map(|&action| action.into()).collect(),
        outcomes,
        time_step_ms: DAY_MS,
        levels: 32,
        cases_min: 1,
        curator: [0; 32],
    }
}

/// An outcome between 0 and `high`.
pub fn outcome(name: &str, kind: OutcomeKind, unit: &str, high: f64, direction: Direction) -> Outcome {
    Outcome {
        name: name.into(),
        kind,
        unit: unit.into(),
        low: 0.0,
        high,
        direction,
        outside: Outside::Refuse,
    }
}
