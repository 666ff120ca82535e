//! Radio links to be tuned: which of five settings brings the most through.
//!
//! A frame arrives with the chance p = logistic(m), and the throughput is the setting's rate times p. The margin
//! m falls with distance and rain and rises with the height of the antenna and the model's gain; each setting
//! needs a margin of its own, and suffers from a busy channel in its own degree.

use super::world::{Situation, logistic, outcome, schema as schema_of, share};
use crate::domain::{Direction, OutcomeKind, Schema};
use rand::Rng;

pub const NUMBERS: usize = 4;
/// Frames sent in one case.
const FRAMES: usize = 8;
/// Throughput of the fastest setting, Mbit/s.
const FASTEST: f64 = 10.0;
const SETTINGS: [&str; 5] = ["fast", "standard", "robust", "more power", "hop"];
/// By setting: share of the fastest rate, margin needed, what a wholly busy channel costs; in logits.
const TRUTH: [(f64, f64, f64); 5] =
    [(1.0, 2.2, 3.5), (0.72, 0.6, 3.0), (0.4, -2.2, 1.6), (0.6, -0.8, 3.0), (0.55, 0.6, 0.3)];
/// Margin by model of the device.
const GAIN: [f64; 3] = [-0.6, 0.0, 0.8];

pub fn schema() -> Schema {
    schema_of(
        "links",
        ["868 MHz", "2.4 GHz"],
        &[
            ("log_distance", "ln km", 0.0, 1.0, &[-1.0, -0.5, 0.0, 0.5, 1.0]),
            ("busy", "% of time", 40.0, 20.0, &[20.0, 40.0, 60.0]),
            ("rain", "mm/h", 6.0, 6.0, &[4.0, 10.0]),
            ("height", "m", 10.0, 5.0, &[8.0]),
        ],
        &SETTINGS,
        vec![outcome("throughput", OutcomeKind::Real, "Mbit/s", FASTEST, Direction::Higher)],
    )
}

/// ln km, per cent, mm/h, m.
pub fn numbers(situation: &Situation) -> Vec<f64> {
    let z = &situation.deviates;
    vec![
        z[0],
        (40.0 + 20.0 * z[1]).clamp(0.0, 100.0),
        (6.0 + 6.0 * z[2]).max(0.0),
        (10.0 + 5.0 * z[3]).max(1.0),
    ]
}

/// Share of the fastest rate. From the drift on hopping is quicker: a new firmware.
pub fn rate(action: usize, drifted: bool) -> f64 {
    if drifted && action == 4 { 0.75 } else { TRUTH[action].0 }
}

/// The throughput as a fraction of the fastest. The new firmware also needs a better margin for
/// the two quick settings.
pub fn means(situation: &Situation, action: usize, drifted: bool) -> Vec<f64> {
    let numbers = numbers(situation);
    let [log_distance, busy, rain, height] = [numbers[0], numbers[1], numbers[2], numbers[3]];
    let (_, needed, disturbed) = TRUTH[action];
    let needed = needed + if drifted && action < 2 { 1.2 } else { 0.0 };
    let (wet, crowded) = if situation.family == 1 { (0.09, 1.4) } else { (0.01, 0.7) };
    let margin = 1.8 - 1.7 * log_distance - wet * rain + 0.06 * (height - 10.0) + GAIN[situation.model];
    let chance = logistic(margin - needed - crowded * disturbed * busy / 100.0 + situation.level);
    vec![rate(action, drifted) * chance]
}

/// Some frames are sent; `rate` is that of the setting.
pub fn seen(means: &[f64], rate: f64, luck: &mut impl Rng) -> Vec<f64> {
    let arrived = (0..FRAMES).filter(|_| share(luck) < means[0] / rate).count();
    vec![rate * arrived as f64 / FRAMES as f64]
}
