//! Boosted trees on the slots of signals: second-order gradient boosting with histograms (Chen and
//! Guestrin, XGBoost, 2016; Ke et al., LightGBM, 2017), on the few levels that a slot has.
//!
//! Own code and no crate, because the trees must be complete ones with a slot, an i8 threshold and an i16
//! leaf, packets carry fractional outcomes with weights, boosting starts from another fit's margins,
//! and the loss on held-out authors is wanted after every tree.

use super::sample::{Sample, Values};
use crate::limits::SLOTS;
use rand::prelude::*;
use rand_chacha::ChaCha12Rng;

/// How trees are grown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    pub depth: u8,
    pub rate: f64,
    pub rounds: usize,
    /// Least sum of weights on each side of a question.
    pub leaf_min: f64,
    /// Penalty of a leaf's value.
    pub penalty: f64,
    /// Share of rows, and of slots, that each tree sees.
    pub rows: f64,
    pub slots: f64,
}

/// A complete tree with real leaves.
#[derive(Clone, Debug)]
pub struct Grown {
    pub slots: Vec<u8>,
    pub thresholds: Vec<i8>,
    pub leaves: Vec<f64>,
}

impl Grown {
    pub fn leaf(&self, signal: &[i8; SLOTS]) -> usize {
        let mut node = 0;
        while node < self.slots.len() {
            node = 2 * node + 1 + usize::from(signal[usize::from(self.slots[node])] >= self.thresholds[node]);
        }
        node - self.slots.len()
    }
    pub fn value(&self, signal: &[i8; SLOTS]) -> f64 {
        self.leaves[self.leaf(signal)]
    }
}

/// Slots cut into their distinct values; made once for all fits.
pub struct Bins {
    /// Distinct values of each varying slot, ascending.
    values: Vec<Vec<i8>>,
    /// Packets x varying slots: index of the value.
    index: Vec<u8>,
    /// Start of each slot's bins in a histogram.
    first: Vec<usize>,
    total: usize,
}

impl Bins {
    pub fn new(sample: &Sample) -> Bins {
        let columns = sample.slots.len();
        let mut values = Vec::with_capacity(columns);
        let mut index = vec![0u8; sample.len() * columns];
        let mut first = vec![0];
        for (column, &slot) in sample.slots.iter().enumerate() {
            let mut seen = [false; 256];
            sample.signals.iter().for_each(|signal| seen[(i16::from(signal[slot]) + 128) as usize] = true);
            let distinct: Vec<i8> =
                (0..256usize).filter(|&i| seen[i]).map(|i| (i as i16 - 128) as i8).collect();
            let mut place = [0u8; 256];
            for (bin, &value) in distinct.iter().enumerate() {
                place[(i16::from(value) + 128) as usize] = bin as u8;
            }
            for (row, signal) in sample.signals.iter().enumerate() {
                index[row * columns + column] = place[(i16::from(signal[slot]) + 128) as usize];
            }
            first.push(first[column] + distinct.len());
            values.push(distinct);
        }
        let total = first[columns];
        Bins { values, index, first, total }
    }
}

/// Grows trees on `rows` from the margins of all rows, which it carries on; after each tree `after`
/// is told the tree, and says whether to go on.
pub fn boost(
    sample: &Sample,
    values: &Values,
    bins: &Bins,
    rows: &[usize],
    margins: &mut [f64],
    growth: Growth,
    mut after: impl FnMut(&Grown, &[f64]) -> bool,
) {
    let rows: Vec<usize> = rows.iter().copied().filter(|&row| values.mean[row].is_some()).collect();
    let columns = sample.slots.len();
    if rows.is_empty() || columns == 0 {
        return;
    }
    let mut generator = ChaCha12Rng::seed_from_u64(7);
    let mut gradients = vec![[0.0f32; 2]; sample.len()];
    for _ in 0..growth.rounds {
        let chosen: Vec<usize> = match growth.rows {
            share if share >= 1.0 => rows.clone(),
            share => rows.iter().copied().filter(|_| generator.random::<f64>() < share).collect(),
        };
        let wanted = ((columns as f64 * growth.slots).ceil() as usize).clamp(1, columns);
        let mut slots: Vec<usize> = (0..columns).collect();
        if wanted < columns {
            slots.shuffle(&mut generator);
            slots.truncate(wanted);
            slots.sort_unstable();
        }
        for &row in &chosen {
            let p = values.predicted(margins[row]);
            let w = sample.weights[row];
            let curvature = if values.binary { (p * (1.0 - p)).max(1e-6) } else { 1.0 };
            gradients[row] = [(w * (values.mean[row].unwrap_or(p) - p)) as f32, (w * curvature) as f32];
        }
        let tree = grow(sample, bins, chosen, &slots, &gradients, growth);
        for (margin, signal) in margins.iter_mut().zip(&sample.signals) {
            *margin += tree.value(signal);
        }
        if !after(&tree, margins) {
            return;
        }
    }
}

/// Sums of gradient and curvature per bin.
type Histogram = Vec<[f64; 2]>;

fn histogram(
    bins: &Bins,
    columns: usize,
    rows: &[usize],
    slots: &[usize],
    gradients: &[[f32; 2]],
) -> Histogram {
    let mut sums = vec![[0.0f64; 2]; bins.total];
    for &row in rows {
        let [g, h] = gradients[row].map(f64::from);
        let index = &bins.index[row * columns..][..columns];
        for &column in slots {
            let sum = &mut sums[bins.first[column] + usize::from(index[column])];
            sum[0] += g;
            sum[1] += h;
        }
    }
    sums
}

/// A node that is being split.
struct Node {
    rows: Vec<usize>,
    histogram: Histogram,
}

/// The best question: gain, column, bin from which on it is answered yes.
type Question = (f64, usize, usize);

fn best(
    bins: &Bins,
    slots: &[usize],
    histogram: &Histogram,
    growth: Growth,
    leaf_curvature: f64,
) -> Option<Question> {
    let mut best: Option<Question> = None;
    let score = |[g, h]: [f64; 2]| g * g / (h + growth.penalty);
    for &column in slots {
        let of = &histogram[bins.first[column]..bins.first[column + 1]];
        let total = of.iter().fold([0.0; 2], |sum, x| [sum[0] + x[0], sum[1] + x[1]]);
        let mut left = [0.0; 2];
        for bin in 1..of.len() {
            left = [left[0] + of[bin - 1][0], left[1] + of[bin - 1][1]];
            let right = [total[0] - left[0], total[1] - left[1]];
            if left[1] < leaf_curvature || right[1] < leaf_curvature {
                continue;
            }
            let gain = score(left) + score(right) - score(total);
            if gain > 1e-9 && best.is_none_or(|(most, ..)| gain > most) {
                best = Some((gain, column, bin));
            }
        }
    }
    best
}

fn grow(
    sample: &Sample,
    bins: &Bins,
    rows: Vec<usize>,
    slots: &[usize],
    gradients: &[[f32; 2]],
    growth: Growth,
) -> Grown {
    let columns = sample.slots.len();
    let questions = (1usize << growth.depth) - 1;
    let mut tree = Grown {
        slots: vec![0; questions],
        // A question that nobody answers with yes: no slot exceeds 126 and is not 127, so all go left; the other
        // side's leaves repeat this side's.
        thresholds: vec![i8::MAX; questions],
        leaves: vec![0.0; questions + 1],
    };
    let sums = |rows: &[usize]| {
        rows.iter().fold([0.0f64; 2], |sum, &row| {
            [sum[0] + f64::from(gradients[row][0]), sum[1] + f64::from(gradients[row][1])]
        })
    };
    let value = |[g, h]: [f64; 2]| growth.rate * g / (h + growth.penalty);
    let [_, curvature] = sums(&rows);
    // The least weight of a leaf as curvature: as much as so many average cases have.
    let cases: f64 = rows.iter().map(|&row| sample.weights[row]).sum();
    let leaf_curvature = growth.leaf_min * curvature / cases.max(1e-9);
    let first = Node { histogram: histogram(bins, columns, &rows, slots, gradients), rows };
    let mut level: Vec<Option<Node>> = vec![Some(first)];
    let mut start = 0;
    for depth in 0..growth.depth {
        let mut next: Vec<Option<Node>> = Vec::with_capacity(2 * level.len());
        for (at, node) in level.into_iter().enumerate() {
            let place = start + at;
            let question =
                node.as_ref().and_then(|node| best(bins, slots, &node.histogram, growth, leaf_curvature));
            match (node, question) {
                (Some(node), Some((_, column, bin))) => {
                    tree.slots[place] = sample.slots[column] as u8;
                    tree.thresholds[place] = bins.values[column][bin];
                    let (right, left): (Vec<usize>, Vec<usize>) = node
                        .rows
                        .iter()
                        .partition(|&&row| usize::from(bins.index[row * columns + column]) >= bin);
                    if depth + 1 == growth.depth {
                        for rows in [left, right] {
                            next.push(Some(Node { rows, histogram: vec![] }));
                        }
                        continue;
                    }
                    // The smaller side is counted, the larger one is the rest.
                    let smaller = if left.len() < right.len() { &left } else { &right };
                    let counted = histogram(bins, columns, smaller, slots, gradients);
                    let rest: Histogram = node
                        .histogram
                        .iter()
                        .zip(&counted)
                        .map(|(all, part)| [all[0] - part[0], all[1] - part[1]])
                        .collect();
                    let (of_left, of_right) =
                        if left.len() < right.len() { (counted, rest) } else { (rest, counted) };
                    next.push(Some(Node { rows: left, histogram: of_left }));
                    next.push(Some(Node { rows: right, histogram: of_right }));
                }
                (Some(node), None) => {
                    // No question helps: its leaf stands under all that is below.
                    let leaf = value(sums(&node.rows));
                    let leaves = 1usize << (growth.depth - depth);
                    let from = at * leaves;
                    tree.leaves[from..from + leaves].fill(leaf);
                    next.extend([None, None]);
                }
                (None, _) => next.extend([None, None]),
            }
        }
        start = 2 * start + 1;
        level = next;
    }
    for (leaf, node) in tree.leaves.iter_mut().zip(level) {
        if let Some(node) = node {
            *leaf = value(sums(&node.rows));
        }
    }
    tree
}
