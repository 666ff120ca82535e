//! What an estimate is drawn toward: a mean, or a score of the situation that was fitted to packets.
//!
//! A score is exact integer arithmetic on the 128 slots of a signal:
//!
//!   score(s) = base + ((sum_j w_j s_j + r) >> shift) + sum over trees of the leaf that s reaches,
//!
//! r as for embeddings ([`super::view::Metric`]). For a binary outcome it is a logit in units of
//! 1/1024, and [`Link::Logistic`] turns it into b, the predicted value in u16; else it is b itself, in
//! units of 1/65535 of the outcome's range. A tree asks `s[slot] >= threshold` at each of its levels and goes
//! right on yes; its nodes lie as in a heap.
//!
//! A score fitted to a packet fits it too well, so residuals are *cross-fitted*: a score is fitted four
//! times, each time without a fourth of the packets (a *fold*), and a packet is predicted by the fit
//! that did not see it. Folds go by author, whose cases resemble each other; where authors are too few for that, by
//! evidence. A question is predicted by the mean of all five fits, which see it as little as each other.

use super::view::Bits;
use crate::limits::SLOTS;
use crate::packet::Id;
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;

/// Folds of cross-fitting.
pub const FOLDS: usize = 4;
/// Score units of one logit.
pub const LOGIT_ONE: i32 = 1_024;
/// Entries of a logistic table: logits from -8 to 8, each entry 1/64.
pub const LINK_ENTRIES: usize = 1_024;
/// Deepest tree, and most trees of a score.
pub const TREE_DEPTH_MAX: u8 = 6;
pub const TREES_MAX: usize = 1_024;

/// Toward what, and how strongly, an estimate is drawn when evidence is thin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Prior {
    /// The plain mean of all live packets read, worth `cases` cases.
    Mean {
        #[serde(serialize_with = "super::view::bits")]
        cases: f64,
    },
    /// A score per outcome; the merge then averages residuals.
    Scores(#[serde(serialize_with = "shared")] Arc<Scores>),
}

fn shared<S: Serializer>(scores: &Arc<Scores>, serializer: S) -> Result<S::Ok, S::Error> {
    scores.serialize(serializer)
}

/// Scores of all outcomes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Scores {
    /// What the prior is worth, in cases.
    pub cases: Bits,
    pub folds: FoldsBy,
    /// Logits from -8 to 8 -> u16: committed, never recomputed by a reader. Empty without binary outcomes.
    pub logistic: Vec<u16>,
    /// One per outcome of the schema.
    pub outcomes: Vec<OutcomeScore>,
}

/// What decides the fold of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum FoldsBy {
    /// The first byte of the author's key modulo 4.
    Author,
    /// The first byte of the evidence id modulo 4.
    Evidence,
}

/// How a score becomes a predicted value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Link {
    Identity,
    Logistic,
}

/// One outcome's score: fitted to everything, and without each fold.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct OutcomeScore {
    pub link: Link,
    pub whole: Score,
    /// Fit i saw everything but fold i.
    pub without: [Score; FOLDS],
}

/// A function of a signal; see the module's doc.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Score {
    pub base: i32,
    pub shift: u8,
    /// 128 weights, or none.
    pub linear: Vec<i16>,
    pub trees: Vec<Tree>,
}

/// A complete binary tree: 2^depth - 1 questions, 2^depth leaves.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Tree {
    pub slots: Vec<u8>,
    pub thresholds: Vec<i8>,
    pub leaves: Vec<i16>,
}

impl Prior {
    /// What the prior is worth, in cases.
    pub fn cases(&self) -> f64 {
        match self {
            Prior::Mean { cases } => *cases,
            Prior::Scores(scores) => scores.cases.0,
        }
    }
}

impl FoldsBy {
    /// The fold, 0..4, of a packet.
    pub fn fold(self, author: &Id, evidence: &Id) -> usize {
        let byte = match self {
            FoldsBy::Author => author[0],
            FoldsBy::Evidence => evidence[0],
        };
        usize::from(byte) % FOLDS
    }
}

impl Tree {
    /// Levels of questions.
    pub fn depth(&self) -> u8 {
        self.leaves.len().trailing_zeros() as u8
    }

    /// The leaf that a signal reaches.
    #[inline]
    pub fn leaf(&self, signal: &[i8; SLOTS]) -> i16 {
        let mut node = 0;
        while node < self.slots.len() {
            let right = signal[usize::from(self.slots[node])] >= self.thresholds[node];
            node = 2 * node + 1 + usize::from(right);
        }
        self.leaves[node - self.slots.len()]
    }

    /// Whether the sizes are those of a complete tree and every slot exists.
    pub fn is_sound(&self) -> bool {
        let leaves = self.leaves.len();
        leaves.is_power_of_two()
            && self.depth() <= TREE_DEPTH_MAX
            && self.slots.len() + 1 == leaves
            && self.thresholds.len() + 1 == leaves
            && self.slots.iter().all(|&slot| usize::from(slot) < SLOTS)
    }
}

impl Score {
    /// The score of a signal. At most 1,024 leaves below 2^15, a linear part below 2^29 and a base
    /// below 2^28 keep it within i32.
    pub fn of(&self, signal: &[i8; SLOTS]) -> i32 {
        let linear: i32 = self.linear.iter().zip(signal).map(|(&w, &s)| i32::from(w) * i32::from(s)).sum();
        let rounding = if self.shift == 0 { 0 } else { 1 << (self.shift - 1) };
        let leaves: i32 = self.trees.iter().map(|tree| i32::from(tree.leaf(signal))).sum();
        self.base + ((linear + rounding) >> self.shift) + leaves
    }

    /// Whether every size and value is one of the format.
    pub fn is_sound(&self) -> bool {
        self.base.unsigned_abs() < 1 << 28
            && self.shift <= crate::limits::SHIFT_MAX
            && [0, SLOTS].contains(&self.linear.len())
            && !self.linear.contains(&i16::MIN)
            && self.trees.len() <= TREES_MAX
            && self.trees.iter().all(Tree::is_sound)
    }
}

impl Scores {
    /// The predicted value b of a score.
    pub fn predicted(&self, link: Link, score: i32) -> u16 {
        match link {
            Link::Identity => score.clamp(0, 65_535) as u16,
            Link::Logistic => {
                let entry = (score + 8 * LOGIT_ONE).clamp(0, 16 * LOGIT_ONE - 1) >> 4;
                self.logistic[entry as usize]
            }
        }
    }

    /// Whether every size and value is one of the format.
    pub fn is_sound(&self) -> bool {
        let logistic = self.outcomes.iter().any(|outcome| outcome.link == Link::Logistic);
        self.logistic.len() == if logistic { LINK_ENTRIES } else { 0 }
            && self
                .outcomes
                .iter()
                .all(|outcome| outcome.whole.is_sound() && outcome.without.iter().all(Score::is_sound))
    }
}

/// 65535 / (1 + exp(-x)) at the middle of each entry. A tool for authors of views.
pub fn logistic_table() -> Vec<u16> {
    let logit = |entry: usize| (entry as f64 + 0.5) / 64.0 - 8.0;
    (0..LINK_ENTRIES).map(|entry| (65_535.0 / (1.0 + libm::exp(-logit(entry)))).round() as u16).collect()
}
