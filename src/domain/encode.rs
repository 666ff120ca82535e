//! Row -> signal, scope and outcome values.

use super::schema::{Feature, FeatureKind, Missing, OutcomeKind, Outside, Schema};
use crate::limits::SLOTS;
use crate::packet::Id;
use unicode_normalization::UnicodeNormalization;

/// One value of a row, already canonical: a level is an index, a text is trimmed.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Missing,
    Number(f64),
    /// Index into the feature's levels.
    Level(usize),
    Bool(bool),
    /// A level of a hashed categorical.
    Text(String),
}

/// Why a value of a row cannot be used. The row's place is added by whoever reads the rows.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ValueError {
    #[error("`{feature}` is missing, and its schema says missing = \"refuse\"")]
    Missing { feature: String },
    #[error("`{feature}`: \"{text}\" is not a number")]
    NotANumber { feature: String, text: String },
    #[error("`{feature}`: \"{text}\" is not one of the levels {levels}")]
    UnknownLevel { feature: String, text: String, levels: String },
    #[error("`{feature}`: \"{text}\" is neither true nor false")]
    NotABool { feature: String, text: String },
    #[error("outcome `{outcome}`: {value} is outside the declared range {low} to {high}")]
    OutsideRange { outcome: String, value: f64, low: f64, high: f64 },
    #[error("outcome `{outcome}`: {value} is not {expected}")]
    WrongOutcome { outcome: String, value: f64, expected: &'static str },
}

impl Feature {
    /// Reads a cell's text: trimmed, NFC; a level may be spelled as another form of the same number
    /// (`3.0` for `3`). An empty cell is missing; the marks of the source are the reader's affair.
    ///
    /// # Errors
    /// The text is no value of this feature.
    pub fn read(&self, text: &str) -> Result<Value, ValueError> {
        let text = text.trim();
        if text.is_empty() {
            return match self.missing {
                Missing::Slot => Ok(Value::Missing),
                Missing::Refuse => Err(ValueError::Missing { feature: self.name.clone() }),
            };
        }
        let named = || (self.name.clone(), text.to_string());
        match &self.kind {
            FeatureKind::Numeric { .. } => match text.parse::<f64>() {
                Ok(x) if x.is_finite() => Ok(Value::Number(x)),
                _ => {
                    let (feature, text) = named();
                    Err(ValueError::NotANumber { feature, text })
                }
            },
            FeatureKind::Categorical { levels } | FeatureKind::Ordinal { levels } => {
                level_index(levels, text).map(Value::Level).ok_or_else(|| {
                    let (feature, text) = named();
                    ValueError::UnknownLevel { feature, text, levels: levels.join(", ") }
                })
            }
            FeatureKind::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" | "y" | "1" | "1.0" => Ok(Value::Bool(true)),
                "false" | "f" | "no" | "n" | "0" | "0.0" => Ok(Value::Bool(false)),
                _ => {
                    let (feature, text) = named();
                    Err(ValueError::NotABool { feature, text })
                }
            },
            FeatureKind::Hashed { .. } => Ok(Value::Text(text.nfc().collect())),
        }
    }
}

fn level_index(levels: &[String], text: &str) -> Option<usize> {
    let canonical: String = text.nfc().collect();
    levels.iter().position(|level| *level == canonical).or_else(|| {
        let number: f64 = text.parse().ok()?;
        levels.iter().position(|level| level.parse::<f64>().is_ok_and(|x| x == number))
    })
}

/// round(127/4 x), half away from zero, clamped to +-127.
fn scaled(x: f64) -> i8 {
    (127.0 / 4.0 * x).round().clamp(-127.0, 127.0) as i8
}

/// A thermometer slot that is on, one of `slots`: together they weigh as much however many there are.
fn step(weight: f64, slots: usize) -> i8 {
    scaled(2.0 * weight / (slots as f64).sqrt())
}

/// The nearest of the schema's levels: q = round(v h/127), v = round(127 q/h), h = levels/2 - 1.
fn quantise(v: i8, levels: u16) -> i8 {
    let h = i32::from(levels / 2 - 1);
    let q = div_round(i32::from(v) * h, 127);
    div_round(127 * q, h) as i8
}

/// a / b rounded half away from zero, b > 0.
fn div_round(a: i32, b: i32) -> i32 {
    a.signum() * ((2 * a.abs() + b) / (2 * b))
}

impl Schema {
    /// The signal of one case. `row` has one value per feature of the schema, exact ones included.
    ///
    /// # Panics
    /// If a value's kind is not its feature's: values come from [`Feature::read`].
    pub fn signal(&self, row: &[Value]) -> [i8; SLOTS] {
        assert_eq!(row.len(), self.features.len(), "one value per feature");
        let mut signal = [0i8; SLOTS];
        let mut start = 0;
        for (index, (feature, value)) in self.features.iter().zip(row).enumerate() {
            if self.is_exact(index) {
                continue;
            }
            let end = start + feature.slots();
            feature.fill(value, &mut signal[start..end]);
            start = end;
        }
        for slot in &mut signal {
            *slot = quantise(*slot, self.levels);
        }
        signal
    }

    /// The canonical bytes of the exact values: count u16, then per exact feature in file order
    /// length u16 and the NFC value; a missing one has the length 0xFFFF.
    pub fn scope_bytes(&self, row: &[Value]) -> Vec<u8> {
        let mut bytes = (self.exact.len() as u16).to_le_bytes().to_vec();
        for &index in &self.exact {
            let index = usize::from(index);
            match self.features[index].canonical(&row[index]) {
                None => bytes.extend(0xFFFFu16.to_le_bytes()),
                Some(text) => {
                    // A value is at most a record long, and cut at the largest length before 0xFFFF.
                    let text = &text.as_bytes()[..text.len().min(0xFFFE)];
                    bytes.extend((text.len() as u16).to_le_bytes());
                    bytes.extend(text);
                }
            }
        }
        bytes
    }

    /// BLAKE3 of [`Schema::scope_bytes`].
    pub fn scope(&self, row: &[Value]) -> Id {
        blake3::hash(&self.scope_bytes(row)).into()
    }

    /// The u16 of an outcome's value; the second part says whether it was clipped.
    ///
    /// # Errors
    /// Outside the declared range where the schema refuses that; not 0 or 1 for a binary outcome; not
    /// whole for a count.
    pub fn outcome(&self, index: usize, x: f64) -> Result<(u16, bool), ValueError> {
        let outcome = &self.outcomes[index];
        let wrong =
            |expected| Err(ValueError::WrongOutcome { outcome: outcome.name.clone(), value: x, expected });
        match outcome.kind {
            OutcomeKind::Binary if x != outcome.low && x != outcome.high => {
                return wrong("one of the two values of a binary outcome");
            }
            OutcomeKind::Count if x.fract() != 0.0 => return wrong("a whole number"),
            _ => {}
        }
        match (outcome.quantise(x), outcome.outside) {
            (Some(y), _) => Ok((y, false)),
            (None, Outside::Clip) if !x.is_nan() => Ok((if x < outcome.low { 0 } else { 65_535 }, true)),
            (None, _) => Err(ValueError::OutsideRange {
                outcome: outcome.name.clone(),
                value: x,
                low: outcome.low,
                high: outcome.high,
            }),
        }
    }
}

impl Feature {
    /// Fills the feature's slots, in the order value, thermometer or levels, missing.
    fn fill(&self, value: &Value, slots: &mut [i8]) {
        let w = self.weight;
        match (&self.kind, value) {
            (_, Value::Missing) => {
                if let (Missing::Slot, Some(last)) = (self.missing, slots.last_mut()) {
                    *last = scaled(2.0 * w);
                }
            }
            (FeatureKind::Numeric { centre, scale, thermometer }, Value::Number(x)) => {
                slots[0] = scaled(((w * (x - centre)) / scale).clamp(-4.0, 4.0));
                let on = step(w, thermometer.len());
                for (slot, threshold) in slots[1..].iter_mut().zip(thermometer) {
                    *slot = if x >= threshold { on } else { 0 };
                }
            }
            (FeatureKind::Categorical { .. }, Value::Level(level)) => slots[*level] = scaled(1.5 * w),
            (FeatureKind::Ordinal { levels }, Value::Level(level)) => {
                slots[..*level].fill(step(w, levels.len() - 1));
            }
            (FeatureKind::Boolean, Value::Bool(b)) => {
                slots[0] = scaled(if *b { 1.5 * w } else { -1.5 * w });
            }
            (FeatureKind::Hashed { slots: count }, Value::Text(text)) => {
                let hash = blake3::hash(text.as_bytes());
                let word =
                    u32::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1], hash.as_bytes()[2], 0]);
                let sign = if hash.as_bytes()[3] & 1 == 1 { -1.5 } else { 1.5 };
                slots[(word % u32::from(*count)) as usize] = scaled(sign * w);
            }
            (kind, value) => unreachable!("{value:?} for {kind:?}"),
        }
    }

    /// The canonical text of a value, for the scope; `None` if missing.
    fn canonical(&self, value: &Value) -> Option<String> {
        match (&self.kind, value) {
            (_, Value::Missing) => None,
            (FeatureKind::Categorical { levels } | FeatureKind::Ordinal { levels }, Value::Level(level)) => {
                Some(levels[*level].nfc().collect())
            }
            (_, Value::Bool(b)) => Some(b.to_string()),
            (_, Value::Text(text)) => Some(text.nfc().collect()),
            (kind, value) => unreachable!("{value:?} for {kind:?}"),
        }
    }
}

/// The integer mean of several cases' signals, half away from zero; it is not quantised again.
///
/// # Panics
/// Without a signal.
pub fn mean_signal(signals: &[[i8; SLOTS]]) -> [i8; SLOTS] {
    let n = i32::try_from(signals.len()).unwrap_or(i32::MAX);
    assert!(n > 0, "the mean of no signals");
    std::array::from_fn(|slot| div_round(signals.iter().map(|s| i32::from(s[slot])).sum(), n) as i8)
}

/// Mean and population standard deviation of u16 outcome values, both rounded half up.
///
/// # Panics
/// Without a value.
pub fn mean_and_deviation(values: &[u16]) -> (u16, u16) {
    let n = values.len() as u64;
    assert!(n > 0, "the mean of no values");
    let sum: u64 = values.iter().map(|&y| u64::from(y)).sum();
    let squares: u64 = values.iter().map(|&y| u64::from(y).pow(2)).sum();
    let mean = (2 * sum + n) / (2 * n);
    // n sum(y^2) - (sum y)^2 is n^2 times the variance, exactly.
    let spread = (u128::from(n) * u128::from(squares) - u128::from(sum).pow(2)) as f64;
    (mean as u16, (spread.sqrt() / n as f64).round() as u16)
}
