//! Packets as numbers to fit to.

use crate::limits::SLOTS;
use crate::packet::{Kind, Verified};

/// The observed packets of all nodes, node by node.
pub struct Training {
    packets: Vec<(usize, Verified)>,
    nodes: usize,
}

impl Training {
    /// `packets` are those of each node.
    pub fn new(packets: &[Vec<Verified>]) -> Training {
        let all = packets.iter().enumerate().flat_map(|(node, own)| own.iter().map(move |p| (node, *p)));
        Training {
            packets: all.filter(|(_, packet)| packet.kind() == Kind::Observed).collect(),
            nodes: packets.len(),
        }
    }

    /// The packets that tell of an outcome; `None` where there is none.
    pub fn target(&self, outcome: usize) -> Option<Target> {
        let told = || self.packets.iter().filter(|(_, packet)| packet.mask() >> outcome & 1 == 1);
        let cases: Vec<f64> = told().map(|(_, packet)| f64::from(packet.cases())).collect();
        if cases.is_empty() {
            return None;
        }
        let signals: Vec<&[i8; SLOTS]> = told().map(|(_, packet)| packet.signal()).collect();
        let scales = Scales::of(&signals, &cases);
        Some(Target {
            rows: signals.iter().map(|signal| scales.row(signal)).collect(),
            scales,
            values: told().map(|(_, packet)| f64::from(packet.value(outcome).0) / 65_535.0).collect(),
            cases,
            node: told().map(|(node, _)| *node).collect(),
            nodes: self.nodes,
        })
    }
}

/// What one outcome is fitted to, a row per packet, rows of a node one behind the other.
pub struct Target {
    pub scales: Scales,
    /// Packets x standardised slots.
    pub rows: Vec<Vec<f64>>,
    /// Mean outcome of the packet as a fraction of the range.
    pub values: Vec<f64>,
    /// Cases of the packet: its weight.
    pub cases: Vec<f64>,
    pub node: Vec<usize>,
    /// Number of nodes, those without a packet included.
    pub nodes: usize,
}

impl Target {
    /// The mean outcome over cases.
    pub fn mean(&self) -> f64 {
        let total: f64 = self.cases.iter().sum();
        self.values.iter().zip(&self.cases).map(|(value, cases)| value * cases).sum::<f64>() / total
    }
}

/// Mean and deviation of the slots that vary.
#[derive(Clone, Debug, PartialEq)]
pub struct Scales {
    /// (slot, mean, standard deviation), ascending by slot.
    slots: Vec<(usize, f64, f64)>,
}

impl Scales {
    fn of(signals: &[&[i8; SLOTS]], cases: &[f64]) -> Scales {
        let total: f64 = cases.iter().sum();
        let moment = |value: &dyn Fn(&[i8; SLOTS]) -> f64| {
            signals.iter().zip(cases).map(|(signal, cases)| cases * value(signal)).sum::<f64>() / total
        };
        let slots = (0..SLOTS).filter_map(|slot| {
            let mean = moment(&|signal| f64::from(signal[slot]));
            let variance = moment(&|signal| {
                let distance = f64::from(signal[slot]) - mean;
                distance * distance
            });
            // A constant slot has a variance of rounding errors at most.
            (variance > 1e-9).then(|| (slot, mean, libm::sqrt(variance)))
        });
        Scales { slots: slots.collect() }
    }

    /// The standardised slots of a signal.
    pub fn row(&self, signal: &[i8; SLOTS]) -> Vec<f64> {
        self.slots.iter().map(|&(slot, mean, spread)| (f64::from(signal[slot]) - mean) / spread).collect()
    }

    /// Number of standardised slots.
    pub fn len(&self) -> usize {
        self.slots.len()
    }
}
