//! What becomes of answers when "similar" is wrong: slots of the embeddings change places step by step.
//!
//! At step i of n, the first round(i/n x m) of the m slots in use, in a seeded order, are moved on by
//! one place among themselves, in the questions' embeddings only: a question then meets packets whose
//! slots mean something else. A share of 0 is the view as it is; at 1 no slot is where it was. A protocol
//! that lives by similarity should lose quality slowly, and say `thin` or `conflict` rather than be sure.

use super::Verdicts;
use super::field::Field;
use super::metrics::Metrics;
use super::split::generator;
use crate::domain::{Metric, View};
use crate::limits::SLOTS;
use rand::prelude::*;

/// One share of scrambled slots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Share of the slots in use that have moved.
    pub share: f64,
    /// Of the swarm.
    pub metrics: Metrics,
    pub verdicts: Verdicts,
}

/// The swarm's quality at shares 0, 1/n, ... 1 under a view; n = `steps`, at least 1.
pub fn run(field: &Field, view: &View, steps: usize) -> Vec<Step> {
    // A full metric may fill all slots of the embedding, whatever the schema uses of the signal.
    let used = match view.metric {
        Metric::Full { .. } => SLOTS,
        _ => field.ground.schema.layout().1,
    };
    let mailboxes = field.mailboxes(view);
    let steps = steps.max(1);
    (0..=steps)
        .map(|step| {
            let share = step as f64 / steps as f64;
            let scrambled = mailboxes.clone().scrambled(places(used, share, field.seed));
            let swarm = field.ask(&scrambled, view);
            let metrics = field.metrics(&swarm.rows, view.level, |_| true);
            Step { share, metrics, verdicts: swarm.verdicts }
        })
        .collect()
}

/// For each of the 128 slots the one whose value it takes.
pub fn places(used: usize, share: f64, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..used).collect();
    order.shuffle(&mut generator(seed, "scramble"));
    order.truncate((share * used as f64).round() as usize);
    let mut places: Vec<usize> = (0..SLOTS).collect();
    for (index, &slot) in order.iter().enumerate() {
        places[slot] = order[(index + 1) % order.len()];
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_move_among_themselves_and_more_of_them_with_each_step() {
        let moved = |share| -> Vec<usize> {
            let places = places(40, share, 3);
            let mut sorted = places.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..SLOTS).collect::<Vec<_>>(), "each slot is used once");
            (0..SLOTS).filter(|&slot| places[slot] != slot).collect()
        };
        assert_eq!(moved(0.0), vec![0usize; 0]);
        assert_eq!(moved(0.5).len(), 20);
        assert_eq!(moved(1.0), (0..40).collect::<Vec<_>>());
        assert!(moved(0.25).iter().all(|slot| moved(0.5).contains(slot)));
    }
}
