//! Machines to be maintained: which of five measures lets them run, and at what cost.
//!
//! A machine runs through the week with the chance logistic(h + effect). Its health h falls with wear, load,
//! heat, vibration and age; each measure mends some of these and costs what it costs. The benefit weighs a
//! failure and the largest cost alike.

use super::world::{Situation, logistic, outcome, schema as schema_of, share};
use crate::domain::{Direction, OutcomeKind, Schema};
use rand::Rng;

pub const NUMBERS: usize = 5;
const MEASURES: [&str; 5] = ["none", "lubricate", "slow down", "replace bearing", "overhaul"];
/// Cost of each measure as a fraction of 400 EUR.
const COSTS: [f64; 5] = [0.02, 0.06, 0.14, 0.26, 0.45];
/// Largest cost, EUR.
const COST_MAX: f64 = 400.0;
/// Costs spread by so much either way.
const COST_SPREAD: f64 = 0.02;

pub fn schema() -> Schema {
    schema_of(
        "machines",
        ["pump", "press"],
        &[
            ("wear", "%", 50.0, 20.0, &[40.0, 60.0, 80.0]),
            ("load", "%", 60.0, 15.0, &[60.0, 75.0]),
            ("temperature", "degrees C", 65.0, 12.0, &[60.0, 70.0, 80.0]),
            ("age", "years", 8.0, 4.0, &[10.0]),
            ("vibration", "mm/s", 4.0, 2.0, &[3.0, 5.0, 7.0]),
        ],
        &MEASURES,
        vec![
            outcome("ran", OutcomeKind::Binary, "", 1.0, Direction::Higher),
            outcome("cost", OutcomeKind::Real, "EUR", COST_MAX, Direction::Lower),
        ],
    )
}

/// Per cent, per cent, degrees, years, mm/s.
pub fn numbers(situation: &Situation) -> Vec<f64> {
    let z = &situation.deviates;
    vec![
        (50.0 + 20.0 * z[0]).clamp(0.0, 100.0),
        (60.0 + 15.0 * z[1]).clamp(0.0, 100.0),
        65.0 + 12.0 * z[2],
        (8.0 + 4.0 * z[3]).max(0.0),
        (4.0 + 2.0 * z[4]).max(0.0),
    ]
}

/// Chance to run, and the cost. From the drift on another lubricant is in the cans, which fails in the heat;
/// bearings have become cheaper, and standing orders make slowness dear.
pub fn means(situation: &Situation, action: usize, drifted: bool) -> Vec<f64> {
    let numbers = numbers(situation);
    let [wear, load] = [numbers[0] / 100.0, numbers[1] / 100.0];
    let heat = (numbers[2] - 60.0).max(0.0) / 10.0;
    let shaking = (numbers[4] - 3.0).max(0.0);
    let worn = 5.0 * wear * wear;
    let press = situation.family == 1;
    let health = 3.6 - worn - 1.2 * load - 0.6 * heat - 0.3 * shaking - 0.06 * numbers[3]
        + [0.3, 0.0, -0.3][situation.model];
    let effect = match action {
        0 => 0.0,
        1 if drifted => 0.8 - 0.5 * heat,
        1 => 0.6 + (if press { 0.4 } else { 0.8 }) * heat,
        2 => (if press { 2.6 } else { 1.6 }) * load + 0.2 * shaking,
        3 => 0.8 * worn + 0.3 * shaking,
        _ => 0.9 * worn + 0.06 * numbers[3] + 0.3 * shaking + 0.5 * heat + 0.5,
    };
    let cost = match (action, drifted) {
        (2, true) => 0.26,
        (3, true) => 0.12,
        _ => COSTS[action],
    };
    vec![logistic(health + effect + situation.level), cost]
}

/// Ran or not, and the cost with its spread.
pub fn seen(means: &[f64], luck: &mut impl Rng) -> Vec<f64> {
    let ran = if share(luck) < means[0] { 1.0 } else { 0.0 };
    let spread = COST_SPREAD * (2.0 * share(luck) - 1.0);
    vec![ran, (means[1] + spread).clamp(0.0, 1.0)]
}
