//! Which value columns a batch carries for which outcome, and what fills them.

use super::batch::second_moment;
use crate::domain::prior::{Link, Prior, Scores};
use crate::domain::{OutcomeKind, Schema, View};
use crate::packet::Verified;
use std::sync::Arc;

/// Value columns per outcome without a prior's scores: mean y, second moment z.
pub const COLUMNS_PER_OUTCOME: usize = 2;

/// The value columns of a batch, per outcome: y, z, and with scores b, for binary outcomes v, then zr.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Outcomes of the schema.
    pub outcomes: usize,
    scores: Option<Arc<Scores>>,
    /// First column of each outcome, and at the end the number of columns.
    first: Vec<usize>,
}

/// Where the columns of one outcome lie.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub mean: usize,
    pub second: usize,
    /// Predicted value, its variance (the same column as the prediction where the outcome is not
    /// binary, and of no meaning), second moment of residuals.
    pub scored: Option<[usize; 3]>,
}

impl From<usize> for Layout {
    /// Columns without scores.
    fn from(outcomes: usize) -> Layout {
        let first = (0..=outcomes).map(|outcome| COLUMNS_PER_OUTCOME * outcome).collect();
        Layout { outcomes, scores: None, first }
    }
}

impl From<&Layout> for Layout {
    fn from(layout: &Layout) -> Layout {
        layout.clone()
    }
}

impl Layout {
    /// What answers under a view need.
    pub fn of(schema: &Schema, view: &View) -> Layout {
        let Prior::Scores(scores) = &view.prior else { return schema.outcomes.len().into() };
        let mut first = vec![0];
        for (outcome, score) in schema.outcomes.iter().zip(&scores.outcomes) {
            debug_assert_eq!(score.link == Link::Logistic, outcome.kind == OutcomeKind::Binary);
            let columns = if score.link == Link::Logistic { 5 } else { 4 };
            first.push(first[first.len() - 1] + columns);
        }
        Layout { outcomes: schema.outcomes.len(), scores: Some(scores.clone()), first }
    }

    /// Value columns of all outcomes.
    pub fn columns(&self) -> usize {
        self.first[self.outcomes]
    }

    /// Whether a prior's scores are among the columns.
    pub fn scores(&self) -> Option<&Scores> {
        self.scores.as_deref()
    }

    /// Columns of one outcome.
    pub fn places(&self, outcome: usize) -> Places {
        let mean = self.first[outcome];
        let scored = self.scores.as_ref().map(|scores| {
            let binary = usize::from(scores.outcomes[outcome].link == Link::Logistic);
            [mean + 2, mean + 2 + binary, mean + 3 + binary]
        });
        Places { mean, second: mean + 1, scored }
    }

    /// Fills one packet's row of columns; those of absent outcomes stay 0.
    pub fn fill(&self, packet: &Verified, row: &mut [u16]) {
        let fold = self.scores().map(|scores| scores.folds.fold(packet.author(), packet.reference()));
        for outcome in (0..self.outcomes).filter(|outcome| packet.mask() >> outcome & 1 == 1) {
            let places = self.places(outcome);
            let (y, s) = packet.value(outcome);
            row[places.mean] = y;
            row[places.second] = second_moment(y, s);
            if let (Some([prediction, variance, residual]), Some(scores), Some(fold)) =
                (places.scored, self.scores(), fold)
            {
                let score = &scores.outcomes[outcome];
                let b = scores.predicted(score.link, score.without[fold].of(packet.signal()));
                let columns = super::batch::prior_columns(y, s, b, score.link == Link::Logistic);
                row[prediction] = b;
                if score.link == Link::Logistic {
                    row[variance] = columns[1];
                }
                row[residual] = columns[columns.len() - 1];
            }
        }
    }
}
