//! An answer as a list of named texts: what two machines compare, and what a person reads where they
//! differ.

use crate::domain::Schema;
use crate::merge::{Answer, answer::Estimates};

/// Name and value of every field of an answer, in a fixed order. A real number is written with the
/// fewest digits that lead back to its bits, so equal texts are equal bits.
pub fn fields(schema: &Schema, answer: &Answer) -> Vec<(String, String)> {
    let mut fields = vec![
        ("verdict".into(), answer.verdict.name().into()),
        ("action".into(), answer.action.map_or_else(|| "none".into(), |action| name(schema, action))),
        ("effective_cases".into(), format!("{:?}", answer.effective_cases)),
        ("further_cases".into(), answer.further_cases.map_or_else(|| "none".into(), |k| k.to_string())),
        ("packets".into(), answer.packets.to_string()),
        ("authors".into(), answer.authors.to_string()),
    ];
    add(&mut fields, schema, "all", &answer.outcomes);
    for (action, estimates) in &answer.actions {
        let action = action.map_or_else(|| "no action".into(), |action| name(schema, action));
        add(&mut fields, schema, &action, estimates);
    }
    fields
}

fn name(schema: &Schema, action: u16) -> String {
    let known = schema.actions.get(usize::from(action));
    known.cloned().unwrap_or_else(|| format!("action {action}"))
}

fn add(fields: &mut Vec<(String, String)>, schema: &Schema, of: &str, estimates: &Estimates) {
    for (outcome, estimate) in schema.outcomes.iter().zip(estimates) {
        let at = format!("{of} / {}", outcome.name);
        let Some(e) = estimate else {
            fields.push((at, "unknown".into()));
            continue;
        };
        let f = &e.finished;
        for (field, value) in [
            ("estimate", e.estimate),
            ("lower", e.lower),
            ("upper", e.upper),
            ("half_width", f.half_width),
            ("effective_cases", f.effective_cases),
            ("case_variance", f.case_variance),
            ("standard_error", f.standard_error),
        ] {
            fields.push((format!("{at} / {field}"), format!("{value:?}")));
        }
        fields.push((format!("{at} / packets"), f.packets.to_string()));
        fields.push((format!("{at} / authors"), f.authors.to_string()));
        fields.push((format!("{at} / conflict"), f.conflict.to_string()));
    }
}

/// The first field in which two answers differ, as (field, one value, other value).
pub fn difference(one: &[(String, String)], other: &[(String, String)]) -> Option<(String, String, String)> {
    for index in 0..one.len().max(other.len()) {
        match (one.get(index), other.get(index)) {
            (Some(a), Some(b)) if a == b => {}
            (Some((field, a)), Some((same, b))) if field == same => {
                return Some((field.clone(), a.clone(), b.clone()));
            }
            (a, b) => {
                let shown = |field: Option<&(String, String)>| {
                    field.map_or_else(|| "absent".to_string(), |(name, value)| format!("{name} = {value}"))
                };
                return Some((format!("field {}", index + 1), shown(a), shown(b)));
            }
        }
    }
    None
}
