//! Questions -> answers: exact tallies per author, finished per action and outcome.

use super::batch::Batch;
use super::cpu::{Job, Span, distance, weight};
use super::finish::{Finished, Moments, PlainMean, finish, further_cases, verdict};
use super::residual::{self, Asked, Plain};
use super::tally::{ROW_HEAD, Tallies};
use crate::domain::prior::{FOLDS, LOGIT_ONE, Link, OutcomeScore};
use crate::domain::{Direction, OutcomeKind, Schema, View};
use crate::embed::rows;
use crate::limits::SLOTS;
use crate::packet::{Id, Verdict};
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

/// What is asked about: row i of each is the same situation.
#[derive(Clone, Copy)]
pub struct Situations<'a> {
    /// n x 128.
    pub signals: ArrayView2<'a, i8>,
    /// n x 128: the signals under the view's metric.
    pub embeddings: ArrayView2<'a, i8>,
    /// The author key of each asking node, whose own level then counts; empty for public answers.
    pub askers: &'a [Option<Id>],
}

impl<'a> Situations<'a> {
    /// Questions for public answers.
    pub fn public(signals: ArrayView2<'a, i8>, embeddings: ArrayView2<'a, i8>) -> Situations<'a> {
        Situations { signals, embeddings, askers: &[] }
    }
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
    /// Where a single case lies, where the view is calibrated for that.
    pub single: Option<(f64, f64)>,
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

/// Answers each situation; `merge` computes tallies on whatever backend.
pub fn answer(question: Question, asked: Situations, merge: impl Fn(&Job) -> Tallies) -> Vec<Answer> {
    let asking = Asking::new(question, asked);
    let mut answers = Vec::with_capacity(asked.embeddings.nrows());
    for part in asking.parts() {
        let spans = asking.spans(&part);
        let tallies = merge(&asking.job(&part, &spans));
        answers.extend(asking.finish(&part, &tallies));
    }
    answers
}

/// Questions to one batch as the jobs that they need and what is made of the tallies, for callers
/// who do the two in different places; [`answer`] shows the order.
pub struct Asking<'a, 's> {
    asked: Situations<'s>,
    gains: Cow<'a, [u16]>,
    finisher: Finisher<'a>,
    /// Questions of a part.
    chunk: usize,
}

impl<'a, 's> Asking<'a, 's> {
    /// # Panics
    /// If the shapes of `asked` differ.
    pub fn new(question: Question<'a>, asked: Situations<'s>) -> Asking<'a, 's> {
        let queries = asked.embeddings.nrows();
        assert_eq!(asked.signals.dim(), asked.embeddings.dim(), "an embedding per signal");
        assert!(asked.askers.is_empty() || asked.askers.len() == queries, "an asker per question, or none");
        let batch = question.batch;
        let runs: usize = batch.live_groups().map(|group| group.runs.len()).sum();
        let stride = ROW_HEAD + batch.columns.values().ncols();
        let chunk = (CELLS_AT_ONCE / (runs * stride).max(1)).clamp(1, queries.max(1));
        let gains = question.gains();
        let finisher = Finisher::new(question, &gains);
        Asking { asked, gains, finisher, chunk }
    }

    /// Rows of the questions whose tallies are in memory together, in order.
    pub fn parts(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, chunk) = (self.asked.embeddings.nrows(), self.chunk);
        (0..rows).step_by(chunk).map(move |start| start..(start + chunk).min(rows))
    }

    /// Who reads what in a part.
    pub fn spans(&self, part: &Range<usize>) -> Vec<Span> {
        self.finisher.question.batch.spans_by_author(part.len())
    }

    /// The merge of a part.
    pub fn job<'b>(&'b self, part: &Range<usize>, spans: &'b [Span]) -> Job<'b> {
        let Question { batch, view, .. } = self.finisher.question;
        batch.job(&view.kernel, &self.gains, self.asked.embeddings.slice(s![part.clone(), ..]), spans)
    }

    /// The answers to a part from its tallies, on the threads of the current pool.
    pub fn finish(&self, part: &Range<usize>, tallies: &Tallies) -> Vec<Answer> {
        let one = |query: usize| {
            let row = part.start + query;
            let asker = self.asked.askers.get(row).and_then(Option::as_ref);
            self.finisher.finish(tallies, (query, part.len()), &rows(&self.asked.signals)[row], asker)
        };
        (0..part.len()).into_par_iter().map(one).collect()
    }
}

impl<'a> Question<'a> {
    /// Gains of the batch's packets under the view.
    fn gains(&self) -> Cow<'a, [u16]> {
        self.batch.gains_under(self.view, self.ask_ms)
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
    plain: Vec<Vec<Option<Toward>>>,
    /// Per outcome, an own level per author; empty where the view has none.
    levels: Vec<Vec<f64>>,
    /// The doubts of the same, squared.
    doubts: Vec<Vec<f64>>,
}

/// What an estimate is drawn toward.
#[derive(Clone, Copy)]
struct Toward {
    mean: PlainMean,
    /// Where the prior is a score.
    scored: Option<Plain>,
}

impl<'a> Finisher<'a> {
    fn new(question: Question<'a>, gains: &[u16]) -> Finisher<'a> {
        let batch = question.batch;
        let mut actions: Vec<Option<u16>> = batch.live_groups().map(|group| group.action).collect();
        actions.dedup();
        let trusted = question.view.trust().is_some();
        let sums = PlainSums { question, gains: trusted.then_some(gains) };
        let mut plain: Vec<_> = actions.iter().map(|action| sums.toward(Some(*action))).collect();
        plain.push(sums.toward(None));
        let (levels, doubts) = sums.levels(&plain[actions.len()]);
        Finisher { question, actions, plain, levels, doubts }
    }

    /// The answer to question `query` of `queries` whose tallies lie in `tallies`.
    fn finish(
        &self,
        tallies: &Tallies,
        (query, queries): (usize, usize),
        signal: &[i8; SLOTS],
        asker: Option<&Id>,
    ) -> Answer {
        let Question { batch, schema, .. } = self.question;
        let authors = batch.authors.len();
        let asked = self.asked(signal, asker);
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
                        let moments = Moments::of(cells, batch.layout.places(outcome));
                        one[outcome * authors + author as usize].add(&moments);
                    }
                }
            }
            all.iter_mut().zip(&one).for_each(|(all, one)| all.add(one));
            actions.push((action, self.estimates(&one, &self.plain[index], &asked)));
        }
        let outcomes = self.estimates(&all, &self.plain[self.actions.len()], &asked);
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

    /// A question's own part of estimates, per outcome; empty where the prior is a mean.
    fn asked(&self, signal: &[i8; SLOTS], asker: Option<&Id>) -> Vec<Asked> {
        let batch = self.question.batch;
        let Some(scores) = batch.layout.scores() else { return vec![] };
        let asker = asker.and_then(|asker| batch.authors.binary_search(asker).ok());
        let one = |(outcome, score): (usize, &OutcomeScore)| {
            let unit = match score.link {
                Link::Logistic => f64::from(LOGIT_ONE),
                Link::Identity => 65_535.0,
            };
            let fits = score.without.each_ref().map(|fit| f64::from(fit.of(signal)) / unit);
            let mean = fits.iter().sum::<f64>() / FOLDS as f64;
            let spread: f64 = fits.iter().map(|fit| (fit - mean) * (fit - mean)).sum();
            let (levels, doubts) = (self.levels.get(outcome), self.doubts.get(outcome));
            Asked {
                score: (f64::from(score.whole.of(signal)) / unit + mean * FOLDS as f64) / (FOLDS + 1) as f64,
                doubt: spread * (FOLDS - 1) as f64 / FOLDS as f64,
                level: levels.zip(asker).map_or(0.0, |(levels, asker)| levels[asker]),
                level_doubt: doubts.zip(asker).map_or(0.0, |(doubts, asker)| doubts[asker]),
            }
        };
        scores.outcomes.iter().enumerate().map(one).collect()
    }

    fn estimates(&self, moments: &[Moments], plain: &[Option<Toward>], asked: &[Asked]) -> Estimates {
        let Question { batch, schema, view, .. } = self.question;
        let authors = batch.authors.len();
        let one = |(index, toward): (usize, &Option<Toward>)| {
            let by_author = &moments[index * authors..][..authors];
            let toward = (*toward)?;
            let finished = match toward.scored {
                None => finish(by_author, toward.mean, view.level),
                Some(plain) => {
                    let calibration = view.options.as_ref().and_then(|o| o.calibration.get(index));
                    residual::finish(by_author, plain, asked[index], view.level, calibration)
                }
            };
            let unit = |fraction: f64| schema.outcomes[index].value(fraction * 65_535.0);
            Some(Estimate {
                estimate: unit(finished.estimate),
                lower: unit(finished.lower),
                upper: unit(finished.upper),
                single: finished.single.map(|(lower, upper)| (unit(lower), unit(upper))),
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
                    OutcomeKind::Count | OutcomeKind::Real => (*plain)?.mean.mean,
                };
                let distance = (finished.estimate - border).abs();
                further_cases(distance, finished.case_variance, cases(&finished))
            },
        );
        (None, further.min())
    }

    fn prior_cases(&self) -> f64 {
        self.question.view.prior.cases()
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

/// Sums over all live packets read, whatever the question: exact, in any order.
struct PlainSums<'a> {
    question: Question<'a>,
    /// Where authors are trusted differently: what a packet counts, in 1/4096.
    gains: Option<&'a [u16]>,
}

impl PlainSums<'_> {
    /// What estimates of one action (`Some`), or of all, are drawn toward, per outcome.
    fn toward(&self, action: Option<Option<u16>>) -> Vec<Option<Toward>> {
        let Question { batch, view, .. } = self.question;
        let cases = view.prior.cases();
        let mut sums = vec![Moments::default(); batch.outcomes];
        match self.gains {
            None => {
                let asked = |group: &&super::batch::Group| action.is_none_or(|action| action == group.action);
                for group in batch.live_groups().filter(asked) {
                    let mut cells = vec![group.live as u64, group.cases, group.cases];
                    cells.extend(&group.sums);
                    for outcome in (0..batch.outcomes).filter(|outcome| group.mask >> outcome & 1 == 1) {
                        sums[outcome].add(&Moments::of(&cells, batch.layout.places(outcome)));
                    }
                }
            }
            Some(gains) => {
                let asked = |&row: &usize| action.is_none_or(|action| action == batch.action(row));
                for row in (0..batch.len()).filter(asked) {
                    self.add_row(row, gains[row], |outcome, moments| sums[outcome].add(moments));
                }
            }
        }
        let one = |(outcome, sums): (usize, &Moments)| {
            let n = sums.weight as f64;
            let mean = sums.mean as f64 / n / 65_535.0;
            let variance = (sums.second as f64 / n / 65_535.0 - mean * mean).max(0.0);
            let scored = batch
                .layout
                .scores()
                .and_then(|scores| Plain::of(sums, cases, scores.outcomes[outcome].link == Link::Logistic));
            (sums.weight > 0).then_some(Toward { mean: PlainMean { mean, variance, cases }, scored })
        };
        sums.iter().enumerate().map(one).collect()
    }

    /// A packet's part of plain sums, per outcome that it tells of: weighted by trust and freshness
    /// only where authors are trusted differently.
    fn add_row(&self, row: usize, gain: u16, mut add: impl FnMut(usize, &Moments)) {
        let batch = self.question.batch;
        let weight = u64::from(gain) * u64::from(batch.columns.cases()[row]);
        if weight == 0 {
            return;
        }
        let values = batch.columns.values();
        let mut cells = vec![1, weight, u64::from(gain) * weight];
        cells.extend(values.row(row).iter().map(|&x| weight * u64::from(x)));
        for outcome in (0..batch.outcomes).filter(|outcome| batch.mask(row) >> outcome & 1 == 1) {
            add(outcome, &Moments::of(&cells, batch.layout.places(outcome)));
        }
    }

    /// Own levels and their doubts, squared, per outcome and author, where the view has them and the
    /// prior is a score.
    fn levels(&self, toward: &[Option<Toward>]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let Question { batch, view, .. } = self.question;
        let strength = view.options.as_ref().and_then(|options| options.own_offset);
        let Some(strength) = strength.filter(|_| batch.layout.scores().is_some()) else {
            return (vec![], vec![]);
        };
        let authors = batch.authors.len();
        let mut own = vec![Moments::default(); batch.outcomes * authors];
        for row in (0..batch.len()).filter(|&row| batch.is_live(row)) {
            let author = batch.author[row] as usize;
            self.add_row(row, 1, |outcome, moments| own[outcome * authors + author].add(moments));
        }
        let of = |(outcome, toward): (usize, &Option<Toward>)| -> (Vec<f64>, Vec<f64>) {
            let own = &own[outcome * authors..][..authors];
            let Some(plain) = toward.and_then(|toward| toward.scored) else {
                return (vec![0.0; authors], vec![0.0; authors]);
            };
            let doubts = own.iter().map(|own| plain.level_doubt(own, strength.0)).collect();
            (own.iter().map(|own| plain.level(own, strength.0)).collect(), doubts)
        };
        toward.iter().enumerate().map(of).unzip()
    }
}
