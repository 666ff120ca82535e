//! Questions -> answers: exact tallies per author, finished per action and outcome.

use super::batch::{Batch, COLUMNS_PER_OUTCOME, Group};
use super::cpu::{Job, Span, distance, weight};
use super::finish::{Finished, Moments, PlainMean, finish, further_cases, verdict};
use super::tally::{ROW_HEAD, Tallies};
use crate::domain::{Direction, OutcomeKind, Prior, Schema, View};
use crate::embed::rows;
use crate::limits::SLOTS;
use crate::packet::Verdict;
use ndarray::{ArrayView2, s};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// Cells of tallies that are computed at once; bounds memory to some 64 MB.
const CELLS_AT_ONCE: usize = 1 << 23;

/// Under which view, about which batch, and when.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    pub schema: &'a Schema,
    pub view: &'a View,
    pub batch: &'a Batch,
    /// Unix milliseconds; decides freshness.
    pub ask_ms: u64,
}

/// Finished outcomes of one action, or of all actions together; `None` where no packet says
/// anything of the outcome.
pub type Estimates = Vec<Option<Estimate>>;

/// One outcome's estimate in its own unit, with everything that [`finish`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub estimate: f64,
    pub lower: f64,
    pub upper: f64,
    /// The same as fractions of the range, and what stands behind it.
    pub finished: Finished,
}

/// What a node learns from a mailbox about one situation.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Over all actions together.
    pub outcomes: Estimates,
    /// Per action that packets tell of, ascending, without action first.
    pub actions: Vec<(Option<u16>, Estimates)>,
    /// The action with the best estimate, where the schema's outcomes have a direction and at least
    /// two actions were seen.
    pub action: Option<u16>,
    pub verdict: Verdict,
    /// The smallest over the outcomes present.
    pub effective_cases: f64,
    /// The smallest number of further cases that flips the choice with a chance of 10%.
    pub further_cases: Option<u64>,
    /// Packets of weight above zero.
    pub packets: u64,
    /// Authors of those packets.
    pub authors: u64,
}

/// Answers each row of `queries` (n x 128 embeddings); `merge` computes tallies on whatever backend.
pub fn answer(question: Question, queries: ArrayView2<i8>, merge: impl Fn(&Job) -> Tallies) -> Vec<Answer> {
    let asking = Asking::new(question, queries);
    let mut answers = Vec::with_capacity(queries.nrows());
    for part in asking.parts() {
        let spans = asking.spans(&part);
        let tallies = merge(&asking.job(&part, &spans));
        answers.extend(asking.finish(&part, &tallies));
    }
    answers
}

/// Questions to one batch as the jobs that they need and what is made of the tallies, for callers
/// who do the two in different places; [`answer`] shows the order.
pub struct Asking<'a> {
    queries: ArrayView2<'a, i8>,
    gains: Cow<'a, [u16]>,
    finisher: Finisher<'a>,
    /// Questions of a part.
    chunk: usize,
}

impl<'a> Asking<'a> {
    /// `queries` as in [`answer`].
    pub fn new(question: Question<'a>, queries: ArrayView2<'a, i8>) -> Asking<'a> {
        let batch = question.batch;
        let runs: usize = batch.live_groups().map(|group| group.runs.len()).sum();
        let stride = ROW_HEAD + batch.columns.values().ncols();
        let chunk = (CELLS_AT_ONCE / (runs * stride).max(1)).clamp(1, queries.nrows().max(1));
        Asking { queries, gains: question.gains(), finisher: Finisher::new(question), chunk }
    }

    /// Rows of the questions whose tallies are in memory together, in order.
    pub fn parts(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, chunk) = (self.queries.nrows(), self.chunk);
        (0..rows).step_by(chunk).map(move |start| start..(start + chunk).min(rows))
    }

    /// Who reads what in a part.
    pub fn spans(&self, part: &Range<usize>) -> Vec<Span> {
        self.finisher.question.batch.spans_by_author(part.len())
    }

    /// The merge of a part.
    pub fn job<'b>(&'b self, part: &Range<usize>, spans: &'b [Span]) -> Job<'b> {
        let Question { batch, view, .. } = self.finisher.question;
        batch.job(&view.kernel, &self.gains, self.queries.slice(s![part.clone(), ..]), spans)
    }

    /// The answers to a part from its tallies, on the threads of the current pool.
    pub fn finish(&self, part: &Range<usize>, tallies: &Tallies) -> Vec<Answer> {
        let queries = (0..part.len()).into_par_iter();
        queries.map(|query| self.finisher.finish(tallies, query, part.len())).collect()
    }
}

impl<'a> Question<'a> {
    /// Gains of the batch's packets; every admitted author is trusted alike.
    fn gains(&self) -> Cow<'a, [u16]> {
        self.batch.equal_gains(&self.view.decay, self.ask_ms)
    }

    /// The packets behind the answer to one embedded question: (row of the batch, weight in 1/4096),
    /// heaviest first, ties by id; packets of weight 0 are left out.
    pub fn evidence(&self, query: &[i8; SLOTS]) -> Vec<(usize, u16)> {
        let gains = self.gains();
        let embeddings = self.batch.columns.embeddings();
        let mut weights: Vec<(usize, u16)> = rows(&embeddings)
            .iter()
            .zip(gains.iter())
            .map(|(packet, &gain)| weight(&self.view.kernel, distance(query, packet), gain))
            .enumerate()
            .filter(|&(_, w)| w > 0)
            .collect();
        weights.sort_by_key(|&(row, w)| {
            let cases = u64::from(self.batch.columns.cases()[row]);
            (std::cmp::Reverse(u64::from(w) * cases), self.batch.ids[row])
        });
        weights
    }
}

/// What is the same for all questions of a batch.
struct Finisher<'a> {
    question: Question<'a>,
    /// Distinct actions of the batch, ascending.
    actions: Vec<Option<u16>>,
    /// Per action, then last for all together: per outcome.
    plain: Vec<Vec<Option<PlainMean>>>,
}

impl<'a> Finisher<'a> {
    fn new(question: Question<'a>) -> Finisher<'a> {
        let batch = question.batch;
        let mut actions: Vec<Option<u16>> = batch.live_groups().map(|group| group.action).collect();
        actions.dedup();
        let mut plain: Vec<_> = actions.iter().map(|action| question.plain_means(Some(*action))).collect();
        plain.push(question.plain_means(None));
        Finisher { question, actions, plain }
    }

    /// The answer to question `query` of `queries` whose tallies lie in `tallies`.
    fn finish(&self, tallies: &Tallies, query: usize, queries: usize) -> Answer {
        let Question { batch, schema, .. } = self.question;
        let authors = batch.authors.len();
        let mut all = vec![Moments::default(); batch.outcomes * authors];
        let mut one = all.clone();
        let mut of_authors = vec![0u64; authors];
        let mut actions = Vec::with_capacity(self.actions.len());
        let mut packets = 0;
        let mut run_index = 0;
        for (index, &action) in self.actions.iter().enumerate() {
            one.fill(Moments::default());
            for group in batch.live_groups().filter(|group| group.action == action) {
                for &(author, _) in &group.runs {
                    let cells = tallies.row(run_index * queries + query);
                    run_index += 1;
                    packets += cells[0];
                    of_authors[author as usize] += cells[0];
                    for outcome in (0..batch.outcomes).filter(|outcome| group.mask >> outcome & 1 == 1) {
                        let values = &cells[ROW_HEAD + COLUMNS_PER_OUTCOME * outcome..];
                        one[outcome * authors + author as usize].add(&Moments {
                            count: cells[0],
                            weight: cells[1],
                            squared: cells[2],
                            mean: values[0],
                            second: values[1],
                        });
                    }
                }
            }
            all.iter_mut().zip(&one).for_each(|(all, one)| all.add(one));
            actions.push((action, self.estimates(&one, &self.plain[index])));
        }
        let outcomes = self.estimates(&all, &self.plain[self.actions.len()]);
        let authors = of_authors.iter().filter(|&&count| count > 0).count() as u64;
        let (action, further) = self.choose(&outcomes, &actions);
        let present = || outcomes.iter().flatten().map(|estimate| estimate.finished);
        let effective_cases =
            present().map(|finished| finished.effective_cases).reduce(f64::min).unwrap_or(0.0);
        let conflict = present().any(|finished| finished.conflict);
        debug_assert_eq!(outcomes.len(), schema.outcomes.len());
        Answer {
            verdict: verdict(conflict, effective_cases, authors, further),
            outcomes,
            actions,
            action,
            effective_cases,
            further_cases: further,
            packets,
            authors,
        }
    }

    fn estimates(&self, moments: &[Moments], plain: &[Option<PlainMean>]) -> Estimates {
        let Question { batch, schema, view, .. } = self.question;
        let authors = batch.authors.len();
        let one = |(index, prior): (usize, &Option<PlainMean>)| {
            let finished = finish(&moments[index * authors..][..authors], (*prior)?, view.level);
            let unit = |fraction: f64| schema.outcomes[index].value(fraction * 65_535.0);
            Some(Estimate {
                estimate: unit(finished.estimate),
                lower: unit(finished.lower),
                upper: unit(finished.upper),
                finished,
            })
        };
        plain.iter().enumerate().map(one).collect()
    }

    /// The recommended action, and the further cases that would flip the choice: between the two best
    /// actions where there are two, else between the sides of an outcome's border, which is the middle
    /// of the range for a binary outcome and the plain mean for others.
    fn choose(
        &self,
        outcomes: &Estimates,
        actions: &[(Option<u16>, Estimates)],
    ) -> (Option<u16>, Option<u64>) {
        let cases = |finished: &Finished| finished.effective_cases + self.prior_cases();
        let mut scored: Vec<(f64, u16, &Estimates)> = actions
            .iter()
            .filter_map(|(action, estimates)| Some((self.benefit(estimates)?, (*action)?, estimates)))
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        if let [(best, action, one), (second, _, other), ..] = scored[..] {
            let both = || one.iter().chain(other).flatten().map(|estimate| &estimate.finished);
            let variance = both().map(|finished| finished.case_variance).fold(0.0, f64::max);
            let behind = both().map(cases).fold(f64::INFINITY, f64::min);
            return (Some(action), further_cases(best - second, variance, behind));
        }
        let plain = &self.plain[self.actions.len()];
        let further = outcomes.iter().zip(plain).zip(&self.question.schema.outcomes).filter_map(
            |((estimate, plain), outcome)| {
                let finished = estimate.as_ref()?.finished;
                let border = match outcome.kind {
                    OutcomeKind::Binary => 0.5,
                    OutcomeKind::Count | OutcomeKind::Real => (*plain)?.mean,
                };
                let distance = (finished.estimate - border).abs();
                further_cases(distance, finished.case_variance, cases(&finished))
            },
        );
        (None, further.min())
    }

    fn prior_cases(&self) -> f64 {
        let Prior::Mean { cases } = self.question.view.prior;
        cases
    }

    /// Mean of the estimates, each turned so that larger is better, over the outcomes that have a
    /// direction; `None` where none has.
    fn benefit(&self, estimates: &Estimates) -> Option<f64> {
        let outcomes = &self.question.schema.outcomes;
        let turned: Vec<f64> = outcomes
            .iter()
            .zip(estimates)
            .filter_map(|(outcome, estimate)| {
                let estimate = estimate.as_ref()?.finished.estimate;
                match outcome.direction {
                    Direction::Higher => Some(estimate),
                    Direction::Lower => Some(1.0 - estimate),
                    Direction::Neutral => None,
                }
            })
            .collect();
        (!turned.is_empty()).then(|| turned.iter().sum::<f64>() / turned.len() as f64)
    }
}

impl Question<'_> {
    /// Plain means over the live packets of one action (`Some`), or of all (`None`).
    fn plain_means(&self, action: Option<Option<u16>>) -> Vec<Option<PlainMean>> {
        let Prior::Mean { cases } = self.view.prior;
        let mut sums = vec![[0u64; 3]; self.batch.outcomes];
        let asked = |group: &&Group| action.is_none_or(|action| action == group.action);
        for group in self.batch.live_groups().filter(asked) {
            for (sum, part) in sums.iter_mut().zip(&group.sums) {
                sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
            }
        }
        sums.iter()
            .map(|&[n, y, z]| {
                (n > 0).then(|| {
                    let mean = y as f64 / n as f64 / 65_535.0;
                    let variance = (z as f64 / n as f64 / 65_535.0 - mean * mean).max(0.0);
                    PlainMean { mean, variance, cases }
                })
            })
            .collect()
    }
}
