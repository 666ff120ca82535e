//! What grows how fast with the number of nodes: pairs, information, error, bytes, hops.
//!
//! Nodes have lived through [`WEEKS`] weeks in a world that does not drift, with actions dealt out by chance, and have
//! tuned their views on the packets; then fresh nodes ask what each action would do in situations of theirs, and the
//! estimates are compared with the truth.

use super::LearningError;
use super::circle::{Circle, Ground};
use super::play::author;
use super::world::{Rules, answered, question, stream, time_ms};
use crate::distill::{Case, Distiller};
use crate::packet::{Id, Verified};
use crate::sim::routing;
use rand::Rng;
use serde::Serialize;

/// Numbers of nodes that are measured.
pub const SIZES: [usize; 5] = [1, 4, 16, 64, 256];
/// Seeds that are enough for the figures: each has 640 estimates per number of nodes.
pub const SEEDS: u64 = 1;
const WEEKS: usize = 4;
/// Nodes that ask, and questions of each.
const ASKERS: usize = 32;
const QUESTIONS: usize = 4;

/// One number of nodes; means over questions, and over seeds where [`mean`] made it of several.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Size {
    pub nodes: usize,
    /// N (N - 1) / 2.
    pub pairs: u64,
    /// Pairs whose packets lie at a common address.
    pub pairs_sharing: f64,
    /// Effective cases behind an action's estimate; 0 where the action was never seen.
    pub effective_cases: f64,
    /// 1 / variance of what is believed of an action's benefit (what one more case may say included, or few cases
    /// that ended alike would count as certain); 0 where the action was never seen.
    pub precision: f64,
    /// Root mean square of estimate minus truth, as a fraction of the benefit's range.
    pub error: f64,
    /// Bytes that a node without any packet pulls for its first answer.
    pub bytes: f64,
    /// Greedy steps of routing, in the mean.
    pub hops: f64,
}

/// Measures one number of nodes under one seed.
///
/// # Errors
/// As [`super::play::play`].
pub fn measure(
    ground: Ground,
    rules: Rules,
    nodes: usize,
    cases: usize,
    seed: u64,
) -> Result<Size, LearningError> {
    let schema = ground.schema;
    let mut circle = Circle::new(ground);
    let row = |node: usize, number: usize| (node * WEEKS * cases.max(QUESTIONS) + number) as u64;
    for node in 0..nodes {
        let mut distiller = Distiller::new(author(seed, node), schema.clone(), 0);
        let mut own = vec![];
        for number in 0..WEEKS * cases {
            let (row, now_ms) = (row(node, number), time_ms(number / cases));
            let situation = rules.world.situation(seed, node as u64, number as u64);
            let case = question(schema, rules.world, &situation, row, now_ms);
            let action = (stream(seed, 5, row, 0).next_u64() % schema.actions.len() as u64) as usize;
            let seen = rules.outcomes(schema, &situation, action, false, &mut stream(seed, 3, row, 0));
            own.push(answered(schema, case, action, &seen));
        }
        let packets: Result<Vec<Verified>, _> = own.iter().map(|case| distiller.observe(&[case])).collect();
        circle.deposit(&packets?, time_ms(WEEKS))?;
        // Authors read where they write.
        let read: Vec<(Id, &Case)> = own.iter().map(|case| (*distiller.author(), case)).collect();
        circle.visit(&read, time_ms(WEEKS))?;
    }
    let pairs_sharing = circle.pairs_sharing();
    circle.tune(time_ms(WEEKS), |_, view, _| view)?;

    // The same askers whatever the number of nodes.
    let first = SIZES[SIZES.len() - 1].max(nodes);
    let mut asked = vec![];
    for node in first..first + ASKERS {
        for number in 0..QUESTIONS {
            let situation = rules.world.situation(seed, node as u64, number as u64);
            let case = question(schema, rules.world, &situation, row(node, number), time_ms(WEEKS));
            asked.push((*author(seed, node).public(), situation, case));
        }
    }
    // The first answer of each brings everything.
    let firsts: Vec<(Id, &Case)> = asked.iter().step_by(QUESTIONS).map(|(id, _, case)| (*id, case)).collect();
    let before = circle.pulled_bytes();
    circle.visit(&firsts, time_ms(WEEKS))?;
    let bytes = (circle.pulled_bytes() - before) as f64 / ASKERS as f64;
    let questions: Vec<(Id, &Case)> = asked.iter().map(|(id, _, case)| (*id, case)).collect();
    let told = circle.ask(&questions, time_ms(WEEKS))?;
    let (mut squares, mut effective_cases, mut precision, mut count) = (0.0, 0.0, 0.0, 0.0);
    for ((_, situation, _), told) in asked.iter().zip(&told) {
        for (action, told) in told.iter().enumerate() {
            let truth = rules.benefit(schema, situation, action, false);
            squares += (told.belief.mean - truth) * (told.belief.mean - truth);
            effective_cases += told.cases;
            let scale = told.belief.scale;
            precision += if told.belief.seen { 1.0 / (scale * scale) } else { 0.0 };
            count += 1.0;
        }
    }
    Ok(Size {
        nodes,
        pairs: nodes as u64 * (nodes as u64 - 1) / 2,
        pairs_sharing: pairs_sharing as f64,
        effective_cases: effective_cases / count,
        precision: precision / count,
        error: libm::sqrt(squares / count),
        bytes,
        hops: routing::measure(nodes, 0, seed).mean_hops,
    })
}

/// The mean of several seeds' figures for one number of nodes; of errors the root of the mean square.
///
/// # Panics
/// Without any.
pub fn mean(sizes: &[Size]) -> Size {
    let n = sizes.len() as f64;
    let of = |pick: fn(&Size) -> f64| sizes.iter().map(pick).sum::<f64>() / n;
    Size {
        nodes: sizes[0].nodes,
        pairs: sizes[0].pairs,
        pairs_sharing: of(|s| s.pairs_sharing),
        effective_cases: of(|s| s.effective_cases),
        precision: of(|s| s.precision),
        error: libm::sqrt(of(|s| s.error * s.error)),
        bytes: of(|s| s.bytes),
        hops: of(|s| s.hops),
    }
}

/// How figures grow with N: exponents of power laws, fitted by least squares on logarithms; hops by a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exponents {
    /// From four nodes on, because one node has no pair.
    pub pairs: Option<f64>,
    pub pairs_sharing: Option<f64>,
    pub effective_cases: Option<f64>,
    pub precision: Option<f64>,
    pub error: Option<f64>,
    pub bytes: Option<f64>,
    /// Hops per doubling of N, and the share of the variance that the line explains.
    pub hops_per_doubling: Option<f64>,
    pub hops_r_squared: Option<f64>,
}

impl Exponents {
    pub fn of(sizes: &[Size]) -> Exponents {
        let power = |pick: &dyn Fn(&Size) -> f64| {
            let positive = sizes.iter().filter(|size| pick(size) > 0.0);
            let points = positive.map(|size| (libm::log(size.nodes as f64), libm::log(pick(size))));
            line(&points.collect::<Vec<_>>()).map(|(slope, _)| slope)
        };
        let hops: Vec<(f64, f64)> =
            sizes.iter().map(|size| (libm::log2(size.nodes as f64), size.hops)).collect();
        let hops = line(&hops);
        Exponents {
            pairs: power(&|s| s.pairs as f64),
            pairs_sharing: power(&|s| s.pairs_sharing),
            effective_cases: power(&|s| s.effective_cases),
            precision: power(&|s| s.precision),
            error: power(&|s| s.error),
            bytes: power(&|s| s.bytes),
            hops_per_doubling: hops.map(|(slope, _)| slope),
            hops_r_squared: hops.map(|(_, share)| share),
        }
    }
}

/// Slope of the least-squares line, and the share of the variance that it explains; `None` for fewer than two
/// different x.
fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let n = points.len() as f64;
    let x_mean = points.iter().map(|point| point.0).sum::<f64>() / n;
    let y_mean = points.iter().map(|point| point.1).sum::<f64>() / n;
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in points {
        xx += (x - x_mean) * (x - x_mean);
        xy += (x - x_mean) * (y - y_mean);
        yy += (y - y_mean) * (y - y_mean);
    }
    (xx > 0.0).then(|| (xy / xx, if yy > 0.0 { xy * xy / (xx * yy) } else { 1.0 }))
}
