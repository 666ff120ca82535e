//! The view: what "similar" means, and where packets lie.
//!
//! The view id is BLAKE3 `derive_key("qis 1 view", postcard(View))`, the index id
//! `derive_key("qis 1 index", postcard of (schema id, metric, tables u16, bits u16))`: another
//! kernel, prior or number of probes moves no mailbox. Fields stand in the order in which they are
//! hashed; reals as in [`super::schema`].

use super::prior::Prior;
use super::schema::Schema;
use crate::limits::{KERNEL_ENTRIES, SLOTS, WEIGHT_ONE};
use crate::packet::Id;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What "similar" means for the packets of one schema.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct View {
    pub name: String,
    pub schema: Id,
    pub metric: Metric,
    pub kernel: Kernel,
    pub prior: Prior,
    pub addressing: Addressing,
    pub decay: Decay,
    /// Confidence level of intervals in per cent, 1..=99.
    pub level: u8,
    /// Version of the formulas of [`crate::merge::finish`].
    pub finish: u16,
    pub curator: Id,
    /// From version 2 of the formulas on; nothing of it is hashed where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Options>,
}

/// What a view does beyond drawing a kernel mean toward its prior; each is off by default, chosen by
/// loss on authors that were left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Options {
    /// How strongly an author's own level is drawn toward that of all, in cases; `None` is no own
    /// offset.
    pub own_offset: Option<Bits>,
    pub trust: Option<Trust>,
    /// How intervals are scaled: one per outcome, or none.
    pub calibration: Vec<Calibration>,
}

/// Authors whose outcomes disagree with what the others would predict count less.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Trust {
    /// Standard deviation of honest authors' own levels: in logits for binary outcomes, else as a
    /// fraction of the range.
    pub spread: Bits,
    /// Cases of one author in the mailboxes read that count fully; of more, each counts less.
    pub cases_max: u32,
}

/// What residuals of authors that were left out say of the intervals of an outcome.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// The standard error of an estimate is this many times the computed one,
    pub scale: Bits,
    /// and never below this fraction of the range: what the model cannot see.
    pub floor: Bits,
    /// With the view's level a single case lies at most so far below and above an estimate, as fractions of the range: at
    /// estimates evenly spaced from 0 to 1, as many of both, between which ends are interpolated;
    /// none for a binary outcome.
    pub lower: Vec<Bits>,
    pub upper: Vec<Bits>,
}

/// A real that is hashed by its bits; no NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Bits(pub f64);

impl<'a> Deserialize<'a> for Bits {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Bits, D::Error> {
        Ok(Bits(f64::from_bits(u64::deserialize(deserializer)?)))
    }
}

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        bits(&self.0, serializer)
    }
}

/// From signal to embedding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Metric {
    Identity,
    /// e_i = (m_i s_i + r) >> shift; 128 weights in [-127, 127].
    Diagonal {
        shift: u8,
        weights: Vec<i8>,
    },
    /// e_i = (sum_j M_ij s_j + r) >> shift; 128 x 128 in [-127, 127], row-major.
    Full {
        shift: u8,
        matrix: Vec<i8>,
    },
}

/// Weight by squared distance: `table[min(D >> shift, 1023)]`, each entry 0..=4,096, the last 0.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kernel {
    pub shift: u8,
    pub table: Vec<u16>,
}

/// How fingerprints become addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Addressing {
    pub tables: u16,
    /// Bits per table; 0 is one mailbox per scope.
    pub bits: u16,
    /// Addresses read per table and question.
    pub probes: u16,
}

/// How evidence fades: `table[age / step]` of 4,096, step = max(1, half-life / 64).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decay {
    /// Milliseconds; 0 with the table `[4096]` is no decay.
    pub half_life_ms: u64,
    pub table: Vec<u16>,
}

pub(super) fn bits<S: Serializer>(x: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64((x + 0.0).to_bits())
}

impl View {
    /// The view that a domain starts with: identity metric, a Gaussian kernel of standard deviation
    /// `bandwidth` (in units of embedding distance), one mailbox per scope, no decay, 90% intervals.
    pub fn plain(name: &str, schema: &Schema, bandwidth: f64, prior_cases: f64) -> View {
        View {
            name: name.into(),
            schema: schema.id(),
            metric: Metric::Identity,
            kernel: Kernel::gaussian(bandwidth),
            prior: Prior::Mean { cases: prior_cases },
            addressing: Addressing { tables: 1, bits: 0, probes: 1 },
            decay: Decay::none(),
            level: 90,
            finish: 1,
            curator: schema.curator,
            options: None,
        }
    }

    /// BLAKE3 `derive_key("qis 1 view", postcard)`.
    pub fn id(&self) -> Id {
        super::derive_id("qis 1 view", self)
    }

    /// How authors are trusted; `None` is all alike.
    pub fn trust(&self) -> Option<Trust> {
        self.options.as_ref().and_then(|options| options.trust)
    }

    /// What an address depends on. With bits = 0 every metric leads to the same one mailbox.
    pub fn index_id(&self) -> Id {
        let Addressing { tables, bits, .. } = self.addressing;
        let (metric, tables) = if bits == 0 { (&Metric::Identity, 1) } else { (&self.metric, tables) };
        super::derive_id("qis 1 index", &(self.schema, metric, tables, bits))
    }
}

impl Kernel {
    /// 4096 exp(-D / (2 bandwidth^2)), tabulated at the middle of each step of `1 << shift`, with
    /// the smallest shift whose table reaches the distance at which the weight rounds to 0.
    ///
    /// A tool for authors of views: readers use the integers in the view.
    pub fn gaussian(bandwidth: f64) -> Kernel {
        let half = 2.0 * bandwidth * bandwidth;
        // exp(-x) 4096 < 1/2 from x = ln(8192) on.
        let reach = half * libm::log(8192.0);
        let mut shift = 0u8;
        while shift < crate::limits::SHIFT_MAX
            && reach / f64::from(1u32 << shift) > (KERNEL_ENTRIES - 1) as f64
        {
            shift += 1;
        }
        let step = f64::from(1u32 << shift);
        let one = f64::from(WEIGHT_ONE);
        let mut table: Vec<u16> = (0..KERNEL_ENTRIES)
            .map(|i| (one * libm::exp(-(i as f64 + 0.5) * step / half)).round() as u16)
            .collect();
        table[KERNEL_ENTRIES - 1] = 0;
        Kernel { shift, table }
    }

    /// Weight of a squared distance, 0..=4,096.
    #[inline]
    pub fn weight(&self, distance: u32) -> u16 {
        self.table[((distance >> self.shift) as usize).min(KERNEL_ENTRIES - 1)]
    }
}

impl Decay {
    pub fn none() -> Decay {
        Decay { half_life_ms: 0, table: vec![WEIGHT_ONE] }
    }

    /// Halves every `half_life_ms`, down to 0 after 13 half-lives. A tool for authors of views.
    pub fn exponential(half_life_ms: u64) -> Decay {
        let table = (0..=13 * 64)
            .map(|i| (f64::from(WEIGHT_ONE) * libm::exp2(-f64::from(i) / 64.0)).round() as u16)
            .collect();
        Decay { half_life_ms, table }
    }

    /// One step of the table in milliseconds.
    pub fn step_ms(&self) -> u64 {
        (self.half_life_ms / 64).max(1)
    }

    /// The start of the step in which `ask_ms` lies: who asks at times of one step finds the same
    /// freshness everywhere. Where nothing fades, all time is one step.
    pub fn step_start(&self, ask_ms: u64) -> u64 {
        if self.table.len() == 1 { 0 } else { ask_ms - ask_ms % self.step_ms() }
    }

    /// Freshness, 0..=4,096, of an observation when asked at `ask_ms`: the ask time is floored to
    /// the step, so a resident batch stays valid for one step.
    pub fn freshness(&self, ask_ms: u64, observed_ms: u64) -> u16 {
        let age = self.step_start(ask_ms).saturating_sub(observed_ms) / self.step_ms();
        let last = self.table.len() - 1;
        self.table[usize::try_from(age).unwrap_or(last).min(last)]
    }
}

impl Metric {
    /// Whether the sizes and values are those of the format.
    pub fn is_sound(&self) -> bool {
        let (shift, values, count) = match self {
            Metric::Identity => return true,
            Metric::Diagonal { shift, weights } => (shift, weights, SLOTS),
            Metric::Full { shift, matrix } => (shift, matrix, SLOTS * SLOTS),
        };
        *shift <= crate::limits::SHIFT_MAX && values.len() == count && !values.contains(&i8::MIN)
    }
}
