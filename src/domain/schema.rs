//! The schema: what the bytes of a packet mean.
//!
//! The schema id is BLAKE3 `derive_key("qis 1 schema", postcard(Schema))`. The fields of the
//! structs below stand in the order in which they are hashed; a variant's index is its position.
//! A real number is hashed as the u64 of its IEEE 754 bits, -0 as 0 (there is no NaN), and every
//! text in Unicode NFC.

use crate::limits::{OUTCOMES_MAX, SLOTS};
use crate::packet::Id;
use serde::{Serialize, Serializer};

/// What the bytes of a packet mean. Build it through [`super::Domain`], which checks it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Schema {
    pub name: String,
    pub features: Vec<Feature>,
    /// Indices of the features that form the scope, ascending; they take no slots.
    pub exact: Vec<u16>,
    pub actions: Vec<String>,
    pub outcomes: Vec<Outcome>,
    /// Times are floored to multiples of this, in milliseconds.
    pub time_step_ms: u64,
    /// Levels of a signal slot, even, 4..=256.
    pub levels: u16,
    /// Fewest cases that a packet may summarise.
    pub cases_min: u16,
    /// The key that signs the domain; zeros where nobody did.
    pub curator: Id,
}

/// One column of a situation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Feature {
    pub name: String,
    pub kind: FeatureKind,
    pub unit: String,
    /// Factor on all slots of the feature.
    #[serde(serialize_with = "real_bits")]
    pub weight: f64,
    pub missing: Missing,
}

/// How a feature's value becomes slots. (Text and vector features take the next two indices.)
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum FeatureKind {
    Numeric {
        #[serde(serialize_with = "real_bits")]
        centre: f64,
        #[serde(serialize_with = "real_bits")]
        scale: f64,
        /// Ascending thresholds, one slot each.
        #[serde(serialize_with = "reals_bits")]
        thermometer: Vec<f64>,
    },
    /// One slot a level.
    Categorical {
        levels: Vec<String>,
    },
    /// One slot a step between neighbouring levels.
    Ordinal {
        levels: Vec<String>,
    },
    Boolean,
    /// A categorical with more levels than slots: a level is hashed to one of `slots`, with a sign.
    Hashed {
        slots: u16,
    },
}

/// What a missing value does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Missing {
    /// It has a slot of its own.
    Slot,
    /// The row is refused; the feature has no slot for it.
    Refuse,
}

/// One thing that comes of a case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    pub name: String,
    pub kind: OutcomeKind,
    pub unit: String,
    #[serde(serialize_with = "real_bits")]
    pub low: f64,
    #[serde(serialize_with = "real_bits")]
    pub high: f64,
    pub direction: Direction,
    pub outside: Outside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum OutcomeKind {
    Binary,
    Count,
    Real,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Direction {
    Higher,
    Lower,
    /// Neither: the outcome takes no part in choosing an action.
    Neutral,
}

/// What a value outside the declared range does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Outside {
    /// The row is refused.
    Refuse,
    /// The value is moved to the range's end, and counted.
    Clip,
}

fn real_bits<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    debug_assert!(!x.is_nan());
    // -0.0 + 0.0 is +0.0.
    serializer.serialize_u64((x + 0.0).to_bits())
}

fn reals_bits<S: Serializer>(xs: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(xs.iter().map(|x| (x + 0.0).to_bits()))
}

impl Feature {
    /// Slots that the feature takes when it is not exact.
    pub fn slots(&self) -> usize {
        let missing = usize::from(self.missing == Missing::Slot);
        missing
            + match &self.kind {
                FeatureKind::Numeric { thermometer, .. } => 1 + thermometer.len(),
                FeatureKind::Categorical { levels } => levels.len(),
                FeatureKind::Ordinal { levels } => levels.len().saturating_sub(1),
                FeatureKind::Boolean => 1,
                FeatureKind::Hashed { slots } => *slots as usize,
            }
    }
}

impl Schema {
    /// BLAKE3 `derive_key("qis 1 schema", postcard)`.
    pub fn id(&self) -> Id {
        super::derive_id("qis 1 schema", self)
    }

    pub fn is_exact(&self, feature: usize) -> bool {
        self.exact.iter().any(|&index| usize::from(index) == feature)
    }

    /// First slot of each feature in file order, and the total; `None` for exact features.
    pub fn layout(&self) -> (Vec<Option<usize>>, usize) {
        let mut next = 0;
        let starts = self
            .features
            .iter()
            .enumerate()
            .map(|(index, feature)| {
                (!self.is_exact(index)).then(|| {
                    let start = next;
                    next += feature.slots();
                    start
                })
            })
            .collect();
        (starts, next)
    }

    /// Whether the schema obeys its own bounds; the checks of [`super::Domain`] with their line
    /// numbers come first, this is the last guard for schemas built in code.
    pub fn is_sound(&self) -> bool {
        self.layout().1 <= SLOTS
            && (1..=OUTCOMES_MAX).contains(&self.outcomes.len())
            && self.levels.is_multiple_of(2)
            && (4..=256).contains(&self.levels)
            && self.time_step_ms > 0
            && self.exact.iter().all(|&index| usize::from(index) < self.features.len())
    }

    /// `time` floored to the schema's step.
    pub fn floor_time(&self, time_ms: u64) -> u64 {
        time_ms - time_ms % self.time_step_ms.max(1)
    }
}

impl Outcome {
    /// The u16 of a value inside the declared range: round(65535 (x - low)/(high - low)), half away
    /// from zero. `None` outside the range, and for what is no number.
    pub fn quantise(&self, x: f64) -> Option<u16> {
        if !(self.low..=self.high).contains(&x) {
            return None;
        }
        Some((65_535.0 * (x - self.low) / (self.high - self.low)).round() as u16)
    }

    /// The value, in the outcome's unit, of a point of the range 0..=65,535 (need not be whole).
    pub fn value(&self, y: f64) -> f64 {
        self.low + y / 65_535.0 * (self.high - self.low)
    }
}
