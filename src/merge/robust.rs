//! The effect of an action against another, corrected for unlike cases: near one situation, or in the
//! mean over many.
//!
//! The cases of two actions within the kernel's reach need not be alike: one may lie on one side of the
//! situation. Every packet p of one of the mailbox's actions gets a *score* for the pair (a, b):
//!
//! psi_p = m_a(p) - m_b(p) + [A_p = a] (y_p - m_a(p)) / e_a(p) - [A_p = b] (y_p - m_b(p)) / e_b(p)
//!
//! - m_a(p): the kernel mean of action a's outcomes at p's own situation, without p itself (its part is
//!   subtracted from the exact sums), drawn toward the action's plain mean by one case;
//! - e_a(p): the chance of action a there: known, where actions were dealt out by known chances, else the
//!   action's share of the kernel's weight without p, drawn toward its plain share by one case; at least
//!   [`PROPENSITY_MIN`].
//!
//! The effect is the weighted mean of the scores, sum w_p psi_p / sum w_p: at one situation with the
//! kernel's weights around it; over many with the mean of their weights, each situation's summing to one.
//! Two of these weights are narrower than the view's kernel, by a power of it: the surroundings of a packet
//! ([`POWER_SCORES`]: half a Gaussian's width), because a mean that is too smooth leaves a part of the bias
//! in the score; and the weights of many situations ([`POWER_MANY`]: a quarter), because what one situation
//! must average around it to be told, many average among each other. Measured on a trial's 72 subgroup
//! effects (`tests/effects.rs`): by the plain kernel 65 intervals hold the trial's own estimate, since
//! small subgroups borrow from their neighbours; by the powers 4, 16 and 64 all 72.
//!
//! Its variance is sum w_p^2 (psi_p - effect)^2 / (sum w_p)^2, or that over authors' sums times
//! G/(G - 1) where it is larger; degrees of freedom 1 / (sum of squared shares of authors) - 1, at least 1.
//!
//! Sources: the score is that of Robins, Rotnitzky and Zhao (JASA 89, 1994), right where either m or e
//! is; weighing scores by a kernel for effects by situation is Fan, Hsu, Lieli and Zhang (Journal of
//! Business and Economic Statistics 40, 2022). What it does not do: the choice of the kernel's width is
//! no part of the interval, chances estimated from few similar cases are noisy, and what decided on actions
//! beyond the situation's features stays in the effect.

use super::answer::Question;
use super::cpu::{Job, Span, distance, weight};
use super::effect::Effect;
use super::tally::{ROW_HEAD, Tallies};
use crate::domain::Kernel;
use crate::embed::rows;
use crate::limits::{CHOICE_ACTIONS_MAX, EFFECT_PACKETS_MAX, SLOTS, WEIGHT_ONE};
use crate::packet::Id;
use std::collections::BTreeMap;

/// No case counts more than fifty-fold.
pub const PROPENSITY_MIN: f64 = 0.02;
/// Power of the view's kernel by which a packet's own surroundings are weighed.
const POWER_SCORES: u32 = 4;
/// The same for a mean over many situations.
const POWER_MANY: u32 = 16;
/// Packets whose neighbourhoods are merged at once.
const ROWS_AT_ONCE: usize = 1_024;

/// The chances by which actions were dealt out.
#[derive(Clone, Debug, PartialEq)]
pub enum Propensity {
    /// From the shares of actions among similar cases.
    Estimated,
    /// Per action of the schema; a trial's design.
    Known(Vec<f64>),
}

/// Which effect is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// Index of the outcome.
    pub outcome: usize,
    pub action: u16,
    pub against: u16,
}

/// What surrounds each packet of a batch: exact sums per action, of the packet itself left out.
pub struct Surroundings {
    /// Rows of the batch that are scored: live, with an action.
    rows: Vec<usize>,
    /// Distinct actions, ascending.
    actions: Vec<u16>,
    /// Per row of `rows`, per action, per outcome.
    sums: Vec<Near>,
    outcomes: usize,
    gains: Vec<u16>,
}

/// Sums of one outcome over one action's packets around a packet.
#[derive(Clone, Copy, Default)]
struct Near {
    weight: u64,
    squared: u64,
    mean: u64,
}

/// Scores of a batch's packets for one pair of actions.
pub struct Scores(Vec<Score>);

struct Score {
    /// Row of the batch.
    row: usize,
    /// As a fraction of the outcome's range.
    score: f64,
    packet: Id,
    author: Id,
}

impl Surroundings {
    /// Merges the neighbourhood of every packet; `merge` as in [`super::answer()`]. `None` where there are
    /// more packets or actions than is done in reasonable time ([`EFFECT_PACKETS_MAX`],
    /// [`CHOICE_ACTIONS_MAX`]), or none.
    pub fn new(question: Question, merge: impl Fn(&Job) -> Tallies) -> Option<Surroundings> {
        let Question { batch, view, .. } = question;
        let mut spans: Vec<(u16, u16, Span)> = vec![];
        let mut scored: Vec<usize> = vec![];
        let mut actions: Vec<u16> = vec![];
        for group in batch.live_groups() {
            let Some(action) = group.action else { continue };
            actions.push(action);
            let first = spans.len();
            for (_, run) in &group.runs {
                scored.extend(run.clone().filter(|&row| batch.is_live(row)));
                match spans[first..].last_mut() {
                    Some((_, _, span)) if span.packets.end == run.start => span.packets.end = run.end,
                    _ => spans.push((action, group.mask, Span { queries: 0..0, packets: run.clone() })),
                }
            }
        }
        actions.dedup();
        if scored.is_empty() || scored.len() > EFFECT_PACKETS_MAX || actions.len() > CHOICE_ACTIONS_MAX {
            return None;
        }
        scored.sort_unstable();
        let kernel = narrowed(&view.kernel, POWER_SCORES);
        let gains = batch.gains_under(view, question.ask_ms).into_owned();
        let mut found = Surroundings { rows: scored, actions, sums: vec![], outcomes: batch.outcomes, gains };
        for part in found.rows.chunks(ROWS_AT_ONCE) {
            let queries = batch.columns.embeddings().select(ndarray::Axis(0), part);
            let read: Vec<Span> = spans
                .iter()
                .map(|(_, _, span)| Span { queries: 0..part.len(), packets: span.packets.clone() })
                .collect();
            let tallies = merge(&batch.job(&kernel, &found.gains, queries.view(), &read));
            let mut sums = vec![Near::default(); part.len() * found.actions.len() * found.outcomes];
            for (index, (action, mask, _)) in spans.iter().enumerate() {
                for query in 0..part.len() {
                    let cells = tallies.row(index * part.len() + query);
                    for outcome in (0..found.outcomes).filter(|outcome| mask >> outcome & 1 == 1) {
                        let near = &mut sums[found.cell(query, *action, outcome)];
                        near.weight += cells[1];
                        near.squared += cells[2];
                        near.mean += cells[ROW_HEAD + batch.layout.places(outcome).mean];
                    }
                }
            }
            found.sums.extend(sums);
        }
        found.leave_out_each_itself(&question, &kernel);
        Some(found)
    }

    /// Actions whose effects can be asked for, ascending.
    pub fn actions(&self) -> &[u16] {
        &self.actions
    }

    fn cell(&self, row: usize, action: u16, outcome: usize) -> usize {
        let action = self.actions.binary_search(&action).unwrap_or(0);
        (row * self.actions.len() + action) * self.outcomes + outcome
    }

    /// Subtracts each packet's part in its own surroundings.
    fn leave_out_each_itself(&mut self, question: &Question, kernel: &Kernel) {
        let batch = question.batch;
        for group in batch.live_groups() {
            let Some(action) = group.action else { continue };
            for row in group.runs.iter().flat_map(|(_, run)| run.clone()) {
                let Ok(index) = self.rows.binary_search(&row) else { continue };
                let w = u64::from(weight(kernel, 0, self.gains[row]));
                let wn = w * u64::from(batch.columns.cases()[row]);
                for outcome in (0..self.outcomes).filter(|outcome| group.mask >> outcome & 1 == 1) {
                    let y = u64::from(batch.columns.values()[[row, batch.layout.places(outcome).mean]]);
                    let cell = self.cell(index, action, outcome);
                    let near = &mut self.sums[cell];
                    near.weight -= wn;
                    near.squared -= w * wn;
                    near.mean -= wn * y;
                }
            }
        }
    }

    /// The scores for a pair of actions; `None` where one of them was never seen with the outcome.
    pub fn scores(&self, question: &Question, pair: Pair, propensity: &Propensity) -> Option<Scores> {
        let Pair { outcome, action, against } = pair;
        let batch = question.batch;
        // Plain means and shares of cases, per action.
        let mut plain = vec![(0.0, 0.0); self.actions.len()];
        let mut of_row: BTreeMap<usize, u16> = BTreeMap::new();
        for group in batch.live_groups().filter(|group| group.mask >> outcome & 1 == 1) {
            let Some(of) = group.action else { continue };
            let Ok(index) = self.actions.binary_search(&of) else { continue };
            let (n, y) = (group.cases, group.sums[batch.layout.places(outcome).mean]);
            plain[index].0 += n as f64;
            plain[index].1 += y as f64 / 65_535.0;
            of_row.extend(group.runs.iter().flat_map(|(_, run)| run.clone()).map(|row| (row, of)));
        }
        let cases: f64 = plain.iter().map(|(n, _)| n).sum();
        let known = |action: u16| {
            let index = self.actions.binary_search(&action).ok()?;
            let (n, y) = plain[index];
            (n > 0.0).then(|| (y / n, n / cases))
        };
        let ((mean_a, share_a), (mean_b, share_b)) = (known(action)?, known(against)?);
        let mut scores = Vec::with_capacity(self.rows.len());
        for (index, &row) in self.rows.iter().enumerate() {
            let Some(&taken) = of_row.get(&row) else { continue };
            let near = |action| self.sums[self.cell(index, action, outcome)];
            let all: u64 = self.actions.iter().map(|&action| near(action).weight).sum();
            let chance = |action: u16, share: f64| {
                let one = f64::from(WEIGHT_ONE);
                let chance = match propensity {
                    Propensity::Known(chances) => chances.get(usize::from(action)).copied().unwrap_or(share),
                    Propensity::Estimated => (near(action).weight as f64 + one * share) / (all as f64 + one),
                };
                chance.max(PROPENSITY_MIN)
            };
            let (m_a, m_b) = (near(action).drawn_to(mean_a), near(against).drawn_to(mean_b));
            let y = f64::from(batch.columns.values()[[row, batch.layout.places(outcome).mean]]) / 65_535.0;
            let mut score = m_a - m_b;
            if taken == action {
                score += (y - m_a) / chance(action, share_a);
            }
            if taken == against {
                score -= (y - m_b) / chance(against, share_b);
            }
            let author = batch.authors[batch.author[row] as usize];
            scores.push(Score { row, score, packet: batch.ids[row], author });
        }
        Some(Scores(scores))
    }
}

/// The kernel to a power, in steps of w' = (w k + 2048) >> 12: to the fourth, a Gaussian is half as wide.
fn narrowed(kernel: &Kernel, power: u32) -> Kernel {
    let one = |&k: &u16| {
        let product = |w: u64, _| (w * u64::from(k) + 2_048) >> 12;
        (1..power).fold(u64::from(k), product) as u16
    };
    Kernel { shift: kernel.shift, table: kernel.table.iter().map(one).collect() }
}

impl Near {
    /// The kernel mean, drawn toward a plain one that is worth one case.
    fn drawn_to(&self, plain: f64) -> f64 {
        if self.weight == 0 {
            return plain;
        }
        let w = self.weight as f64;
        let n = w * w / self.squared as f64;
        (n * (self.mean as f64 / w / 65_535.0) + plain) / (n + 1.0)
    }
}

/// How near the packets of one batch lie to the situations asked about, each situation alike.
#[derive(Clone, Debug, Default)]
pub struct Nearness {
    /// By row of the batch; empty before the first situation.
    weights: Vec<f64>,
    situations: u64,
}

impl Nearness {
    /// Adds an embedded situation, with weights by the view's kernel to a power (see [`narrowed`]);
    /// `false` where no packet with an action lies within its reach.
    pub fn add(
        &mut self,
        question: &Question,
        around: &Surroundings,
        query: &[i8; SLOTS],
        power: u32,
    ) -> bool {
        let kernel = narrowed(&question.view.kernel, power);
        let batch = question.batch;
        let embeddings = batch.columns.embeddings();
        let embeddings = rows(&embeddings);
        let mut near: Vec<(usize, u64)> = vec![];
        for &row in &around.rows {
            let w = weight(&kernel, distance(query, &embeddings[row]), around.gains[row]);
            if w > 0 {
                near.push((row, u64::from(w) * u64::from(batch.columns.cases()[row])));
            }
        }
        let total: u64 = near.iter().map(|&(_, w)| w).sum();
        if total == 0 {
            return false;
        }
        self.weights.resize(batch.len().max(self.weights.len()), 0.0);
        for (row, w) in near {
            self.weights[row] += w as f64 / total as f64;
        }
        self.situations += 1;
        true
    }

    /// [`Nearness::add`] as a mean over many situations wants it: by [`POWER_MANY`], or by the next lower
    /// power that reaches a packet.
    pub fn add_of_many(&mut self, question: &Question, around: &Surroundings, query: &[i8; SLOTS]) -> bool {
        let mut power = POWER_MANY;
        while power > 1 && !self.add(question, around, query, power) {
            power /= 2;
        }
        power > 1 || self.add(question, around, query, 1)
    }

    /// Situations added.
    pub fn situations(&self) -> u64 {
        self.situations
    }
}

/// The effect over all situations added to some batches' [`Nearness`], each with the scores of its
/// batch, as a fraction of the outcome's range; `None` where nothing is near.
pub fn effect<'a>(
    parts: impl IntoIterator<Item = (&'a Nearness, &'a Scores)>,
    level_percent: u8,
) -> Option<Effect> {
    let mut near: Vec<(f64, &Score)> = vec![];
    for (nearness, scores) in parts {
        let of = |score: &'a Score| (nearness.weights.get(score.row).copied().unwrap_or(0.0), score);
        near.extend(scores.0.iter().map(of).filter(|(w, _)| *w > 0.0));
    }
    let weight: f64 = near.iter().map(|(w, _)| w).sum();
    if weight <= 0.0 {
        return None;
    }
    let effect = near.iter().map(|(w, score)| w * score.score).sum::<f64>() / weight;
    // A packet that several mailboxes brought counts as one.
    let mut packets: BTreeMap<&Id, f64> = BTreeMap::new();
    // Per author: share of the weight, sum of weighed residuals.
    let mut authors: BTreeMap<&Id, (f64, f64)> = BTreeMap::new();
    for (w, score) in &near {
        let residual = w / weight * (score.score - effect);
        *packets.entry(&score.packet).or_default() += residual;
        let of = authors.entry(&score.author).or_default();
        of.0 += w / weight;
        of.1 += residual;
    }
    let g = authors.len() as f64;
    let independent: f64 = packets.values().map(|residual| residual * residual).sum();
    let clustered: f64 = authors.values().map(|(_, residual)| residual * residual).sum();
    let clustered = if authors.len() > 1 { clustered * g / (g - 1.0) } else { 0.0 };
    let concentration: f64 = authors.values().map(|(share, _)| share * share).sum();
    let degrees = (1.0 / concentration - 1.0).max(1.0);
    Some(Effect::new(effect, libm::sqrt(f64::max(independent, clustered)), degrees, level_percent))
}
