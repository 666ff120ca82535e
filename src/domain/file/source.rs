//! Reads `[source]`.
//!
//! Keys: `separator` (one character, "tab", "whitespace" or "json"), `header`, `compression`
//! ("gzip" or "none"), `missing`, `site`, `record`, `time`; `[source.feature.NAME]` with `column`,
//! `missing`, `values`; `[source.outcome.NAME]` with `column`, `above` or `equals`, `missing`;
//! `[source.action]` with `columns`, `values`.

use super::diagnose::{Problems, nearest};
use super::fields::{Fields, Placed};
use super::schema::Names;
use crate::domain::schema::{FeatureKind, OutcomeKind, Schema};
use crate::domain::source::{
    ActionSource, Compression, FeatureSource, OutcomeRule, OutcomeSource, Separator, Source, same,
};
use std::collections::BTreeMap;

pub(super) fn read(root: &mut Fields, schema: &Schema, problems: &mut Problems) -> Source {
    let Some(mut fields) = root.section("source", "[source]", problems) else { return Source::default() };
    let compressions = [("gzip", Compression::Gzip), ("none", Compression::None)];
    let mut source = Source {
        separator: separator(&mut fields, problems),
        header: header(&mut fields, problems),
        compression: fields.choice("compression", &compressions, problems).map(|c| c.value),
        missing: plain_texts(&mut fields, "missing", problems),
        site: fields.text("site", problems).map(|column| column.value),
        record: fields.text("record", problems).map(|column| column.value),
        time: fields.text("time", problems).map(|column| column.value),
        ..Source::default()
    };
    let feature_names: Vec<&str> = schema.features.iter().map(|f| f.name.as_str()).collect();
    for (index, mut entry) in entries(&mut fields, "feature", &feature_names, problems) {
        let feature = FeatureSource {
            column: entry.text("column", problems).map(|column| column.value),
            missing: plain_texts(&mut entry, "missing", problems),
            values: values(&mut entry, problems, |value| match &schema.features[index].kind {
                FeatureKind::Categorical { levels } | FeatureKind::Ordinal { levels } => levels
                    .iter()
                    .any(|level| same(value, level))
                    .then_some(())
                    .ok_or_else(|| format!("levels: {}", levels.join(", "))),
                FeatureKind::Boolean if !["true", "false"].contains(&value) => {
                    Err("\"true\" or \"false\"".into())
                }
                FeatureKind::Numeric { .. } if value.parse::<f64>().is_err() => Err("a number".into()),
                _ => Ok(()),
            }),
        };
        entry.finish(problems);
        source.features.insert(schema.features[index].name.clone(), feature);
    }
    let outcome_names: Vec<&str> = schema.outcomes.iter().map(|o| o.name.as_str()).collect();
    for (index, mut entry) in entries(&mut fields, "outcome", &outcome_names, problems) {
        let outcome = OutcomeSource {
            column: entry.text("column", problems).map(|column| column.value),
            missing: plain_texts(&mut entry, "missing", problems),
            rule: rule(&mut entry, schema.outcomes[index].kind, problems),
        };
        entry.finish(problems);
        source.outcomes.insert(schema.outcomes[index].name.clone(), outcome);
    }
    source.action = action(&mut fields, schema, problems);
    fields.finish(problems);
    source
}

fn plain_texts(fields: &mut Fields, key: &'static str, problems: &mut Problems) -> Vec<String> {
    let texts = fields.texts(key, problems).map_or_else(Vec::new, |texts| texts.value);
    texts.into_iter().map(|text| text.value.trim().to_string()).collect()
}

fn separator(fields: &mut Fields, problems: &mut Problems) -> Option<Separator> {
    let Placed { value, span } = fields.text("separator", problems)?;
    match value.as_str() {
        "whitespace" => return Some(Separator::Whitespace),
        "tab" => return Some(Separator::Character(b'\t')),
        "json" => return Some(Separator::Json),
        _ => {}
    }
    match value.as_bytes() {
        [byte] if byte.is_ascii() && !b"\"\r\n".contains(byte) => Some(Separator::Character(*byte)),
        _ => {
            let help = "one ASCII character such as \",\" or \";\", or \"tab\", \"whitespace\", \"json\"";
            let message = format!("`separator` of [source] cannot be {value:?}");
            problems.note(span, message, "no separator", Some(help.into()));
            None
        }
    }
}

fn header(fields: &mut Fields, problems: &mut Problems) -> Vec<String> {
    let Some(columns) = fields.texts("header", problems) else { return Vec::new() };
    let mut names = Names::new("column");
    for column in &columns.value {
        names.add(&column.value, column.span.clone(), problems);
    }
    columns.value.into_iter().map(|column| column.value).collect()
}

/// The tables `[source.KEY.NAME]` whose NAME is one of `names`, with its index.
fn entries<'a>(
    fields: &mut Fields<'a>,
    key: &'static str,
    names: &[&str],
    problems: &mut Problems,
) -> Vec<(usize, Fields<'a>)> {
    let Some(section) = fields.section(key, format!("[source.{key}]"), problems) else { return Vec::new() };
    let mut found = Vec::new();
    for (name, span, value) in section.entries() {
        let Some(index) = names.iter().position(|known| *known == name) else {
            let help = match nearest(&name, names.iter().copied()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("{key}s of this file: {}", names.join(", ")),
            };
            problems.note(
                span,
                format!("[source.{key}] names \"{name}\", which is no {key}"),
                "unknown",
                help,
            );
            continue;
        };
        let what = format!("[source.{key}.{name}]");
        match value.get_ref().as_table() {
            Some(table) => found.push((index, Fields::new(what, span, table))),
            None => {
                let message = format!("{what} is not a table");
                let help = format!("for example {name} = {{ column = \"...\" }}");
                problems.note(value.span(), message, "a table expected", help);
            }
        }
    }
    found
}

/// `values = { "spelling" = "canonical" }`, each canonical form checked.
fn values(
    fields: &mut Fields,
    problems: &mut Problems,
    check: impl Fn(&str) -> Result<(), String>,
) -> BTreeMap<String, String> {
    let what = format!("`values` of {}", fields.what);
    let Some(section) = fields.section("values", what, problems) else { return BTreeMap::new() };
    let mut values = BTreeMap::new();
    for (spelling, _, value) in section.entries() {
        let Some(text) = value.get_ref().as_str() else {
            let message = format!("{}: \"{spelling}\" does not become a text", section.what);
            problems.note(value.span(), message, "a text in quotes expected", None);
            continue;
        };
        let text: String = unicode_normalization::UnicodeNormalization::nfc(text).collect();
        if let Err(expected) = check(&text) {
            let message = format!("{}: \"{text}\" is not known", section.what);
            problems.note(value.span(), message, "unknown", expected);
        }
        values.insert(spelling.trim().to_string(), text);
    }
    values
}

fn rule(fields: &mut Fields, kind: OutcomeKind, problems: &mut Problems) -> OutcomeRule {
    let above = fields.real("above", problems);
    let equals = fields.text("equals", problems);
    let (rule, span) = match (above, equals) {
        (None, None) => return OutcomeRule::Number,
        (Some(_), Some(equals)) => {
            let message = format!("{} has both `above` and `equals`", fields.what);
            problems.note(equals.span, message, "one of the two expected", None);
            return OutcomeRule::Number;
        }
        (Some(above), None) => (OutcomeRule::Above(above.value), above.span),
        (None, Some(equals)) => (OutcomeRule::Equals(equals.value.trim().into()), equals.span),
    };
    if kind != OutcomeKind::Binary {
        let message = format!("{}: `above` and `equals` make a binary outcome", fields.what);
        let help = "set kind = \"binary\" in its [[outcome]], or remove this line";
        problems.note(span, message, "its kind is not binary", Some(help.into()));
    }
    rule
}

fn action(fields: &mut Fields, schema: &Schema, problems: &mut Problems) -> ActionSource {
    let Some(mut section) = fields.section("action", "[source.action]", problems) else {
        return ActionSource::default();
    };
    if schema.actions.is_empty() {
        let help = "list them in [schema]: actions = [\"...\"]";
        let message = "[source.action] reads actions, and the schema has none";
        problems.note(section.span.clone(), message, "no actions", Some(help.into()));
    }
    let action = ActionSource {
        columns: plain_texts(&mut section, "columns", problems),
        values: values(&mut section, problems, |value| {
            schema
                .actions
                .iter()
                .any(|action| action == value)
                .then_some(())
                .ok_or_else(|| format!("actions of the schema: {}", schema.actions.join(", ")))
        }),
    };
    section.finish(problems);
    action
}
