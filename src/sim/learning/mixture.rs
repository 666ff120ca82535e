//! The rival that is trained once: a mixture of experts.
//!
//! A softmax gate weighs [`EXPERTS`] experts; each is linear in the slots of the signal and predicts every
//! outcome of every action, through the logistic function where the outcome is binary (Jacobs et al., Neural
//! Computation 3, 1991). Gate and experts are trained together by gradient (Adam; Kingma and Ba, 2015) on pooled raw
//! cases; how strongly weights are drawn to zero is chosen by the loss on a fourth of the nodes that was left out.

use super::world::{logistic, share, stream};
use crate::distill::Case;
use crate::domain::{OutcomeKind, Schema};
use crate::limits::SLOTS;

const EXPERTS: usize = 4;
const FOLDS: u64 = 4;
const STEPS: usize = 200;
const RATE: f64 = 0.04;
const PENALTIES: [f64; 4] = [0.002, 0.01, 0.05, 0.2];
/// A slot of four standard deviations is 127.
const SLOT_UNIT: f64 = 127.0 / 4.0;
/// Square errors count so much beside log losses: as if the spread of a case were a fifth of the range.
const SQUARE: f64 = 25.0;

/// A trained mixture.
#[derive(Clone, Debug)]
pub struct Mixture {
    /// Slots that the schema uses; behind them a constant.
    inputs: usize,
    /// Per outcome.
    binary: Vec<bool>,
    actions: usize,
    /// First the gate, expert x input; then expert x action x outcome x input.
    weights: Vec<f64>,
}

/// A case as numbers: node, action, inputs, outcomes as fractions of the range.
type Row = (u64, usize, Vec<f64>, Vec<f64>);

impl Mixture {
    /// Trains on pooled cases, each with its node.
    pub fn train(schema: &Schema, cases: &[(u64, Case)], seed: u64) -> Mixture {
        let new = || Mixture::untrained(schema, seed);
        let rows: Vec<Row> = cases
            .iter()
            .map(|(node, case)| {
                let values = case.values.iter().take(schema.outcomes.len());
                let outcomes = values.map(|value| f64::from(value.unwrap_or(32_768)) / 65_535.0).collect();
                (*node, usize::from(case.action.unwrap_or(0)), new().read(&case.signal), outcomes)
            })
            .collect();
        let held_out = |penalty: f64| -> f64 {
            let of_fold = |fold: u64| {
                let (held, kept): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.0 % FOLDS == fold);
                let mut mixture = new();
                mixture.fit(&kept, penalty);
                held.iter().map(|row| mixture.loss(row)).sum::<f64>()
            };
            (0..FOLDS).map(of_fold).sum()
        };
        let losses = PENALTIES.map(held_out);
        let best = (0..PENALTIES.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap_or(0);
        let mut mixture = new();
        mixture.fit(&rows.iter().collect::<Vec<_>>(), PENALTIES[best]);
        mixture
    }

    fn untrained(schema: &Schema, seed: u64) -> Mixture {
        let inputs = schema.layout().1 + 1;
        let binary: Vec<bool> = schema.outcomes.iter().map(|o| o.kind == OutcomeKind::Binary).collect();
        let actions = schema.actions.len();
        let mut random = stream(seed, 9, 0, 0);
        let count = EXPERTS * inputs * (1 + actions * binary.len());
        let mut weights: Vec<f64> = (0..count).map(|_| 0.2 * (share(&mut random) - 0.5)).collect();
        let mut mixture = Mixture { inputs, binary, actions, weights: vec![] };
        // Constants of outcomes that are no logits begin in the middle of the range.
        for expert in 0..EXPERTS {
            for action in 0..actions {
                for outcome in (0..mixture.binary.len()).filter(|&o| !mixture.binary[o]) {
                    weights[mixture.place(expert, action, outcome) + inputs - 1] += 0.5;
                }
            }
        }
        mixture.weights = weights;
        mixture
    }

    fn place(&self, expert: usize, action: usize, outcome: usize) -> usize {
        let outcomes = self.binary.len();
        self.inputs * (EXPERTS + (expert * self.actions + action) * outcomes + outcome)
    }

    fn read(&self, signal: &[i8; SLOTS]) -> Vec<f64> {
        let slots = signal[..self.inputs - 1].iter().map(|&slot| f64::from(slot) / SLOT_UNIT);
        slots.chain([1.0]).collect()
    }

    fn dot(&self, place: usize, x: &[f64]) -> f64 {
        self.weights[place..place + self.inputs].iter().zip(x).map(|(w, x)| w * x).sum()
    }

    /// Shares of the experts.
    fn gate(&self, x: &[f64]) -> [f64; EXPERTS] {
        let scores: [f64; EXPERTS] = std::array::from_fn(|expert| self.dot(expert * self.inputs, x));
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let parts = scores.map(|score| libm::exp(score - most));
        let sum: f64 = parts.iter().sum();
        parts.map(|part| part / sum)
    }

    /// What each expert says of one outcome, and the mixture.
    fn said(&self, x: &[f64], gate: &[f64; EXPERTS], action: usize, outcome: usize) -> ([f64; EXPERTS], f64) {
        let by_expert: [f64; EXPERTS] = std::array::from_fn(|expert| {
            let linear = self.dot(self.place(expert, action, outcome), x);
            if self.binary[outcome] { logistic(linear) } else { linear }
        });
        (by_expert, by_expert.iter().zip(gate).map(|(said, share)| said * share).sum())
    }

    /// Mean of each outcome of an action, as a fraction of its range.
    pub fn predict(&self, signal: &[i8; SLOTS], action: usize) -> Vec<f64> {
        let x = self.read(signal);
        let gate = self.gate(&x);
        (0..self.binary.len()).map(|o| self.said(&x, &gate, action, o).1.clamp(0.0, 1.0)).collect()
    }

    fn loss(&self, (_, action, x, outcomes): &Row) -> f64 {
        let gate = self.gate(x);
        let one = |(outcome, &y): (usize, &f64)| {
            let p = self.said(x, &gate, *action, outcome).1;
            match self.binary[outcome] {
                true => {
                    let p = p.clamp(1e-4, 1.0 - 1e-4);
                    -y * libm::log(p) - (1.0 - y) * libm::log(1.0 - p)
                }
                false => SQUARE * (p - y) * (p - y),
            }
        };
        outcomes.iter().enumerate().map(one).sum()
    }

    fn fit(&mut self, rows: &[&Row], penalty: f64) {
        let count = self.weights.len();
        let (mut first, mut second) = (vec![0.0; count], vec![0.0; count]);
        let (mut kept_first, mut kept_second) = (1.0, 1.0);
        for step in 0..STEPS {
            let mut slope = vec![0.0; count];
            for row in rows {
                self.add_slope(row, 1.0 / rows.len().max(1) as f64, &mut slope);
            }
            kept_first *= 0.9;
            kept_second *= 0.99;
            let rate = RATE * (1.0 - 0.9 * step as f64 / STEPS as f64);
            for place in 0..count {
                // The constant of each line is free.
                if place % self.inputs != self.inputs - 1 {
                    slope[place] += penalty * self.weights[place];
                }
                first[place] = 0.9 * first[place] + 0.1 * slope[place];
                second[place] = 0.99 * second[place] + 0.01 * slope[place] * slope[place];
                let mean = first[place] / (1.0 - kept_first);
                let spread = libm::sqrt(second[place] / (1.0 - kept_second));
                self.weights[place] -= rate * mean / (spread + 1e-8);
            }
        }
    }

    fn add_slope(&self, (_, action, x, outcomes): &Row, weight: f64, slope: &mut [f64]) {
        let gate = self.gate(x);
        for (outcome, &y) in outcomes.iter().enumerate() {
            let (by_expert, p) = self.said(x, &gate, *action, outcome);
            let outer = match self.binary[outcome] {
                true => {
                    let p = p.clamp(1e-4, 1.0 - 1e-4);
                    (p - y) / (p * (1.0 - p))
                }
                false => 2.0 * SQUARE * (p - y),
            };
            for expert in 0..EXPERTS {
                let said = by_expert[expert];
                let inner = if self.binary[outcome] { said * (1.0 - said) } else { 1.0 };
                let of_expert = weight * outer * gate[expert] * inner;
                let of_gate = weight * outer * gate[expert] * (said - p);
                let place = self.place(expert, *action, outcome);
                for (input, x) in x.iter().enumerate() {
                    slope[place + input] += of_expert * x;
                    slope[expert * self.inputs + input] += of_gate * x;
                }
            }
        }
    }
}
