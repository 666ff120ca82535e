//! Reads `[schema]`, `[[feature]]` and `[[outcome]]`.
//!
//! `[schema]`: `time_step` ("1d"; units ms, s, m, h, d; or milliseconds), `levels` (32), `cases_min`
//! (1), `exact` (names of features), `actions`, `curator` (64 hex digits). `[[feature]]`: `name`,
//! `kind`, `unit`, `weight` (1), `missing` ("slot" or "refuse"), and by kind `centre`, `scale` and
//! `thermometer`, or `levels`, or `hashed_slots`. `[[outcome]]`: `name`, `kind`, `unit`, `range`,
//! `direction`, `outside`.

use super::diagnose::{Problems, nearest};
use super::fields::{Fields, Placed};
use crate::domain::schema::{
    Direction, Feature, FeatureKind, Missing, Outcome, OutcomeKind, Outside, Schema,
};
use crate::limits::{ACTIONS_MAX, CASES_MAX, FEATURES_MAX, OUTCOMES_MAX, SLOTS};
use crate::packet::Id;
use std::collections::BTreeMap;
use std::ops::Range;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Numeric,
    Categorical,
    Ordinal,
    Boolean,
    Later,
}

pub(super) fn read(root: &mut Fields, name: &str, problems: &mut Problems) -> Schema {
    let mut section = root.section("schema", "[schema]", problems);
    let exact_names = section.as_mut().and_then(|s| s.texts("exact", problems));
    let exact_names = exact_names.map_or_else(Vec::new, |names| names.value);

    let mut names = Names::new("feature");
    let mut features = Vec::new();
    let mut places = Vec::new();
    let tables = root.sections("feature", problems);
    if tables.is_empty() && root.raw("feature").is_none() {
        root.absent("[[feature]]", "one [[feature]] table per column that describes a case", problems);
    }
    for (span, table) in tables {
        let mut fields = Fields::new("a feature", span.clone(), table);
        let name = named(&mut fields, "feature", &mut names, problems);
        let exact = exact_names.iter().any(|exact| exact.value == name);
        if let Some(feature) = feature(&mut fields, name, exact, problems) {
            features.push(feature);
            places.push(span);
        }
        fields.finish(problems);
    }
    if let Some(span) = places.get(FEATURES_MAX) {
        problems.note(span.clone(), format!("more than {FEATURES_MAX} features"), "one too many", None);
    }

    let mut exact = Vec::new();
    for Placed { value, span } in &exact_names {
        match features.iter().position(|feature| feature.name == *value) {
            None if !names.seen.contains_key(value) => {
                let help = match nearest(value, features.iter().map(|f| f.name.as_str())) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => "name features of this file".into(),
                };
                let message = format!("`exact` names \"{value}\", which is no feature");
                problems.note(span.clone(), message, "no such feature", help);
            }
            // Its own problem has been reported.
            None => {}
            Some(index) if exact.contains(&(index as u16)) => {
                let message = format!("`exact` names \"{value}\" twice");
                problems.note(span.clone(), message, "the second time", None);
            }
            Some(index) => {
                if let FeatureKind::Numeric { .. } = features[index].kind {
                    let message = format!("`exact` names \"{value}\", which is numeric");
                    let help =
                        "equal numbers are rare: cut it into ordinal levels, or leave it out of `exact`";
                    problems.note(
                        span.clone(),
                        message,
                        "categorical, ordinal or boolean expected",
                        Some(help.into()),
                    );
                }
                exact.push(index as u16);
            }
        }
    }
    exact.sort_unstable();

    let actions = section.as_mut().map_or_else(Vec::new, |section| actions(section, problems));
    let time_step_ms = section.as_mut().and_then(|s| duration(s, "time_step", problems));
    let levels = section.as_mut().and_then(|s| s.integer("levels", 4..=256u16, problems));
    if let Some(Placed { value, span }) = &levels
        && !value.is_multiple_of(2)
    {
        let message = format!("`levels` of [schema] is odd: {value}");
        problems.note(span.clone(), message, "an even number expected", Some("32 is the usual".into()));
    }
    let cases_min = section.as_mut().and_then(|s| s.integer("cases_min", 1..=CASES_MAX, problems));
    let curator = section.as_mut().and_then(|s| curator(s, problems));
    if let Some(section) = section {
        section.finish(problems);
    }
    let outcomes = outcomes(root, problems);

    let schema = Schema {
        name: name.into(),
        features,
        exact,
        actions,
        outcomes,
        time_step_ms: time_step_ms.map_or(DAY_MS, |step| step.value),
        levels: levels.map_or(32, |levels| levels.value),
        cases_min: cases_min.map_or(1, |cases| cases.value),
        curator: curator.unwrap_or_default(),
    };
    check_slots(&schema, &places, problems);
    schema
}

/// Names that must not occur twice.
pub(super) struct Names {
    what: &'static str,
    seen: BTreeMap<String, ()>,
}

impl Names {
    pub(super) fn new(what: &'static str) -> Names {
        Names { what, seen: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, name: &str, span: Range<usize>, problems: &mut Problems) {
        if self.seen.insert(name.into(), ()).is_some() {
            let message = format!("two {}s are named \"{name}\"", self.what);
            problems.note(span, message, "the second one", Some("names are unique in a domain".into()));
        }
    }
}

/// The `name` of a table, which then goes by `what "name"` in messages.
pub(super) fn named(
    fields: &mut Fields,
    what: &'static str,
    names: &mut Names,
    problems: &mut Problems,
) -> String {
    match fields.text("name", problems) {
        Some(Placed { value, span }) => {
            if value.trim().is_empty() {
                problems.note(span, format!("{} has an empty name", fields.what), "a name expected", None);
                return value;
            }
            names.add(&value, span, problems);
            fields.what = format!("{what} \"{value}\"");
            value
        }
        None => {
            if fields.raw("name").is_none() {
                fields.absent("name", "for example name = \"age\"", problems);
            }
            String::new()
        }
    }
}

fn feature(fields: &mut Fields, name: String, exact: bool, problems: &mut Problems) -> Option<Feature> {
    let kinds = [
        ("numeric", Kind::Numeric),
        ("categorical", Kind::Categorical),
        ("ordinal", Kind::Ordinal),
        ("boolean", Kind::Boolean),
        ("text", Kind::Later),
        ("vector", Kind::Later),
    ];
    let kind = fields.choice("kind", &kinds, problems);
    if kind.is_none() && fields.raw("kind").is_none() {
        fields.absent("kind", "kind = \"numeric\", \"categorical\", \"ordinal\" or \"boolean\"", problems);
    }
    let unit = fields.text("unit", problems).map_or_else(String::new, |unit| unit.value);
    let weight = fields.real("weight", problems);
    if let Some(Placed { value, span }) = &weight
        && *value < 0.0
    {
        let message = format!("`weight` of {} is negative", fields.what);
        problems.note(span.clone(), message, "0 or more expected", None);
    }
    let missing = [("slot", Missing::Slot), ("refuse", Missing::Refuse)];
    let missing = fields.choice("missing", &missing, problems);

    // Every key is asked for, so that one that belongs to another kind is told from an unknown one.
    let centre = fields.real("centre", problems);
    let scale = fields.real("scale", problems);
    let thermometer = fields.reals("thermometer", problems);
    let levels = fields.texts("levels", problems);
    let hashed = fields.integer("hashed_slots", 1..=SLOTS as u16, problems);

    let Placed { value: kind, span: kind_span } = kind?;
    let allowed: &[&'static str] = match kind {
        Kind::Numeric => &["centre", "scale", "thermometer"],
        Kind::Categorical => &["levels", "hashed_slots"],
        Kind::Ordinal => &["levels"],
        Kind::Boolean => &[],
        Kind::Later => {
            let help = "leave the feature out, or turn it into categorical levels or numbers first";
            problems.note(
                kind_span,
                format!("{}: this kind is not supported by this version", fields.what),
                "text and vector features come with a later one",
                Some(help.into()),
            );
            return None;
        }
    };
    for key in ["centre", "scale", "thermometer", "levels", "hashed_slots"] {
        if let Some(value) = fields.raw(key)
            && !allowed.contains(&key)
        {
            let message = format!("`{key}` does not belong to the kind of {}", fields.what);
            let help = match allowed {
                [] => "a boolean feature needs no further keys".to_string(),
                keys => format!("keys of this kind: {}", keys.join(", ")),
            };
            problems.note(value.span(), message, "not of this kind", help);
        }
    }
    let kind = match kind {
        Kind::Numeric => numeric(fields, centre, scale, thermometer, problems),
        Kind::Boolean => FeatureKind::Boolean,
        Kind::Ordinal => FeatureKind::Ordinal { levels: level_list(fields, levels, problems) },
        _ => match (levels, hashed) {
            (Some(levels), Some(hashed)) => {
                let message = format!("{} has both `levels` and `hashed_slots`", fields.what);
                problems.note(hashed.span, message, "one of the two expected", None);
                FeatureKind::Categorical { levels: level_list(fields, Some(levels), problems) }
            }
            (None, Some(hashed)) => FeatureKind::Hashed { slots: hashed.value },
            // An exact feature takes no slots, so its levels need not be known beforehand.
            (None, None) if exact && fields.raw("levels").is_none() => FeatureKind::Hashed { slots: 0 },
            (levels, None) => FeatureKind::Categorical { levels: level_list(fields, levels, problems) },
        },
    };
    Some(Feature {
        name,
        kind,
        unit,
        weight: weight.map_or(1.0, |weight| weight.value),
        missing: missing.map_or(Missing::Slot, |missing| missing.value),
    })
}

fn numeric(
    fields: &mut Fields,
    centre: Option<Placed<f64>>,
    scale: Option<Placed<f64>>,
    thermometer: Option<Placed<Vec<Placed<f64>>>>,
    problems: &mut Problems,
) -> FeatureKind {
    if fields.raw("centre").is_none() {
        fields.absent("centre", "the value that becomes 0, usually the median", problems);
    }
    if fields.raw("scale").is_none() {
        fields.absent(
            "scale",
            "the usual distance from the centre, for example a standard deviation",
            problems,
        );
    }
    if let Some(Placed { value, span }) = &scale
        && *value <= 0.0
    {
        let message = format!("`scale` of {} is not positive", fields.what);
        problems.note(span.clone(), message, "more than 0 expected", None);
    }
    let thermometer = thermometer.map_or_else(Vec::new, |list| list.value);
    for pair in thermometer.windows(2) {
        if pair[0].value >= pair[1].value {
            let message = format!("`thermometer` of {} does not ascend", fields.what);
            let label = format!("not above {}", pair[0].value);
            problems.note(
                pair[1].span.clone(),
                message,
                label,
                Some("sort the thresholds, each once".into()),
            );
            break;
        }
    }
    FeatureKind::Numeric {
        centre: centre.map_or(0.0, |centre| centre.value),
        scale: scale.map_or(1.0, |scale| scale.value),
        thermometer: thermometer.into_iter().map(|threshold| threshold.value).collect(),
    }
}

fn level_list(
    fields: &mut Fields,
    levels: Option<Placed<Vec<Placed<String>>>>,
    problems: &mut Problems,
) -> Vec<String> {
    let Some(Placed { value: levels, span }) = levels else {
        if fields.raw("levels").is_none() {
            fields.absent(
                "levels",
                "the values it can take, for example levels = [\"low\", \"high\"]",
                problems,
            );
        }
        return Vec::new();
    };
    if levels.is_empty() {
        let message = format!("`levels` of {} is empty", fields.what);
        problems.note(span, message, "at least one level expected", None);
    }
    for (index, level) in levels.iter().enumerate() {
        if level.value.trim().is_empty() {
            let message = format!("`levels` of {} has an empty level", fields.what);
            let help = "an empty cell is a missing value; see `missing`";
            problems.note(level.span.clone(), message, "a name expected", Some(help.into()));
        } else if level.value.trim() != level.value {
            let message = format!("a level of {} begins or ends with a blank", fields.what);
            let help = "cells are read without the blanks around them, so this level never occurs";
            problems.note(level.span.clone(), message, "remove the blank", Some(help.into()));
        } else if let Some(earlier) =
            levels[..index].iter().find(|other| crate::domain::source::same(&level.value, &other.value))
        {
            let message = format!("`levels` of {} has \"{}\" twice", fields.what, level.value);
            problems.note(level.span.clone(), message, format!("as \"{}\"", earlier.value), None);
        }
    }
    levels.into_iter().map(|level| level.value).collect()
}

fn actions(section: &mut Fields, problems: &mut Problems) -> Vec<String> {
    let Some(list) = section.texts("actions", problems) else { return Vec::new() };
    if list.value.len() > ACTIONS_MAX {
        let message = format!("{} actions; at most {ACTIONS_MAX}", list.value.len());
        problems.note(list.span, message, "too many", None);
    }
    let mut names = Names::new("action");
    for Placed { value, span } in &list.value {
        if value.trim().is_empty() {
            problems.note(span.clone(), "an action has an empty name", "a name expected", None);
        } else {
            names.add(value, span.clone(), problems);
        }
    }
    list.value.into_iter().map(|action| action.value).collect()
}

/// A duration in milliseconds: a whole number of them, or a text such as "1d".
pub(super) fn duration(
    fields: &mut Fields,
    key: &'static str,
    problems: &mut Problems,
) -> Option<Placed<u64>> {
    let value = fields.raw(key)?;
    if value.get_ref().is_integer() {
        return fields.integer(key, 1..=u64::MAX, problems);
    }
    let Placed { value: text, span } = fields.text(key, problems)?;
    match parse_duration(&text) {
        Ok(ms) => Some(Placed { value: ms, span }),
        Err(help) => {
            let message = format!("`{key}` of {} is no duration: \"{text}\"", fields.what);
            problems.note(span, message, "a duration above 0 expected", help);
            None
        }
    }
}

/// Milliseconds of a text such as "1d".
///
/// # Errors
/// What was expected.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => DAY_MS,
        _ => 0,
    };
    match text[..digits].parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(ms) if ms > 0 => Ok(ms),
        _ => Err("a whole number and one of ms, s, m, h, d, for example 1d".into()),
    }
}

fn curator(section: &mut Fields, problems: &mut Problems) -> Option<Id> {
    let Placed { value, span } = section.text("curator", problems)?;
    match hex(&value).and_then(|bytes| Id::try_from(bytes).ok()) {
        Some(id) => Some(id),
        None => {
            let help = "the curator's public key; leave the line out where nobody signs the domain";
            problems.note(span, "`curator` is no key", "64 hex digits expected", Some(help.into()));
            None
        }
    }
}

/// Bytes of hex digits; blanks between them do not count.
pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16)).collect();
    let digits = digits?;
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    Some(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

fn outcomes(root: &mut Fields, problems: &mut Problems) -> Vec<Outcome> {
    let tables = root.sections("outcome", problems);
    if tables.is_empty() && root.raw("outcome").is_none() {
        root.absent("[[outcome]]", "one [[outcome]] table per thing that comes of a case", problems);
    }
    if let Some((span, _)) = tables.get(OUTCOMES_MAX) {
        let message = format!("{} outcomes; a packet holds at most {OUTCOMES_MAX}", tables.len());
        problems.note(span.clone(), message, "the first that does not fit", None);
    }
    let mut names = Names::new("outcome");
    let mut outcomes = Vec::new();
    for (span, table) in tables {
        let mut fields = Fields::new("an outcome", span, table);
        outcomes.extend(outcome(&mut fields, &mut names, problems));
        fields.finish(problems);
    }
    outcomes
}

fn outcome(fields: &mut Fields, names: &mut Names, problems: &mut Problems) -> Option<Outcome> {
    let name = named(fields, "outcome", names, problems);
    let kinds = [("binary", OutcomeKind::Binary), ("count", OutcomeKind::Count), ("real", OutcomeKind::Real)];
    let kind = fields.choice("kind", &kinds, problems);
    if kind.is_none() && fields.raw("kind").is_none() {
        fields.absent("kind", "kind = \"binary\", \"count\" or \"real\"", problems);
    }
    let unit = fields.text("unit", problems).map_or_else(String::new, |unit| unit.value);
    let range = fields.reals("range", problems);
    let directions =
        [("higher", Direction::Higher), ("lower", Direction::Lower), ("neutral", Direction::Neutral)];
    let direction = fields.choice("direction", &directions, problems);
    if direction.is_none() && fields.raw("direction").is_none() {
        let help = "which way is better: direction = \"higher\", \"lower\" or \"neutral\"";
        fields.absent("direction", help, problems);
    }
    let outside = [("refuse", Outside::Refuse), ("clip", Outside::Clip)];
    let outside = fields.choice("outside", &outside, problems);
    let kind = kind?.value;
    let (low, high) = match range {
        Some(Placed { value, span }) => match value.as_slice() {
            [low, high] if low.value < high.value && (high.value - low.value).is_finite() => {
                (low.value, high.value)
            }
            [low, high] => {
                let message = format!("`range` of {} is empty: {} to {}", fields.what, low.value, high.value);
                problems.note(span, message, "the low end first", None);
                (0.0, 1.0)
            }
            _ => {
                let message = format!("`range` of {} has not two ends", fields.what);
                problems.note(
                    span,
                    message,
                    "two numbers expected",
                    Some("for example range = [0, 1]".into()),
                );
                (0.0, 1.0)
            }
        },
        None => {
            if kind != OutcomeKind::Binary && fields.raw("range").is_none() {
                let help = "the smallest and the largest value it can take, for example range = [0, 125]";
                fields.absent("range", help, problems);
            }
            (0.0, 1.0)
        }
    };
    Some(Outcome {
        name,
        kind,
        unit,
        low,
        high,
        direction: direction?.value,
        outside: outside.map_or(Outside::Refuse, |outside| outside.value),
    })
}

/// Reports a schema that needs more slots than a signal has, at the first feature that does not fit.
fn check_slots(schema: &Schema, places: &[Range<usize>], problems: &mut Problems) {
    let (starts, total) = schema.layout();
    if total <= SLOTS {
        return;
    }
    let mut sizes: Vec<(usize, &str)> = schema
        .features
        .iter()
        .zip(&starts)
        .filter(|(_, start)| start.is_some())
        .map(|(feature, _)| (feature.slots(), feature.name.as_str()))
        .collect();
    sizes.sort_by_key(|&(slots, _)| std::cmp::Reverse(slots));
    let largest: Vec<String> = sizes.iter().take(12).map(|(slots, name)| format!("{name} {slots}")).collect();
    let rest: usize = sizes.iter().skip(12).map(|(slots, _)| slots).sum();
    let rest = if rest > 0 { format!(", the others {rest}") } else { String::new() };
    let first = schema
        .features
        .iter()
        .zip(&starts)
        .position(|(feature, start)| start.is_some_and(|start| start + feature.slots() > SLOTS));
    let place = first.and_then(|index| places.get(index)).cloned().unwrap_or(0..0);
    problems.note(
        place,
        format!("the features take {total} slots; a signal has {SLOTS}"),
        "the first that does not fit",
        format!(
            "slots per feature: {}{rest}. Use fewer thermometer levels, or hashed_slots for a large categorical",
            largest.join(", ")
        ),
    );
}
