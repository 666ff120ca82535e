//! What seeds say together.

use super::play::{Contestant, Plan, Track};
use crate::merge::quantile::student_quantile;
use serde::Serialize;

/// Confidence level of intervals over seeds.
pub const LEVEL: f64 = 0.95;

/// A mean over seeds; one seed has no standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Over {
    pub mean: f64,
    pub se: Option<f64>,
    /// Half of the 95% interval, by Student's t.
    pub reach: Option<f64>,
}

impl Over {
    pub fn of(values: &[f64]) -> Over {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n.max(1.0);
        if values.len() < 2 {
            return Over { mean, se: None, reach: None };
        }
        let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
        let se = libm::sqrt(squares / (n - 1.0) / n);
        Over { mean, se: Some(se), reach: Some(student_quantile(LEVEL, n - 1.0) * se) }
    }

    /// Whether zero lies outside the interval, and on which side.
    pub fn sign(&self) -> i8 {
        match self.reach {
            Some(reach) if self.mean > reach => 1,
            Some(reach) if self.mean < -reach => -1,
            _ => 0,
        }
    }
}

/// One contestant in one month.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Month {
    pub world: &'static str,
    pub month: usize,
    pub contestant: &'static str,
    /// Per case.
    pub regret: f64,
    pub regret_se: Option<f64>,
    /// Per node, summed from the first month on.
    pub cumulative: f64,
    pub cumulative_se: Option<f64>,
}

/// One contestant's regret minus another's, per case and in pairs by seed, over all months after the first, which three of
/// them share.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    pub of: Contestant,
    pub than: Contestant,
    pub over: Over,
}

/// Everything that seeds say together.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    pub months: Vec<Month>,
    /// The swarm minus each other, then both together minus swarm and mixture.
    pub differences: Vec<Difference>,
    /// Regret per case of the joiners in their first week: in the swarm, and where there is an empty one.
    pub joined: Over,
    pub fresh: Over,
    pub joined_minus_fresh: Over,
    /// Bytes that a node of the swarm pulls per question.
    pub bytes_per_question: f64,
}

impl Summary {
    /// # Panics
    /// Without a seed.
    pub fn of(plan: &Plan, seeds: &[Vec<Track>]) -> Summary {
        let per_seed = |contestant: Contestant, value: &dyn Fn(&Track) -> f64| -> Vec<f64> {
            let find =
                |tracks: &Vec<Track>| tracks.iter().find(|track| track.contestant == contestant).map(value);
            seeds.iter().filter_map(find).collect()
        };
        let mut months = vec![];
        for contestant in seeds[0].iter().map(|track| track.contestant) {
            for month in 0..plan.months {
                let regret = Over::of(&per_seed(contestant, &|track| track.months[month].mean()));
                let so_far = |track: &Track| {
                    track.months[..=month].iter().map(|regret| regret.sum).sum::<f64>() / plan.nodes as f64
                };
                let cumulative = Over::of(&per_seed(contestant, &so_far));
                months.push(Month {
                    world: plan.rules.world.name(),
                    month: month + 1,
                    contestant: contestant.name(),
                    regret: regret.mean,
                    regret_se: regret.se,
                    cumulative: cumulative.mean,
                    cumulative_se: cumulative.se,
                });
            }
        }
        let later = |track: &Track| {
            let later = &track.months[1.min(track.months.len() - 1)..];
            let cases: u64 = later.iter().map(|regret| regret.cases).sum();
            later.iter().map(|regret| regret.sum).sum::<f64>() / cases.max(1) as f64
        };
        let minus = |a: &[f64], b: &[f64]| Over::of(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>());
        let difference = |of: Contestant, than: Contestant| Difference {
            of,
            than,
            over: minus(&per_seed(of, &later), &per_seed(than, &later)),
        };
        let others = Contestant::ALL[1..].iter().map(|&other| difference(Contestant::Swarm, other));
        let both =
            [Contestant::Swarm, Contestant::Mixture].map(|one| difference(Contestant::SwarmAndMixture, one));
        let joined = per_seed(Contestant::Swarm, &|track| track.joined.mean());
        let fresh = per_seed(Contestant::Isolated, &|track| track.joined.mean());
        let bytes = per_seed(Contestant::Swarm, &|track| track.bytes_per_question);
        Summary {
            months,
            differences: others.chain(both).collect(),
            joined: Over::of(&joined),
            fresh: Over::of(&fresh),
            joined_minus_fresh: minus(&joined, &fresh),
            bytes_per_question: Over::of(&bytes).mean,
        }
    }

    /// A contestant's month, counted from 1.
    pub fn month(&self, contestant: Contestant, month: usize) -> Option<&Month> {
        self.months.iter().find(|row| row.contestant == contestant.name() && row.month == month)
    }

    /// Whether both together are better than each alone, by the intervals over seeds.
    pub fn both_verdict(&self) -> &'static str {
        let signs: Vec<i8> = self
            .differences
            .iter()
            .filter(|difference| difference.of == Contestant::SwarmAndMixture)
            .map(|difference| difference.over.sign())
            .collect();
        match signs[..] {
            [-1, -1] => "both together lose less than either alone",
            [0, -1] => {
                "both together lose less than the mixture; against the swarm alone no difference is shown"
            }
            [-1, 0] => {
                "both together lose less than the swarm; against the mixture alone no difference is shown"
            }
            [0, 0] => "no difference is shown between both together and either alone",
            [1, _] => "both together lose more than the swarm alone",
            _ => "both together lose more than the mixture alone",
        }
    }
}
