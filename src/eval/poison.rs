//! Nodes that lie: a seeded share of them tells others something else than what happened.
//!
//! Quality is that of honest nodes: only test rows that an honest node asks about count, with the lies
//! and without, so that the two are compared row by row.

use super::Tuner;
use super::field::Field;
use super::metrics::Metrics;
use super::split::generator;
use super::{Method, run_method};
use crate::distill::Case;
use crate::domain::{OutcomeKind, Schema, View};
use crate::packet::PacketError;
use rand::prelude::*;
use serde::Serialize;

/// How a dishonest node lies.
///
/// To *flip* a row is to mirror every known outcome in its range (a binary outcome becomes the other one);
/// where a row has exactly one of several binary outcomes, the next one (after the last the first) takes
/// its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PoisonKind {
    /// It flips all its rows.
    Flip,
    /// It flips all its rows and deposits each of them ten times, as ten different records.
    Flood,
    /// It flips the rows whose first outcome is in the upper half of its range, and tells the truth of the
    /// others.
    Targeted,
    /// It flips half of its rows, drawn by the seed (rounded down, but one at least).
    Partial,
}

/// Records that a flooding node makes of a row.
pub const FLOOD_COPIES: usize = 10;

/// Who lies, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Poison {
    /// Share of the nodes, 0..1: rounded to a number of nodes, but one at least.
    pub share: f64,
    pub kind: PoisonKind,
}

/// What lies did to one split.
#[derive(Clone, Debug, PartialEq)]
pub struct Poisoned {
    /// Number of dishonest nodes.
    pub dishonest: usize,
    /// Share of honest, and of lying, nodes that the swarm's view trusts less than half for what they say; `None` where it
    /// trusts all alike.
    pub excluded: Option<(f64, f64)>,
    /// Per method its name, and the quality without and with the lies.
    pub methods: Vec<(String, Metrics, Metrics)>,
}

/// Which of `nodes` lie. At least one is left honest where there are two.
pub fn dishonest(nodes: usize, share: f64, seed: u64) -> Vec<bool> {
    let wanted = ((share * nodes as f64).round() as usize).clamp(1, (nodes.max(2)) - 1);
    let mut order: Vec<usize> = (0..nodes).collect();
    order.shuffle(&mut generator(seed, "dishonest"));
    let mut lies = vec![false; nodes];
    order.into_iter().take(wanted).for_each(|node| lies[node] = true);
    lies
}

impl PoisonKind {
    /// What a dishonest node makes of its rows.
    pub fn cases(self, schema: &Schema, honest: &[Case], seed: u64, node: usize) -> Vec<Case> {
        let mut cases = honest.to_vec();
        match self {
            PoisonKind::Flip => cases.iter_mut().for_each(|case| flip(schema, case)),
            PoisonKind::Flood => {
                cases.iter_mut().for_each(|case| flip(schema, case));
                let copy = |case: &Case, copy: usize| Case {
                    record: format!("{}\ncopy {copy}", case.record),
                    ..case.clone()
                };
                cases = cases.iter().flat_map(|case| (0..FLOOD_COPIES).map(|i| copy(case, i))).collect();
            }
            PoisonKind::Targeted => cases
                .iter_mut()
                .filter(|case| case.values[0] > Some(32_767))
                .for_each(|case| flip(schema, case)),
            PoisonKind::Partial => {
                let mut order: Vec<usize> = (0..cases.len()).collect();
                order.shuffle(&mut generator(seed, &format!("partial lies of node {node}")));
                order.truncate((cases.len() / 2).max(1));
                order.into_iter().for_each(|index| flip(schema, &mut cases[index]));
            }
        }
        cases
    }
}

/// See [`PoisonKind`].
fn flip(schema: &Schema, case: &mut Case) {
    let outcomes = schema.outcomes.len();
    let all_binary = schema.outcomes.iter().all(|outcome| outcome.kind == OutcomeKind::Binary);
    let high: Vec<usize> = (0..outcomes).filter(|&o| case.values[o] > Some(32_767)).collect();
    match high[..] {
        [one] if all_binary && outcomes > 1 && case.values[..outcomes].iter().all(Option::is_some) => {
            case.values.swap(one, (one + 1) % outcomes);
        }
        _ => case.values.iter_mut().flatten().for_each(|value| *value = 65_535 - *value),
    }
}

/// Each method with and without the lies, on one field; with a tuner the swarm's view is made anew of the packets with lies.
///
/// # Errors
/// As [`Field::new`].
pub fn run(
    field: &Field,
    view: &View,
    tuner: Option<&Tuner>,
    methods: &[Method],
    poison: Poison,
) -> Result<Poisoned, PacketError> {
    let (poisoned, lies) = field.poisoned(poison)?;
    let honest = |query: usize| !lies[field.askers[query]];
    let tuned = |field: &Field| tuner.map_or_else(|| view.clone(), |tuner| tuner(field, view));
    let (clean_view, poisoned_view) = (tuned(field), tuned(&poisoned));
    let measured = |method: &Method| {
        let of = |field: &Field| {
            let swarm = if std::ptr::eq(field, &poisoned) { &poisoned_view } else { &clean_view };
            field.metrics(&run_method(field, swarm, view, *method), view.level, honest)
        };
        (method.name().to_string(), of(field), of(&poisoned))
    };
    Ok(Poisoned {
        excluded: poisoned.doubted(&poisoned_view).map(|doubted| {
            let share = |lying: bool| {
                let of: Vec<bool> =
                    lies.iter().zip(&doubted).filter(|(l, _)| **l == lying).map(|(_, d)| *d).collect();
                of.iter().filter(|doubted| **doubted).count() as f64 / of.len().max(1) as f64
            };
            (share(false), share(true))
        }),
        dishonest: lies.iter().filter(|lies| **lies).count(),
        methods: methods.iter().map(measured).collect(),
    })
}
