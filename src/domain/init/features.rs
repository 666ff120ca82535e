//! Which feature a column becomes, and how all of them fit the slots of a signal.

use super::profile::{Column, Profile};
use crate::domain::file::quoted;
use crate::limits::SLOTS;

/// More levels than this are hashed.
const LEVELS_MAX: usize = 24;
/// Slots of a hashed categorical, and fewer where slots are short.
const HASHED_SLOTS: usize = 16;
const HASHED_SLOTS_MIN: usize = 8;
/// Thermometer thresholds of a numeric feature where slots allow.
const THRESHOLDS: usize = 6;
/// Whole numbers with at most this many neighbouring values are ordinal.
const ORDINAL_LEVELS_MAX: usize = 6;

/// One feature of the draft.
pub(super) struct Plan {
    pub(super) column: usize,
    pub(super) kind: Kind,
    /// Whether missing values get a slot.
    pub(super) missing_slot: bool,
    pub(super) exact: bool,
    /// A line for people.
    pub(super) note: String,
    pub(super) marks: Vec<String>,
}

pub(super) enum Kind {
    Numeric {
        centre: f64,
        scale: f64,
        digits: i32,
        thermometer: Vec<f64>,
    },
    Levels {
        levels: Vec<String>,
        ordinal: bool,
    },
    /// Spellings of false and true where they are not the usual ones.
    Boolean {
        spellings: Option<(String, String)>,
    },
    Hashed {
        slots: usize,
    },
    /// Exact, any text.
    Any,
}

impl Plan {
    pub(super) fn slots(&self) -> usize {
        if self.exact {
            return 0;
        }
        usize::from(self.missing_slot)
            + match &self.kind {
                Kind::Numeric { thermometer, .. } => 1 + thermometer.len(),
                Kind::Levels { levels, ordinal } => levels.len() - usize::from(*ordinal),
                Kind::Boolean { .. } => 1,
                Kind::Hashed { slots } => *slots,
                Kind::Any => 0,
            }
    }
}

/// How a column becomes a feature, or why it does not.
pub(super) fn plan(profile: &Profile, index: usize, exact: bool) -> Result<Plan, String> {
    let column = &profile.columns[index];
    let values = column.values();
    if column.name.is_empty() {
        return Err("it has no name".into());
    }
    if profile.columns.iter().filter(|other| other.name == column.name).count() > 1 {
        return Err("two columns have this name".into());
    }
    if column.present() == 0 {
        return Err("it is empty".into());
    }
    let mut plan = Plan {
        column: index,
        kind: Kind::Any,
        missing_slot: true,
        exact,
        note: String::new(),
        marks: Vec::new(),
    };
    let numeric = column.is_numeric() || column.is_numeric_with_marks();
    match values {
        Some(values) if values.len() == 1 && column.missing == 0 => {
            return Err(format!("every row has the same value, {}", values[0]));
        }
        Some(values) if values.len() == 2 => {
            let spellings = spellings(&values[0], &values[1]);
            if let Some((_, yes)) = &spellings {
                plan.note = format!("true stands for {}", quoted(yes));
            }
            plan.kind = Kind::Boolean { spellings };
        }
        Some(values) if column.is_numeric() && is_short_scale(column, &values) => {
            plan.note = "whole numbers in order: ordinal; make it categorical if they are codes".into();
            plan.kind = Kind::Levels { levels: values, ordinal: true };
        }
        Some(values) if !numeric || exact => {
            if profile.rows > 20 && values.len() as u64 * 2 > column.present() {
                return Err("nearly every row has another value".into());
            }
            plan.kind = if values.len() <= LEVELS_MAX {
                Kind::Levels { levels: values, ordinal: false }
            } else if exact {
                Kind::Any
            } else {
                plan.note = format!("{} levels: each is hashed to one of few slots", values.len());
                Kind::Hashed { slots: HASHED_SLOTS }
            };
        }
        _ if numeric && !exact => {
            let near_unique = column.whole && profile.uniqueness(index) > 0.95;
            let name = column.name.to_lowercase();
            let named_key = name == "id" || name.ends_with("_id") || name.ends_with(" id") || name == "uid";
            if profile.rows > 20 && column.whole && column.ascending {
                return Err("it counts the rows".into());
            }
            if profile.rows > 20 && near_unique && named_key {
                return Err("it names the rows".into());
            }
            if column.is_numeric_with_marks() {
                plan.marks = column.strays.iter().cloned().collect();
                plan.note = "some cells are no numbers; they are read as missing".into();
            }
            plan.kind = numeric_kind(profile, index);
        }
        _ if numeric => return Err("it is numeric, and equal numbers are rare".into()),
        _ => {
            if profile.rows > 20 && profile.uniqueness(index) > 0.5 {
                return Err("nearly every row has another text".into());
            }
            if !exact {
                plan.note = "many levels: each is hashed to one of few slots".into();
                plan.kind = Kind::Hashed { slots: HASHED_SLOTS };
            }
        }
    }
    Ok(plan)
}

/// A few neighbouring whole numbers such as grades and counts.
fn is_short_scale(column: &Column, values: &[String]) -> bool {
    column.whole
        && (3..=ORDINAL_LEVELS_MAX).contains(&values.len())
        && column.high - column.low == (values.len() - 1) as f64
}

/// Spellings of false and true, `None` where the reader knows them: the same words as
/// [`crate::domain::schema::Feature::read`].
pub(super) fn spellings(a: &str, b: &str) -> Option<(String, String)> {
    let word = |text: &str| match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" | "1.0" => Some(true),
        "false" | "f" | "no" | "n" | "0" | "0.0" => Some(false),
        _ => None,
    };
    match (word(a), word(b)) {
        (Some(x), Some(y)) if x != y => None,
        _ => Some((a.into(), b.into())),
    }
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = (q * (sorted.len().saturating_sub(1)) as f64).round() as usize;
    sorted.get(place).copied().unwrap_or(0.0)
}

fn numeric_kind(profile: &Profile, index: usize) -> Kind {
    let column = &profile.columns[index];
    let sorted = profile.sorted_numbers(index);
    // A normal distribution has 80% of its cases within 2.563 standard deviations, 98% in 4.653.
    let spread = [
        (quantile(&sorted, 0.9) - quantile(&sorted, 0.1)) / 2.563,
        (quantile(&sorted, 0.99) - quantile(&sorted, 0.01)) / 4.653,
        (column.high - column.low) / 4.0,
        1.0,
    ];
    let spread = spread.into_iter().find(|x| *x > 0.0 && x.is_finite()).unwrap_or(1.0);
    // Two digits of the scale; centre and thresholds to the same place.
    let digits = 1 - libm::log10(spread).floor() as i32;
    let low = quantile(&sorted, 0.0);
    let mut thermometer: Vec<f64> = (1..=THRESHOLDS)
        .map(|i| rounded(quantile(&sorted, i as f64 / (THRESHOLDS + 1) as f64), digits))
        .filter(|&x| x > low)
        .collect();
    thermometer.dedup();
    let centre = rounded(quantile(&sorted, 0.5), digits);
    Kind::Numeric { centre, scale: rounded(spread, digits), digits, thermometer }
}

/// `x` with `digits` decimal places, which may be negative.
pub(super) fn rounded(x: f64, digits: i32) -> f64 {
    let text = format!("{:.*}", digits.max(0) as usize, x);
    if digits >= 0 {
        return text.parse().unwrap_or(x);
    }
    let unit = libm::pow(10.0, f64::from(-digits));
    (x / unit).round() * unit
}

/// Cuts the plans down to the slots of a signal: thermometers first, then large categoricals, then
/// slots for missing values where none was seen, then whole features from the end.
pub(super) fn fit(profile: &Profile, plans: &mut Vec<Plan>, left_out: &mut Vec<(String, String)>) {
    let total = |plans: &[Plan]| plans.iter().map(Plan::slots).sum::<usize>();
    for most in (0..THRESHOLDS).rev() {
        if total(plans) <= SLOTS {
            return;
        }
        for plan in plans.iter_mut() {
            if let Kind::Numeric { thermometer, .. } = &mut plan.kind
                && thermometer.len() > most
            {
                // Of n thresholds the middle ones stay.
                let first = (thermometer.len() - most) / 2;
                *thermometer = thermometer[first..first + most].to_vec();
            }
        }
    }
    for most in [HASHED_SLOTS, HASHED_SLOTS_MIN] {
        let mut order: Vec<usize> = (0..plans.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(plans[index].slots()));
        for index in order {
            if total(plans) <= SLOTS {
                return;
            }
            let plan = &mut plans[index];
            let large = match &plan.kind {
                Kind::Levels { levels, .. } => levels.len() > most,
                Kind::Hashed { slots } => *slots > most,
                _ => false,
            };
            if large && !plan.exact {
                plan.note = "its levels are hashed, because slots are short".into();
                plan.kind = Kind::Hashed { slots: most };
            }
        }
    }
    for index in (0..plans.len()).rev() {
        if total(plans) > SLOTS
            && profile.columns[plans[index].column].missing == 0
            && plans[index].marks.is_empty()
        {
            plans[index].missing_slot = false;
        }
    }
    while total(plans) > SLOTS {
        let Some(last) = plans.iter().rposition(|plan| !plan.exact) else { return };
        let plan = plans.remove(last);
        let name = profile.columns[plan.column].name.clone();
        left_out.push((name, format!("the {SLOTS} slots of a signal are taken")));
    }
}
