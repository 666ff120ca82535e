//! Packets as the numbers that fits are made from.

use crate::domain::prior::{FOLDS, FoldsBy};
use crate::domain::{OutcomeKind, Schema};
use crate::limits::SLOTS;
use crate::merge::Live;
use crate::packet::Id;
use std::collections::BTreeMap;

/// With fewer authors, or a fold with fewer than this share of the cases, folds go by evidence.
const AUTHORS_FOR_FOLDS: usize = 12;
const FOLD_SHARE_MIN: f64 = 0.1;

/// Live packets in ascending order of id.
pub struct Sample {
    pub signals: Vec<[i8; SLOTS]>,
    /// Cases of each packet.
    pub cases: Vec<u16>,
    /// What each packet counts: its cases, times what its author is trusted.
    pub weights: Vec<f64>,
    /// Index of each packet's author.
    pub author: Vec<usize>,
    /// Number of authors.
    pub authors: usize,
    pub folds_by: FoldsBy,
    /// Fold of each packet, 0..4.
    pub fold: Vec<usize>,
    pub scope: Vec<Id>,
    pub outcomes: Vec<Values>,
    /// Slots that are not the same in all packets.
    pub slots: Vec<usize>,
}

/// One outcome over all packets.
pub struct Values {
    pub binary: bool,
    /// Mean of the packet's cases as a fraction of the range; `None` where unknown.
    pub mean: Vec<Option<f64>>,
    /// Variance of the packet's cases.
    pub variance: Vec<f64>,
}

impl Sample {
    pub fn new(schema: &Schema, packets: &[Live]) -> Sample {
        let weights: Vec<f64> = packets.iter().map(|live| f64::from(live.packet.cases())).collect();
        let index: BTreeMap<Id, usize> = packets.iter().map(|live| (*live.packet.author(), 0)).collect();
        let index: BTreeMap<Id, usize> =
            index.into_keys().enumerate().map(|(index, author)| (author, index)).collect();
        let fold_of = |by: FoldsBy| -> Vec<usize> {
            packets.iter().map(|live| by.fold(live.packet.author(), live.packet.reference())).collect()
        };
        let mut folds_by = FoldsBy::Author;
        let mut fold = fold_of(folds_by);
        let mut shares = [0.0; FOLDS];
        fold.iter().zip(&weights).for_each(|(&fold, w)| shares[fold] += w);
        let total: f64 = weights.iter().sum();
        if index.len() < AUTHORS_FOR_FOLDS || shares.iter().any(|share| share / total < FOLD_SHARE_MIN) {
            folds_by = FoldsBy::Evidence;
            fold = fold_of(folds_by);
        }
        let signals: Vec<[i8; SLOTS]> = packets.iter().map(|live| *live.packet.signal()).collect();
        let varies = |&slot: &usize| signals.iter().any(|signal| signal[slot] != signals[0][slot]);
        Sample {
            cases: packets.iter().map(|live| live.packet.cases()).collect(),
            author: packets.iter().map(|live| index[live.packet.author()]).collect(),
            authors: index.len(),
            folds_by,
            fold,
            scope: packets.iter().map(|live| *live.packet.scope()).collect(),
            outcomes: (0..schema.outcomes.len()).map(|outcome| values(schema, packets, outcome)).collect(),
            slots: (0..SLOTS).filter(varies).collect(),
            signals,
            weights,
        }
    }

    /// Whether one packet may be predicted from another: of the same scope, and of another author or, where folds go by
    /// evidence, of another fold.
    pub fn apart(&self, a: usize, b: usize) -> bool {
        let apart = match self.folds_by {
            FoldsBy::Author => self.author[a] != self.author[b],
            FoldsBy::Evidence => self.fold[a] != self.fold[b],
        };
        apart && self.scope[a] == self.scope[b]
    }

    /// Whether neither packet's fit has seen the other: of one fold, though not of one author where folds go by author. A fit
    /// that has seen the other is drawn to it, and their residuals oppose each other.
    pub fn unseen(&self, a: usize, b: usize) -> bool {
        let others = match self.folds_by {
            FoldsBy::Author => self.author[a] != self.author[b],
            FoldsBy::Evidence => a != b,
        };
        others && self.fold[a] == self.fold[b] && self.scope[a] == self.scope[b]
    }

    /// Weighs packets by what their authors are trusted, 0..=4,096.
    pub fn trust(&mut self, trust: &[u16]) {
        for (row, weight) in self.weights.iter_mut().enumerate() {
            *weight = f64::from(self.cases[row]) * f64::from(trust[self.author[row]]) / 4_096.0;
        }
    }

    pub fn len(&self) -> usize {
        self.signals.len()
    }
    pub fn is_empty(&self) -> bool {
        self.signals.is_empty()
    }
}

fn values(schema: &Schema, packets: &[Live], outcome: usize) -> Values {
    let known = |live: &Live| live.packet.mask() >> outcome & 1 == 1;
    let mean = |live: &Live| known(live).then(|| f64::from(live.packet.value(outcome).0) / 65_535.0);
    let variance = |live: &Live| (f64::from(live.packet.value(outcome).1) / 65_535.0).powi(2);
    Values {
        binary: schema.outcomes[outcome].kind == OutcomeKind::Binary,
        mean: packets.iter().map(mean).collect(),
        variance: packets.iter().map(|live| if known(live) { variance(live) } else { 0.0 }).collect(),
    }
}

impl Values {
    /// Weighted mean of the known values among some rows; the middle of the range where none is known.
    pub fn plain_mean(&self, rows: impl Iterator<Item = usize>, weights: &[f64]) -> f64 {
        let (mut sum, mut total) = (0.0, 0.0);
        for row in rows {
            if let Some(y) = self.mean[row] {
                sum += weights[row] * y;
                total += weights[row];
            }
        }
        if total > 0.0 { sum / total } else { 0.5 }
    }

    /// What a margin (a logit, or a fraction of the range) means as a prediction.
    pub fn predicted(&self, margin: f64) -> f64 {
        if self.binary { crate::merge::residual::logistic(margin) } else { margin }
    }

    /// The margin of a prediction.
    pub fn margin(&self, predicted: f64) -> f64 {
        if self.binary {
            let p = predicted.clamp(1e-4, 1.0 - 1e-4);
            libm::log(p / (1.0 - p))
        } else {
            predicted
        }
    }

    /// Loss of one case's row: log loss in nats for a binary outcome, else the square error.
    pub fn loss(&self, row: usize, margin: f64) -> f64 {
        let Some(y) = self.mean[row] else { return 0.0 };
        if self.binary {
            // log(1 + exp(margin)) - y margin, without overflow.
            margin.max(0.0) + libm::log1p(libm::exp(-margin.abs())) - y * margin
        } else {
            (y - margin.clamp(0.0, 1.0)).powi(2)
        }
    }
}
